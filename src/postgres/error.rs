use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

/// What every step returns. An `Err` always becomes an ERROR: it is returned up to the function that SQL called, or raised in
/// a subtransaction (`subtransaction::attempt`). What PostgreSQL gives back itself at an abort (roles, settings, snapshots,
/// locks, buffers) is therefore not given back on the way of an `Err`.
pub type Result<T> = std::result::Result<T, ErrorReport>;

/// An error with its SQLSTATE, what is wrong, and the statement that mends it.
pub fn error(sqlstate: PgSqlErrorCode, message: String, hint: String) -> ErrorReport {
    ErrorReport::new(sqlstate, message, "backlog_cleanup").set_hint(hint)
}

/// A failure of SPI itself, which no input should be able to cause.
pub fn spi(failure: spi::Error) -> ErrorReport {
    ErrorReport::new(PgSqlErrorCode::ERRCODE_INTERNAL_ERROR, failure.to_string(), "backlog_cleanup")
}

/// An argument that must not be NULL. Errors: 22004.
pub fn required<T>(value: Option<T>, argument: &str, hint: &str) -> Result<T> {
    value.ok_or_else(|| {
        error(
            PgSqlErrorCode::ERRCODE_NULL_VALUE_NOT_ALLOWED,
            format!("argument \"{argument}\" must not be NULL"),
            hint.into(),
        )
    })
}
