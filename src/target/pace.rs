use serde::{Deserialize, Serialize};

/// How a batched run goes about it: columns of `backlog_cleanup.target` and of `backlog_cleanup.run`, and arguments of
/// `backlog_cleanup_run`. Intervals are text.
#[derive(Clone, Serialize, Deserialize)]
pub struct Pace {
    pub batch_size: Option<i64>,
    pub pause: Option<String>,
    pub max_rows_per_second: Option<i64>,
    pub max_duration: Option<String>,
    pub max_rows: Option<i64>,
    pub workers: Option<i32>,
}

impl Pace {
    /// Whether an argument of this name may have this value.
    pub fn allows(argument: &str, value: i64) -> bool {
        match argument {
            "batch_size" => (1..=1_000_000).contains(&value),
            "workers" => (1..=64).contains(&value),
            "max_rows" | "max_rows_per_second" => value > 0,
            _ => true,
        }
    }

    /// This pace, with what it does not say from another one.
    pub fn or(self, other: &Pace) -> Pace {
        Pace {
            batch_size: self.batch_size.or(other.batch_size),
            pause: self.pause.or_else(|| other.pause.clone()),
            max_rows_per_second: self.max_rows_per_second.or(other.max_rows_per_second),
            max_duration: self.max_duration.or_else(|| other.max_duration.clone()),
            max_rows: self.max_rows.or(other.max_rows),
            workers: self.workers.or(other.workers),
        }
    }
}
