use pgrx::JsonB;
use pgrx::prelude::*;
use serde_json::Value;

use crate::extension;
use crate::postgres::error::{Result, spi};

/// What a tick decides about a target.
pub struct Decision {
    pub action: &'static str,
    pub reason: String,
    /// How fast a run may go, if it is slowed down.
    pub rows_per_second: Option<i32>,
}

impl Decision {
    pub fn of(action: &'static str, reason: String) -> Decision {
        Decision { action, reason, rows_per_second: None }
    }

    /// Records it with the numbers that it was made by.
    pub fn record(&self, tick: Option<i64>, target: &str, numbers: Value) -> Result<()> {
        const RECORD: &str = "
            INSERT INTO backlog_cleanup.decision (tick, target, decided_at, action, reason, numbers, rows_per_second)
            VALUES ($1, $2, now(), $3, $4, $5, $6)";
        let values = [
            tick.into(),
            target.into(),
            self.action.into(),
            self.reason.as_str().into(),
            JsonB(numbers).into(),
            self.rows_per_second.into(),
        ];
        extension::as_owner(|| Spi::run_with_args(RECORD, &values).map_err(spi))
    }
}
