use crate::history::batches;
use pgrx::prelude::*;

use crate::postgres::error::{Result, error};
use crate::postgres::nodes::refuse_on_worker_node;
use crate::postgres::read::{read_one, refuse_read_only};
use crate::run::lock::{self, Span};
use crate::run::prepare::cannot_be_prepared;
use crate::target::row::exists;

/// Locks a target for a run, and marks its runs that have not ended as interrupted. Errors: 22004, 42704, 25006, 55P03, 55000 (on a worker
/// node of Citus), 0A000 (over a replication connection, whose process takes the signal of a stop as one that the server is shut down).
pub fn begin(target: Option<&str>, span: Span) -> Result<()> {
    let name = exists(target)?;
    // SAFETY: a flag that is set before a session's first statement.
    if unsafe { pg_sys::am_walsender } {
        return Err(error(
            PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
            "a run cannot be done over a replication connection".into(),
            "connect without \"replication=database\"".into(),
        ));
    }
    refuse_on_worker_node("remove rows")?;
    refuse_read_only("remove rows")?;
    lock::acquire(&name, span)?;
    cannot_be_prepared();
    batches::interrupt(&name)
}

/// The calling role.
pub fn caller() -> Result<String> {
    read_one::<String>("SELECT CURRENT_USER::pg_catalog.text", &[]).map(Option::unwrap_or_default)
}
