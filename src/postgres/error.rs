use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

/// What every step returns: its value, or an error that PostgreSQL raises as it is.
pub type Result<T> = std::result::Result<T, ErrorReport>;

/// Backtraces, which pgrx would put into the detail of errors, are not for clients, whatever the server's environment says.
#[pg_guard]
pub extern "C-unwind" fn _PG_init() {
    unsafe { std::env::set_var("RUST_LIB_BACKTRACE", "0") };
}

/// An error with its SQLSTATE, what is wrong, and the command that mends it.
pub fn error(sqlstate: PgSqlErrorCode, message: String, hint: String) -> ErrorReport {
    ErrorReport::new(sqlstate, message, "backlog_cleanup").set_hint(hint)
}

/// A failure of SPI itself, which no input should be able to cause.
pub fn spi(failure: spi::Error) -> ErrorReport {
    ErrorReport::new(PgSqlErrorCode::ERRCODE_INTERNAL_ERROR, failure.to_string(), "backlog_cleanup")
}

/// An argument that must not be NULL.
pub fn required<T>(value: Option<T>, argument: &str, hint: &str) -> Result<T> {
    value.ok_or_else(|| {
        error(
            PgSqlErrorCode::ERRCODE_NULL_VALUE_NOT_ALLOWED,
            format!("argument \"{argument}\" must not be NULL"),
            hint.into(),
        )
    })
}
