use pgrx::prelude::*;
use pgrx::spi::quote_literal;

use crate::error::Result;
use crate::target::Target;

/// The exact statement that builds the partial index of a target, for `\gexec`.
#[pg_extern(stable)]
fn backlog_cleanup_index_sql(target: default!(Option<&str>, "'generations'")) -> Result<String> {
    let Target { table, recipe, failed_at, id, account_column, status, account, failed_status, .. } =
        Target::load(target, false)?;
    Ok(format!(
        "CREATE INDEX CONCURRENTLY ON {} ({}, {} DESC, {} DESC) WHERE {} = {} AND {} = {}",
        table.name,
        recipe.name,
        failed_at.name,
        id.name,
        account_column.name,
        quote_literal(account),
        status.name,
        quote_literal(failed_status),
    ))
}
