use pgrx::pg_sys;

/// Does `work` in the active snapshot, which also shows what this transaction has done until now.
pub fn with_own_changes<T>(work: impl FnOnce() -> T) -> T {
    // SAFETY: a snapshot is active; the one that is pushed here is popped below, or by the abort.
    unsafe {
        pg_sys::PushCopiedSnapshot(pg_sys::GetActiveSnapshot());
        pg_sys::CommandCounterIncrement();
        pg_sys::UpdateActiveSnapshotCommandId();
    }
    let done = work();
    // SAFETY: see above.
    unsafe { pg_sys::PopActiveSnapshot() };
    done
}
