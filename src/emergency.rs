use std::ffi::CString;
use std::ptr::null_mut;

use pgrx::prelude::*;

use crate::error::Result;
use crate::find::condition;
use crate::leaf::{Leaf, leaves};
use crate::owner::as_owner_of;
use crate::recipe::{Recipes, Swept};
use crate::selection::Selection;
use crate::stream::{stream, stream_returning};
use crate::subtransaction::attempt;
use crate::target::Target;

/// Removes every failed row that is selected, or only counts it in a dry run; one entry per recipe that has any.
pub fn emergency(target: &Target, selection: &Selection, dry_run: bool) -> Result<Vec<Swept>> {
    let mut recipes = Recipes::of(&target.recipe);
    for leaf in leaves(target)? {
        as_owner_of(&leaf.table, || match dry_run {
            true => count_failed(target, &leaf, selection, &mut recipes).map(drop),
            false => remove_failed(target, &leaf, selection, &mut recipes),
        })?;
    }
    Ok(recipes.into_sorted())
}

/// Removes every failed row of a leaf that is selected. Counting them beforehand, in the same snapshot, costs less than a
/// RETURNING list where an index tells of them, and about the same elsewhere; where some that were counted stay, that list
/// counts.
pub fn remove_failed(target: &Target, leaf: &Leaf, selection: &Selection, recipes: &mut Recipes) -> Result<()> {
    let delete = format!("DELETE FROM {} g WHERE {}", leaf.rows(), condition(target, None, selection));
    let mut counted = Recipes::of(&target.recipe);
    let all_went = attempt(|| {
        let count = count_failed(target, leaf, selection, &mut counted)?;
        Ok((execute_as_of_now(&delete) == count).then_some(()))
    });
    if all_went.unwrap_or_else(|failure| failure.rethrow()).is_some() {
        for counted in counted.list {
            let recipe = recipes.of_id(counted.recipe_id.as_deref());
            recipes.list[recipe].failed += counted.failed;
            recipes.list[recipe].removed += counted.removed;
        }
        return Ok(());
    }
    stream_returning(&format!("{delete} RETURNING {}, 1::bigint", target.recipe.as_key()), |row| {
        recipes.count_removed(row)
    })
}

/// Counts the failed rows of a leaf that are selected, per recipe; returns their sum.
fn count_failed(target: &Target, leaf: &Leaf, selection: &Selection, recipes: &mut Recipes) -> Result<u64> {
    let (key, condition) = (target.recipe.as_key(), condition(target, None, selection));
    let count = format!("SELECT {key}, pg_catalog.count(*) FROM {} g WHERE {condition} GROUP BY 1", leaf.rows());
    let before = recipes.removed();
    stream(&count, |row| recipes.count_removed(row))?;
    Ok((recipes.removed() - before) as u64)
}

/// Executes a statement in the active snapshot, and returns how many rows it removed.
fn execute_as_of_now(statement: &str) -> u64 {
    let statement = CString::new(statement).unwrap_or_default();
    Spi::connect_mut(|_| unsafe {
        let plan = pg_sys::SPI_prepare(statement.as_ptr(), 0, null_mut());
        pg_sys::SPI_execute_snapshot(
            plan,
            null_mut(),
            null_mut(),
            pg_sys::GetActiveSnapshot(),
            null_mut(),
            false,
            true,
            0,
        );
        pg_sys::SPI_processed
    })
}
