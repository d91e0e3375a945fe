//! The workers of this session's run, as its leader has them.

use std::cell::RefCell;
use std::sync::Once;

use pgrx::PgMemoryContexts;
use pgrx::bgworkers::{
    BackgroundWorkerBuilder, BackgroundWorkerStatus, DynamicBackgroundWorker, TerminatingDynamicBackgroundWorker,
};
use pgrx::pg_sys::XactEvent;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

use crate::extension;
use crate::history::run::Run;
use crate::postgres::error::{Result, spi};
use crate::run::cancel;

thread_local! {
    /// This session's run, and its workers.
    static WORKERS: RefCell<Option<(i64, Vec<DynamicBackgroundWorker>)>> = const { RefCell::new(None) };
}

/// Whether the workers of a run of this session have not been started yet.
pub fn are_to_start(run_id: i64) -> bool {
    WORKERS.with_borrow(|workers| workers.as_ref().is_none_or(|(run, _)| *run != run_id))
}

/// Whether this session has started workers of a run, and not seen their end.
pub fn are_of(run_id: i64) -> bool {
    !are_to_start(run_id)
}

/// Starts the workers of a run, in at most half of the server's slots: an operator's long pause keeps them. Raises a NOTICE if
/// it gets fewer.
pub fn start(run: &Run) -> Result<()> {
    // SAFETY: only read who the session is.
    let (database, session_user, user) =
        unsafe { (pg_sys::MyDatabaseId, pg_sys::GetAuthenticatedUserId(), pg_sys::GetUserId()) };
    let arguments = format!("{} {} {} {}", database.to_u32(), session_user.to_u32(), user.to_u32(), run.id);
    static ONCE: Once = Once::new();
    // SAFETY: the callback lives as long as the library, which is never unloaded.
    ONCE.call_once(|| unsafe { pg_sys::RegisterXactCallback(Some(at_transaction_end), std::ptr::null_mut()) });
    // SAFETY: a setting, read by the one thread of a backend.
    let slots = unsafe { pg_sys::max_worker_processes };
    // Their handles outlive this transaction.
    // SAFETY: the context lives as long as the process.
    let workers: Vec<DynamicBackgroundWorker> = unsafe {
        PgMemoryContexts::TopMemoryContext
            .switch_to(|_| (0..run.workers.min(slots / 2)).map_while(|_| begin(&arguments)).collect())
    };
    let got = workers.len() as i32;
    if got < run.workers {
        let message = format!("run {} got {got} of {} background workers", run.id, run.workers);
        let more = (slots + run.workers - got).max(2 * run.workers);
        let hint = format!("ALTER SYSTEM SET max_worker_processes = {more}; -- and restart the server");
        ErrorReport::new(PgSqlErrorCode::ERRCODE_SUCCESSFUL_COMPLETION, message, "backlog_cleanup")
            .set_hint(hint)
            .report(PgLogLevel::NOTICE);
    }
    WORKERS.set(Some((run.id, workers)));
    extension::as_owner(|| {
        Spi::run_with_args("UPDATE backlog_cleanup.run SET workers = $2 WHERE id = $1", &[run.id.into(), got.into()])
            .map_err(spi)
    })
}

/// Starts a worker; `None` if the server has no slot for it.
fn begin(arguments: &str) -> Option<DynamicBackgroundWorker> {
    BackgroundWorkerBuilder::new("backlog_cleanup worker")
        .set_library("backlog_cleanup")
        .set_function("backlog_cleanup_worker")
        .set_extra(arguments)
        // SAFETY: set once when the backend starts.
        .set_notify_pid(unsafe { pg_sys::MyProcPid })
        .enable_spi_access()
        .load_dynamic()
        .ok()
}

/// How many workers of a run are at work; `None` if this session has started none. They hear of a stop.
pub fn at_work(run: &Run) -> Option<usize> {
    let is_at_work = |worker: &&DynamicBackgroundWorker| {
        let process = worker.pid();
        process.iter().filter(|_| run.stop_requested_by.is_some()).for_each(|process| cancel::ask(*process));
        !matches!(process, Err(BackgroundWorkerStatus::Stopped))
    };
    WORKERS.with_borrow(|workers| {
        let (_, workers) = workers.as_ref().filter(|(of, workers)| *of == run.id && !workers.is_empty())?;
        Some(workers.iter().filter(is_at_work).count())
    })
}

/// Forgets workers that have ended.
pub fn forget() {
    WORKERS.set(None);
}

/// Ends the workers of this session's run, and waits until they have ended.
pub fn end() {
    for worker in terminate() {
        // It is over, or the server is.
        let _ = worker.wait_for_shutdown();
    }
}

fn terminate() -> Vec<TerminatingDynamicBackgroundWorker> {
    let workers = WORKERS.take().map(|(_, workers)| workers).unwrap_or_default();
    workers.into_iter().map(DynamicBackgroundWorker::terminate).collect()
}

/// Ends the workers of a run whose leader has failed and could not record it.
unsafe extern "C-unwind" fn at_transaction_end(event: XactEvent::Type, _: *mut core::ffi::c_void) {
    if event == XactEvent::XACT_EVENT_ABORT {
        terminate();
    }
}
