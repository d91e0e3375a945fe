//! The locks of ticks, one of each kind in a database. In `pg_locks` they are on object 0 of the table `backlog_cleanup.tick`: unlike an
//! advisory lock nobody else can hold them.

use std::cell::Cell;
use std::sync::Once;

use pgrx::pg_sys;
use pgrx::pg_sys::LOCKTAG;

use crate::extension;
use crate::postgres::error::Result;
use crate::postgres::read::read_one;

#[derive(Clone, Copy)]
pub enum Kind {
    /// Held by a tick until its transaction ends.
    Tick = 1,
    /// Held by a tick that starts early runs until its transaction ends, and then by the worker that does them.
    EarlyRuns = 2,
}

/// Whether this transaction has the lock.
#[derive(PartialEq)]
pub enum Lock {
    Taken,
    Had,
    NotAvailable,
}

const MODE: i32 = pg_sys::ExclusiveLock as i32;

thread_local! {
    /// The lock that this process holds over the end of a transaction.
    static HELD: Cell<Option<LOCKTAG>> = const { Cell::new(None) };
}

/// Takes a lock until the transaction ends, if it is free.
pub fn try_acquire(kind: Kind) -> Result<Lock> {
    use pg_sys::LockAcquireResult::{LOCKACQUIRE_ALREADY_HELD, LOCKACQUIRE_NOT_AVAIL};
    // SAFETY: LockAcquire copies the tag; without waiting it either holds the lock or does nothing.
    Ok(match unsafe { pg_sys::LockAcquire(&tag(kind)?, MODE, false, true) } {
        LOCKACQUIRE_NOT_AVAIL => Lock::NotAvailable,
        LOCKACQUIRE_ALREADY_HELD => Lock::Had,
        _ => Lock::Taken,
    })
}

/// Gives back what `try_acquire` has taken.
pub fn give_back(kind: Kind) -> Result<()> {
    // SAFETY: the transaction has the lock.
    unsafe { pg_sys::LockRelease(&tag(kind)?, MODE, false) };
    Ok(())
}

/// Waits for a lock, and holds it until `release` or the end of the process.
pub fn hold(kind: Kind) -> Result<()> {
    static ONCE: Once = Once::new();
    // SAFETY: the callback lives as long as the library, which is never unloaded. LockAcquire copies the tag.
    unsafe {
        ONCE.call_once(|| pg_sys::before_shmem_exit(Some(at_exit), pg_sys::Datum::null()));
        let tag = tag(kind)?;
        if HELD.get().is_none() {
            pg_sys::LockAcquire(&tag, MODE, true, false);
            HELD.set(Some(tag));
        }
    }
    Ok(())
}

/// Releases the lock that is held. The abort of a transaction would do so, too, and not tell.
pub fn release() {
    if let Some(tag) = HELD.take() {
        // SAFETY: HELD says that this process holds it.
        unsafe { pg_sys::LockRelease(&tag, MODE, true) };
    }
}

/// As in `run/lock.rs`: PostgreSQL would leave it with the next process in this slot.
unsafe extern "C-unwind" fn at_exit(_: i32, _: pg_sys::Datum) {
    release();
}

/// The process that has a lock.
pub fn holder(kind: Kind) -> Result<Option<i32>> {
    let tag = tag(kind)?;
    let holder = format!(
        "SELECT pid FROM pg_locks
         WHERE locktype = 'object' AND granted AND database = {}::oid AND classid = {}::oid AND objid = 0 AND objsubid = {}",
        tag.locktag_field1, tag.locktag_field2, tag.locktag_field4
    );
    extension::as_owner(|| read_one::<i32>(&holder, &[]))
}

fn tag(kind: Kind) -> Result<LOCKTAG> {
    let table = "SELECT 'backlog_cleanup.tick'::regclass::oid";
    let table = extension::as_owner(|| read_one::<pg_sys::Oid>(table, &[]))?.unwrap_or(pg_sys::InvalidOid);
    Ok(LOCKTAG {
        // SAFETY: set once when the backend connects.
        locktag_field1: unsafe { pg_sys::MyDatabaseId }.to_u32(),
        locktag_field2: table.to_u32(),
        locktag_field3: 0,
        locktag_field4: kind as u16,
        locktag_type: pg_sys::LockTagType::LOCKTAG_OBJECT as u8,
        locktag_lockmethodid: pg_sys::DEFAULT_LOCKMETHOD as u8,
    })
}
