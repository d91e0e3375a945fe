//! PostgreSQL's timers (utils/timeout.h), which pgrx has not; and a limit on how long something takes.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use pgrx::pg_sys;
use pgrx::pg_sys::panic::CaughtError;

use crate::postgres::error::Result;
use crate::postgres::sqlstate::goes_on;
use crate::postgres::subtransaction::attempt;

unsafe extern "C-unwind" {
    pub fn RegisterTimeout(id: u32, handler: unsafe extern "C-unwind" fn()) -> u32;
    pub fn enable_timeout_every(id: u32, first: pg_sys::TimestampTz, milliseconds: i32);
    pub fn disable_timeout(id: u32, keep_indicator: bool);
}

/// PostgreSQL replaces a number that is none of its own timeouts' by the next one that is free.
pub const ANY: u32 = u32::MAX >> 1;

/// Milliseconds after which what goes on in spite of a cancel is cancelled again.
const AGAIN: i32 = 100;

/// Whether the limit has ended the work.
static IS_OVER: AtomicBool = AtomicBool::new(false);

thread_local! {
    /// The number of this process's timer.
    static TIMER: Cell<Option<u32>> = const { Cell::new(None) };
}

/// Does `work` in a subtransaction, and cancels its statement after so many milliseconds: then it returns `None`, with nothing done.
/// Not within itself.
pub fn within<T>(milliseconds: i64, work: impl FnOnce() -> Result<T>) -> std::result::Result<Option<T>, CaughtError> {
    let timer = TIMER.get().unwrap_or_else(|| {
        // SAFETY: the handler lives as long as the library, which is never unloaded.
        let timer = unsafe { RegisterTimeout(ANY, over) };
        TIMER.set(Some(timer));
        timer
    });
    IS_OVER.store(false, Relaxed);
    // SAFETY: the timer is registered.
    unsafe { enable_timeout_every(timer, pg_sys::GetCurrentTimestamp() + milliseconds * 1000, AGAIN) };
    let done = attempt(|| work().map(Some));
    // SAFETY: as above.
    unsafe { disable_timeout(timer, false) };
    if !IS_OVER.swap(false, Relaxed) {
        return done;
    }
    // It may not have been heard.
    // SAFETY: a flag that signal handlers set, too.
    unsafe { (&raw mut pg_sys::QueryCancelPending).write_volatile(0) };
    goes_on();
    done.or(Ok(None))
}

/// # Safety
///
/// A handler of PostgreSQL's timer, which wakes the process when it returns.
unsafe extern "C-unwind" fn over() {
    IS_OVER.store(true, Relaxed);
    // SAFETY: the flags of a cancel, which are made for signal handlers.
    unsafe {
        (&raw mut pg_sys::QueryCancelPending).write_volatile(1);
        (&raw mut pg_sys::InterruptPending).write_volatile(1);
    }
}
