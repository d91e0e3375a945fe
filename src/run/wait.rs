use std::time::{Duration, Instant};

use pgrx::prelude::*;

use crate::postgres::error::{Result, error, required};
use crate::run::failure;

/// Commits, sleeps, and returns in the next transaction. It sleeps without a snapshot, so that vacuum can reclaim what the
/// last batch has removed. Errors: what the last batch has met, 25001 (its caller cannot commit), 22004, 22023.
#[pg_extern(sql = false)]
fn commit_and_wait(seconds: Option<f64>, fcinfo: pg_sys::FunctionCallInfo) -> Result<()> {
    // SAFETY: the call's own data; the node's tag says what it is.
    let can_commit = unsafe {
        let context = (*fcinfo).context;
        pgrx::is_a(context, pg_sys::NodeTag::T_CallContext) && !(*context.cast::<pg_sys::CallContext>()).atomic
    };
    if !can_commit {
        return Err(error(
            PgSqlErrorCode::ERRCODE_ACTIVE_SQL_TRANSACTION,
            "backlog_cleanup_run commits after each batch, and cannot run inside a transaction block or a function"
                .into(),
            "COMMIT; -- and CALL it again; backlog_cleanup_failed_generations is the run of one transaction".into(),
        ));
    }
    let seconds = required(seconds, "seconds", "CALL backlog_cleanup.commit_and_wait(1)")?;
    if !(0.0..=86_400.0).contains(&seconds) {
        return Err(error(
            PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
            "argument \"seconds\" is out of range".into(),
            "from 0 to 86400: CALL backlog_cleanup.commit_and_wait(1)".into(),
        ));
    }
    // SAFETY: not atomic, as checked above; the connection is ended below, or by the abort.
    unsafe { pg_sys::SPI_connect_ext(pg_sys::SPI_OPT_NONATOMIC as i32) };
    commit()?;
    if seconds > 0.0 && !failure::while_waiting(|| sleep(seconds)) {
        commit()?;
    }
    // SAFETY: connected above.
    unsafe { pg_sys::SPI_finish() };
    Ok(())
}

/// Commits and begins the next transaction. Errors: what a run has recorded in the one that is committed.
fn commit() -> Result<()> {
    // SAFETY: called between SPI_connect_ext and SPI_finish, and not in an atomic context.
    unsafe {
        pg_sys::SPI_commit();
        // Rows that another session changes while a statement waits for them are rechecked.
        pg_sys::XactIsoLevel = pg_sys::XACT_READ_COMMITTED as i32;
    }
    failure::transaction_begins()
}

/// Sleeps for so many seconds, even if the latch is set meanwhile. An interrupt ends it.
pub fn sleep(seconds: f64) {
    let until = Instant::now() + Duration::from_secs_f64(seconds.clamp(0.0, 86_400.0));
    loop {
        pg_sys::check_for_interrupts!();
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        let events = pg_sys::WL_LATCH_SET | pg_sys::WL_TIMEOUT | pg_sys::WL_EXIT_ON_PM_DEATH;
        // SAFETY: the latch of this process.
        unsafe {
            pg_sys::WaitLatch(
                pg_sys::MyLatch,
                events as i32,
                left.as_millis().max(1) as i64,
                pg_sys::PG_WAIT_EXTENSION,
            );
            pg_sys::ResetLatch(pg_sys::MyLatch);
        }
    }
}
