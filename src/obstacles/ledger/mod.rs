//! What would make the ledger refuse the row that a run writes. Nothing is inserted, and nobody's code runs: a CHECK that calls
//! something else than PostgreSQL's own immutable functions is not evaluated, but named.

mod answer;
mod column;
mod constraint;
mod room;

use backlog_cleanup_report::Mode;
use pgrx::pg_sys::panic::CaughtError;
use pgrx::prelude::*;

use crate::history::ledger::{description, statement};
use crate::obstacles::ledger::answer::{cannot_be_told, refuses};
use crate::obstacles::ledger::column::Columns;
use crate::obstacles::problem::{Problem, Status, problems};
use crate::postgres::error::{Result, spi};
use crate::postgres::owner::reading_as_owner_of;
use crate::postgres::read::read_one;
use crate::postgres::subtransaction::{briefly, sqlstate};
use crate::target::{Ledger, Target};

/// Finds what would make the ledger refuse the row of a run that removes so many rows.
pub fn ledger(target: &Target, mode: Mode, removed: i64) -> Result<Vec<Problem>> {
    let Some(ledger) = &target.ledger else {
        return Ok(vec![Problem { status: Status::Ok, detail: "the target has no ledger".into(), fix: None }]);
    };
    if let Some(message) = misfit(target, ledger)? {
        return Ok(vec![refuses(ledger, &message)]);
    }
    if !matches!(ledger.table.kind as u8, b'r' | b'p') {
        return Ok(vec![cannot_be_told(format!("{} is no ordinary table", ledger.table.name))]);
    }
    let columns = Columns::of(target, ledger, &description(mode, next_run()?, None, removed), removed)?;
    let mut found = room::lengths(&columns)?;
    found.extend(room::sequences(ledger)?);
    let changed = problems(CHANGES, &[ledger.table.oid.into()])?;
    if changed.is_empty() {
        found.extend(columns.without_a_value());
        found.extend(constraint::broken(&columns)?);
    }
    found.extend(changed);
    Ok(found)
}

/// Triggers and rules that may make another row of it.
const CHANGES: &str = "
    SELECT 'ok', format('what trigger %I makes of the row cannot be told beforehand', tgname), NULL
    FROM pg_trigger
    WHERE tgrelid = $1 AND NOT tgisinternal AND tgenabled <> 'D' AND tgtype & 7 = 7 -- ROW, BEFORE, INSERT
    UNION ALL
    SELECT CASE WHEN is_dropped THEN 'fail' ELSE 'ok' END,
           format(CASE WHEN is_dropped THEN 'rule %I of ledger %s leaves the row out'
                       ELSE 'what rule %I makes of the row cannot be told beforehand' END, rulename, ev_class::regclass), NULL
    FROM pg_rewrite r
    CROSS JOIN LATERAL (SELECT ev_qual = '<>' AND pg_get_ruledef(r.oid) LIKE '%DO INSTEAD NOTHING;') says (is_dropped)
    WHERE ev_class = $1 AND ev_type = '3' AND ev_enabled IN ('O', 'A')";

/// What PostgreSQL says of the statement before it plans it: of types, of generated columns.
fn misfit(target: &Target, ledger: &Ledger) -> Result<Option<String>> {
    let types = [pg_sys::TEXTOID, pg_sys::INT8OID, pg_sys::TEXTOID].map(PgOid::from);
    let prepare =
        || Spi::connect(|client| client.prepare(statement(target, ledger).as_str(), &types).map(drop)).map_err(spi);
    match briefly(|| reading_as_owner_of(&ledger.table, prepare)) {
        Ok(()) => Ok(None),
        Err(caught) if sqlstate(&caught) == PgSqlErrorCode::ERRCODE_LOCK_NOT_AVAILABLE => caught.rethrow(),
        Err(CaughtError::PostgresError(failure) | CaughtError::ErrorReport(failure)) => {
            Ok(Some(failure.message().to_owned()))
        }
        Err(panic) => panic.rethrow(),
    }
}

/// The number that the next run gets, or a smaller one: others may run meanwhile.
fn next_run() -> Result<i64> {
    crate::extension::as_owner(|| read_one::<i64>("SELECT coalesce(max(id), 0) + 1 FROM backlog_cleanup.run", &[]))
        .map(Option::unwrap_or_default)
}
