use crate::word::words;

words! {
    /// How a run stands.
    State, "state":
    Running = "running",
    /// It removed all that it was to remove.
    Completed = "completed",
    /// It ended early, by `max_duration`, `max_rows` or `backlog_cleanup_stop`.
    Stopped = "stopped",
    /// Its process ended before it did, or was told to.
    Interrupted = "interrupted",
    /// An error ended it.
    Failed = "failed",
}
