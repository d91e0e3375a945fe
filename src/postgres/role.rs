//! Input and output of the type `backlog_cleanup.role` (`sql/tables.sql`): an oid, so that it follows ALTER ROLE ... RENAME. It
//! reads unlike `regrole` every name: a dump can be restored where a role does not exist.

use std::ffi::{CStr, CString};

use pgrx::prelude::*;

/// The longest name of a role, in bytes.
const LONGEST: usize = pg_sys::NAMEDATALEN as usize - 1;

/// Reads a role's name; what names no role is nobody, 0. Returns the oid's bits, since pgrx returns an oid of 0 as NULL.
#[pg_extern(sql = false)]
fn role_in(name: &CStr) -> i32 {
    if name.count_bytes() > LONGEST {
        return 0;
    }
    // SAFETY: looks up a C string; a missing role is no error.
    unsafe { pg_sys::get_role_oid(name.as_ptr(), true) }.to_u32() as i32
}

/// Writes a role's name. No role has the empty name that stands for one that is gone.
#[pg_extern(sql = false)]
fn role_out(role: i32) -> CString {
    // SAFETY: a missing role is no error, but NULL; else the name is a C string.
    unsafe {
        let name = pg_sys::GetUserNameFromId((role as u32).into(), true);
        if name.is_null() { CString::default() } else { CStr::from_ptr(name).to_owned() }
    }
}
