use std::panic::AssertUnwindSafe;

use pgrx::pg_sys::panic::CaughtError;
use pgrx::prelude::*;

use crate::postgres::retold::discreet;
use crate::postgres::subtransaction::raise_again;

/// Does `work` on a table of `owner`. An error's DETAIL has values of rows, and of rows of other tables that reference them: a
/// caller without the owner's rights gets the error without it.
pub fn discreetly<T>(owner: pg_sys::Oid, work: impl FnOnce() -> T) -> T {
    // SAFETY: both roles exist while the caller's statement and the table do.
    if unsafe { pg_sys::has_privs_of_role(pg_sys::GetUserId(), owner) } {
        return work();
    }
    PgTryBuilder::new(AssertUnwindSafe(work))
        .catch_others(|caught| match &caught {
            CaughtError::PostgresError(failure) => raise_again(discreet(failure)),
            _ => caught.rethrow(),
        })
        .execute()
}
