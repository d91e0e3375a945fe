use pgrx::pg_sys::panic::CaughtError;

use crate::postgres::retold::{RAISED, REPLACED};
use crate::postgres::sqlstate::{exact, is_ended, was_in_a_trigger};
use crate::postgres::subtransaction::{raise_again, reported, sqlstate};

/// An error that code has met on a row.
pub struct Met {
    /// Five characters.
    pub sqlstate: String,
    pub message: String,
}

/// Errors that are not about a row, by the beginning of their SQLSTATE: a run ends with them. The names are those of appendix A
/// of PostgreSQL's manual ("PostgreSQL Error Codes"). All others keep a row back, and so does what is lost of a row's data. A run has been
/// refused where nothing can be written: what is read-only now, code of the row has made so.
const NOT_ABOUT_A_ROW: &[&str] = &[
    "08", // connection exception
    "40", // transaction rollback: serialization failure, deadlock
    "53", // insufficient resources: memory, disk, connections
    "57", // operator intervention: cancel, shutdown
    "58", // system error: I/O
    "XX", // internal error
];

/// Those of them that are the server's or the session's also in a trigger. The others are the trigger's own there: a connection that
/// it makes, a file that it reads, a library that it loads.
const NOT_OF_A_TRIGGER: &[&str] = &[
    "40",    // transaction rollback
    "53100", // disk full
    "53200", // out of memory
    "53400", // configuration limit exceeded: temporary files, which a statement needs for all its rows
    "57014", // query canceled
    "57P01", // admin shutdown
    "57P02", // crash shutdown
    "57P04", // database dropped
    "57P05", // idle session timeout
    "58030", // I/O error
];

/// What raises XX000 for a row alone: "invalid memory alloc request size" (`mcxt.c`), as its value is too long for what code makes of it, and
/// "tuple concurrently deleted" (`heapam.c`), as a chunk of its TOAST value is gone already.
const OF_A_ROW: &[&str] = &[
    "simple_heap_delete",
    "palloc",
    "palloc0",
    "repalloc",
    "MemoryContextAlloc",
    "MemoryContextAllocZero",
    "MemoryContextAllocExtended",
    "MemoryContextSizeFailure",
];

/// Corruption of data or an index, which code on one row meets, such as a missing chunk of its TOAST value.
pub const LOST: [&str; 2] = ["XX001", "XX002"];

impl Met {
    /// What a failure says. Raises it again if it is not about a row.
    pub fn on_a_row(failure: CaughtError) -> Met {
        let sqlstate = exact(sqlstate(&failure));
        if !is_about_a_row(&failure, &sqlstate) {
            raise_again(failure);
        }
        Met { sqlstate, message: reported(&failure).message().to_owned() }
    }
}

/// Whether a failure with this SQLSTATE says something of a row, and not of the server, the session or this extension.
pub fn is_about_a_row(failure: &CaughtError, sqlstate: &str) -> bool {
    let (CaughtError::PostgresError(report) | CaughtError::ErrorReport(report)) = failure else { return false };
    match report.function_name() {
        Some(REPLACED) => false,
        // Code may have raised an error of its own instead.
        _ if is_ended() => false,
        Some(RAISED) => true,
        _ if LOST.contains(&sqlstate) => true,
        Some(raiser) if sqlstate == "XX000" && OF_A_ROW.contains(&raiser) => true,
        _ => {
            let classes = if was_in_a_trigger() { NOT_OF_A_TRIGGER } else { NOT_ABOUT_A_ROW };
            !classes.iter().any(|beginning| sqlstate.starts_with(beginning))
        }
    }
}
