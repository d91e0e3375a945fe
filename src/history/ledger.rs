use backlog_cleanup_report::Mode;
use pgrx::prelude::*;
use pgrx::spi::quote_literal;

use crate::postgres::changes::Deleted;
use crate::postgres::elsewhere::elsewhere;
use crate::postgres::error::{Result, error, spi};
use crate::postgres::owner::as_owner_of;
use crate::postgres::subtransaction::or_nothing;
use crate::target::leaf::{leaves, oids};
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

/// Writes one row into the platform's ledger, if the target has one: for a whole run, or for one of its batches. Errors: 27000 (a
/// trigger or a rule of the ledger has left the row out, and the books would not balance, or its code deletes rows of the target).
pub fn write(target: &Target, mode: Mode, run_id: i64, batch: Option<i64>, removed: i64) -> Result<()> {
    let Some(ledger) = &target.ledger else { return Ok(()) };
    let values = [target.account.as_deref().into(), removed.into(), description(mode, run_id, batch, removed).into()];
    let insert = || {
        Spi::connect_mut(|client| client.update(&statement(target, ledger), None, &values).map(|rows| rows.len()))
            .map_err(spi)
    };
    let tables = oids(&leaves(target)?);
    // In a subtransaction of its own PostgreSQL's counts are those of its code.
    let written = or_nothing(|| {
        let deleted = Deleted::from(&tables);
        let written = elsewhere(|| as_owner_of(&ledger.table, insert))?;
        if deleted.is_more_than(0) {
            return Err(error(
                PgSqlErrorCode::ERRCODE_TRIGGERED_DATA_CHANGE_VIOLATION,
                format!("code of ledger \"{}\" deletes rows of the target", ledger.table.name),
                code_of(ledger),
            ));
        }
        Ok(written)
    })?;
    // Without a row for no removal the books still balance.
    if written > 0 || removed == 0 {
        return Ok(());
    }
    Err(error(
        PgSqlErrorCode::ERRCODE_TRIGGERED_DATA_CHANGE_VIOLATION,
        format!(
            "a trigger or a rule of ledger \"{}\" has left out the row of {removed} removed rows",
            ledger.table.name
        ),
        code_of(ledger),
    ))
}

/// The statement that shows a ledger's triggers and rules.
fn code_of(ledger: &Ledger) -> String {
    format!(
        "SELECT pg_get_triggerdef(oid) FROM pg_trigger WHERE tgrelid = {name}::regclass UNION ALL \
         SELECT pg_get_ruledef(oid) FROM pg_rewrite WHERE ev_class = {name}::regclass",
        name = quote_literal(&ledger.table.name)
    )
}
