use pgrx::pg_sys;

use crate::postgres::changes::is_updated;
use crate::postgres::delete::{Scanned, delete_scanned};
use crate::postgres::error::Result;
use crate::postgres::met::Met;
use crate::postgres::snapshot::with_own_changes;
use crate::postgres::stream::stream_writing;
use crate::postgres::subtransaction::attempt;
use crate::rank::grouped::count_where;
use crate::rank::removable::{POSITIONS, PerLeaf};
use crate::rank::tally::Tally;
use crate::remove::besides::Besides;
use crate::remove::find::{Place, find};
use crate::remove::left::Left;
use crate::remove::order::{can_dangle, have_an_order, in_order};
use crate::remove::pieces::CHUNK;
use crate::remove::sample;
use crate::remove::steps::{Rows, Step, ordered, remove_steps};
use crate::rules::Rules;
use crate::target::leaf::{Leaf, Reach, oids};

/// Removes every failed row that is selected, or only counts it in a dry run; one entry per recipe that has any.
pub fn emergency(rules: &Rules, leaves: &[Leaf], dry_run: bool) -> Result<(Tally, Left)> {
    let mut tally = Tally::of(rules.target, &rules.policies);
    let mut left = Left::default();
    // Rows for which an expression fails are found before any goes.
    leaves.iter().try_for_each(|leaf| rules.target.read_values(leaf))?;
    if dry_run {
        for leaf in leaves {
            leaf.reading_as_owner(rules.target, || count_where(rules, leaf, &rules.condition(), &mut tally))?;
        }
        return Ok((tally, left));
    }
    let mut rest = Vec::new();
    let tables = oids(leaves);
    for (place, leaf) in leaves.iter().enumerate() {
        let before = tally.removed();
        let sample = match leaf.reach {
            Reach::Position => leaf.as_owner(rules.target, || sample::of_leaf(rules, leaf))?,
            Reach::Key => Vec::new(),
        };
        // The sample may have taken long: the leaf is looked at again, and behind the removal once more. Its condition alone says what goes.
        let all_went = leaf.as_owner(rules.target, || {
            let all_went = remove_at_once(rules, leaf, &tables, &mut tally)?;
            leaf.is_still_of(rules.target).map(|()| all_went)
        })?;
        let removed = tally.removed() - before;
        tally.lost.add(sample, removed);
        if !all_went {
            rest.push(place);
        }
    }
    if !rest.is_empty() {
        let (steps, held) = with_own_changes(|| steps_of(rules, leaves, &rest, &mut tally))?;
        remove_steps(rules, leaves, steps, held, &mut tally, &mut left)?;
    }
    if tables.iter().any(|table| is_updated(*table)) {
        // What was to go and was not found again.
        let missing = tally.failed() - tally.removed() - left.kept_back - left.skipped;
        left.keep_changed(missing.max(0) as usize);
    }
    tally.settle(left.kept_back + left.skipped);
    Ok((tally, left))
}

/// Removes every failed row of a leaf that is selected, in one statement. Returns false if rows may have stayed: no more of them go
/// than there were, whatever code turns into failed rows.
fn remove_at_once(rules: &Rules, leaf: &Leaf, tables: &[pg_sys::Oid], tally: &mut Tally) -> Result<bool> {
    let besides = Besides::of(leaf, tables);
    let alone = |counted: Option<Tally>| Ok(counted.filter(|counted| !besides.are_gone(counted.removed() as usize)));
    let is_scanned = leaf.reach == Reach::Position && !leaf.table.has_rules && !can_dangle(leaf, tables)?;
    let scanned = if is_scanned { attempt(|| remove_scanned(rules, leaf).and_then(alone)) } else { Ok(None) };
    if let Ok(Some(gone)) = scanned {
        tally.add_failed(&gone);
        tally.add(gone);
        return Ok(true);
    }
    let is_returned = is_scanned && scanned.map_err(Met::on_a_row).is_ok();
    let count = || {
        let mut there = Tally::of(rules.target, &rules.policies);
        leaf.reading_as_owner(rules.target, || count_where(rules, leaf, &rules.condition(), &mut there)).map(|()| there)
    };
    // Triggers may change what is there, also by a statement that goes through.
    let before = if leaf.table.has_triggers { Some(count()?) } else { None };
    leaf.is_still_of(rules.target)?;
    let returned = || attempt(|| remove_returning(rules, leaf).map(Some).and_then(alone));
    let gone = if is_returned { returned().map_err(Met::on_a_row).ok().flatten() } else { None };
    let (there, gone) = match (before, gone) {
        (None, Some(gone)) => {
            tally.add_failed(&gone);
            tally.add(gone);
            return Ok(true);
        }
        (before, gone) => (before.map_or_else(count, Ok)?, gone),
    };
    tally.add_failed(&there);
    if leaf.reach == Reach::Position {
        tally.allow(&there, 1);
        gone.iter().for_each(|gone| tally.allow(gone, -1));
    }
    let all_went = gone.as_ref().is_some_and(|gone| gone.removed() == there.removed());
    gone.into_iter().for_each(|gone| tally.add(gone));
    Ok(all_went)
}

/// What one statement per leaf has left, as steps, and what rows that stay hold.
fn steps_of(rules: &Rules, leaves: &[Leaf], rest: &[usize], tally: &mut Tally) -> Result<(Vec<Step>, Vec<Step>)> {
    let all = || (rest.iter().map(|place| (*place, Rows::all())).collect(), Vec::new());
    if !have_an_order(leaves)? {
        return Ok(all());
    }
    let Some(positions) = positions(rules, leaves, tally)? else { return Ok(all()) };
    let (mut steps, held) = ordered(in_order(leaves, positions, CHUNK)?);
    let by_key = rest.iter().filter(|place| leaves[**place].reach == Reach::Key);
    steps.extend(by_key.map(|place| (*place, Rows::all())));
    Ok((steps, held))
}

/// The positions of the failed rows that are selected; `None` if there are too many to keep.
pub fn positions(rules: &Rules, leaves: &[Leaf], tally: &mut Tally) -> Result<Option<PerLeaf>> {
    let mut positions = PerLeaf::new();
    let mut room = POSITIONS;
    for leaf in leaves {
        positions.push(match leaf.reach {
            Reach::Key => Vec::new(),
            Reach::Position => find(rules, leaf, Place::Blocks { after: (0, 0), end: leaf.pages }, room, tally)?,
        });
        room -= positions.last().map_or(0, Vec::len);
    }
    Ok((room > 0).then_some(positions))
}

/// Removes every failed row of a leaf, or none of them. Counts the recipe column as the DELETE scans, which is cheap. `None` if
/// a row stayed, or if the recipe is not a stored integer that says which policy a row has.
fn remove_scanned(rules: &Rules, leaf: &Leaf) -> Result<Option<Tally>> {
    let recipe = &rules.target.recipe;
    let delete = format!("DELETE FROM {} g WHERE {}", leaf.rows(), rules.condition());
    let mut counted = Tally::of(rules.target, &rules.policies);
    let says_all = recipe.is_integer() && counted.is_by_recipe();
    let Some(column) = leaf.stored_number_of(recipe, rules.target)?.filter(|_| says_all) else {
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
    let group = rules.policies.group_columns(rules.target, &rules.target.recipe_key());
    let delete = format!("DELETE FROM {} g WHERE {} RETURNING {group}, 1::bigint", leaf.rows(), rules.condition());
    let mut counted = Tally::of(rules.target, &rules.policies);
    stream_writing(&delete, None, |row| counted.count_removed(row))?;
    Ok(counted)
}
