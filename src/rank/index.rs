use pgrx::prelude::*;
use pgrx::spi::quote_literal;

use crate::postgres::error::{Result, error};
use crate::postgres::read::read_one;
use crate::rules::Rules;
use crate::target::Target;
use crate::target::leaf::{Leaf, Reach};

/// Returns the statement that builds the partial index of a target, for `\gexec`. Not CONCURRENTLY on a partitioned table,
/// which PostgreSQL does not support. Errors: those of `Target::load`, 42809 (a foreign table: its own server has its
/// indexes), 0A000 (who types the statement would run code of the table's owner).
#[pg_extern(stable)]
pub fn backlog_cleanup_index_sql(target: default!(Option<&str>, "'generations'")) -> Result<String> {
    let target = Target::load(target)?;
    let Target { table, recipe, failed_at, id, account_column, status, .. } = &target;
    let has_failed = match status {
        Some(status) => match &target.statuses[..] {
            [only] => format!("{} OPERATOR(pg_catalog.=) {}", status.name, quote_literal(only)),
            several => status.is_one_of(&status.name, several),
        },
        None => format!("{} IS NOT NULL", failed_at.name),
    };
    if table.is_foreign() {
        return Err(error(
            PgSqlErrorCode::ERRCODE_WRONG_OBJECT_TYPE,
            format!("{} is a foreign table, whose own server has its indexes", table.name),
            format!(
                "SELECT srvoptions FROM pg_foreign_server s JOIN pg_foreign_table t ON t.ftserver = s.oid WHERE ftrelid = {}::regclass",
                quote_literal(&table.name)
            ),
        ));
    }
    if let Some(column) = account_column.iter().chain(status).find(|column| !column.is_scalar()) {
        return Err(error(
            PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
            format!("column {} has type {}, which no partial index can serve", column.name, column.type_name),
            "SELECT backlog_cleanup_failed_generations()".into(),
        ));
    }
    let is_of_account = account_column
        .as_ref()
        .zip(target.account.as_deref())
        .map(|(column, account)| format!("{} OPERATOR(pg_catalog.=) {} AND ", column.name, quote_literal(account)));
    let concurrently = if table.kind as u8 == b'p' { "" } else { " CONCURRENTLY" };
    Ok(format!(
        "CREATE INDEX{concurrently} ON {} ({}, {} DESC, {} DESC) \
         WHERE {}{has_failed}",
        table.name,
        recipe.name,
        failed_at.name,
        id.name,
        is_of_account.unwrap_or_default(),
    ))
}

/// Whether the target's table has a valid partial index on recipe, failed-at and id.
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

/// Whether a run reads the partial index instead of the table: the index exists and has every column that the run needs, and
/// three heap pages in four are all-visible, so that an index-only scan seldom visits the heap.
pub fn serves(rules: &Rules, leaves: &[Leaf]) -> Result<bool> {
    if rules.selection.failure_type.is_some()
        || !rules.policies.are_by_recipe()
        || leaves.iter().any(|leaf| leaf.reach == Reach::Key)
        || !exists(rules.target)?
    {
        return Ok(false);
    }
    let tables: Vec<pg_sys::Oid> = leaves.iter().map(|leaf| leaf.table.oid).collect();
    let pages: i64 = leaves.iter().map(|leaf| i64::from(leaf.pages)).sum();
    read_one::<bool>(
        "SELECT pg_catalog.sum(relallvisible) OPERATOR(pg_catalog.>=) $2 FROM pg_catalog.pg_class
         WHERE oid OPERATOR(pg_catalog.=) ANY ($1)",
        &[tables.into(), (pages / 4 * 3).into()],
    )
    .map(|serves| serves == Some(true))
}
