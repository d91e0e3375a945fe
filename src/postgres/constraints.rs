use std::cell::Cell;
use std::panic::AssertUnwindSafe;
use std::sync::Once;

use pgrx::pg_sys::ProcessUtility_hook_type;
use pgrx::prelude::*;

use crate::postgres::error::error;

thread_local! {
    static KEPT: Cell<bool> = const { Cell::new(false) };
    static NEXT: Cell<ProcessUtility_hook_type> = const { Cell::new(None) };
}

/// Refuses SET CONSTRAINTS during `work` (42501). IMMEDIATE would fire the triggers that the caller has put off, as the role
/// whose code says so and with its search path; and the modes are not undone with a subtransaction whose inner block has set
/// them.
pub fn keeping_modes_of_constraints<T>(work: impl FnOnce() -> T) -> T {
    static ONCE: Once = Once::new();
    // SAFETY: the hook lives as long as the library, which is never unloaded.
    ONCE.call_once(|| unsafe {
        NEXT.set(pg_sys::ProcessUtility_hook);
        pg_sys::ProcessUtility_hook = Some(on_utility);
    });
    let before = KEPT.replace(true);
    PgTryBuilder::new(AssertUnwindSafe(work)).finally(move || KEPT.set(before)).execute()
}

unsafe extern "C-unwind" {
    /// Declared without pgrx's guard, which would take from errors of every utility statement what pgrx does not know: SQLSTATEs
    /// of one's own, the names of constraints, contexts. An error jumps over the hook's frame, which has nothing to drop.
    #[allow(clippy::too_many_arguments)] // PostgreSQL's own
    fn standard_ProcessUtility(
        statement: *mut pg_sys::PlannedStmt,
        text: *const core::ffi::c_char,
        read_only_tree: bool,
        context: pg_sys::ProcessUtilityContext::Type,
        parameters: pg_sys::ParamListInfo,
        environment: *mut pg_sys::QueryEnvironment,
        receiver: *mut pg_sys::DestReceiver,
        completion: *mut pg_sys::QueryCompletion,
    );
}

/// # Safety
///
/// PostgreSQL's ProcessUtility_hook.
#[allow(clippy::too_many_arguments)] // the hook's own
unsafe extern "C-unwind" fn on_utility(
    statement: *mut pg_sys::PlannedStmt,
    text: *const core::ffi::c_char,
    read_only_tree: bool,
    context: pg_sys::ProcessUtilityContext::Type,
    parameters: pg_sys::ParamListInfo,
    environment: *mut pg_sys::QueryEnvironment,
    receiver: *mut pg_sys::DestReceiver,
    completion: *mut pg_sys::QueryCompletion,
) {
    // SAFETY: the arguments are PostgreSQL's, and passed on as they are.
    unsafe {
        if KEPT.get() && pgrx::is_a((*statement).utilityStmt, pg_sys::NodeTag::T_ConstraintsSetStmt) {
            refuse();
        }
        let next = NEXT.get().unwrap_or(standard_ProcessUtility);
        next(statement, text, read_only_tree, context, parameters, environment, receiver, completion);
    }
}

/// # Safety
///
/// Called by PostgreSQL.
#[pg_guard]
unsafe extern "C-unwind" fn refuse() {
    error(
        PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
        "code that a report runs cannot SET CONSTRAINTS of the caller's transaction".into(),
        "SELECT viewname, definition FROM pg_views WHERE schemaname <> 'pg_catalog'".into(),
    )
    .report(PgLogLevel::ERROR);
}
