use std::collections::HashSet;
use std::ops::{ControlFlow, RangeInclusive};

use pgrx::prelude::*;

use crate::postgres::datum::tid_array;
use crate::postgres::error::Result;
use crate::postgres::owner::reading_as_owner_of;
use crate::postgres::settings::set_local;
use crate::postgres::stream::stream_until;
use crate::rank::position::{Order, Position};
use crate::rank::removable::Removable;
use crate::rank::tally::{RecipeCount, Tally};
use crate::rules::Rules;
use crate::target::leaf::Leaf;

/// The condition on a row `g` that it is at one of the positions `$1` and the run may remove it. Forces a TID scan, whatever
/// the statistics: the subquery hides the array's length from the planner, and IS TRUE hides conditions that an index could
/// serve.
pub fn at_positions(rules: &Rules) -> String {
    at(rules, "(SELECT $1)::pg_catalog.tid[]")
}

/// The same for some of the positions, counted from 1.
pub fn at_some_positions(rules: &Rules, some: RangeInclusive<usize>) -> String {
    at(rules, &format!("((SELECT $1)::pg_catalog.tid[])[{}:{}]", some.start(), some.end()))
}

fn at(rules: &Rules, tids: &str) -> String {
    format!("g.ctid OPERATOR(pg_catalog.=) ANY ({tids}) AND ({}) IS TRUE", rules.condition())
}

/// Where in a leaf to look for removable rows.
#[derive(Clone, Copy)]
pub enum Place<'a> {
    /// In heap order, after a position (block, offset) and before a block.
    Blocks { after: (u32, u16), end: u32 },
    /// At these positions.
    Positions(&'a [pg_sys::ItemPointerData]),
}

/// Finds up to `limit` rows of a leaf that a run removes: in a regular run those older than the cutoff of their recipe, and no
/// more than its recipe has left.
pub fn find(rules: &Rules, leaf: &Leaf, place: Place, limit: usize, tally: &mut Tally) -> Result<Vec<Removable>> {
    find_but(rules, leaf, place, limit, tally, |_, _| true)
}

/// The same but for rows for which `meets` is false. It gets the transaction that has made each of the rows as it is.
pub fn find_but(
    rules: &Rules,
    leaf: &Leaf,
    place: Place,
    limit: usize,
    tally: &mut Tally,
    mut meets: impl FnMut(Removable, u32) -> bool,
) -> Result<Vec<Removable>> {
    let mut found = Vec::new();
    removable(rules, leaf, place, tally, |recipe, row, made_by| {
        if meets(row, made_by) && recipe.take() {
            found.push(row);
        }
        if found.len() < limit { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    Ok(found)
}

/// Of rows that are not where they were ranked, those that a regular run removes still: as rows of the same recipes.
pub fn removable_still(
    rules: &Rules,
    leaf: &Leaf,
    rows: &HashSet<Removable>,
    tally: &mut Tally,
) -> Result<HashSet<Removable>> {
    let tids: Vec<_> = rows.iter().map(Removable::tid).collect();
    let mut found = HashSet::new();
    removable(rules, leaf, Place::Positions(&tids), tally, |_, row, _| {
        found.insert(row);
        ControlFlow::Continue(())
    })?;
    Ok(found)
}

/// Calls `each` with the rows that a run removes, and the transactions that have made them: in a regular run, those older than the
/// cutoff of their recipe.
fn removable(
    rules: &Rules,
    leaf: &Leaf,
    place: Place,
    tally: &mut Tally,
    mut each: impl FnMut(&mut RecipeCount, Removable, u32) -> ControlFlow<()>,
) -> Result<()> {
    let order = Order::of(&rules.target.id.value);
    let statement = statement(rules, leaf, &place);
    let tids = if let Place::Positions(tids) = place { Some(tid_array(tids)) } else { None };
    reading_as_owner_of(&leaf.table, || {
        // Code has run since its owner's work on it began.
        leaf.is_still_of(rules.target)?;
        // Forces a TID scan: a sequential scan may start in the middle of the table, and a parallel one has no order.
        set_local("enable_seqscan", "off");
        stream_until(&statement, tids, |row| {
            let recipe = tally.of_row(row);
            let goes = match (row.number(3), tally.list[recipe].cutoff) {
                _ if !rules.is_regular() => true,
                (Some(at), Some(cutoff)) => order.compare(Position { at, id: row.datum(4) }, cutoff).is_lt(),
                _ => false,
            };
            if !goes {
                return ControlFlow::Continue(());
            }
            // SAFETY: the sixth column of the statement is a tid.
            let at = Removable::new(unsafe { row.tid(5) }, recipe);
            each(&mut tally.list[recipe], at, row.number(6).unwrap_or_default() as u32)
        })
    })
}

fn statement(rules: &Rules, leaf: &Leaf, place: &Place) -> String {
    let place = match place {
        Place::Blocks { after: (block, offset), end } => format!(
            "g.ctid OPERATOR(pg_catalog.>) '({block},{offset})'::pg_catalog.tid AND g.ctid OPERATOR(pg_catalog.<) '({end},0)'::pg_catalog.tid
             AND ({}) IS TRUE",
            rules.condition()
        ),
        Place::Positions(_) => at_positions(rules),
    };
    format!(
        "SELECT {}, {}, {}, g.ctid, g.xmin FROM ONLY {} g WHERE {place}",
        rules.policies.group_columns(rules.target, &rules.target.recipe_key()),
        rules.target.failed_at.as_itself(),
        rules.target.id.value.as_itself(),
        leaf.table.name
    )
}
