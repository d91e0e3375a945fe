use std::ops::{ControlFlow, Range};

use pgrx::pg_sys;
use pgrx::spi::quote_literal;

use crate::postgres::datum::instant_as_text;
use crate::postgres::error::Result;
use crate::postgres::met::Met;
use crate::postgres::stream::{stream, stream_until, stream_writing};
use crate::postgres::subtransaction::attempt;
use crate::rank::position::Position;
use crate::rank::removable::Removable;
use crate::rank::tally::{RecipeCount, Tally};
use crate::remove::besides::Besides;
use crate::remove::left::{INSUFFICIENT_PRIVILEGE, Left, MESSAGE, Reason};
use crate::remove::pieces::Pieces;
use crate::rules::Rules;
use crate::target::Target;
use crate::target::id::Values;
use crate::target::leaf::Leaf;

/// Rows that a statement removes, at most: what it returns is held in memory, some 100 bytes a row.
const AT_ONCE: i64 = 100_000;

/// Ids that are held at a time, to find those of rows that cannot go, and about how many bytes.
const IDS: usize = 10_000;
const BYTES: usize = 10_000_000;

/// A leaf without usable positions. Code can remove rows of the target's other tables while it is worked on.
struct Far<'a> {
    rules: &'a Rules<'a>,
    leaf: &'a Leaf,
    tables: &'a [pg_sys::Oid],
}

/// Removes rows of a leaf that has no usable positions: for each recipe in `range` (indexes in the tally), the rows older
/// than its cutoff, and no more than its recipe has left. Stops once it has removed `limit` rows. Returns the index of the next
/// recipe, or the range's end. `tables` are the target's.
pub fn remove(
    rules: &Rules,
    leaf: &Leaf,
    tables: &[pg_sys::Oid],
    range: Range<usize>,
    limit: usize,
    tally: &mut Tally,
    left: &mut Left,
) -> Result<usize> {
    let are_there = leaf.is_all_of(rules.target)?;
    let mut removed = 0;
    let mut place = range.start;
    while place < range.end && removed < limit && !left.is_over()? {
        let recipe = &tally.list[place];
        if let (Some(cutoff), Some(most)) = (recipe.cutoff, recipe.left) {
            let condition = condition(rules, recipe, cutoff);
            let gone = remove_where(&Far { rules, leaf, tables }, &condition, most, are_there, tally, left)?;
            tally.list[place].left = Some(most - gone);
            removed += gone as usize;
        }
        place += 1;
    }
    Ok(place)
}

/// Removes all rows of such a leaf that the run may remove, of which so many have been kept back before.
pub fn remove_all(
    rules: &Rules,
    leaf: &Leaf,
    tables: &[pg_sys::Oid],
    kept_back: i64,
    tally: &mut Tally,
    left: &mut Left,
) -> Result<()> {
    if rules.is_regular() {
        return remove(rules, leaf, tables, 0..tally.list.len(), usize::MAX, tally, left).map(drop);
    }
    let condition = rules.condition();
    // Code on the other server may write rows again that have gone.
    let most = if kept_back > 0 { kept_back } else { count(leaf, &condition)? };
    remove_where(&Far { rules, leaf, tables }, &condition, most, true, tally, left).map(drop)
}

fn count(leaf: &Leaf, condition: &str) -> Result<i64> {
    let mut rows = 0;
    let count = format!("SELECT pg_catalog.count(*) FROM {} g WHERE {condition}", leaf.rows());
    stream(&count, |row| rows = row.number(0).unwrap_or_default())?;
    Ok(rows)
}

/// Removes the rows that meet a condition, but at most so many; in one statement of `AT_ONCE` rows after the other if all of them can go.
/// Counts those that are left, and returns how many have gone. `are_there` says whether the leaf had that many.
fn remove_where(
    far: &Far,
    condition: &str,
    most: i64,
    are_there: bool,
    tally: &mut Tally,
    left: &mut Left,
) -> Result<i64> {
    let Far { rules, leaf, .. } = far;
    let before = tally.removed();
    let mut beyond = condition.to_owned();
    loop {
        leaf.is_still_of(rules.target)?;
        let rest = most - (tally.removed() - before);
        let last = if rest > AT_ONCE { last_of(rules, leaf, &beyond, AT_ONCE)? } else { None };
        let portion = match &last {
            Some(last) => format!("{beyond} AND NOT ({})", rules.target.id.is_behind(last)),
            None => beyond,
        };
        let at_once = || delete(far, &portion).map(|gone| Some(gone).filter(|gone| gone.removed() <= rest));
        match attempt(at_once) {
            Ok(Some(gone)) => tally.add(gone),
            Ok(None) => remove_around(far, &portion, rest, tally, left)?,
            Err(failure) => {
                Met::on_a_row(failure);
                remove_around(far, &portion, rest, tally, left)?;
            }
        }
        let Some(last) = last else { break };
        if left.is_over()? {
            break;
        }
        beyond = format!("{condition} AND {}", rules.target.id.is_behind(&last));
    }
    let removed = tally.removed() - before;
    if removed >= most {
        return Ok(removed);
    }
    let there = format!(
        "SELECT {}, pg_catalog.left({}, {MESSAGE}) FROM {} g WHERE {condition}",
        rules.policies.group_columns(rules.target, &rules.target.recipe_key()),
        rules.target.id.as_text(),
        leaf.rows()
    );
    let (mut known, mut first) = (Vec::new(), None);
    stream(&there, |row| {
        // SAFETY: the column is a text.
        first.get_or_insert_with(|| unsafe { row.text(3) }.map(str::to_owned));
        if (known.len() as i64) < most - removed {
            known.push(Removable::new(pg_sys::ItemPointerData::default(), tally.of_row(row)));
        }
    })?;
    let rows = known.len() as i64;
    if left.is_over()? {
        left.untried += rows;
        return Ok(removed);
    }
    if rows > 0 {
        left.kept_back += rows;
        left.again.extend(known);
        left.reason.get_or_insert_with(|| Reason::new(None, first.flatten()));
    }
    if are_there {
        left.keep_changed((most - removed - rows) as usize);
    }
    Ok(removed)
}

/// The id of the row at this place, the lowest ids first, of those that meet a condition; `None` if they are fewer.
fn last_of(rules: &Rules, leaf: &Leaf, condition: &str, place: i64) -> Result<Option<Values>> {
    let id = &rules.target.id;
    let texts: Vec<String> = id.columns.iter().map(|(_, column)| column.as_text()).collect();
    let at = format!(
        "SELECT {} FROM {} g WHERE {condition} ORDER BY {} OFFSET {} LIMIT 1",
        texts.join(", "),
        leaf.rows(),
        id.order(),
        place - 1
    );
    let mut found = None;
    stream(&at, |row| {
        // SAFETY: the columns are texts.
        found = Some((0..texts.len()).map(|column| unsafe { row.text(column) }.map(str::to_owned)).collect());
    })?;
    Ok(found)
}

/// Removes those of the rows that can go, but tries at most so many, the lowest ids first: halves what is refused until the ids
/// are found of those that cannot.
fn remove_around(far: &Far, condition: &str, most: i64, tally: &mut Tally, left: &mut Left) -> Result<()> {
    let Far { rules, leaf, .. } = far;
    let id = &rules.target.id;
    let mut beyond = "true".to_owned();
    let mut most = most as usize;
    while most > 0 {
        leaf.is_still_of(rules.target)?;
        let texts: Vec<String> = id.columns.iter().map(|(_, column)| column.as_text()).collect();
        let next = format!(
            "SELECT {} FROM {} g WHERE {condition} AND {beyond} ORDER BY {} LIMIT {}",
            texts.join(", "),
            leaf.rows(),
            id.order(),
            most.min(IDS)
        );
        let (mut ids, mut bytes): (Vec<Values>, usize) = Default::default();
        stream_until(&next, None, |row| {
            // SAFETY: the columns are texts.
            let values = (0..texts.len()).map(|column| unsafe { row.text(column) }.map(str::to_owned));
            let values: Values = values.collect();
            bytes += values.iter().flatten().map(String::len).sum::<usize>();
            ids.push(values);
            if bytes < BYTES { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        let Some(last) = ids.last() else { return Ok(()) };
        beyond = id.is_behind(last);
        most -= ids.len();
        let of_ids = |ids: &[Values]| delete(far, &format!("{condition} AND {}", id.is_one_of(ids)));
        let mut pieces = Pieces::of(&ids, left.patience);
        while let Some(piece) = pieces.next(|_| true) {
            if left.is_over()? {
                return Ok(());
            }
            match attempt(|| of_ids(&piece).map(Some)) {
                Ok(gone) => {
                    gone.into_iter().for_each(|gone| tally.add(gone));
                    pieces.went();
                }
                Err(failure) => {
                    let met = Met::on_a_row(failure);
                    pieces.lose();
                    if met.sqlstate == INSUFFICIENT_PRIVILEGE {
                        // Raises the error again if it is about the table.
                        of_ids(&[])?;
                    }
                    if !pieces.halve(&piece, |_| true, |_, _| false) && left.reason.is_none() {
                        let row = piece.first().map(|row| id.text_of(row)).transpose()?.flatten();
                        left.reason = Some(Reason::new(Some(met), row));
                    }
                }
            }
        }
        left.patience = pieces.patience();
        left.given_up += pieces.rest().len() as i64;
    }
    Ok(())
}

/// Removes the rows that meet a condition, and returns how many per recipe. Errors: those of `Besides::are_none`.
fn delete(Far { rules, leaf, tables }: &Far, condition: &str) -> Result<Tally> {
    let group = rules.policies.group_columns(rules.target, &rules.target.recipe_key());
    let delete = format!("DELETE FROM {} g WHERE {condition} RETURNING {group}, 1::bigint", leaf.rows());
    let mut gone = Tally::of(rules.target, &rules.policies);
    // PostgreSQL counts none of a foreign table's own.
    let besides = Besides::of(leaf, tables);
    stream_writing(&delete, None, |row| gone.count_removed(row))?;
    besides.are_none(0)?;
    Ok(gone)
}

/// The condition on a recipe's rows under its policy before a cutoff. It has only columns and constants, so that another server can
/// run it; but what finds the rows of a shortened id runs here.
fn condition(rules: &Rules, recipe: &RecipeCount, cutoff: Position) -> String {
    let Target { id, failed_at, recipe: recipe_column, .. } = rules.target;
    let is_its = match &recipe.recipe_id {
        None => format!("{} IS NULL", recipe_column.of_row()),
        Some(recipe_id) => rules.target.is_of_recipe(recipe_id),
    };
    let at = format!("{}::{}", quote_literal(instant_as_text(cutoff.at, failed_at.type_oid)), failed_at.sql_type);
    // NULL is the newest id.
    // SAFETY: the id of a position.
    let values = cutoff.id.map_or_else(|| vec![None; id.columns.len()], |of_row| unsafe { id.values_of(of_row) });
    let is_older = id.is_before(&values);
    let is_under = match rules.policies.list.len() {
        1 => String::new(),
        _ => {
            format!(" AND {}", rules.policies.is_under(recipe.policy, rules.target, Some(recipe.recipe_id.as_deref())))
        }
    };
    let has_its_status = match rules.target.has_several_statuses() {
        true => format!(" AND {}", rules.target.has_status(&rules.target.names_of_statuses[recipe.status])),
        false => String::new(),
    };
    format!(
        "{is_its}{is_under}{has_its_status} AND {}
         AND ({column} OPERATOR(pg_catalog.<) {at} OR {column} OPERATOR(pg_catalog.=) {at} AND {is_older})",
        rules.condition(),
        column = failed_at.of_row(),
    )
}
