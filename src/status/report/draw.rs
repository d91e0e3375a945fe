/// Eighths of a character, from the left and from below.
const BARS: [&str; 9] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉", "█"];
const SPARKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// A bar of a value among values up to `most`, in at most `width` columns. What is not nothing is seen.
pub fn bar(value: i64, most: i64, width: usize) -> String {
    if value <= 0 || most <= 0 {
        return String::new();
    }
    let eighths = ((value as f64 / most as f64 * width as f64 * 8.0).round() as usize).clamp(1, width * 8);
    format!("{}{}", BARS[8].repeat(eighths / 8), BARS[eighths % 8])
}

/// A character for each value, from the lowest height for 0; a space for one that is not known.
pub fn sparkline(values: &[Option<i64>]) -> String {
    let most = values.iter().flatten().copied().max().unwrap_or_default().max(1);
    let height = |value: i64| ((value.max(0) as f64 / most as f64 * 7.0).round() as usize).min(7);
    values.iter().map(|value| value.map_or(' ', |value| SPARKS[height(value)])).collect()
}

/// A number with its thousands apart.
pub fn number(value: i64) -> String {
    let digits = value.unsigned_abs().to_string();
    let grouped = digits.as_bytes().rchunks(3).rev().map(|group| String::from_utf8_lossy(group)).collect::<Vec<_>>();
    format!("{}{}", if value < 0 { "-" } else { "" }, grouped.join(","))
}

/// Bytes in the largest unit of which there is one, with a decimal below 100.
pub fn bytes(value: f64) -> String {
    const UNITS: [&str; 6] = ["bytes", "kB", "MB", "GB", "TB", "PB"];
    let power = (1..UNITS.len()).rev().find(|power| value.abs() >= 1024f64.powi(*power as i32)).unwrap_or_default();
    let value = value / 1024f64.powi(power as i32);
    let decimals = usize::from(power > 0 && value.abs() < 100.0);
    format!("{value:.decimals$} {}", UNITS[power])
}

/// A duration in words, in its largest unit.
pub fn duration(seconds: f64) -> String {
    match seconds {
        ..1.0 => format!("{:.0} ms", seconds * 1000.0),
        1.0..120.0 => format!("{seconds:.1} s"),
        120.0..7_200.0 => format!("{:.0} minutes", seconds / 60.0),
        7_200.0..172_800.0 => format!("{:.0} hours", seconds / 3_600.0),
        _ => format!("{:.0} days", seconds / 86_400.0),
    }
}
