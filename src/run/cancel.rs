//! How a stop reaches a statement at work. Who stops a run signals its process, once the stop is committed. A timer in that process
//! gives the batch a moment to end with what it has removed, and then cancels the statement, as `statement_timeout` does. Only steps
//! of a run are cancelled: neither its books nor its pauses, which look at the run's row, nor anything else that the session does.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};

use pgrx::prelude::*;

use crate::postgres::error::Result;
use crate::postgres::insist::{insist, relent};
use crate::postgres::sqlstate::is_ended;
use crate::postgres::subtransaction::{attempt, raise_again};
use crate::postgres::timeout::{ANY, RegisterTimeout, disable_timeout, enable_timeout_every, go_on};

/// Milliseconds between two looks of the timer.
const TICK: i32 = 100;
/// How many of them a batch has to end by itself.
const GRACE: u32 = 10;
/// PostgreSQL's backends and background workers ignore it until somebody asks for it, but for those of replication connections.
const SIGNAL: i32 = pg_sys::SIGUSR2 as i32;

/// Whether somebody has asked this process to stop its run.
static IS_ASKED: AtomicBool = AtomicBool::new(false);
/// How often the timer has seen that in this step.
static TICKS: AtomicU32 = AtomicU32::new(0);
/// Whether the timer has cancelled this step.
static IS_CANCELLED: AtomicBool = AtomicBool::new(false);

thread_local! {
    /// The number of this process's timer.
    static TIMER: Cell<Option<u32>> = const { Cell::new(None) };
}

// kill(2).
unsafe extern "C-unwind" {
    fn kill(process: i32, signal: i32) -> i32;
}

/// Called before a run of this process can be seen, and so stopped.
pub fn listen() {
    if TIMER.get().is_none() {
        // SAFETY: both handlers live as long as the library, which is never unloaded.
        unsafe {
            TIMER.set(Some(RegisterTimeout(ANY, tick)));
            #[cfg(not(feature = "pg18"))]
            pg_sys::pqsignal(SIGNAL, Some(asked));
            #[cfg(feature = "pg18")]
            pg_sys::pqsignal_be(SIGNAL, Some(asked));
        }
    }
    IS_ASKED.store(false, Relaxed);
}

/// Asks a process to stop its run. One that has none takes no notice.
pub fn ask(process: i32) {
    // SAFETY: a system call.
    unsafe { kill(process, SIGNAL) };
}

/// Does a step of a run in a subtransaction. If it is cancelled since the run is to stop, rolls it back and returns `None`.
pub fn unless_stopped<T>(step: impl FnOnce() -> Result<T>) -> Result<Option<T>> {
    let Some(timer) = TIMER.get() else { return step().map(Some) };
    TICKS.store(0, Relaxed);
    // SAFETY: the timer is registered.
    unsafe { enable_timeout_every(timer, pg_sys::GetCurrentTimestamp() + i64::from(TICK) * 1000, TICK) };
    let done = attempt(|| step().map(Some));
    // SAFETY: as above.
    unsafe { disable_timeout(timer, false) };
    relent();
    if IS_CANCELLED.swap(false, Relaxed) {
        IS_ASKED.store(false, Relaxed);
        let is_rolled_back = done.is_err() && is_ended();
        go_on()?;
        if is_rolled_back {
            return Ok(None);
        }
    }
    done.or_else(|failure| raise_again(failure))
}

/// # Safety
///
/// A signal handler.
unsafe extern "C-unwind" fn asked(_: i32) {
    IS_ASKED.store(true, Relaxed);
}

/// # Safety
///
/// A handler of PostgreSQL's timer, which wakes the process when it returns.
unsafe extern "C-unwind" fn tick() {
    if !IS_ASKED.load(Relaxed) || TICKS.fetch_add(1, Relaxed) < GRACE {
        return;
    }
    IS_CANCELLED.store(true, Relaxed);
    insist();
}
