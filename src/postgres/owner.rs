use std::ffi::CString;

use pgrx::prelude::*;

use crate::postgres::error::{Result, spi};
use crate::postgres::table::Table;

/// Does `work` on a table as its owner. The table is locked first, so that it stays theirs, and statements that name it mean
/// it. Errors: 40001 (somebody has changed or dropped it since it was looked up).
pub fn as_owner_of<T>(table: &Table, work: impl FnOnce() -> Result<T>) -> Result<T> {
    acting_as(table.owner, &table.search_path, || table.hold().and_then(|()| work()))
}

/// Does `work` as `owner` inside a security-restricted operation, as VACUUM and REINDEX do, so that nothing it sets
/// off runs as the caller. An error restores the context by itself, with the transaction.
pub fn acting_as<T>(owner: pg_sys::Oid, search_path: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let (mut user, mut context) = (pg_sys::InvalidOid, 0);
    let restricted = (pg_sys::SECURITY_RESTRICTED_OPERATION | pg_sys::SECURITY_LOCAL_USERID_CHANGE) as i32;
    let nest = unsafe {
        pg_sys::GetUserIdAndSecContext(&mut user, &mut context);
        pg_sys::SetUserIdAndSecContext(owner, context | restricted);
        pg_sys::NewGUCNestLevel()
    };
    set_local("search_path", search_path);
    set_local("row_security", "off");
    // A value as text means the same in every process that works on a run, and on another server.
    set_local("DateStyle", "ISO");
    set_local("extra_float_digits", "1");
    let done = work();
    unsafe {
        pg_sys::AtEOXact_GUC(false, nest);
        pg_sys::SetUserIdAndSecContext(user, context);
    }
    done
}

/// Until the transaction ends, deferred triggers fire at once: those that the caller has queued now and as the caller, those
/// of a run with its statements, as the owner, and not at commit as the caller.
pub fn defer_nothing() -> Result<()> {
    Spi::run("SET CONSTRAINTS ALL IMMEDIATE").map_err(spi)
}

/// Sets a configuration parameter until the nest level of `acting_as` ends.
pub fn set_local(name: &str, value: &str) {
    let name = CString::new(name).unwrap_or_default();
    let value = CString::new(value).unwrap_or_default();
    unsafe {
        pg_sys::set_config_option(
            name.as_ptr(),
            value.as_ptr(),
            pg_sys::GucContext::PGC_USERSET,
            pg_sys::GucSource::PGC_S_SESSION,
            pg_sys::GucAction::GUC_ACTION_SAVE,
            true,
            0,
            false,
        );
    }
}
