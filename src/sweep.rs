use std::panic::AssertUnwindSafe;

use pgrx::prelude::*;
use pgrx::spi::quote_literal;

use crate::error::{Result, error, spi};
use crate::index;
use crate::owner::{acting_as, set_local};
use crate::policy::Policy;
use crate::rank::{Ranked, Removable, rank};
use crate::recipe::{Recipes, Swept};
use crate::selection::Selection;
use crate::stream::{stream, stream_returning};
use crate::subtransaction::attempt;
use crate::table::Table;
use crate::target::Target;

/// Rows per statement: few enough that what a statement keeps is small, many enough that its start costs nothing.
const CHUNK: usize = 50_000;

/// Removes what a policy lets go, or only counts it in a dry run; one entry per recipe that has failed rows.
pub fn regular(target: &Target, policy: &Policy, selection: &Selection, dry_run: bool) -> Result<Vec<Swept>> {
    let Table { owner, search_path, .. } = &target.table;
    let Ranked { mut recipes, removable } = acting_as(*owner, search_path, || {
        if index::exists(target)? {
            // It has just the failed rows, in whatever number the planner believes there are.
            set_local("enable_seqscan", "off");
        }
        rank(target, policy, selection)
    })?;
    if dry_run {
        return Ok(recipes.into_sorted());
    }
    recipes.list.iter_mut().for_each(|recipe| recipe.removed = 0);
    for (leaf, mut rows) in removable {
        let Some(leaf) = Table::of(pg_sys::Oid::from(leaf))? else { continue };
        rows.sort_unstable();
        let condition = format!(
            "{} AND {} AND {}",
            target.is_failed(),
            target.failed_before(&policy.cutoff),
            selection.matches(target)
        );
        removing(target, &leaf, || {
            rows.chunks(CHUNK).try_for_each(|chunk| remove(target, &leaf, &condition, chunk, &mut recipes))
        })?;
    }
    Ok(recipes.into_sorted())
}

/// Removes every failed row that is selected, or only counts it in a dry run; one entry per recipe that has any.
pub fn emergency(target: &Target, selection: &Selection, dry_run: bool) -> Result<Vec<Swept>> {
    let condition = format!("{} AND {}", target.is_failed(), selection.matches(target));
    let (table, key) = (&target.table.name, target.recipe.as_key());
    let mut recipes = Recipes::of(&target.recipe);
    let count = |row: &_| {
        let recipe = recipes.of_row(row, 0);
        recipes.list[recipe].failed += 1;
        recipes.list[recipe].removed += 1;
    };
    if dry_run {
        acting_as(target.table.owner, &target.table.search_path, || {
            stream(&format!("SELECT {key} FROM {table} g WHERE {condition}"), count)
        })?;
    } else {
        removing(target, &target.table, || {
            stream_returning(&format!("DELETE FROM {table} g WHERE {condition} RETURNING {key}"), count)
        })?;
    }
    Ok(recipes.into_sorted())
}

/// Removes rows of one leaf table by their positions. The statement repeats what made them removable, so that a row that
/// another session retries, claims or touches while this one waits for it survives.
fn remove(target: &Target, leaf: &Table, condition: &str, rows: &[Removable], recipes: &mut Recipes) -> Result<()> {
    let tids: Vec<pg_sys::ItemPointerData> = rows.iter().map(Removable::tid).collect();
    // A TID scan whatever the planner believes of the table: the array's length is hidden from it by the subquery, and the
    // conditions, which an index could serve, by IS TRUE.
    let delete = format!(
        "DELETE FROM ONLY {} g
         WHERE g.ctid OPERATOR(pg_catalog.=) ANY (ARRAY(SELECT pg_catalog.unnest($1)))
           AND ({condition}) IS TRUE",
        leaf.name
    );
    // Where all of them go, the ranking knows whose they were, and RETURNING would cost a fifth more.
    if let Some(recipe_of_each) = rows.iter().map(Removable::recipe).collect::<Option<Vec<_>>>() {
        let all_went = attempt(|| {
            Spi::connect_mut(|client| {
                client.update(delete.as_str(), None, &[tids.clone().into()])?;
                Ok(unsafe { pg_sys::SPI_processed } == rows.len() as u64)
            })
            .map_err(spi)
        })?;
        if all_went {
            recipe_of_each.into_iter().for_each(|recipe| recipes.list[recipe].removed += 1);
            return Ok(());
        }
    }
    let counted = format!(
        "WITH gone AS ({delete} RETURNING {} AS recipe)
         SELECT recipe::pg_catalog.text, pg_catalog.count(*) FROM gone GROUP BY recipe",
        target.recipe.as_key()
    );
    Spi::connect_mut(|client| {
        for row in client.update(counted.as_str(), None, &[tids.into()])? {
            let recipe = recipes.of_id(row.get::<&str>(1)?);
            recipes.list[recipe].removed += row.get::<i64>(2)?.unwrap_or_default();
        }
        Ok(())
    })
    .map_err(spi)
}

/// Does `work`, which removes rows of `table`, as its owner. Errors: 55P03 (a lock that is held for too long).
fn removing(target: &Target, table: &Table, work: impl FnOnce() -> Result<()>) -> Result<()> {
    acting_as(table.owner, &table.search_path, || {
        set_local("lock_timeout", &target.lock_timeout.to_string());
        PgTryBuilder::new(AssertUnwindSafe(work))
            .catch_when(PgSqlErrorCode::ERRCODE_LOCK_NOT_AVAILABLE, |_| {
                Err(error(
                    PgSqlErrorCode::ERRCODE_LOCK_NOT_AVAILABLE,
                    format!("target \"{}\": another session has held a lock for longer than lock_timeout", target.name),
                    format!("SELECT * FROM pg_locks WHERE relation = {}::regclass", quote_literal(&table.name)),
                ))
            })
            .execute()
    })
}
