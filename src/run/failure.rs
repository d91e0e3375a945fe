//! What a batched run does when it fails: its row says so, in a transaction that commits, and then the error goes on. The
//! procedure's `commit_and_wait` commits and raises it again; whoever calls `next_batch` by hand gets it at once. A cancel that comes
//! between two calls of the procedure, where PL/pgSQL would raise it, waits for the next of them.

use std::cell::{Cell, RefCell};
use std::sync::Once;

use backlog_cleanup_report::State;
use pgrx::pg_sys::XactEvent;
use pgrx::pg_sys::panic::{CaughtError, ErrorReport, ErrorReportWithLevel};
use pgrx::prelude::*;

use crate::history::batches::sum_up_or_warn;
use crate::history::error::{self, At};
use crate::plan::cutoff;
use crate::postgres::cancels;
use crate::postgres::error::Result;
use crate::postgres::sqlstate::{exact, raise_as, unknown};
use crate::postgres::subtransaction::{attempt, is_cancel, raise_again, reported, sqlstate};
use crate::run::workers;

thread_local! {
    /// What this process works on.
    static AT: RefCell<Option<At>> = const { RefCell::new(None) };
    /// The run of this session, between its start and its end.
    static RUN: Cell<Option<i64>> = const { Cell::new(None) };
    /// Whether the next failure is that of a process which somebody has ended.
    static IS_LOST: Cell<bool> = const { Cell::new(false) };
    /// Whether `commit_and_wait` has begun this transaction.
    static IS_DRIVEN: Cell<bool> = const { Cell::new(false) };
    /// What has failed, to be raised as soon as that is committed, with the SQLSTATE if PostgreSQL itself does not have it.
    static RECORDED: RefCell<Option<(ErrorReport, Option<i32>)>> = const { RefCell::new(None) };
}

/// Remembers what this process works on.
pub fn works_on(at: At) {
    AT.set(Some(at));
}

/// Says that the failure to come is no error of the run: a worker was ended.
pub fn is_of_a_lost_process() {
    IS_LOST.set(true);
}

/// Called when `commit_and_wait` has begun a transaction. Raises the error that the last one has recorded.
pub fn transaction_begins() -> Result<()> {
    listen();
    IS_DRIVEN.set(true);
    if RUN.get().is_some() {
        cancels::hold_off();
    }
    let Some((report, sqlstate)) = RECORDED.take() else { return Ok(()) };
    sqlstate.into_iter().for_each(raise_as);
    Err(report)
}

/// Whether this transaction is a step of the run, and nobody else's.
pub fn is_driven() -> bool {
    IS_DRIVEN.get()
}

/// Remembers the run of this session, which its transaction starts.
pub fn run_starts(run_id: i64) {
    listen();
    RUN.set(Some(run_id));
}

/// Does a step of a run. If it is that of this session and `commit_and_wait` will commit, an error is recorded and `None` returned.
pub fn or_record<T>(run_id: Option<i64>, step: impl FnOnce() -> Result<T>) -> Result<Option<T>> {
    AT.set(None);
    match RUN.get().filter(|run| is_driven() && run_id == Some(*run)) {
        Some(run_id) => Ok(recorded(run_id, step)),
        None => step().map(Some),
    }
}

/// Waits between two transactions of a run. Returns false if that was cancelled, and has recorded it.
pub fn while_waiting(wait: impl FnOnce()) -> bool {
    AT.set(None);
    let Some(run_id) = RUN.get() else {
        wait();
        return true;
    };
    recorded(run_id, || {
        wait();
        Ok(())
    })
    .is_some()
}

/// Does a step, which a cancel ends. What ends it is recorded, for the commit that comes next.
fn recorded<T>(run_id: i64, step: impl FnOnce() -> Result<T>) -> Option<T> {
    let done = attempt(|| {
        cancels::heed();
        let done = step()?;
        cancels::hold_off();
        Ok(Some(done))
    });
    done.unwrap_or_else(|failure| {
        ends_with(run_id, failure);
        cancels::hold_off();
        None
    })
}

/// Forgets the run, which has ended.
pub fn run_ends() {
    RUN.set(None);
    cutoff::forget();
}

/// Ends a run of this session with an error, which is raised as soon as that is committed.
pub fn ends_with(run_id: i64, failure: CaughtError) {
    let sqlstate = unknown(sqlstate(&failure));
    let report = record(run_id, failure);
    // Who cancels that does not want to wait. The next run does it.
    let _ = attempt(|| {
        sum_up_or_warn(run_id);
        Ok(Some(()))
    });
    RECORDED.set(Some((report, sqlstate)));
}

/// Writes what has failed into the run's row once its workers have ended, and returns it. If even that fails, raises the failure itself.
pub fn record(run_id: i64, failure: CaughtError) -> ErrorReport {
    let at = AT.take();
    let is_interrupted = IS_LOST.take() || is_cancel(&failure);
    let state = if is_interrupted { State::Interrupted } else { State::Failed };
    let (sqlstate, report) = (exact(sqlstate(&failure)), copy(reported(&failure)));
    let is_own = !matches!(failure, CaughtError::PostgresError(_));
    let write = || {
        attempt(|| {
            workers::end();
            error::write(run_id, state, &sqlstate, (&report, is_own), at.as_ref()).map(Some)
        })
    };
    // Another cancel may end it. With a third one it is not to be.
    if write().or_else(|_| write()).is_err() {
        raise_again(failure);
    }
    run_ends();
    report
}

fn copy(failure: &ErrorReportWithLevel) -> ErrorReport {
    let mut copy = ErrorReport::new(failure.sql_error_code(), failure.message().to_owned(), "backlog_cleanup");
    if let Some(detail) = failure.detail() {
        copy = copy.set_detail(detail);
    }
    match failure.hint() {
        Some(hint) => copy.set_hint(hint),
        None => copy,
    }
}

fn listen() {
    static ONCE: Once = Once::new();
    // SAFETY: the callback lives as long as the library, which is never unloaded.
    ONCE.call_once(|| unsafe { pg_sys::RegisterXactCallback(Some(at_transaction_end), std::ptr::null_mut()) });
}

unsafe extern "C-unwind" fn at_transaction_end(event: XactEvent::Type, _: *mut core::ffi::c_void) {
    if matches!(event, XactEvent::XACT_EVENT_COMMIT | XactEvent::XACT_EVENT_ABORT) {
        IS_DRIVEN.set(false);
        cancels::heed();
    }
    if event == XactEvent::XACT_EVENT_ABORT {
        RUN.set(None);
        RECORDED.set(None);
    }
}
