use std::cell::Cell;
use std::sync::Once;

use pgrx::pg_sys::{LOCKTAG, XactEvent};
use pgrx::prelude::*;

use crate::extension;
use crate::postgres::error::{Result, error, spi};
use crate::postgres::prepared::prepared;
use crate::postgres::read::read_one;

/// How long a run keeps its target locked.
#[derive(Clone, Copy, PartialEq)]
pub enum Span {
    /// Until the transaction ends.
    Transaction,
    /// Until `hand_over`, an error, or the session's end: a batched run has many transactions.
    Session,
}

/// In `pg_locks` the lock is on an object of the table `backlog_cleanup.target`, numbered by the hash of the target's name.
/// Two names with the same hash exclude each other, which does no harm.
const RUN: u16 = 1;
/// Held by a worker during each batch. If its leader is gone, no run starts before the worker's batch has ended.
const BATCH: u16 = 2;
const EXCLUSIVE: i32 = pg_sys::ExclusiveLock as i32;
const SHARE: i32 = pg_sys::ShareLock as i32;

thread_local! {
    /// The lock of this session's batched run.
    static HELD: Cell<Option<LOCKTAG>> = const { Cell::new(None) };
}

/// Locks a target against other runs, or fails at once (55P03). A session has one batched run at a time.
pub fn acquire(target: &str, span: Span) -> Result<()> {
    let (run, batch) = (tag(target, RUN)?, tag(target, BATCH)?);
    let is_session = span == Span::Session;
    // PostgreSQL would grant the lock to its holder again.
    let is_ours = HELD.get().is_some_and(|held| is_session || is_same(&held, &run));
    let free = !is_ours && {
        use pg_sys::LockAcquireResult::{LOCKACQUIRE_ALREADY_HELD, LOCKACQUIRE_NOT_AVAIL};
        // SAFETY: LockAcquire copies the tag; without waiting it either holds the lock or does nothing.
        let (acquired, in_code_of_a_table) = unsafe {
            (pg_sys::LockAcquire(&run, EXCLUSIVE, is_session, true), pg_sys::InSecurityRestrictedOperation())
        };
        // A trigger may call the run that it belongs to.
        acquired != LOCKACQUIRE_NOT_AVAIL && !(acquired == LOCKACQUIRE_ALREADY_HELD && in_code_of_a_table)
    };
    if is_session && free {
        give_back_at_the_end();
        HELD.set(Some(run));
    }
    let quiet = free
        // SAFETY: as above.
        && unsafe {
            pg_sys::LockAcquire(&batch, EXCLUSIVE, false, true) != pg_sys::LockAcquireResult::LOCKACQUIRE_NOT_AVAIL
        };
    if quiet {
        return Ok(());
    }
    let by = holder(target)?.map_or(String::new(), |pid| format!(" by process {pid}"));
    Err(error(
        PgSqlErrorCode::ERRCODE_LOCK_NOT_AVAILABLE,
        format!("target \"{target}\" is locked{by}: another run on it is in progress"),
        "SELECT * FROM backlog_cleanup.progress; SELECT pid, usename, query FROM pg_stat_activity WHERE state <> 'idle'"
            .into(),
    ))
}

/// Turns the session lock into a transaction lock, so that the target becomes free exactly when what this transaction wrote
/// becomes visible.
pub fn hand_over() {
    if let Some(tag) = HELD.get() {
        // SAFETY: the session holds this lock, so that the transaction gets it at once.
        unsafe { pg_sys::LockAcquire(&tag, EXCLUSIVE, false, true) };
        release();
    }
}

/// Releases the session lock.
fn release() {
    if let Some(tag) = HELD.take() {
        // SAFETY: HELD says that the session holds it.
        unsafe { pg_sys::LockRelease(&tag, EXCLUSIVE, true) };
    }
}

/// Whether this session has locked the target for a batched run.
pub fn is_held(target: &str) -> Result<bool> {
    let run = tag(target, RUN)?;
    Ok(HELD.get().is_some_and(|held| is_same(&held, &run)))
}

/// Whether two locks of this file are on the same target.
fn is_same(a: &LOCKTAG, b: &LOCKTAG) -> bool {
    (a.locktag_field2, a.locktag_field3) == (b.locktag_field2, b.locktag_field3)
}

/// Locks a target for a worker until its batch is committed. Returns false if a new run has the target already.
pub fn share(target: &str) -> Result<bool> {
    let tag = tag(target, BATCH)?;
    // SAFETY: LockAcquire copies the tag, and does not wait.
    Ok(unsafe { pg_sys::LockAcquire(&tag, SHARE, false, true) } != pg_sys::LockAcquireResult::LOCKACQUIRE_NOT_AVAIL)
}

/// The process that runs a target; `None` if no run is in progress. Reads only.
pub fn holder(target: &str) -> Result<Option<i32>> {
    let tag = tag(target, RUN)?;
    let holder = format!(
        "SELECT pid FROM pg_locks
         WHERE locktype = 'object' AND granted AND database = {}::oid AND classid = {}::oid AND objid = {}::oid
           AND objsubid = {RUN}",
        tag.locktag_field1, tag.locktag_field2, tag.locktag_field3
    );
    extension::as_owner(|| read_one::<i32>(&holder, &[]))
}

fn tag(target: &str, part: u16) -> Result<LOCKTAG> {
    const TAG: &str = "SELECT 'backlog_cleanup.target'::regclass::oid, hashtext($1)";
    let (table, number) = extension::as_owner(|| {
        Spi::connect(|client| {
            let arguments = [target.into()];
            client
                .select(prepared(client, TAG, &arguments)?, Some(1), &arguments)?
                .first()
                .get_two::<pg_sys::Oid, i32>()
        })
        .map_err(spi)
    })?;
    Ok(LOCKTAG {
        // SAFETY: set once when the backend connects.
        locktag_field1: unsafe { pg_sys::MyDatabaseId }.to_u32(),
        locktag_field2: table.unwrap_or(pg_sys::InvalidOid).to_u32(),
        locktag_field3: number.unwrap_or_default() as u32,
        locktag_field4: part,
        locktag_type: pg_sys::LockTagType::LOCKTAG_OBJECT as u8,
        locktag_lockmethodid: pg_sys::DEFAULT_LOCKMETHOD as u8,
    })
}

fn give_back_at_the_end() {
    static ONCE: Once = Once::new();
    // SAFETY: both callbacks live as long as the library, which is never unloaded.
    ONCE.call_once(|| unsafe {
        pg_sys::RegisterXactCallback(Some(at_transaction_end), std::ptr::null_mut());
        pg_sys::before_shmem_exit(Some(at_exit), pg_sys::Datum::null());
    });
}

/// Releases the lock of a session that ends between two transactions. At exit PostgreSQL releases session locks of this kind
/// only by aborting a transaction (advisory locks apart). Without one the lock would stay with the PGPROC slot, for the next
/// backend that gets it (docs/reliability.md, violation 17).
unsafe extern "C-unwind" fn at_exit(_: i32, _: pg_sys::Datum) {
    release();
}

/// Releases the lock after an error between two commits, which ends a batched run.
unsafe extern "C-unwind" fn at_transaction_end(event: XactEvent::Type, _: *mut core::ffi::c_void) {
    if event == XactEvent::XACT_EVENT_ABORT {
        release();
    }
}
