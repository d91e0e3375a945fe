use std::panic::AssertUnwindSafe;

use pgrx::prelude::*;
use pgrx::spi::quote_literal;

use crate::error::{Result, error, spi};
use crate::owner::{acting_as, set_local};
use crate::policy::Policy;
use crate::target::Target;

/// Which rows a run removes.
pub struct Selection<'a> {
    /// How old and how many to keep; `None` removes whatever the age.
    pub policy: Option<&'a Policy>,
    pub recipe_id: Option<&'a str>,
    pub failure_type: Option<&'a str>,
}

/// A recipe of the target and its failed rows before the run, and those that the run removed.
pub struct Swept {
    pub recipe_id: Option<String>,
    pub failed: i64,
    pub removed: i64,
}

/// Removes the selected rows as the table's owner, or only counts them in a dry run; one row per recipe that has
/// failed rows, most removed first. The removing statement repeats account, status and age, so that a row that
/// another session retries while this one waits for it survives.
/// Errors: 22P02 (a selected value that its column cannot have), 55P03 (a lock that is held for too long).
pub fn sweep(target: &Target, selection: &Selection, dry_run: bool) -> Result<Vec<Swept>> {
    selection.recipe_id.map_or(Ok(()), |recipe_id| target.recipe.accepts(recipe_id))?;
    selection.failure_type.map_or(Ok(()), |failure_type| target.failure_type.accepts(failure_type))?;
    let statement = statement(target, selection, dry_run);
    acting_as(target.table.owner, &target.table.search_path, || {
        if dry_run {
            return Spi::connect(|client| collect(client.select(statement.as_str(), None, &[])?)).map_err(spi);
        }
        set_local("lock_timeout", &target.lock_timeout.to_string());
        PgTryBuilder::new(AssertUnwindSafe(|| {
            Spi::connect_mut(|client| collect(client.update(statement.as_str(), None, &[])?)).map_err(spi)
        }))
        .catch_when(PgSqlErrorCode::ERRCODE_LOCK_NOT_AVAILABLE, |_| {
            Err(error(
                PgSqlErrorCode::ERRCODE_LOCK_NOT_AVAILABLE,
                format!("target \"{}\": another session has held a lock for longer than lock_timeout", target.name),
                format!("SELECT * FROM pg_locks WHERE relation = {}::regclass", quote_literal(&target.table.name)),
            ))
        })
        .execute()
    })
}

fn collect(rows: spi::SpiTupleTable) -> spi::Result<Vec<Swept>> {
    rows.map(|row| {
        Ok(Swept { recipe_id: row.get(1)?, failed: row.get(2)?.unwrap_or(0), removed: row.get(3)?.unwrap_or(0) })
    })
    .collect()
}

fn statement(target: &Target, selection: &Selection, dry_run: bool) -> String {
    let Target { table, id, recipe, failed_at, account_column, status, failure_type, .. } = target;
    let (table, id, recipe_column, at) = (&table.name, &id.name, &recipe.name, &failed_at.name);
    let failed = format!("{} AND {}", account_column.is(&target.account), status.is(&target.failed_status));
    let mut selected = failed.clone();
    if let Some(recipe_id) = selection.recipe_id {
        selected += &format!(" AND {}", recipe.is(recipe_id));
    }
    if let Some(wanted) = selection.failure_type {
        selected += &format!(" AND {}", failure_type.is(wanted));
    }
    let (mut cutoff, mut from, mut join) = (String::new(), "", "");
    if let Some(policy) = selection.policy {
        let instant = target.as_failed_at(&policy.cutoff);
        let expired = format!("g.{at} OPERATOR(pg_catalog.<) {instant}");
        let rank = policy.keep + 1;
        // The newest row beyond those kept: it goes, and all that is older.
        cutoff = format!(
            "cutoff AS MATERIALIZED (
                 SELECT recipe, at, id
                 FROM (SELECT g.{recipe_column} AS recipe, g.{at} AS at, g.{id} AS id,
                              pg_catalog.row_number() OVER (PARTITION BY g.{recipe_column} ORDER BY g.{at} DESC, g.{id} DESC) AS rank
                       FROM {table} g WHERE {failed} AND {expired}) ranked
                 WHERE rank OPERATOR(pg_catalog.=) {rank}::bigint),"
        );
        selected += &format!(" AND {expired}");
        from = ", cutoff c";
        // An array equals another where both hold NULL: NULL is a recipe of its own.
        join = " AND ARRAY[g.@recipe] OPERATOR(pg_catalog.=) ARRAY[c.recipe]
                 AND (g.@at OPERATOR(pg_catalog.<) c.at
                      OR g.@at OPERATOR(pg_catalog.=) c.at AND g.@id OPERATOR(pg_catalog.<=) c.id)";
    }
    let join = join.replace("@recipe", recipe_column).replace("@at", at).replace("@id", id);
    let gone = if dry_run {
        format!("SELECT g.{recipe_column} AS recipe FROM {table} g{from} WHERE {selected}{join}")
    } else {
        let using = from.replacen(',', " USING", 1);
        format!("DELETE FROM {table} g{using} WHERE {selected}{join} RETURNING g.{recipe_column} AS recipe")
    };
    format!(
        "WITH {cutoff}
         gone AS ({gone}),
         failed AS (SELECT g.{recipe_column} AS recipe, pg_catalog.count(*) AS rows
                    FROM {table} g WHERE {failed} GROUP BY g.{recipe_column}),
         removed AS (SELECT recipe, pg_catalog.count(*) AS rows FROM gone GROUP BY recipe)
         SELECT f.recipe::pg_catalog.text, f.rows, r.rows
         FROM failed f LEFT JOIN removed r ON ARRAY[r.recipe] OPERATOR(pg_catalog.=) ARRAY[f.recipe] AND r.rows IS NOT NULL
         ORDER BY r.rows DESC NULLS LAST, f.rows DESC, f.recipe"
    )
}
