use pgrx::pg_sys;
use serde::{Deserialize, Serialize};

/// What every snapshot since one shows of it: the versions of rows that older transactions have made.
#[derive(Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Horizon(u32);

impl Horizon {
    /// That of the active snapshot.
    pub fn now() -> Horizon {
        // SAFETY: a snapshot is active.
        Horizon(unsafe { (*pg_sys::GetActiveSnapshot()).xmin }.into())
    }

    /// Whether a version that the active snapshot shows may have been made since. A frozen one can have any number.
    pub fn is_before(self, made_by: u32) -> bool {
        // SAFETY: only reads a counter.
        let next = unsafe { pg_sys::ReadNextFullTransactionId() }.value as u32;
        made_by.wrapping_sub(self.0) < next.wrapping_sub(self.0)
    }
}

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

/// Does `work` in a new snapshot of the transaction, which shows what it has done, and at READ COMMITTED what others have committed until now.
pub fn with_new_snapshot<T>(work: impl FnOnce() -> T) -> T {
    // SAFETY: the snapshot that is pushed is popped below, or by the abort.
    unsafe {
        pg_sys::CommandCounterIncrement();
        pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot());
    }
    let done = work();
    // SAFETY: see above.
    unsafe { pg_sys::PopActiveSnapshot() };
    done
}
