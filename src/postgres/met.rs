use std::ptr::null_mut;
use std::sync::atomic::{AtomicI32, Ordering};

use pgrx::pg_sys;
use pgrx::pg_sys::panic::CaughtError;
use pgrx::prelude::*;

use crate::postgres::subtransaction::sqlstate;

/// An error that code has met on a row.
pub struct Met {
    /// Five characters.
    pub sqlstate: String,
    pub message: String,
}

/// Errors that are not about a row, by the beginning of their SQLSTATE: a run ends with them. The names are those of appendix A
/// of PostgreSQL's manual ("PostgreSQL Error Codes"). All others keep a row back.
const NOT_ABOUT_A_ROW: [&str; 7] = [
    "08",    // connection exception
    "25006", // read-only transaction
    "40",    // transaction rollback: serialization failure, deadlock
    "53",    // insufficient resources: memory, disk, connections
    "57",    // operator intervention: cancel, shutdown
    "58",    // system error: I/O
    "XX",    // internal error, corruption
];

impl Met {
    /// What a failure says. Raises it again if it is not about a row.
    pub fn on_a_row(failure: CaughtError) -> Met {
        let sqlstate = text_of(code_of(&failure));
        if NOT_ABOUT_A_ROW.iter().any(|beginning| sqlstate.starts_with(beginning)) {
            failure.rethrow();
        }
        let message = match failure {
            CaughtError::PostgresError(report) | CaughtError::ErrorReport(report) => report.message().to_owned(),
            panic => panic.rethrow(),
        };
        Met { sqlstate, message }
    }
}

/// The last SQLSTATE that `listening` has heard. A backend has one thread.
static HEARD: AtomicI32 = AtomicI32::new(0);

/// Does `work` and hears the SQLSTATEs of its errors: pgrx turns those that PostgreSQL itself does not have into XX000.
pub fn listening<T>(work: impl FnOnce() -> T) -> T {
    // SAFETY: the callback is taken off below; an ERROR of `work` is caught within it, or resets the stack itself.
    unsafe {
        let mut callback = pg_sys::ErrorContextCallback {
            previous: pg_sys::error_context_stack,
            callback: Some(hear),
            arg: null_mut(),
        };
        pg_sys::error_context_stack = &raw mut callback;
        let done = work();
        pg_sys::error_context_stack = callback.previous;
        done
    }
}

/// # Safety
///
/// Called by errfinish.
unsafe extern "C-unwind" fn hear(_: *mut core::ffi::c_void) {
    // SAFETY: geterrcode is for callbacks of this kind.
    HEARD.store(unsafe { pg_sys::geterrcode() }, Ordering::Relaxed);
}

/// The SQLSTATE of a failure, as PostgreSQL packs it.
fn code_of(failure: &CaughtError) -> i32 {
    let (known, heard) = (sqlstate(failure), HEARD.load(Ordering::Relaxed));
    if PgSqlErrorCode::from(heard) == known { heard } else { known as i32 }
}

/// Six bits for each character, the first one lowest (`MAKE_SQLSTATE` of utils/elog.h).
fn text_of(code: i32) -> String {
    (0..5).map(|place| ((code >> (6 * place) & 0x3f) as u8 + b'0') as char).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_read_as_postgresql_writes_it() {
        for (code, text) in [
            (PgSqlErrorCode::ERRCODE_FOREIGN_KEY_VIOLATION, "23503"),
            (PgSqlErrorCode::ERRCODE_RAISE_EXCEPTION, "P0001"),
            (PgSqlErrorCode::ERRCODE_INTERNAL_ERROR, "XX000"),
        ] {
            assert_eq!(text_of(code as i32), text);
        }
    }
}
