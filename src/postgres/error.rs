use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

/// What every step returns. An `Err` always becomes an ERROR: it is returned up to the function that SQL called, or raised in
/// a subtransaction (`subtransaction::attempt`). The abort resets roles, settings, snapshots, locks and buffers, so code that
/// returns an `Err` does not.
pub type Result<T> = std::result::Result<T, ErrorReport>;

/// Makes an error from its SQLSTATE, what is wrong, and the statement that fixes it.
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
