use pgrx::pg_sys::panic::{CaughtError, ErrorReport};
use pgrx::prelude::*;
use pgrx::spi::quote_literal;

use crate::postgres::error::error;
use crate::postgres::subtransaction::{raise_again, reported, sqlstate};

/// What a failure of a run says. If it needed more than the server's memory, such as a lock for each of its rows, smaller batches
/// need less. Any other failure is raised again.
pub fn or_smaller(failure: CaughtError, target: &str, batch_size: i64) -> ErrorReport {
    if sqlstate(&failure) != PgSqlErrorCode::ERRCODE_OUT_OF_MEMORY {
        raise_again(failure);
    }
    let (report, name) = (reported(&failure), quote_literal(target));
    let message = report.message().to_owned();
    // A lock for each partition is needed whatever the size. No name stands behind the dashes, and nothing ends the line.
    let hint = format!(
        "UPDATE backlog_cleanup.target SET batch_size = {} WHERE name = {name}; -- and run it in batches. {}",
        batch_size.max(1),
        report.hint().unwrap_or_default().replace(['\n', '\r'], " ")
    );
    error(PgSqlErrorCode::ERRCODE_OUT_OF_MEMORY, message, hint)
}
