use std::cell::RefCell;
use std::sync::Once;

use backlog_cleanup_report::State;
use pgrx::PgMemoryContexts;
use pgrx::bgworkers::{
    BackgroundWorker, BackgroundWorkerBuilder, DynamicBackgroundWorker, TerminatingDynamicBackgroundWorker,
};
use pgrx::pg_sys::XactEvent;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use pgrx::spi::quote_literal;

use crate::extension;
use crate::history::error::of_run;
use crate::history::run::Run;
use crate::plan::part;
use crate::postgres::error::{Result, error, spi};
use crate::postgres::subtransaction::attempt;
use crate::run::batch::{commit_soon, step};
use crate::run::wait::sleep;
use crate::run::{cancel, failure, lock};

/// How often the leader looks at its workers, in seconds.
const LOOK: f64 = 0.1;

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

/// What the leader of a run does next.
pub enum Leader {
    /// Removes batches itself: it has no workers.
    Works,
    /// Waits so many seconds for its workers.
    Waits(f64),
    /// Its workers have ended.
    Done,
}

/// Errors: what has ended a worker; 55000 (somebody has ended a worker).
pub fn leader(run: &Run) -> Result<Leader> {
    let is_to_stop = run.stop_requested_by.is_some();
    let (started, at_work) = WORKERS.with_borrow(|workers| match workers {
        Some((run_id, workers)) if *run_id == run.id => {
            use pgrx::bgworkers::BackgroundWorkerStatus::Stopped;
            let is_at_work = |worker: &&DynamicBackgroundWorker| {
                let process = worker.pid();
                process.iter().filter(|_| is_to_stop).for_each(|process| cancel::ask(*process));
                !matches!(process, Err(Stopped))
            };
            (workers.len(), workers.iter().filter(is_at_work).count())
        }
        _ => (0, 0),
    });
    if started == 0 {
        return Ok(Leader::Works);
    }
    if at_work > 0 {
        return Ok(Leader::Waits(LOOK));
    }
    WORKERS.set(None);
    match run.state {
        State::Failed | State::Interrupted => Err(of_run(run.id)?),
        State::Running if part::are_left(run.id)? => {
            failure::is_of_a_lost_process();
            Err(error(
                PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!("a worker of run {} was ended", run.id),
                format!("CALL backlog_cleanup_run({}); -- the server log has more", quote_literal(&run.target)),
            ))
        }
        _ => Ok(Leader::Done),
    }
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

/// Runs a worker: commits its own batches until the run has nothing left for it.
#[pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn backlog_cleanup_worker(_argument: pg_sys::Datum) {
    let [_, _, user, run_id] = connected()[..] else { return };
    while let Some(wait) = BackgroundWorker::transaction(|| {
        // SAFETY: at the start of a transaction; its end sets the role back.
        unsafe { pg_sys::SetUserIdAndSecContext(pg_sys::Oid::from(user as u32), 0) };
        match attempt(|| one_step(run_id).map(Some)) {
            Ok(wait) => {
                commit_soon();
                wait.flatten()
            }
            // The leader raises it.
            Err(failure) => {
                failure::record(run_id, failure).report(PgLogLevel::LOG);
                None
            }
        }
    }) {
        sleep(wait);
    }
}

/// Connects a worker to the database as the role of its session, as the first two numbers that it was given say. Returns all of them.
pub fn connected() -> Vec<i64> {
    // SAFETY: as parallel workers do, before they unblock signals.
    unsafe {
        // A SIGTERM ends the statement at its next check for interrupts.
        #[cfg(not(feature = "pg18"))]
        pg_sys::pqsignal(pg_sys::SIGTERM as i32, Some(die));
        #[cfg(feature = "pg18")]
        pg_sys::pqsignal_be(pg_sys::SIGTERM as i32, Some(die));
        cancel::listen();
        pg_sys::BackgroundWorkerUnblockSignals();
    }
    let numbers: Vec<i64> = BackgroundWorker::get_extra().split(' ').filter_map(|number| number.parse().ok()).collect();
    let [database, session_user, ..] = numbers[..] else { return numbers };
    let oid = |number: i64| pg_sys::Oid::from(number as u32);
    BackgroundWorker::connect_worker_to_spi_by_oid(Some(oid(database)), Some(oid(session_user)));
    // The leader's settings.
    // SAFETY: settings, written by the one thread of a backend.
    unsafe {
        pg_sys::DefaultXactIsoLevel = pg_sys::XACT_READ_COMMITTED as i32;
        pg_sys::DefaultXactReadOnly = false;
    }
    numbers
}

/// Does a step of a worker, unless its leader has gone.
fn one_step(run_id: i64) -> Result<Option<f64>> {
    let mut run = Run::load(Some(run_id))?;
    if run.state != State::Running || lock::holder(&run.target)?.is_none() || !lock::share(&run.target)? {
        return Ok(None);
    }
    step(&mut run)
}

/// # Safety
///
/// A signal handler.
unsafe extern "C-unwind" fn die(signal: i32) {
    // SAFETY: PostgreSQL's own handler.
    unsafe { pg_sys::die(signal) };
}
