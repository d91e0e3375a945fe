use pgrx::prelude::*;

use crate::postgres::discretion::discreetly;
use crate::postgres::error::{Result, spi};
use crate::postgres::settings::{set_local, with_settings};
use crate::postgres::table::Table;

/// Does `work` on a table as its owner. Locks the table first, so that it keeps its owner and its name. Errors: 40001 (another
/// session has changed or dropped it since it was looked up).
pub fn as_owner_of<T>(table: &Table, work: impl FnOnce() -> Result<T>) -> Result<T> {
    discreetly(table.owner, || acting_as(table.owner, &table.search_path, || table.hold().and_then(|()| work())))
}

/// Does `work` as `owner` inside a security-restricted operation, as VACUUM and REINDEX do, so that nothing that it sets
/// off runs as the caller. After an ERROR PostgreSQL restores the role itself, with the (sub)transaction.
pub fn acting_as<T>(owner: pg_sys::Oid, search_path: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let (mut user, mut context) = (pg_sys::InvalidOid, 0);
    let restricted = (pg_sys::SECURITY_RESTRICTED_OPERATION | pg_sys::SECURITY_LOCAL_USERID_CHANGE) as i32;
    // SAFETY: both pointers are to variables of this frame. An `Err` of `work` becomes an ERROR (see `Result`).
    unsafe {
        pg_sys::GetUserIdAndSecContext(&mut user, &mut context);
        pg_sys::SetUserIdAndSecContext(owner, context | restricted);
    }
    let done = with_settings(|| {
        set_local("search_path", search_path);
        set_local("row_security", "off");
        // A value as text means the same in every process that works on a run, and on another server.
        set_local("DateStyle", "ISO");
        set_local("extra_float_digits", "1");
        work()
    });
    // SAFETY: what GetUserIdAndSecContext has given.
    unsafe { pg_sys::SetUserIdAndSecContext(user, context) };
    done
}

/// Fires deferred triggers immediately for the rest of the transaction. Triggers that the caller has queued fire now, as the
/// caller; a run's fire within its statements, as the table's owner, instead of at commit as the caller.
pub fn defer_nothing() -> Result<()> {
    Spi::run("SET CONSTRAINTS ALL IMMEDIATE").map_err(spi)
}
