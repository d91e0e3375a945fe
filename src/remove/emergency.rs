use pgrx::pg_sys;

use crate::postgres::delete::{Scanned, delete_scanned};
use crate::postgres::error::Result;
use crate::postgres::stream::{stream, stream_returning};
use crate::postgres::subtransaction::attempt;
use crate::rank::tally::Tally;
use crate::rules::Rules;
use crate::target::leaf::{Leaf, Reach};

/// Removes every failed row that is selected, or only counts it in a dry run; one entry per recipe that has any.
pub fn emergency(rules: &Rules, leaves: &[Leaf], dry_run: bool) -> Result<Tally> {
    let mut tally = Tally::of(rules.target.recipe.is_integer());
    for leaf in leaves {
        match dry_run {
            true => leaf.reading_as_owner(rules.target, || count_failed(rules, leaf, &mut tally)),
            false => leaf.as_owner(rules.target, || remove_failed(rules, leaf, &mut tally)),
        }?;
    }
    Ok(tally)
}

/// Removes every failed row of a leaf that is selected, and counts them per recipe. Counts the recipe column as the DELETE
/// scans, which is cheap. Uses RETURNING if a row stayed, if the recipe is not a stored integer, or if rows have no position.
pub fn remove_failed(rules: &Rules, leaf: &Leaf, tally: &mut Tally) -> Result<()> {
    let recipe = &rules.target.recipe;
    let delete = format!("DELETE FROM {} g WHERE {}", leaf.rows(), rules.condition());
    let mut counted = Tally::of(recipe.is_integer());
    let all_went = attempt(|| {
        if leaf.reach == Reach::Key || !recipe.is_integer() {
            return Ok(None);
        }
        let Some(column) = leaf.stored_number_of(recipe, rules.target)? else { return Ok(None) };
        let column = Scanned { table: leaf.table.oid, number: column, type_oid: recipe.type_oid };
        // SAFETY: the type exists; integers are passed by value.
        let removed = unsafe {
            let bytes = pg_sys::get_typlen(recipe.type_oid) as u32;
            delete_scanned(&delete, column, |numbers| counted.count_numbers(numbers, bytes))
        };
        Ok((removed == Some(counted.removed() as u64)).then_some(()))
    });
    if all_went.unwrap_or_else(|failure| failure.rethrow()).is_some() {
        for counted in counted.list {
            let recipe = tally.of_id(counted.recipe_id.as_deref());
            tally.list[recipe].failed += counted.failed;
            tally.list[recipe].removed += counted.removed;
        }
        return Ok(());
    }
    stream_returning(&format!("{delete} RETURNING {}, 1::bigint", recipe.as_key()), |row| tally.count_removed(row))
}

/// Counts the failed rows of a leaf that are selected, per recipe.
fn count_failed(rules: &Rules, leaf: &Leaf, tally: &mut Tally) -> Result<()> {
    let (key, condition) = (leaf.group_key(&rules.target.recipe), rules.condition());
    let count = format!("SELECT {key}, pg_catalog.count(*) FROM {} g WHERE {condition} GROUP BY 1", leaf.rows());
    stream(&count, |row| tally.count_removed(row))
}
