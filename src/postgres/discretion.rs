use std::panic::AssertUnwindSafe;

use pgrx::pg_sys::panic::{CaughtError, ErrorReport};
use pgrx::prelude::*;

use crate::postgres::sqlstate::{raise_as, unknown};

/// Does `work` on a table of `owner`. An error's DETAIL has values of rows, and of rows of other tables that reference them: a
/// caller without the owner's rights gets the error without it.
pub fn discreetly<T>(owner: pg_sys::Oid, work: impl FnOnce() -> T) -> T {
    // SAFETY: both roles exist while the caller's statement and the table do.
    if unsafe { pg_sys::has_privs_of_role(pg_sys::GetUserId(), owner) } {
        return work();
    }
    PgTryBuilder::new(AssertUnwindSafe(work))
        .catch_others(|caught| {
            let CaughtError::PostgresError(failure) = &caught else { caught.rethrow() };
            let bare = ErrorReport::new(failure.sql_error_code(), failure.message().to_owned(), "backlog_cleanup");
            let bare = match failure.hint() {
                Some(hint) => bare.set_hint(hint),
                None => bare,
            };
            if let Some(sqlstate) = unknown(failure.sql_error_code()) {
                raise_as(sqlstate);
            }
            bare.report(PgLogLevel::ERROR);
            unreachable!("an ERROR does not return")
        })
        .execute()
}
