use pgrx::pg_sys;

use crate::postgres::delete::{Scanned, delete_scanned};
use crate::postgres::error::Result;
use crate::postgres::met::Met;
use crate::postgres::stream::{stream, stream_returning};
use crate::postgres::subtransaction::attempt;
use crate::rank::tally::Tally;
use crate::remove::keys;
use crate::remove::left::Left;
use crate::remove::regular::walk;
use crate::rules::Rules;
use crate::target::leaf::{Leaf, Reach};

/// Removes every failed row that is selected, or only counts it in a dry run; one entry per recipe that has any.
pub fn emergency(rules: &Rules, leaves: &[Leaf], dry_run: bool) -> Result<(Tally, Left)> {
    let mut tally = Tally::of(rules.target.recipe.is_integer());
    let mut left = Left::default();
    for leaf in leaves {
        match dry_run {
            true => leaf.reading_as_owner(rules.target, || count_failed(rules, leaf, &mut tally)),
            false => leaf.as_owner(rules.target, || remove_failed(rules, leaf, &mut tally, &mut left)),
        }?;
    }
    tally.list.iter_mut().for_each(|recipe| recipe.failed = recipe.removed);
    Ok((tally, left))
}

/// Removes every failed row of a leaf that is selected, and counts them per recipe: in one statement if all of them can go.
fn remove_failed(rules: &Rules, leaf: &Leaf, tally: &mut Tally, left: &mut Left) -> Result<()> {
    if leaf.reach == Reach::Key {
        return keys::remove_failed(rules, leaf, tally, left);
    }
    if !leaf.table.has_rules {
        let mut counted = attempt(|| remove_scanned(rules, leaf));
        let none_can_stay = matches!(counted, Ok(Some(_))) || !leaf.table.has_triggers;
        if matches!(counted, Ok(None)) {
            counted = attempt(|| remove_returning(rules, leaf).map(Some));
        }
        let went = counted.map(|counted| counted.into_iter().for_each(|counted| tally.add(counted)));
        if went.map_err(Met::on_a_row).is_ok() && none_can_stay {
            return Ok(());
        }
    }
    walk(rules, leaf, tally, left)
}

/// Removes every failed row of a leaf, or none of them. Counts the recipe column as the DELETE scans, which is cheap. `None` if
/// a row stayed, or if the recipe is not a stored integer.
fn remove_scanned(rules: &Rules, leaf: &Leaf) -> Result<Option<Tally>> {
    let recipe = &rules.target.recipe;
    let delete = format!("DELETE FROM {} g WHERE {}", leaf.rows(), rules.condition());
    let mut counted = Tally::of(true);
    let Some(column) = leaf.stored_number_of(recipe, rules.target)?.filter(|_| recipe.is_integer()) else {
        return Ok(None);
    };
    let column = Scanned { table: leaf.table.oid, number: column, type_oid: recipe.type_oid };
    // SAFETY: the type exists; integers are passed by value.
    let removed = unsafe {
        let bytes = pg_sys::get_typlen(recipe.type_oid) as u32;
        delete_scanned(&delete, column, |numbers| counted.count_numbers(numbers, bytes))
    };
    Ok((removed == Some(counted.removed() as u64)).then_some(counted))
}

/// Removes every failed row of a leaf that goes. Fetches each row twice.
fn remove_returning(rules: &Rules, leaf: &Leaf) -> Result<Tally> {
    let recipe = &rules.target.recipe;
    let delete =
        format!("DELETE FROM {} g WHERE {} RETURNING {}, 1::bigint", leaf.rows(), rules.condition(), recipe.as_key());
    let mut counted = Tally::of(recipe.is_integer());
    stream_returning(&delete, |row| counted.count_removed(row))?;
    Ok(counted)
}

/// Counts the failed rows of a leaf that are selected, per recipe.
fn count_failed(rules: &Rules, leaf: &Leaf, tally: &mut Tally) -> Result<()> {
    let (key, condition) = (leaf.group_key(&rules.target.recipe), rules.condition());
    let count = format!("SELECT {key}, pg_catalog.count(*) FROM {} g WHERE {condition} GROUP BY 1", leaf.rows());
    stream(&count, |row| tally.count_removed(row))
}
