use std::cell::Cell;
use std::ffi::{CStr, CString, c_char, c_void};
use std::sync::OnceLock;

use pgrx::pg_sys;
use pgrx::prelude::PgSqlErrorCode;

/// Does `work`, and resets what it has set with `set_local`. After an ERROR PostgreSQL resets it itself, with the
/// (sub)transaction.
pub fn with_settings<T>(work: impl FnOnce() -> T) -> T {
    // SAFETY: the nest level that is ended is the one that was begun.
    let nest = unsafe { pg_sys::NewGUCNestLevel() };
    let done = work();
    // SAFETY: see above.
    unsafe { pg_sys::AtEOXact_GUC(false, nest) };
    done
}

/// Sets a configuration parameter until the innermost `with_settings` ends. One that has the value already is left alone:
/// `timezone_abbreviations` would read a file.
pub fn set_local(name: &str, value: &str) {
    set(name, value, pg_sys::GucContext::PGC_USERSET);
}

/// The same for a parameter that only superusers may set, whoever the role is.
pub fn set_local_for_all(name: &str, value: &str) {
    set(name, value, pg_sys::GucContext::PGC_SUSET);
}

/// Settings by which anybody's code could end the session that it runs in, or lose its connection.
const ENDING: [&CStr; 6] = [
    c"exit_on_error",
    c"transaction_timeout",
    c"tcp_user_timeout",
    c"tcp_keepalives_idle",
    c"tcp_keepalives_interval",
    c"tcp_keepalives_count",
];

/// How PostgreSQL itself checks a value of `client_encoding`. What code sends under another encoding than the connection's, no client can read.
static CHECK_OF_ENCODING: OnceLock<
    unsafe extern "C-unwind" fn(*mut *mut c_char, *mut *mut c_void, pg_sys::GucSource::Type) -> bool,
> = OnceLock::new();

thread_local! {
    static IS_RESTRICTED: Cell<bool> = const { Cell::new(false) };
}

/// Does `work` while code of others may run in it: that cannot set what would end the session.
pub fn restricted<T>(work: impl FnOnce() -> T) -> T {
    struct Before(bool);
    impl Drop for Before {
        fn drop(&mut self) {
            IS_RESTRICTED.set(self.0);
        }
    }
    let _before = Before(IS_RESTRICTED.replace(true));
    work()
}

/// Has PostgreSQL refuse to set what ends the session within `restricted`. Called once, when the library is loaded.
pub fn restrict() {
    // SAFETY: the record lives as long as the process, which has one thread, and is a string's.
    unsafe {
        let encoding = record(c"client_encoding").cast::<pg_sys::config_string>();
        if let Some(check) = (*encoding).check_hook {
            (*encoding).check_hook = Some(is_free_encoding);
            CHECK_OF_ENCODING.get_or_init(|| check);
        }
    }
    for name in ENDING {
        // SAFETY: the records live as long as the process, which has one thread, and are of the type that they say.
        unsafe {
            let record = record(name);
            match record.as_ref().map(|record| record.vartype) {
                Some(pg_sys::config_type::PGC_BOOL) => {
                    (*record.cast::<pg_sys::config_bool>()).check_hook.get_or_insert(is_free);
                }
                Some(pg_sys::config_type::PGC_INT) => {
                    (*record.cast::<pg_sys::config_int>()).check_hook.get_or_insert(is_free);
                }
                _ => {}
            }
        }
    }
}

/// Refuses a value where code of others runs.
///
/// # Safety
///
/// Called by PostgreSQL before it sets a parameter.
unsafe extern "C-unwind" fn is_free<T>(_: *mut T, _: *mut *mut c_void, _: pg_sys::GucSource::Type) -> bool {
    // SAFETY: reads what the session is in, and writes what belongs to a check that refuses.
    unsafe {
        if !IS_RESTRICTED.get() || !pg_sys::InSecurityRestrictedOperation() {
            return true;
        }
        pg_sys::GUC_check_errcode(PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE as i32);
        pg_sys::GUC_check_errdetail_string =
            c"It cannot be set within a security-restricted operation.".as_ptr().cast_mut();
    }
    false
}

/// Refuses another encoding where code of others runs, and checks it anywhere else.
///
/// # Safety
///
/// Called by PostgreSQL before it sets `client_encoding`.
unsafe extern "C-unwind" fn is_free_encoding(
    value: *mut *mut c_char,
    extra: *mut *mut c_void,
    source: pg_sys::GucSource::Type,
) -> bool {
    // SAFETY: the arguments are those of PostgreSQL.
    unsafe {
        let is_other = (*value).is_null() || pg_sys::pg_char_to_encoding(*value) != pg_sys::pg_get_client_encoding();
        (!is_other || is_free(value, extra, source))
            && CHECK_OF_ENCODING.get().is_none_or(|check| check(value, extra, source))
    }
}

/// The record of a configuration parameter; null if this version has none of that name.
///
/// # Safety
///
/// Only what PostgreSQL itself leaves to change may be changed in it.
#[cfg(not(feature = "pg15"))]
pub unsafe fn record(name: &CStr) -> *mut pg_sys::config_generic {
    // SAFETY: the name ends with a zero, and nothing is raised.
    unsafe { pg_sys::find_option(name.as_ptr(), false, true, pg_sys::DEBUG5 as i32) }
}

/// The same where nothing finds one by its name.
///
/// # Safety
///
/// As above.
#[cfg(feature = "pg15")]
pub unsafe fn record(name: &CStr) -> *mut pg_sys::config_generic {
    // SAFETY: PostgreSQL has so many records, each with a name.
    unsafe {
        let count = pg_sys::GetNumConfigOptions() as usize;
        let records = std::slice::from_raw_parts(pg_sys::get_guc_variables(), count);
        let is_it = |record: &&*mut pg_sys::config_generic| CStr::from_ptr((***record).name) == name;
        records.iter().find(is_it).map_or(std::ptr::null_mut(), |record| *record)
    }
}

/// Whether a configuration parameter has this value.
pub fn is(name: &str, value: &str) -> bool {
    let name = CString::new(name).unwrap_or_default();
    // SAFETY: the string ends with a zero; the value is read before anything can change it.
    unsafe {
        let current = pg_sys::GetConfigOption(name.as_ptr(), true, false);
        !current.is_null() && CStr::from_ptr(current).to_bytes() == value.as_bytes()
    }
}

/// Resets a parameter that anyone may set until the innermost `with_settings` ends.
pub fn reset_local(name: &str) {
    call(name, None, pg_sys::GucContext::PGC_USERSET, pg_sys::GucAction::GUC_ACTION_SAVE, true, 0);
}

/// Whether a superuser could give a configuration parameter this value.
pub fn accepts(name: &str, value: &str) -> bool {
    call(
        name,
        Some(value),
        pg_sys::GucContext::PGC_SUSET,
        pg_sys::GucAction::GUC_ACTION_SAVE,
        false,
        pg_sys::DEBUG5 as i32,
    ) != 0
}

/// Sets a parameter that anyone may set until the transaction ends. Called outside of `with_settings`.
pub fn set_until_commit(name: &str, value: &str) {
    call(name, Some(value), pg_sys::GucContext::PGC_USERSET, pg_sys::GucAction::GUC_ACTION_LOCAL, true, 0);
}

fn set(name: &str, value: &str, context: pg_sys::GucContext::Type) {
    if !is(name, value) {
        call(name, Some(value), context, pg_sys::GucAction::GUC_ACTION_SAVE, true, 0);
    }
}

/// Without a value it is reset. Returns 0 if PostgreSQL refuses the value. Raises that as an ERROR if `level` is 0.
fn call(
    name: &str,
    value: Option<&str>,
    context: pg_sys::GucContext::Type,
    action: pg_sys::GucAction::Type,
    changes: bool,
    level: i32,
) -> i32 {
    let name = CString::new(name).unwrap_or_default();
    let value = value.map(|value| CString::new(value).unwrap_or_default());
    // SAFETY: both strings end with a zero and outlive the call, which copies them.
    unsafe {
        pg_sys::set_config_option(
            name.as_ptr(),
            value.as_ref().map_or(std::ptr::null(), |value| value.as_ptr()),
            context,
            pg_sys::GucSource::PGC_S_SESSION,
            action,
            changes,
            level,
            false,
        )
    }
}
