//! What would stop a run, as far as the catalogs tell it beforehand, without running anybody's code. A dry run reports it, and the
//! doctor has a check for each. Knows nothing of either.

pub mod ledger;
pub mod problem;
pub mod published;
pub mod used;

use backlog_cleanup_report::Mode;
use pgrx::PgSqlErrorCode;

use crate::obstacles::problem::Status;
use crate::postgres::error::Result;
use crate::postgres::settings::{set_local, with_settings};
use crate::postgres::subtransaction::{briefly, sqlstate};
use crate::target::Target;

/// Why a run that removes so many rows would fail, as sentences. Waits for no lock: what is locked is left out.
pub fn refusals(target: &Target, mode: Mode, removed: i64) -> Result<Vec<String>> {
    let found = with_settings(|| {
        set_local("lock_timeout", "50ms");
        briefly(|| {
            let mut found = published::replica_identity(target)?;
            found.extend(ledger::ledger(target, mode, removed)?);
            Ok(found)
        })
    });
    match found {
        Ok(found) => {
            let fails = found.into_iter().filter(|problem| problem.status == Status::Fail);
            Ok(fails.map(|problem| problem.detail).collect())
        }
        Err(caught) if sqlstate(&caught) == PgSqlErrorCode::ERRCODE_LOCK_NOT_AVAILABLE => Ok(Vec::new()),
        Err(caught) => caught.rethrow(),
    }
}
