use std::panic::AssertUnwindSafe;

use pgrx::pg_sys::panic::{CaughtError, ErrorReportWithLevel};
use pgrx::prelude::*;

use crate::postgres::error::Result;
use crate::postgres::retold::{ENDS, bounded};
use crate::postgres::settings::with_settings;
use crate::postgres::sqlstate::{is_ended, listening, raise_as, unknown};

/// Does `work` in a subtransaction. Commits it if `work` returns `Some`; rolls it back if it returns `None` or fails, and
/// returns the failure. What code in it sets ends with it, so that the next statement means what it says.
pub fn attempt<T>(work: impl FnOnce() -> Result<Option<T>>) -> std::result::Result<Option<T>, CaughtError> {
    within(|| with_settings(work), |done| matches!(done, Ok(Some(_))))
}

/// Does `work` in a subtransaction, rolls it back, and returns the result: no lock and nothing else outlives it.
pub fn briefly<T>(work: impl FnOnce() -> Result<T>) -> std::result::Result<T, CaughtError> {
    within(work, |_| false)
}

/// The same. A failure is raised again.
pub fn look<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    briefly(work).map_or_else(|failure| raise_again(failure), Ok)
}

/// Does `work` in a subtransaction, which a failure rolls back before it is raised again.
pub fn or_nothing<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    within(|| with_settings(work), std::result::Result::is_ok).map_or_else(|failure| raise_again(failure), Ok)
}

/// Does `work`, whose errors keep their SQLSTATEs.
pub fn exactly<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    caught(work).or_else(|failure| raise_again(failure))
}

/// Raises a failure again.
pub fn raise_again(failure: CaughtError) -> ! {
    if let Some(sqlstate) = unknown(sqlstate(&failure)) {
        raise_as(sqlstate);
    }
    failure.rethrow()
}

fn within<T>(
    work: impl FnOnce() -> Result<T>,
    is_to_stay: impl FnOnce(&std::result::Result<T, CaughtError>) -> bool,
) -> std::result::Result<T, CaughtError> {
    // SAFETY: as PL/pgSQL begins and ends a block with exceptions: memory context and resource owner are those of before.
    let (context, owner, level) = unsafe {
        let (context, owner) = (pg_sys::CurrentMemoryContext, pg_sys::CurrentResourceOwner);
        pg_sys::BeginInternalSubTransaction(std::ptr::null());
        pg_sys::CurrentMemoryContext = context;
        (context, owner, pg_sys::GetCurrentTransactionNestLevel())
    };
    let done = match caught(work) {
        // An inner subtransaction has failed in its rollback. Only the end of the transaction gets out of it.
        // SAFETY: only reads the state of the transaction.
        Err(failure) if unsafe { pg_sys::GetCurrentTransactionNestLevel() } != level => failure.rethrow(),
        done => done,
    };
    // SAFETY: as above.
    unsafe {
        if is_to_stay(&done) {
            pg_sys::ReleaseCurrentSubTransaction();
        } else {
            pg_sys::RollbackAndReleaseCurrentSubTransaction();
        }
        pg_sys::CurrentMemoryContext = context;
        pg_sys::CurrentResourceOwner = owner;
    }
    done
}

/// Does `work` and returns what it raises, its texts bounded. The caller ends the (sub)transaction.
pub fn caught<T>(work: impl FnOnce() -> Result<T>) -> std::result::Result<T, CaughtError> {
    listening(|| {
        PgTryBuilder::new(AssertUnwindSafe(|| Ok(work().unwrap_or_else(|failure| raise(failure)))))
            .catch_others(|failure| Err(bounded(failure)))
            .execute()
    })
}

/// Raises an error as PostgreSQL does: `caught` catches one kind, and what cannot return an `Err` can end.
pub fn raise(failure: pgrx::pg_sys::panic::ErrorReport) -> ! {
    failure.report(PgLogLevel::ERROR);
    unreachable!("an ERROR does not return")
}

/// The SQLSTATE of a failure.
pub fn sqlstate(failure: &CaughtError) -> PgSqlErrorCode {
    reported(failure).sql_error_code()
}

/// Whether somebody has ended the statement or the session: that is not for a step to get over, whatever code has made of it.
pub fn is_cancel(failure: &CaughtError) -> bool {
    use PgSqlErrorCode::{ERRCODE_ADMIN_SHUTDOWN, ERRCODE_QUERY_CANCELED};
    is_ended()
        || matches!(sqlstate(failure), ERRCODE_QUERY_CANCELED | ERRCODE_ADMIN_SHUTDOWN)
            && reported(failure).function_name() == Some(ENDS)
}

/// The beginning of what a failure says: enough where many of them are kept in one row.
pub fn said(failure: &CaughtError) -> String {
    const LONGEST: usize = 1000;
    reported(failure).message().chars().take(LONGEST).collect()
}

/// What a failure says.
pub fn reported(failure: &CaughtError) -> &ErrorReportWithLevel {
    match failure {
        CaughtError::PostgresError(report) | CaughtError::ErrorReport(report) => report,
        CaughtError::RustPanic { ereport, .. } => ereport,
    }
}
