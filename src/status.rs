use backlog_cleanup_report::age_in_words;
use pgrx::prelude::*;
use pgrx::spi::quote_literal;

use crate::cleanup::{default_policy, recipe_name, recipe_names};
use crate::error::{Result, spi};
use crate::owner::acting_as;
use crate::target::{Column, Target};

/// The account's rows by recipe and status, most failures first. Reads only: works on a standby.
#[allow(clippy::type_complexity)] // pgrx reads the columns from the signature itself
#[pg_extern(stable)]
fn backlog_cleanup_status(
    target: default!(Option<&str>, "'generations'"),
) -> Result<
    TableIterator<
        'static,
        (
            name!(recipe_id, Option<String>),
            name!(recipe_name, String),
            name!(total_count, i64),
            name!(completed_count, i64),
            name!(failed_count, i64),
            name!(pending_count, i64),
            name!(processing_count, i64),
            name!(removable_count, i64),
            name!(oldest_failed_at, Option<TimestampWithTimeZone>),
            name!(oldest_failed_age, Option<String>),
        ),
    >,
> {
    let target = Target::load(target, false)?;
    let policy = default_policy(&target)?;
    let names = recipe_names(&target)?;
    let counts = statement(&target, &policy.cutoff, policy.keep);
    let rows = acting_as(target.table.owner, &target.table.search_path, || {
        Spi::connect(|client| {
            client
                .select(counts.as_str(), None, &[])?
                .map(|row| {
                    let count = |column| Ok::<_, spi::Error>(row.get::<i64>(column)?.unwrap_or(0));
                    let id: Option<String> = row.get(1)?;
                    Ok((
                        id.clone(),
                        recipe_name(&names, id.as_deref()),
                        count(2)?,
                        count(3)?,
                        count(4)?,
                        count(5)?,
                        count(6)?,
                        count(7)?,
                        row.get(8)?,
                        row.get::<i64>(9)?.map(age_in_words),
                    ))
                })
                .collect::<spi::Result<Vec<_>>>()
        })
        .map_err(spi)
    })?;
    Ok(TableIterator::new(rows))
}

/// One pass over the account's rows.
fn statement(target: &Target, cutoff: &str, keep: i32) -> String {
    let Target {
        table,
        recipe,
        failed_at,
        account_column,
        status,
        ..
    } = target;
    let is = |column: &Column, value: &str| {
        format!(
            "g.{} OPERATOR(pg_catalog.=) {}::{}",
            column.name,
            quote_literal(value),
            column.sql_type
        )
    };
    let with_status = |value: &str| format!("pg_catalog.count(*) FILTER (WHERE {})", is(status, value));
    let at = target.instant(&format!("g.{}", failed_at.name));
    let failed = is(status, &target.failed_status);
    format!(
        "SELECT recipe::pg_catalog.text, total, completed, failed, pending, processing,
                GREATEST(expired OPERATOR(pg_catalog.-) {keep}::bigint, 0), oldest,
                EXTRACT(epoch FROM pg_catalog.now() OPERATOR(pg_catalog.-) oldest)::bigint
         FROM (SELECT g.{recipe} AS recipe, pg_catalog.count(*) AS total, {completed} AS completed,
                      {failures} AS failed, {pending} AS pending, {processing} AS processing,
                      pg_catalog.count(*) FILTER (WHERE {failed} AND {at} OPERATOR(pg_catalog.<) timestamptz {cutoff})
                          AS expired,
                      pg_catalog.min({at}) FILTER (WHERE {failed}) AS oldest
               FROM {table} g WHERE {account} GROUP BY g.{recipe}) counts
         ORDER BY failed DESC, recipe",
        recipe = recipe.name,
        completed = with_status(&target.completed_status),
        failures = with_status(&target.failed_status),
        pending = with_status(&target.pending_status),
        processing = with_status(&target.processing_status),
        cutoff = quote_literal(cutoff),
        table = table.name,
        account = is(account_column, &target.account),
    )
}
