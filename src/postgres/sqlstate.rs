use std::cell::{Cell, UnsafeCell};
use std::ffi::CStr;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

use pgrx::prelude::*;

use crate::postgres::insist;
use crate::postgres::retold::ENDS;

/// The last SQLSTATE that `listening` has heard. A backend has one thread.
static HEARD: AtomicI32 = AtomicI32::new(0);

/// The last SQLSTATE of an error in a trigger.
static HEARD_IN_A_TRIGGER: AtomicI32 = AtomicI32::new(0);

/// Whether somebody has ended the statement or the session, whatever code has made of that error.
static IS_ENDED: AtomicBool = AtomicBool::new(false);

thread_local! {
    /// What PostgreSQL said if that was not by a cancel alone, but by `statement_timeout` for one.
    static ENDED_BY: Cell<Option<&'static str>> = const { Cell::new(None) };
}

/// Whether the last that PostgreSQL itself said was a cancel: pgrx raises it again where it leaves one of this extension's functions.
static WAS_CANCEL: AtomicBool = AtomicBool::new(false);

/// Does `work` and hears the SQLSTATEs of its errors: pgrx turns those that PostgreSQL itself does not have into XX000. Whoever ends the
/// statement ends it for all who listen.
pub fn listening<T>(work: impl FnOnce() -> T) -> T {
    HEARD.store(0, Ordering::Relaxed);
    HEARD_IN_A_TRIGGER.store(0, Ordering::Relaxed);
    if !somebody_listens() {
        goes_on();
    }
    // SAFETY: the callback is taken off below; an ERROR of `work` is caught within it, or resets the stack itself.
    unsafe {
        let mut callback = pg_sys::ErrorContextCallback {
            previous: pg_sys::error_context_stack,
            callback: Some(hear),
            arg: null_mut(),
        };
        pg_sys::error_context_stack = &raw mut callback;
        let done = work();
        pg_sys::error_context_stack = callback.previous;
        done
    }
}

/// Does `work`, whose errors are not those that were heard last. Code of somebody that calls this extension takes no error back so.
pub fn unheard<T>(work: impl FnOnce() -> T) -> T {
    let heard = [&HEARD, &HEARD_IN_A_TRIGGER];
    let before = heard.map(|heard| heard.load(Ordering::Relaxed));
    let (was_ended, was_ended_by) = (is_ended(), ended_by());
    let done = work();
    heard.iter().zip(before).for_each(|(heard, before)| heard.store(before, Ordering::Relaxed));
    IS_ENDED.fetch_or(was_ended, Ordering::Relaxed);
    ENDED_BY.set(was_ended_by.or(ended_by()));
    done
}

/// Forgets that somebody has ended the statement: it goes on.
pub fn goes_on() {
    IS_ENDED.store(false, Ordering::Relaxed);
    ENDED_BY.set(None);
}

/// Whether one `listening` is around the next.
fn somebody_listens() -> bool {
    // SAFETY: walks callbacks of frames that have not ended.
    let mut callback = unsafe { pg_sys::error_context_stack.as_ref() };
    while let Some(at) = callback {
        if at.callback.is_some_and(|callback| std::ptr::fn_addr_eq(callback, hear as Callback)) {
            return true;
        }
        // SAFETY: as above.
        callback = unsafe { at.previous.as_ref() };
    }
    false
}

type Callback = unsafe extern "C-unwind" fn(*mut core::ffi::c_void);

/// Whether a callback is one of `listening`, or of `raise_as`.
pub fn is_of_listening(callback: &pg_sys::ErrorContextCallback) -> bool {
    let own: [Callback; 2] = [hear, restore];
    callback.callback.is_some_and(|callback| own.iter().any(|own| std::ptr::fn_addr_eq(*own, callback)))
}

/// # Safety
///
/// Called by errfinish.
unsafe extern "C-unwind" fn hear(_: *mut core::ffi::c_void) {
    // SAFETY: geterrcode is for callbacks of this kind; pg_trigger_depth looks at none of its arguments (trigger.c).
    let (sqlstate, depth) = unsafe { (pg_sys::geterrcode(), pg_sys::pg_trigger_depth(null_mut()).value()) };
    HEARD.store(sqlstate, Ordering::Relaxed);
    if depth > 0 {
        HEARD_IN_A_TRIGGER.store(sqlstate, Ordering::Relaxed);
    }
    if !ENDING.contains(&sqlstate) {
        return;
    }
    // SAFETY: errfinish has the error on its stack.
    let [function, message] = unsafe { raised() };
    if function == Some(ENDS) {
        insist::again();
        IS_ENDED.store(true, Ordering::Relaxed);
        let by = match message {
            Some(RETOLD) => (!WAS_CANCEL.load(Ordering::Relaxed)).then_some(TIMED_OUT),
            said => {
                WAS_CANCEL.store(said == Some(CANCEL), Ordering::Relaxed);
                said.filter(|said| *said != CANCEL)
            }
        };
        ENDED_BY.set(ENDED_BY.get().or(by));
    }
}

/// What ProcessInterrupts says of a cancel (postgres.c), in no other language.
const CANCEL: &str = "canceling statement due to user request";

/// What it says of `statement_timeout`.
pub const TIMED_OUT: &str = "canceling statement due to statement timeout";

/// What pgrx raises has its message as an argument.
const RETOLD: &str = "%s";

const ENDING: [i32; 2] = [PgSqlErrorCode::ERRCODE_QUERY_CANCELED as i32, PgSqlErrorCode::ERRCODE_ADMIN_SHUTDOWN as i32];

/// The function that raises the error, and the message as the source has it.
///
/// # Safety
///
/// Called by errfinish.
unsafe fn raised() -> [Option<&'static str>; 2] {
    // SAFETY: the copy is made outside of the context of errors, and both are constants.
    unsafe {
        let context = pg_sys::MemoryContextSwitchTo(pg_sys::TopMemoryContext);
        let error = pg_sys::CopyErrorData();
        let constants = [(*error).funcname, (*error).message_id];
        pg_sys::FreeErrorData(error);
        pg_sys::MemoryContextSwitchTo(context);
        constants.map(|text| (!text.is_null()).then(|| CStr::from_ptr(text).to_str().ok()).flatten())
    }
}

/// Whether somebody has ended the statement or the session since the outermost `listening` began.
pub fn is_ended() -> bool {
    IS_ENDED.load(Ordering::Relaxed)
}

/// What PostgreSQL said if it was not by a cancel alone.
pub fn ended_by() -> Option<&'static str> {
    ENDED_BY.get()
}

/// Whether a trigger was at work when the last failure began: one of the table's, or one of a foreign key.
pub fn was_in_a_trigger() -> bool {
    HEARD_IN_A_TRIGGER.load(Ordering::Relaxed) == HEARD.load(Ordering::Relaxed)
}

/// The SQLSTATE of the last failure, which pgrx has as `known`: five characters.
pub fn exact(known: PgSqlErrorCode) -> String {
    text_of(unknown(known).unwrap_or(known as i32))
}

/// The SQLSTATE of the last failure if pgrx has it as `known` and PostgreSQL itself does not have it.
pub fn unknown(known: PgSqlErrorCode) -> Option<i32> {
    let heard = HEARD.load(Ordering::Relaxed);
    (heard != known as i32 && PgSqlErrorCode::from(heard) == known).then_some(heard)
}

unsafe extern "C-unwind" {
    /// Sets the SQLSTATE of the error that is being raised (utils/elog.h).
    fn errcode(sqlstate: i32) -> i32;
}

thread_local! {
    static RESTORE: UnsafeCell<pg_sys::ErrorContextCallback> =
        const { UnsafeCell::new(pg_sys::ErrorContextCallback { previous: null_mut(), callback: Some(restore), arg: null_mut() }) };
    static RESTORED: Cell<Option<i32>> = const { Cell::new(None) };
}

/// Gives the error that the caller raises next this SQLSTATE, which pgrx would change. Whoever catches that error resets the
/// stack of callbacks, as `listening` and PostgreSQL do.
pub fn raise_as(sqlstate: i32) {
    // A panic is not heard.
    HEARD.store(sqlstate, Ordering::Relaxed);
    RESTORED.set(Some(sqlstate));
    // SAFETY: the callbacks below this one are those of frames that the error has still to leave.
    RESTORE.with(|callback| unsafe {
        if pg_sys::error_context_stack != callback.get() {
            (*callback.get()).previous = pg_sys::error_context_stack;
            pg_sys::error_context_stack = callback.get();
        }
    });
}

/// # Safety
///
/// Called by errfinish.
unsafe extern "C-unwind" fn restore(_: *mut core::ffi::c_void) {
    if let Some(sqlstate) = RESTORED.take() {
        // SAFETY: errfinish has not yet taken the error off its stack.
        unsafe { errcode(sqlstate) };
    }
}

/// Six bits for each character, the first one lowest (`MAKE_SQLSTATE` of utils/elog.h).
fn text_of(code: i32) -> String {
    (0..5).map(|place| ((code >> (6 * place) & 0x3f) as u8 + b'0') as char).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_read_as_postgresql_writes_it() {
        for (code, text) in [
            (PgSqlErrorCode::ERRCODE_FOREIGN_KEY_VIOLATION, "23503"),
            (PgSqlErrorCode::ERRCODE_RAISE_EXCEPTION, "P0001"),
            (PgSqlErrorCode::ERRCODE_INTERNAL_ERROR, "XX000"),
        ] {
            assert_eq!(text_of(code as i32), text);
        }
    }
}
