//! A cancel that code in PL/pgSQL cannot go on in spite of: where it catches one, its next statement meets another. Each block that
//! catches does so once, and what it is in is left.

use std::cell::UnsafeCell;
use std::ffi::c_void;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicPtr, Ordering::Relaxed};

use pgrx::pg_sys;

type Hook = unsafe extern "C-unwind" fn(*mut c_void, *mut c_void);

/// What PL/pgSQL calls, where somebody has put one at its place (`PLpgSQL_plugin` of plpgsql.h).
#[repr(C)]
struct Plugin {
    function_is_set_up: Option<Hook>,
    function_begins: Option<Hook>,
    function_ends: Option<Hook>,
    statement_begins: Option<Hook>,
    statement_ends: Option<Hook>,
    /// Room for the functions that PL/pgSQL writes here: five up to PostgreSQL 18.
    given: [*mut c_void; 16],
}

struct Ours(UnsafeCell<Plugin>);

// SAFETY: a backend has one thread; PL/pgSQL writes to it, and nobody reads that.
unsafe impl Sync for Ours {}

static OURS: Ours = Ours(UnsafeCell::new(Plugin {
    function_is_set_up: None,
    function_begins: None,
    function_ends: None,
    statement_begins: Some(again),
    statement_ends: None,
    given: [null_mut(); 16],
}));

/// Where PL/pgSQL looks; null before `prepare`.
static PLACE: AtomicPtr<*mut c_void> = AtomicPtr::new(null_mut());
/// What was there before: a debugger's.
static BEFORE: AtomicPtr<c_void> = AtomicPtr::new(null_mut());

fn ours() -> *mut c_void {
    OURS.0.get().cast()
}

/// Called before `insist` may be.
pub fn prepare() {
    if PLACE.load(Relaxed).is_null() {
        // SAFETY: the place lives as long as the process.
        PLACE.store(unsafe { pg_sys::find_rendezvous_variable(c"PLpgSQL_plugin".as_ptr()) }, Relaxed);
    }
}

/// Has each statement of PL/pgSQL cancelled that begins from now on. Called by signal handlers.
pub fn insist() {
    // SAFETY: PL/pgSQL reads the pointer before each statement.
    if let Some(place) = unsafe { PLACE.load(Relaxed).as_mut() }
        && *place != ours()
    {
        BEFORE.store(*place, Relaxed);
        *place = ours();
    }
}

/// Lets statements begin again.
pub fn relent() {
    // SAFETY: as above.
    if let Some(place) = unsafe { PLACE.load(Relaxed).as_mut() }
        && *place == ours()
    {
        *place = BEFORE.load(Relaxed);
    }
}

/// Has the statement be canceled where it looks for interrupts next.
pub fn cancel() {
    // SAFETY: the flags of a cancel, which are made for signal handlers.
    unsafe {
        (&raw mut pg_sys::QueryCancelPending).write_volatile(1);
        (&raw mut pg_sys::InterruptPending).write_volatile(1);
    }
}

/// # Safety
///
/// Called by PL/pgSQL before a statement, right before it looks for interrupts (`exec_stmts` of pl_exec.c).
unsafe extern "C-unwind" fn again(_state: *mut c_void, _statement: *mut c_void) {
    cancel();
}
