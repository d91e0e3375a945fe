//! A batched regular run that nobody waits for: a background worker of its own does it, as whoever asked for it.

use std::ptr::null_mut;

use pgrx::bgworkers::{BackgroundWorker, BackgroundWorkerBuilder};
use pgrx::prelude::*;
use serde_json::json;

use crate::extension;
use crate::history::run;
use crate::postgres::error::{Result, error};
use crate::postgres::read::read_one;
use crate::postgres::subtransaction::{caught, raise};
use crate::run::batched::{finish_run, next_batch, start_batched_run};
use crate::run::begin::caller;
use crate::run::failure;
use crate::run::wait::sleep;
use crate::run::worker::connected;

/// Starts the worker for a row of `backlog_cleanup.decision`: its arguments have no room for a target's name. It waits for the end of this
/// transaction, and does nothing if that is no commit. Returns false if the server has no slot for it.
pub fn start(decision: i64) -> Result<bool> {
    // SAFETY: only read who the session is, and in which transaction.
    let (database, session_user, user, transaction) = unsafe {
        let transaction = pg_sys::GetCurrentTransactionId();
        (pg_sys::MyDatabaseId, pg_sys::GetAuthenticatedUserId(), pg_sys::GetUserId(), transaction.into_inner())
    };
    let arguments =
        format!("{} {} {} {decision} {transaction}", database.to_u32(), session_user.to_u32(), user.to_u32());
    let started = BackgroundWorkerBuilder::new("backlog_cleanup early run")
        .set_library("backlog_cleanup")
        .set_function("backlog_cleanup_early_run")
        .set_extra(&arguments)
        .enable_spi_access()
        .load_dynamic();
    Ok(started.is_ok())
}

/// Does the run, a transaction per batch. What fails is in the history and in the server log.
#[pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn backlog_cleanup_early_run(_argument: pg_sys::Datum) {
    let [_, _, user, decision, transaction] = connected()[..] else { return };
    if !step(user, || Ok(has_committed(pg_sys::TransactionId::from(transaction as u32)))) {
        return;
    }
    let target = step(user, || target_of(decision));
    let run_id = started(user, &target);
    while let Some(wait) = step(user, || next_batch(Some(run_id))) {
        sleep(wait);
    }
    step(user, || finish_run(Some(run_id)).map(|_| ()));
    // Raises what has failed, which is committed now.
    step(user, || Ok(()));
}

/// Starts the run. One that is refused is in the history, too: nobody waits for the error.
fn started(user: i64, target: &str) -> i64 {
    let arguments = json!({ "target": target, "mode": "regular", "force": false, "include_held": false }).to_string();
    caught(|| Ok(step(user, || start_batched_run(Some(&arguments))))).unwrap_or_else(|failure| {
        // SAFETY: as a session does after an error.
        unsafe { pg_sys::AbortCurrentTransaction() };
        raise(step(user, || Ok(failure::record(run::refused(target, &caller()?)?, failure))))
    })
}

/// Waits for the end of a transaction, or of the one around a subtransaction. Returns whether it was committed.
fn has_committed(transaction: pg_sys::TransactionId) -> bool {
    // SAFETY: as a session waits for who has written a row.
    unsafe {
        pg_sys::XactLockTableWait(transaction, null_mut(), null_mut(), pg_sys::XLTW_Oper::XLTW_None);
        pg_sys::TransactionIdDidCommit(transaction)
    }
}

/// Does a transaction as `user`. An error of it, or one that the transaction before has recorded, ends the process.
fn step<T>(user: i64, work: impl FnOnce() -> Result<T>) -> T {
    BackgroundWorker::transaction(std::panic::AssertUnwindSafe(|| {
        // SAFETY: at the start of a transaction; its end sets the role back.
        unsafe { pg_sys::SetUserIdAndSecContext(pg_sys::Oid::from(user as u32), 0) };
        failure::transaction_begins().and_then(|()| work()).unwrap_or_else(|failure| raise(failure))
    }))
}

/// The decision's target. Errors: 42704 (it is gone).
fn target_of(decision: i64) -> Result<String> {
    const TARGET: &str = "SELECT target FROM backlog_cleanup.decision WHERE id = $1";
    extension::as_owner(|| read_one::<String>(TARGET, &[decision.into()]))?.ok_or_else(|| {
        let message = "the target of an early run does not exist".into();
        error(PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT, message, "SELECT name FROM backlog_cleanup.target".into())
    })
}
