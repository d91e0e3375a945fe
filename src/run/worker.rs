use backlog_cleanup_report::State;
use pgrx::bgworkers::BackgroundWorker;
use pgrx::prelude::*;
use pgrx::spi::quote_literal;

use crate::history::error::of_run;
use crate::history::run::Run;
use crate::plan::part;
use crate::postgres::error::{Result, error};
use crate::postgres::subtransaction::attempt;
use crate::run::batch::{commit_soon, step};
use crate::run::wait::sleep;
use crate::run::{cancel, failure, lock, workers};

/// How often the leader looks at its workers, in seconds.
const LOOK: f64 = 0.1;

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
    let Some(at_work) = workers::at_work(run) else { return Ok(Leader::Works) };
    if at_work > 0 {
        return Ok(Leader::Waits(LOOK));
    }
    workers::forget();
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
