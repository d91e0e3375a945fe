//! Batched regular runs that nobody waits for: a background worker does them one after another, as whoever asked for them.

use std::time::{Duration, Instant};

use pgrx::bgworkers::{BackgroundWorker, BackgroundWorkerBuilder};
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use serde_json::json;

use crate::extension;
use crate::history::run::refused;
use crate::postgres::error::Result;
use crate::postgres::now::{one_now, rows_now};
use crate::postgres::settings::{set_local, with_settings};
use crate::postgres::subtransaction::{briefly, caught, is_cancel, raise, said, sqlstate};
use crate::run::batched::{finish_run, next_batch, start_batched_run};
use crate::run::begin::caller;
use crate::run::failure;
use crate::run::stop;
use crate::run::ticks::{self, Kind, Lock};
use crate::run::wait::sleep;
use crate::run::worker::connected;
use crate::target::row::row;

/// How long a run waits before it lets those of other targets go on.
const PATIENCE: Duration = Duration::from_secs(30);

/// Has the runs done that a tick has decided on: by one worker, whatever their number, so that the server's slots stay for others. It waits
/// for the end of this transaction, and finds no decision if that is no commit. Returns why not.
pub fn start(tick: i64) -> Result<Option<String>> {
    match ticks::try_acquire(Kind::EarlyRuns)? {
        Lock::Had => return Ok(None),
        Lock::NotAvailable => {
            let by = ticks::holder(Kind::EarlyRuns)?.map_or(String::new(), |process| format!(", in process {process}"));
            return Ok(Some(format!("early runs are at work{by}")));
        }
        Lock::Taken => {}
    }
    // SAFETY: only read who the session is.
    let (database, session_user, user) =
        unsafe { (pg_sys::MyDatabaseId, pg_sys::GetAuthenticatedUserId(), pg_sys::GetUserId()) };
    let started = BackgroundWorkerBuilder::new("backlog_cleanup early run")
        .set_library("backlog_cleanup")
        .set_function("backlog_cleanup_early_run")
        .set_extra(&format!("{} {} {} {tick}", database.to_u32(), session_user.to_u32(), user.to_u32()))
        .enable_spi_access()
        .load_dynamic();
    if started.is_ok() {
        return Ok(None);
    }
    ticks::give_back(Kind::EarlyRuns)?;
    Ok(Some("the server has no background worker left: SHOW max_worker_processes".into()))
}

/// Does the runs, a transaction per batch. What fails is in the history and in the server log, and stops no other.
#[pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn backlog_cleanup_early_run(_argument: pg_sys::Datum) {
    let [_, _, user, tick] = connected()[..] else { return };
    // The tick's transaction holds the lock until it ends.
    step(user, hold);
    for target in step(user, || decided(tick)) {
        step(user, hold);
        let done = caught(|| {
            run(user, &target);
            Ok(())
        });
        let Err(failure) = done else { continue };
        abort();
        let message = format!("early run of target \"{target}\": {}", said(&failure));
        ErrorReport::new(sqlstate(&failure), message, "backlog_cleanup").report(PgLogLevel::LOG);
    }
}

fn hold() -> Result<()> {
    with_settings(|| {
        set_local("lock_timeout", "0");
        ticks::hold(Kind::EarlyRuns)
    })
}

/// The targets that a tick has decided to clean up, if it was committed.
fn decided(tick: i64) -> Result<Vec<String>> {
    const DECIDED: &str = "SELECT target FROM backlog_cleanup.decision WHERE tick = $1 AND action = 'run' ORDER BY id";
    let decided = extension::as_owner(|| rows_now(DECIDED, &[tick.into()], |row| row.get::<String>(1)))?;
    Ok(decided.into_iter().flatten().collect())
}

fn run(user: i64, target: &str) {
    let run_id = started(user, target);
    let mut waiting_since = None;
    while let Some(wait) = step(user, || batch(run_id, target, &mut waiting_since)) {
        let waited = caught(|| {
            sleep(wait);
            Ok(())
        });
        if let Err(failure) = waited {
            step(user, || {
                failure::ends_with(run_id, failure);
                Ok(())
            });
        }
    }
    step(user, || finish_run(Some(run_id)).map(|_| ()));
    // Raises what has failed, which is committed now.
    step(user, || Ok(()));
}

/// Does a batch. A run that waits for longer than `PATIENCE` stops, and one whose window has closed at once: those of other targets wait for it,
/// and the tick starts another when it may.
fn batch(run_id: i64, target: &str, waiting_since: &mut Option<Instant>) -> Result<Option<f64>> {
    const WAITING: &str = "
        SELECT coalesce(waiting_for, '') FROM backlog_cleanup.run WHERE id = $1 AND state = 'running' AND stop_requested_by IS NULL";
    let Some(waiting) = extension::as_owner(|| one_now::<String>(WAITING, &[run_id.into()]))? else {
        return next_batch(Some(run_id));
    };
    let waiting = Some(waiting).filter(|reason| !reason.is_empty());
    *waiting_since = waiting.as_ref().and(waiting_since.or_else(|| Some(Instant::now())));
    let is_over = waiting_since.is_some_and(|since| since.elapsed() > PATIENCE);
    let closed = match briefly(|| row(Some(target))?.outside_of_window()) {
        Err(failure) if is_cancel(&failure) => failure.rethrow(),
        // That a target is gone is for the batch to tell.
        found => found.ok().flatten(),
    };
    if let Some(reason) = closed.or(waiting.filter(|_| is_over))
        && stop::end(run_id)?.is_some()
    {
        let message = format!("early run of target \"{target}\" stops: {reason}");
        ErrorReport::new(PgSqlErrorCode::ERRCODE_SUCCESSFUL_COMPLETION, message, "backlog_cleanup")
            .report(PgLogLevel::LOG);
    }
    next_batch(Some(run_id))
}

/// Starts the run. One that is refused is in the history, too: nobody waits for the error.
fn started(user: i64, target: &str) -> i64 {
    let arguments = json!({ "target": target, "mode": "regular", "force": false, "include_held": false }).to_string();
    caught(|| Ok(step(user, || start_batched_run(Some(&arguments))))).unwrap_or_else(|failure| {
        abort();
        raise(step(user, || Ok(failure::record(refused(target, &caller()?)?, failure))))
    })
}

/// Ends a transaction that has failed, and with it the lock: to write down why takes none, and another worker may go on meanwhile.
fn abort() {
    ticks::release();
    // SAFETY: as a session does after an error.
    unsafe { pg_sys::AbortCurrentTransaction() };
}

/// Does a transaction as `user`. An error of it, or one that the transaction before has recorded, is raised.
fn step<T>(user: i64, work: impl FnOnce() -> Result<T>) -> T {
    BackgroundWorker::transaction(std::panic::AssertUnwindSafe(|| {
        // SAFETY: at the start of a transaction; its end sets the role back.
        unsafe { pg_sys::SetUserIdAndSecContext(pg_sys::Oid::from(user as u32), 0) };
        failure::transaction_begins().and_then(|()| work()).unwrap_or_else(|failure| raise(failure))
    }))
}
