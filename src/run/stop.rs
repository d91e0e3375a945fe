use pgrx::prelude::*;
use pgrx::{PgXactCallbackEvent, register_xact_callback};

use crate::extension;
use crate::postgres::error::{Result, error, required};
use crate::postgres::prepared;
use crate::postgres::read::{read_one, refuse_read_only};
use crate::run::begin::caller;
use crate::run::prepare::cannot_be_prepared;
use crate::run::{cancel, lock};

/// Stops a batched run: its pause or its current batch ends early, and what the batch has removed is permanent, too. A statement
/// that goes on for longer than a second is cancelled, and its batch is rolled back. Returns false if it has ended.
/// Errors: 22004, 25006, 42704 (no run has this id).
#[pg_extern]
fn backlog_cleanup_stop(run_id: Option<i64>) -> Result<bool> {
    let hint = "SELECT run_id FROM backlog_cleanup.progress";
    let run_id = required(run_id, "run_id", hint)?;
    refuse_read_only("stop a run")?;
    extension::is_of_this_version()?;
    cannot_be_prepared();
    let running = "SELECT state = 'running' FROM backlog_cleanup.run WHERE id = $1";
    match extension::as_owner(|| read_one::<bool>(running, &[run_id.into()]))? {
        Some(true) => {}
        Some(false) => return Ok(false),
        None => {
            let unknown = format!("run {run_id} does not exist");
            return Err(error(PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT, unknown, hint.into()));
        }
    }
    let Some(target) = end(run_id)? else { return Ok(false) };
    lock::holder(&target)?.into_iter().for_each(ask_at_commit);
    Ok(true)
}

/// Ends the `max_duration` of a run for the caller: it then marks itself as stopped, in the transaction that ends it. Returns its target;
/// `None` if it has ended.
pub fn end(run_id: i64) -> Result<Option<String>> {
    const END: &str = "UPDATE backlog_cleanup.run
                       SET max_duration = least(max_duration, clock_timestamp() - started_at),
                           stop_requested_by = coalesce(stop_requested_by, $2::name)
                       WHERE id = $1 AND state = 'running'
                       RETURNING target";
    let caller = caller()?;
    extension::as_owner(|| prepared::get_one::<String>(END, &[run_id.into(), caller.as_str().into()]))
}

/// Has the process of a run hear of its stop when that is committed. Until then its row is locked, so that the run cannot end.
fn ask_at_commit(process: i32) {
    // The place of a process in shared memory. One that has come since to the same number and the same place has other work.
    // SAFETY: only looks for it.
    let place = move || unsafe { pg_sys::BackendPidGetProc(process) } as usize;
    let asked = place();
    register_xact_callback(PgXactCallbackEvent::Commit, move || {
        if asked != 0 && place() == asked {
            cancel::ask(process);
        }
    });
}
