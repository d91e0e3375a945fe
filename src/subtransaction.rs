use std::panic::AssertUnwindSafe;

use pgrx::prelude::*;

use crate::error::Result;

/// Does `work` in a subtransaction, which stays where it returns true and is rolled back where it returns false or fails.
pub fn attempt(work: impl FnOnce() -> Result<bool>) -> Result<bool> {
    let (context, owner) = unsafe { (pg_sys::CurrentMemoryContext, pg_sys::CurrentResourceOwner) };
    let end = |stays: bool| unsafe {
        if stays {
            pg_sys::ReleaseCurrentSubTransaction();
        } else {
            pg_sys::RollbackAndReleaseCurrentSubTransaction();
        }
        pg_sys::CurrentMemoryContext = context;
        pg_sys::CurrentResourceOwner = owner;
    };
    unsafe {
        pg_sys::BeginInternalSubTransaction(std::ptr::null());
        pg_sys::CurrentMemoryContext = context;
    }
    // Whoever catches an error outside rolls back a subtransaction of its own, and must not meet this one.
    let done = PgTryBuilder::new(AssertUnwindSafe(work))
        .catch_others(|failure| {
            end(false);
            failure.rethrow()
        })
        .execute();
    end(matches!(done, Ok(true)));
    done
}
