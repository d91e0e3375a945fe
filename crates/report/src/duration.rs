/// The upper bounds of the histogram of how long runs take, in seconds.
pub const DURATION_BOUNDS: [f64; 11] = [0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14_400.0, f64::INFINITY];
