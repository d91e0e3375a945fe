use pgrx::pg_sys;
use pgrx::pg_sys::LOCKTAG;

use crate::extension;
use crate::postgres::error::Result;
use crate::postgres::read::read_one;

/// Locks the ticks of this database until the transaction ends. Returns the process that has the lock, if it is not free. In `pg_locks`
/// it is on object 0 of the table `backlog_cleanup.tick`: unlike an advisory lock nobody else can hold it.
pub fn acquire() -> Result<std::result::Result<(), Option<i32>>> {
    let table = "SELECT 'backlog_cleanup.tick'::regclass::oid";
    let table = extension::as_owner(|| read_one::<pg_sys::Oid>(table, &[]))?.unwrap_or(pg_sys::InvalidOid);
    let tag = LOCKTAG {
        // SAFETY: set once when the backend connects.
        locktag_field1: unsafe { pg_sys::MyDatabaseId }.to_u32(),
        locktag_field2: table.to_u32(),
        locktag_field3: 0,
        locktag_field4: 1,
        locktag_type: pg_sys::LockTagType::LOCKTAG_OBJECT as u8,
        locktag_lockmethodid: pg_sys::DEFAULT_LOCKMETHOD as u8,
    };
    // SAFETY: LockAcquire copies the tag; without waiting it either holds the lock or does nothing.
    let acquired = unsafe { pg_sys::LockAcquire(&tag, pg_sys::ExclusiveLock as i32, false, true) };
    // Whoever has it already is in a tick: code of a table may call one.
    if acquired == pg_sys::LockAcquireResult::LOCKACQUIRE_OK {
        return Ok(Ok(()));
    }
    let holder = format!(
        "SELECT pid FROM pg_locks
         WHERE locktype = 'object' AND granted AND database = {}::oid AND classid = {}::oid AND objid = 0 AND objsubid = 1",
        tag.locktag_field1, tag.locktag_field2
    );
    Ok(Err(extension::as_owner(|| read_one::<i32>(&holder, &[]))?))
}
