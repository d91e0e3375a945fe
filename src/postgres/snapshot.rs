use pgrx::pg_sys;

use crate::postgres::error::Result;

/// Does `work` in a new snapshot, whatever the caller's isolation level: it sees what other sessions have committed and what
/// this transaction has done. For catalogs and configuration; rows are read in the caller's snapshot.
pub fn by_now<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    // SAFETY: the snapshot is popped below, or by an abort.
    unsafe { pg_sys::PushActiveSnapshot(pg_sys::GetLatestSnapshot()) };
    let done = work()?;
    // SAFETY: pushed above.
    unsafe { pg_sys::PopActiveSnapshot() };
    Ok(done)
}
