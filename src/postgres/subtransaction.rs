use std::panic::AssertUnwindSafe;

use pgrx::pg_sys::panic::CaughtError;
use pgrx::prelude::*;

use crate::postgres::error::Result;

/// Does `work` in a subtransaction. Commits it if `work` returns `Some`; rolls it back if it returns `None` or fails, and
/// returns the failure.
pub fn attempt<T>(work: impl FnOnce() -> Result<Option<T>>) -> std::result::Result<Option<T>, CaughtError> {
    within(work, Option::is_some)
}

/// Does `work` that only reads, in a subtransaction that is rolled back: no lock that it takes outlives it.
pub fn briefly<T>(work: impl FnOnce() -> Result<T>) -> std::result::Result<T, CaughtError> {
    within(work, |_| false)
}

/// Does `work` in a subtransaction. Commits it if `work` succeeds and what it returns is to be kept.
fn within<T>(
    work: impl FnOnce() -> Result<T>,
    is_kept: impl FnOnce(&T) -> bool,
) -> std::result::Result<T, CaughtError> {
    // SAFETY: as PL/pgSQL begins and ends a block with exceptions: memory context and resource owner are those of before.
    let (context, owner) = unsafe {
        let before = (pg_sys::CurrentMemoryContext, pg_sys::CurrentResourceOwner);
        pg_sys::BeginInternalSubTransaction(std::ptr::null());
        pg_sys::CurrentMemoryContext = before.0;
        before
    };
    let done = PgTryBuilder::new(AssertUnwindSafe(|| Ok(work().unwrap_or_else(|failure| raise(failure)))))
        .catch_others(Err)
        .execute();
    // SAFETY: as above.
    unsafe {
        if done.as_ref().is_ok_and(is_kept) {
            pg_sys::ReleaseCurrentSubTransaction();
        } else {
            pg_sys::RollbackAndReleaseCurrentSubTransaction();
        }
        pg_sys::CurrentMemoryContext = context;
        pg_sys::CurrentResourceOwner = owner;
    }
    done
}

/// Raises an error as PostgreSQL does, so that `attempt` catches one kind.
fn raise(failure: pgrx::pg_sys::panic::ErrorReport) -> ! {
    failure.report(PgLogLevel::ERROR);
    unreachable!("an ERROR does not return")
}

/// The SQLSTATE of a failure.
pub fn sqlstate(failure: &CaughtError) -> PgSqlErrorCode {
    match failure {
        CaughtError::PostgresError(report) | CaughtError::ErrorReport(report) => report.sql_error_code(),
        CaughtError::RustPanic { ereport, .. } => ereport.sql_error_code(),
    }
}
