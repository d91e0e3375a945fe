use pgrx::datum::DatumWithOid;
use pgrx::prelude::*;

use crate::postgres::error::{Result, error, spi};
use crate::postgres::prepared::prepared;

/// The first column of the first row of a statement that only reads; `None` for NULL and for no row. Unlike
/// `Spi::get_one` it assigns no transaction id, so that it works on a standby.
pub fn read_one<T: FromDatum + IntoDatum>(query: &str, arguments: &[DatumWithOid]) -> Result<Option<T>> {
    Spi::connect(|client| {
        let rows = client.select(query, Some(1), arguments)?;
        if rows.is_empty() { Ok(None) } else { rows.first().get_one() }
    })
    .map_err(spi)
}

/// The same of a statement that this session prepares once.
pub fn read_prepared<T: FromDatum + IntoDatum>(query: &'static str, arguments: &[DatumWithOid]) -> Result<Option<T>> {
    Spi::connect(|client| {
        let rows = client.select(prepared(client, query, arguments)?, Some(1), arguments)?;
        if rows.is_empty() { Ok(None) } else { rows.first().get_one() }
    })
    .map_err(spi)
}

/// Refuses `action` in a read-only transaction and on a standby (25006).
pub fn refuse_read_only(action: &str) -> Result<()> {
    let read_only = read_one::<String>("SELECT pg_catalog.current_setting('transaction_read_only')", &[])?;
    if read_only.as_deref() != Some("on") {
        return Ok(());
    }
    // SAFETY: only reads what the server is.
    let hint = match unsafe { pg_sys::RecoveryInProgress() } {
        true => "this server is a standby: connect to the primary",
        // SAFETY: a setting, which the one thread of a backend reads.
        false if unsafe { pg_sys::DefaultXactReadOnly } => "ROLLBACK; SET default_transaction_read_only = off",
        false => "ROLLBACK; BEGIN READ WRITE",
    };
    let message = format!("cannot {action} in a read-only transaction");
    Err(error(PgSqlErrorCode::ERRCODE_READ_ONLY_SQL_TRANSACTION, message, hint.into()))
}
