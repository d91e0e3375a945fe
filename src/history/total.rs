use backlog_cleanup_report::DURATION_BOUNDS;
use pgrx::prelude::*;

/// Returns the lowest of `DURATION_BOUNDS` that is at least a duration, in seconds.
#[pg_extern(sql = false)]
fn duration_bound(seconds: f64) -> f64 {
    DURATION_BOUNDS.into_iter().find(|bound| seconds <= *bound).unwrap_or(f64::INFINITY)
}
