use pgrx::pg_sys;

use crate::postgres::delete::delete_scanned;
use crate::postgres::error::Result;
use crate::postgres::owner::as_owner_of;
use crate::postgres::stream::{stream, stream_returning};
use crate::postgres::subtransaction::attempt;
use crate::rank::tally::{Recipes, Swept};
use crate::remove::find::condition;
use crate::rules::selection::Selection;
use crate::target::Target;
use crate::target::leaf::{Leaf, Reach, leaves};

/// Removes every failed row that is selected, or only counts it in a dry run; one entry per recipe that has any.
pub fn emergency(target: &Target, selection: &Selection, dry_run: bool) -> Result<Vec<Swept>> {
    let mut recipes = Recipes::of(&target.recipe);
    for leaf in leaves(target)? {
        as_owner_of(&leaf.table, || match dry_run {
            true => count_failed(target, &leaf, selection, &mut recipes),
            false => remove_failed(target, &leaf, selection, &mut recipes),
        })?;
    }
    Ok(recipes.into_sorted())
}

/// Removes every failed row of a leaf that is selected, and counts them per recipe: as the scan finds them, which costs
/// little, and by a RETURNING list where some of those stayed, where a recipe is not a number that is stored, or where there is
/// no scan.
pub fn remove_failed(target: &Target, leaf: &Leaf, selection: &Selection, recipes: &mut Recipes) -> Result<()> {
    let delete = format!("DELETE FROM {} g WHERE {}", leaf.rows(), condition(target, None, selection));
    let mut counted = Recipes::of(&target.recipe);
    let all_went = attempt(|| {
        if leaf.reach == Reach::Key || !target.recipe.is_integer() {
            return Ok(None);
        }
        let Some(column) = leaf.stored_number_of(&target.recipe, target)? else { return Ok(None) };
        let bytes = unsafe { pg_sys::get_typlen(target.recipe.type_oid) } as u32;
        let removed = delete_scanned(&delete, leaf.table.oid, column, |numbers| counted.count_numbers(numbers, bytes));
        Ok((removed == Some(counted.removed() as u64)).then_some(()))
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

/// Counts the failed rows of a leaf that are selected, per recipe.
fn count_failed(target: &Target, leaf: &Leaf, selection: &Selection, recipes: &mut Recipes) -> Result<()> {
    let (key, condition) = (leaf.group_key(&target.recipe), condition(target, None, selection));
    let count = format!("SELECT {key}, pg_catalog.count(*) FROM {} g WHERE {condition} GROUP BY 1", leaf.rows());
    stream(&count, |row| recipes.count_removed(row))
}
