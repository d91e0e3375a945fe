use pgrx::JsonB;
use pgrx::prelude::*;
use serde::Deserialize;

use crate::postgres::error::{Result, error, required};
use crate::postgres::read::read_prepared;
use crate::rules::policy::Policy;
use crate::target::state;

/// A batched run as its row has it.
#[derive(Deserialize)]
pub struct Run {
    pub id: i64,
    pub target: String,
    pub mode: String,
    pub state: String,
    pub recipe_id: Option<String>,
    pub failure_type: Option<String>,
    /// ISO 8601, UTC, or `-infinity`; means nothing in an emergency run.
    pub cutoff_utc: String,
    pub removed: i64,
    pub batches: i64,
    pub batch_size: i64,
    /// Seconds.
    pub pause: f64,
    pub seconds_left: Option<f64>,
    pub max_rows: Option<i64>,
    pub workers: i32,
    pub finished_at: Option<String>,
}

impl Run {
    /// Errors: 22004, 42704 (no batched run has this id).
    pub fn load(run_id: Option<i64>) -> Result<Run> {
        let run_id = required(run_id, "run_id", "SELECT id FROM backlog_cleanup.run WHERE state = 'running'")?;
        let row = state(|| {
            read_prepared::<JsonB>(
                r#"SELECT pg_catalog.to_jsonb(r) OPERATOR(pg_catalog.||) pg_catalog.jsonb_build_object(
                       'pause', EXTRACT(epoch FROM pause),
                       'cutoff_utc', COALESCE(pg_catalog.to_char(pg_catalog.timezone('UTC', cutoff),
                                                                 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'), '-infinity'),
                       'seconds_left', EXTRACT(epoch FROM max_duration) OPERATOR(pg_catalog.-)
                           EXTRACT(epoch FROM (pg_catalog.clock_timestamp() OPERATOR(pg_catalog.-) started_at)))
                   FROM backlog_cleanup.run r
                   WHERE id OPERATOR(pg_catalog.=) $1 AND batch_size IS NOT NULL"#,
                &[run_id.into()],
            )
        })?;
        row.and_then(|row| serde_json::from_value(row.0).ok()).ok_or_else(|| {
            error(
                PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT,
                format!("batched run {run_id} does not exist"),
                "SELECT id FROM backlog_cleanup.run WHERE state = 'running'".into(),
            )
        })
    }

    /// What makes a row old in this run; `None` in an emergency run. Who is kept is in the cutoffs.
    pub fn policy(&self) -> Option<Policy> {
        (self.mode == "regular").then(|| Policy { cutoff: self.cutoff_utc.clone(), keep: 0 })
    }

    pub fn rows_left(&self) -> Option<i64> {
        self.max_rows.map(|rows| rows - self.removed)
    }

    /// So many seconds, or as many as the run has left.
    pub fn in_time(&self, seconds: f64) -> f64 {
        self.seconds_left.map_or(seconds, |left| seconds.min(left.max(0.0)))
    }

    /// Whether it has had its time or its rows.
    pub fn is_over(&self) -> bool {
        self.seconds_left.is_some_and(|left| left <= 0.0) || self.rows_left().is_some_and(|rows| rows <= 0)
    }
}
