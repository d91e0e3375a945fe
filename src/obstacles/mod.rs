//! What would stop a run, as far as the catalogs tell it beforehand, without running anybody's code. A dry run reports it, and the
//! doctor has a check for each. Knows nothing of either.

pub mod ledger;
pub mod problem;
pub mod published;
pub mod referenced;
pub mod used;

use backlog_cleanup_report::{Foreseen, Mode};
use pgrx::PgSqlErrorCode;

use crate::obstacles::problem::Status;
use crate::postgres::error::Result;
use crate::postgres::settings::{set_local, with_settings};
use crate::postgres::subtransaction::{briefly, sqlstate};
use crate::target::Target;

/// What a run that removes so many rows would meet. Waits for no lock: what is locked is left out.
pub fn foresee(target: &Target, mode: Mode, removed: i64) -> Result<Foreseen> {
    let found = with_settings(|| {
        set_local("lock_timeout", "50ms");
        briefly(|| {
            let mut found = published::replica_identity(target)?;
            found.extend(ledger::ledger(target, mode, removed)?);
            found.extend(referenced::referenced(target)?);
            Ok(found)
        })
    });
    let found = match found {
        Ok(found) => found,
        Err(caught) if sqlstate(&caught) == PgSqlErrorCode::ERRCODE_LOCK_NOT_AVAILABLE => Vec::new(),
        Err(caught) => caught.rethrow(),
    };
    let mut foreseen = Foreseen::default();
    for problem in found {
        match problem.status {
            Status::Ok => {}
            Status::Warn => foreseen.would_keep_back.push(problem.detail),
            Status::Fail => foreseen.would_fail.push(problem.detail),
        }
    }
    Ok(foreseen)
}
