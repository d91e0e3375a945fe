use pgrx::pg_sys;
use pgrx::pg_sys::LOCKTAG;

/// The session-level advisory locks of the caller. They are not transactional: code of another role could release them, and
/// they would stay so, whatever becomes of its work.
pub struct AdvisoryLocks {
    /// How many times the session holds each.
    held: Vec<(LOCKTAG, pg_sys::LOCKMODE, i64)>,
    /// Holds them meanwhile.
    transaction: pg_sys::ResourceOwner,
}

const ADVISORY: u8 = pg_sys::USER_LOCKMETHOD as u8;

impl AdvisoryLocks {
    /// Turns the session's locks into locks of the transaction, which nobody can release. So no other session gets one before
    /// `give_back`.
    pub fn take() -> AdvisoryLocks {
        let mut held = Vec::new();
        // SAFETY: the session already has each of these locks, so that another one is granted at once. An error leaves the
        // session's own as they are.
        unsafe {
            for (tag, mode) in locks_of_this_process() {
                let times = times_of_session(lock_for_transaction(&tag, mode));
                if times > 0 {
                    held.push((tag, mode, times));
                } else {
                    pg_sys::LockRelease(&tag, mode, false);
                }
            }
            pg_sys::LockReleaseSession(ADVISORY.into());
            AdvisoryLocks { held, transaction: pg_sys::CurrentResourceOwner }
        }
    }

    /// Releases what the session has locked since, and gives it what `take` has taken, also after an error: what has raised it
    /// is not rolled back yet, so the transaction still has the locks.
    pub fn give_back(&self) {
        // SAFETY: no code raises an error while it has a lock on the table of locks.
        unsafe {
            let current = pg_sys::CurrentResourceOwner;
            pg_sys::CurrentResourceOwner = self.transaction;
            pg_sys::LockReleaseSession(ADVISORY.into());
            for (tag, mode, times) in &self.held {
                for _ in 0..*times {
                    pg_sys::LockAcquire(tag, *mode, true, true);
                }
                pg_sys::LockRelease(tag, *mode, false);
            }
            pg_sys::CurrentResourceOwner = current;
        }
    }
}

/// The advisory locks of this session and its transaction.
fn locks_of_this_process() -> Vec<(LOCKTAG, pg_sys::LOCKMODE)> {
    // SAFETY: reads a copy of the table of locks, as the view pg_locks does.
    unsafe {
        let data = pg_sys::GetLockStatusData();
        let locks = std::slice::from_raw_parts((*data).locks, (*data).nelements as usize);
        let ours = |lock: &&pg_sys::LockInstanceData| {
            lock.pid == pg_sys::MyProcPid && lock.locktag.locktag_lockmethodid == ADVISORY
        };
        let modes = |lock: &pg_sys::LockInstanceData| {
            let (tag, mask) = (lock.locktag, lock.holdMask);
            (1..=pg_sys::AccessExclusiveLock as i32)
                .filter(move |mode| mask & (1 << mode) != 0)
                .map(move |mode| (tag, mode))
        };
        let found = locks.iter().filter(ours).flat_map(modes).collect();
        pg_sys::pfree((*data).locks.cast());
        pg_sys::pfree(data.cast());
        found
    }
}

/// Returns the entry of this process in the table of its locks.
///
/// # Safety
///
/// The process has the lock.
unsafe fn lock_for_transaction(tag: &LOCKTAG, mode: pg_sys::LOCKMODE) -> *const pg_sys::LOCALLOCK {
    let mut entry = std::ptr::null_mut();
    // SAFETY: copies the tag, and writes the entry's address.
    unsafe {
        pg_sys::LockAcquireExtended(
            tag,
            mode,
            false,
            true,
            true,
            &mut entry,
            #[cfg(feature = "pg18")]
            false,
        );
    }
    entry
}

/// # Safety
///
/// `entry` is an entry of this process.
unsafe fn times_of_session(entry: *const pg_sys::LOCALLOCK) -> i64 {
    // SAFETY: the caller's. What the session holds has no resource owner.
    let owners = unsafe { std::slice::from_raw_parts((*entry).lockOwners, (*entry).numLockOwners as usize) };
    owners.iter().filter(|holder| holder.owner.is_null()).map(|holder| holder.nLocks).sum()
}
