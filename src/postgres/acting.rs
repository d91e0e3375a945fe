use pgrx::prelude::*;

use crate::postgres::error::Result;
use crate::postgres::names::naming_anything;
use crate::postgres::settings::{set_local, with_settings};

/// The current role and security context.
pub fn who() -> (pg_sys::Oid, i32) {
    let (mut user, mut context) = (pg_sys::InvalidOid, 0);
    // SAFETY: both pointers are to variables of this frame.
    unsafe { pg_sys::GetUserIdAndSecContext(&mut user, &mut context) };
    (user, context)
}

/// Does `work` as `owner` inside a security-restricted operation, as VACUUM and REINDEX do, so that triggers and functions
/// do not run as the caller. After an ERROR PostgreSQL restores the role itself, with the (sub)transaction.
pub fn acting_as<T>(owner: pg_sys::Oid, search_path: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let (user, context) = who();
    let restricted = (pg_sys::SECURITY_RESTRICTED_OPERATION | pg_sys::SECURITY_LOCAL_USERID_CHANGE) as i32;
    // SAFETY: an `Err` of `work` becomes an ERROR (see `Result`).
    unsafe { pg_sys::SetUserIdAndSecContext(owner, context | restricted) };
    let done = with_settings(|| {
        set_local("search_path", search_path);
        set_local("row_security", "off");
        // Values go as text between the processes of a run, and to other servers: they must read the same everywhere.
        set_local("DateStyle", "ISO");
        set_local("IntervalStyle", "postgres");
        set_local("bytea_output", "hex");
        set_local("lc_monetary", "C");
        set_local("extra_float_digits", "1");
        // What an abbreviation in a target's time zone means is not for the caller to say.
        set_local("timezone_abbreviations", "Default");
        // What a literal of a statement means is not either.
        set_local("standard_conforming_strings", "on");
        set_local("array_nulls", "on");
        set_local("transform_null_equals", "off");
        // What holds a row in the owner's code holds it whoever calls, and nothing else does.
        set_local("plpgsql.check_asserts", "on");
        // Names are compared as they are written.
        set_local("quote_all_identifiers", "off");
        // SAFETY: both roles exist while the caller's statement runs.
        if !unsafe { pg_sys::has_privs_of_role(user, owner) } {
            show_no_plans();
        }
        // Compiling takes far longer than it saves, and ten megabytes.
        set_local("jit", "off");
        // Without it a statement on positions compares each row of the table with each position.
        set_local("enable_tidscan", "on");
        naming_anything(work)
    });
    // SAFETY: what GetUserIdAndSecContext has given.
    unsafe { pg_sys::SetUserIdAndSecContext(user, context) };
    done
}

/// Keeps PostgreSQL from sending plans to the caller, whose constants are values of rows.
fn show_no_plans() {
    for tree in ["parse", "rewritten", "plan"] {
        set_local(&format!("debug_print_{tree}"), "off");
    }
    // SAFETY: a setting, read by the one thread of a backend.
    if unsafe { pg_sys::client_min_messages } < pg_sys::NOTICE as i32 {
        set_local("client_min_messages", "notice");
    }
}
