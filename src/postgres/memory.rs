use std::ffi::CStr;
use std::panic::AssertUnwindSafe;

use pgrx::prelude::*;

/// A new memory context below another, which lives no longer than that one.
pub fn context_below(parent: pg_sys::MemoryContext, name: &'static CStr) -> pg_sys::MemoryContext {
    // SAFETY: the parent lives; the name lives as long as the process.
    unsafe {
        pg_sys::AllocSetContextCreateInternal(
            parent,
            name.as_ptr(),
            pg_sys::ALLOCSET_DEFAULT_MINSIZE as usize,
            pg_sys::ALLOCSET_DEFAULT_INITSIZE as usize,
            pg_sys::ALLOCSET_DEFAULT_MAXSIZE as usize,
        )
    }
}

/// Does `work` in a memory context of its own, which is deleted afterwards. What `work` returns has nothing in it. An ERROR of
/// PostgreSQL makes `None`: `work` takes nothing but memory.
pub fn in_own_memory<T>(work: impl FnOnce() -> Option<T>) -> Option<T> {
    // SAFETY: the context that was current is again before the other is deleted.
    unsafe {
        let outer = pg_sys::CurrentMemoryContext;
        let own = context_below(outer, c"backlog_cleanup work");
        pg_sys::CurrentMemoryContext = own;
        PgTryBuilder::new(AssertUnwindSafe(work))
            .catch_others(|_| None)
            .finally(|| {
                pg_sys::CurrentMemoryContext = outer;
                pg_sys::MemoryContextDelete(own);
            })
            .execute()
    }
}
