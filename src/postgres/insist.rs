//! A cancel of this extension's own that code in PL/pgSQL cannot go on in spite of: where it catches one, its next statement meets another
//! (`exec_stmts` of pl_exec.c looks for interrupts before each). A block that catches does so once, and is left.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use pgrx::pg_sys;

static INSISTS: AtomicBool = AtomicBool::new(false);

/// Has the statement be cancelled where it looks for interrupts next, and again as often as that is caught. Called by signal handlers.
pub fn insist() {
    INSISTS.store(true, Relaxed);
    cancel();
}

/// Lets it go on.
pub fn relent() {
    INSISTS.store(false, Relaxed);
}

/// Called where a cancel is raised.
pub fn again() {
    if INSISTS.load(Relaxed) {
        cancel();
    }
}

fn cancel() {
    // SAFETY: the flags of a cancel, which are made for signal handlers.
    unsafe {
        (&raw mut pg_sys::QueryCancelPending).write_volatile(1);
        (&raw mut pg_sys::InterruptPending).write_volatile(1);
    }
}
