use pgrx::prelude::*;
use pgrx::{PgXactCallbackEvent, register_xact_callback};

use crate::history::batches;
use crate::postgres::error::{Result, error};
use crate::postgres::read::{read_one, refuse_read_only};
use crate::run::lock::{self, Span};
use crate::target::load::exists;

/// Locks a target for a run, and marks its runs that have not ended as interrupted. Errors: 22004, 42704, 25006, 55P03.
pub fn begin(target: Option<&str>, span: Span) -> Result<()> {
    let name = exists(target)?;
    refuse_read_only("remove rows")?;
    lock::acquire(&name, span)?;
    register_xact_callback(PgXactCallbackEvent::PrePrepare, refuse_prepare);
    batches::interrupt(&name)
}

/// The calling role.
pub fn caller() -> Result<String> {
    read_one::<String>("SELECT CURRENT_USER::pg_catalog.text", &[]).map(Option::unwrap_or_default)
}

/// A prepared transaction would hold the target for as long as nobody finds it: no process is there to be seen.
fn refuse_prepare() {
    error(
        PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
        "cannot PREPARE a transaction that has run a cleanup".into(),
        "COMMIT".into(),
    )
    .report(PgLogLevel::ERROR);
}
