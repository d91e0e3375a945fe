use std::panic::AssertUnwindSafe;

use pgrx::pg_sys::panic::CaughtError;
use pgrx::prelude::*;

use crate::postgres::error::Result;

/// Does `work` in a subtransaction, which stays where it returns `Some` and is rolled back where it returns `None` or
/// fails. A failure is handed over with what it was.
pub fn attempt<T>(work: impl FnOnce() -> Result<Option<T>>) -> std::result::Result<Option<T>, CaughtError> {
    let (context, owner) = unsafe { (pg_sys::CurrentMemoryContext, pg_sys::CurrentResourceOwner) };
    let end = |stays: bool| unsafe {
        if stays {
            pg_sys::ReleaseCurrentSubTransaction();
        } else {
            pg_sys::RollbackAndReleaseCurrentSubTransaction();
        }
        pg_sys::CurrentMemoryContext = context;
        pg_sys::CurrentResourceOwner = owner;
    };
    unsafe {
        pg_sys::BeginInternalSubTransaction(std::ptr::null());
        pg_sys::CurrentMemoryContext = context;
    }
    let done = PgTryBuilder::new(AssertUnwindSafe(|| Ok(work().unwrap_or_else(|failure| raise(failure)))))
        .catch_others(Err)
        .execute();
    end(matches!(done, Ok(Some(_))));
    done
}

/// Raises an error as PostgreSQL does, so that whoever catches it sees one kind.
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
