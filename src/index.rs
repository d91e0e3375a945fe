use pgrx::prelude::*;
use pgrx::spi::quote_literal;

use crate::error::Result;
use crate::read::read_one;
use crate::target::Target;

/// The exact statement that builds the partial index of a target, for `\gexec`.
#[pg_extern(stable)]
pub fn backlog_cleanup_index_sql(target: default!(Option<&str>, "'generations'")) -> Result<String> {
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

/// Whether a target has its partial index, by the columns.
pub fn exists(target: &Target) -> Result<bool> {
    let columns = [&target.recipe, &target.failed_at, &target.id].map(|column| i32::from(column.number)).to_vec();
    read_one::<bool>(
        "SELECT EXISTS (SELECT FROM pg_catalog.pg_index
                        WHERE indrelid OPERATOR(pg_catalog.=) $1 AND indisvalid AND indpred IS NOT NULL
                          AND ARRAY(SELECT pg_catalog.unnest(indkey)::pg_catalog.int4) OPERATOR(pg_catalog.=) $2)",
        &[target.table.oid.into(), columns.into()],
    )
    .map(|exists| exists == Some(true))
}
