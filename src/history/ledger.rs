use backlog_cleanup_report::Mode;
use pgrx::prelude::*;

use crate::postgres::error::{Result, spi};
use crate::postgres::owner::as_owner_of;
use crate::target::{Ledger, Target};

/// The statement that writes the row; `$1` is the account, `$2` the removed rows, `$3` the description.
pub fn statement(target: &Target, ledger: &Ledger) -> String {
    format!(
        "INSERT INTO {} (user_id, amount, type, description, created_at)
         VALUES ($1, $2, 'backlog_cleanup', $3, {})",
        ledger.table.name,
        target.in_time_zone(&ledger.created_at, "pg_catalog.now()")
    )
}

/// The description of a run, or of one of its batches.
pub fn description(mode: Mode, run_id: i64, batch: Option<i64>, removed: i64) -> String {
    let batch = batch.map_or(String::new(), |batch| format!(", batch {batch}"));
    format!("{mode} backlog cleanup, run {run_id}{batch}: removed {removed} failed rows")
}

/// Writes one row into the platform's ledger, if the target has one: for a whole run, or for one of its batches.
pub fn write(target: &Target, mode: Mode, run_id: i64, batch: Option<i64>, removed: i64) -> Result<()> {
    let Some(ledger) = &target.ledger else { return Ok(()) };
    as_owner_of(&ledger.table, || {
        Spi::run_with_args(
            &statement(target, ledger),
            &[target.account.as_str().into(), removed.into(), description(mode, run_id, batch, removed).into()],
        )
        .map_err(spi)
    })
}
