//! Cancels of a statement, also those of timeouts, that wait for the moment in which somebody can deal with them. What ends the session does not.

use pgrx::pg_sys;

/// Has cancels wait until `heed`. An ERROR that PostgreSQL raises lets them through, too.
pub fn hold_off() {
    set(1);
}

/// Lets cancels through: the statement ends where it looks for interrupts next.
pub fn heed() {
    set(0);
}

fn set(count: u32) {
    // SAFETY: a flag of this process. PostgreSQL counts with it only while it reads a message of the client.
    unsafe { (&raw mut pg_sys::QueryCancelHoldoffCount).write_volatile(count) };
}
