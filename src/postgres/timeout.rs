//! PostgreSQL's timers (utils/timeout.h), which pgrx has not; and a limit on how long something takes.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use pgrx::pg_sys::panic::{CaughtError, ErrorReport};
use pgrx::prelude::*;

use crate::postgres::error::Result;
use crate::postgres::insist::{insist, relent};
use crate::postgres::retold::ENDS;
use crate::postgres::sqlstate::{TIMED_OUT, ended_by, goes_on, is_ended};
use crate::postgres::subtransaction::{attempt, caught};

unsafe extern "C-unwind" {
    pub fn RegisterTimeout(id: u32, handler: unsafe extern "C-unwind" fn()) -> u32;
    pub fn enable_timeout_every(id: u32, first: pg_sys::TimestampTz, milliseconds: i32);
    pub fn disable_timeout(id: u32, keep_indicator: bool);
    fn get_timeout_indicator(id: u32, reset_indicator: bool) -> bool;
}

/// PostgreSQL replaces a number that is none of its own timeouts' by the next one that is free.
pub const ANY: u32 = u32::MAX >> 1;

/// That of `statement_timeout` (`TimeoutId`).
const STATEMENT: u32 = 3;

/// Milliseconds after which what goes on in spite of a cancel is cancelled again.
const AGAIN: i32 = 100;

/// Whether the limit has ended the work.
static IS_OVER: AtomicBool = AtomicBool::new(false);

/// Whether somebody else had ended it before.
static WAS_ENDED: AtomicBool = AtomicBool::new(false);

thread_local! {
    /// The number of this process's timer.
    static TIMER: Cell<Option<u32>> = const { Cell::new(None) };
    static IS_SET: Cell<bool> = const { Cell::new(false) };
}

/// The timer, while it is set.
struct Limit(u32);

impl Limit {
    fn set(milliseconds: i64) -> Limit {
        let timer = TIMER.get().unwrap_or_else(|| {
            // SAFETY: the handler lives as long as the library, which is never unloaded.
            let timer = unsafe { RegisterTimeout(ANY, over) };
            TIMER.set(Some(timer));
            timer
        });
        IS_OVER.store(false, Relaxed);
        IS_SET.set(true);
        // SAFETY: the timer is registered.
        unsafe { enable_timeout_every(timer, pg_sys::GetCurrentTimestamp() + milliseconds * 1000, AGAIN) };
        Limit(timer)
    }
}

impl Drop for Limit {
    fn drop(&mut self) {
        // SAFETY: the timer is registered.
        unsafe { disable_timeout(self.0, false) };
        relent();
        IS_SET.set(false);
    }
}

/// Does `work` in a subtransaction, and cancels its statement after so many milliseconds: then it returns `None`, with nothing done. Within
/// itself the outer limit holds. What somebody else has ended before, or `statement_timeout` meanwhile, and code has gone on with, stays ended.
pub fn within<T>(milliseconds: i64, work: impl FnOnce() -> Result<T>) -> std::result::Result<Option<T>, CaughtError> {
    let attempted = || attempt(|| work().map(Some));
    if IS_SET.get() {
        return attempted();
    }
    let limit = Limit::set(milliseconds);
    let done = attempted();
    drop(limit);
    if !IS_OVER.swap(false, Relaxed) {
        return done;
    }
    if WAS_ENDED.load(Relaxed) {
        return match ended_by().filter(|_| done.is_err()) {
            Some(by) => caught(|| Err(ended(by))),
            None => done,
        };
    }
    match go_on() {
        Ok(()) => done.or(Ok(None)),
        Err(failure) => caught(|| Err(failure)),
    }
}

fn ended(by: &'static str) -> ErrorReport {
    ErrorReport::new(PgSqlErrorCode::ERRCODE_QUERY_CANCELED, by, ENDS)
}

/// Forgets a cancel of this extension's own: the statement goes on. Errors: 57014, if something else than a cancel has ended the statement
/// meanwhile, and code has made something else of that.
pub fn go_on() -> Result<()> {
    // SAFETY: reads a flag, and one that signal handlers set, too.
    let is_timed_out = unsafe {
        // It may not have been heard.
        (&raw mut pg_sys::QueryCancelPending).write_volatile(0);
        get_timeout_indicator(STATEMENT, false)
    };
    let Some(by) = ended_by().or(is_timed_out.then_some(TIMED_OUT)) else {
        goes_on();
        return Ok(());
    };
    Err(ended(by))
}

/// # Safety
///
/// A handler of PostgreSQL's timer, which wakes the process when it returns.
unsafe extern "C-unwind" fn over() {
    // SAFETY: reads a flag that signal handlers set.
    unsafe {
        let is_pending = (&raw const pg_sys::QueryCancelPending).read_volatile() != 0;
        if !IS_OVER.swap(true, Relaxed) {
            WAS_ENDED.store(is_pending || is_ended(), Relaxed);
        }
    }
    insist();
}
