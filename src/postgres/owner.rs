use std::panic::AssertUnwindSafe;

use pgrx::prelude::*;

use crate::postgres::constraints::keeping_modes_of_constraints;
use crate::postgres::discretion::discreetly;
use crate::postgres::error::{Result, spi};
use crate::postgres::names::{naming, naming_anything};
use crate::postgres::session::Session;
use crate::postgres::settings::{see_alike, set_local, set_local_for_all, with_settings};
use crate::postgres::subtransaction::{exactly, look};
use crate::postgres::table::Table;

/// Reads a table as its owner, in a subtransaction that is rolled back: code of the owner leaves nothing behind, and the
/// table's lock is released. Errors: those of `as_owner_of`.
pub fn reading_as_owner_of<T>(table: &Table, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let reading = || look(|| switched(table, work));
    exactly(|| protected(table, || keeping_modes_of_constraints(reading), |_| Ok(())))
}

/// Does `work` on a table as its owner. Its statements name nothing but the table and `Table::named`. Locks the table first, so that it keeps its owner and its name. The caller's session
/// is hidden from code of another owner, and unchanged afterwards. The caller has called `defer_nothing`. Errors: 40001
/// (another session has changed or dropped the table since it was looked up), 42501 (something of the session cannot be
/// hidden, or the owner's code has changed it).
pub fn as_owner_of<T>(table: &Table, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let work = || {
        // What `changes` counts.
        set_local_for_all("track_counts", "on");
        work()
    };
    let clean = |session: &Session| acting_as(table.owner, &table.search_path, || session.clean());
    exactly(|| protected(table, || switched(table, work), clean))
}

/// Does `work`, and then `after`, while the caller's session is hidden from code of the table's owner.
fn protected<T>(
    table: &Table,
    work: impl FnOnce() -> Result<T>,
    after: impl FnOnce(&Session) -> Result<()>,
) -> Result<T> {
    if is_at_home(table.owner) {
        return work();
    }
    let session = Session::hide(table.owner)?;
    PgTryBuilder::new(AssertUnwindSafe(|| {
        let done = work()?;
        after(&session)?;
        Ok(done)
    }))
    .finally(|| session.show())
    .execute()
}

fn switched<T>(table: &Table, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let work = || table.hold().and_then(|()| naming(table.named_with_it(), work));
    discreetly(table.owner, || acting_as(table.owner, &table.search_path, work))
}

/// Whether code of `owner` already runs in the owner's session, or inside `as_owner_of`.
fn is_at_home(owner: pg_sys::Oid) -> bool {
    let (user, context) = who();
    // SAFETY: only reads whose session it is.
    let session_user = unsafe { pg_sys::GetSessionUserId() };
    user == owner && (session_user == owner || context & pg_sys::SECURITY_RESTRICTED_OPERATION as i32 != 0)
}

/// The current role and security context.
fn who() -> (pg_sys::Oid, i32) {
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
        see_alike();
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

/// Fires deferred triggers immediately for the rest of the transaction. Triggers that the caller has queued fire now, as the
/// caller; a run's fire within its statements, as the table's owner, instead of at commit as the caller.
pub fn defer_nothing() -> Result<()> {
    Spi::run("SET CONSTRAINTS ALL IMMEDIATE").map_err(spi)
}
