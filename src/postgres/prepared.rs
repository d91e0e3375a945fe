use std::cell::RefCell;
use std::collections::HashMap;

use pgrx::datum::DatumWithOid;
use pgrx::prelude::*;
use pgrx::spi::{OwnedPreparedStatement, SpiClient};

use crate::postgres::error::{Result, spi};

thread_local! {
    static STATEMENTS: RefCell<HashMap<&'static str, &'static OwnedPreparedStatement>> = RefCell::default();
}

/// Prepares a statement once per session, for what every batch asks. PostgreSQL plans it again if the search path or an
/// object that it names has changed.
pub fn prepared(
    client: &SpiClient,
    query: &'static str,
    arguments: &[DatumWithOid],
) -> pgrx::spi::Result<&'static OwnedPreparedStatement> {
    if let Some(statement) = STATEMENTS.with_borrow(|statements| statements.get(query).copied()) {
        return Ok(statement);
    }
    let types: Vec<PgOid> = arguments.iter().map(|argument| PgOid::from(argument.oid())).collect();
    let statement: &'static _ = Box::leak(Box::new(client.prepare(query, &types)?.keep()));
    STATEMENTS.with_borrow_mut(|statements| statements.insert(query, statement));
    Ok(statement)
}

/// Executes a prepared statement that writes.
pub fn run(query: &'static str, arguments: &[DatumWithOid]) -> Result<()> {
    Spi::connect_mut(|client| client.update(prepared(client, query, arguments)?, None, arguments).map(drop))
        .map_err(spi)
}

/// The first column of the first row of a prepared statement. It may write, and sees what other sessions have committed.
pub fn get_one<T: FromDatum + IntoDatum>(query: &'static str, arguments: &[DatumWithOid]) -> Result<Option<T>> {
    Spi::connect_mut(|client| {
        let rows = client.update(prepared(client, query, arguments)?, None, arguments)?;
        if rows.is_empty() { Ok(None) } else { rows.first().get_one() }
    })
    .map_err(spi)
}
