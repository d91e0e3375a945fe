use backlog_cleanup_report::Mode;
use pgrx::prelude::*;

use crate::postgres::error::{Result, spi};
use crate::postgres::owner::as_owner_of;
use crate::target::Target;

/// Writes one row into the platform's ledger, if the target has one: for a whole run, or for one of its batches.
pub fn write(target: &Target, mode: Mode, run_id: i64, batch: Option<i64>, removed: i64) -> Result<()> {
    let Some(ledger) = &target.ledger else { return Ok(()) };
    let batch = batch.map_or(String::new(), |batch| format!(", batch {batch}"));
    as_owner_of(&ledger.table, || {
        Spi::run_with_args(
            &format!(
                "INSERT INTO {} (user_id, amount, type, description, created_at)
                 VALUES ($1, $2, 'backlog_cleanup', $3, {})",
                ledger.table.name,
                target.in_time_zone(&ledger.created_at, "pg_catalog.now()")
            ),
            &[
                target.account.as_str().into(),
                removed.into(),
                format!("{mode} backlog cleanup, run {run_id}{batch}: removed {removed} failed rows").into(),
            ],
        )
        .map_err(spi)
    })
}
