use std::ops::ControlFlow;

use pgrx::prelude::*;

use crate::postgres::error::Result;
use crate::postgres::owner::{as_owner_of, set_local};
use crate::postgres::stream::stream_until;
use crate::rank::position::{Order, Position};
use crate::rank::removable::{Removable, array};
use crate::rank::tally::Recipes;
use crate::rules::policy::Policy;
use crate::rules::selection::Selection;
use crate::target::Target;
use crate::target::leaf::Leaf;

/// Where in a leaf to look for removable rows.
pub enum Place<'a> {
    /// In heap order, behind a position (block, offset) and before a block.
    Blocks { after: (u32, u16), end: u32 },
    /// At these positions.
    Positions(&'a [pg_sys::ItemPointerData]),
}

/// The condition on a row `g` of what a run removes: regular by a policy, or emergency.
pub fn condition(target: &Target, policy: Option<&Policy>, selection: &Selection) -> String {
    let is_old = policy.map_or("true".into(), |policy| target.failed_before(&policy.cutoff));
    format!("{} AND {is_old} AND {}", target.is_failed(), selection.matches(target))
}

/// Finds up to `limit` rows of a leaf that a run removes: in a regular run those behind the cutoff of their recipe.
pub fn find(
    target: &Target,
    leaf: &Leaf,
    policy: Option<&Policy>,
    selection: &Selection,
    place: Place,
    limit: usize,
    recipes: &mut Recipes,
) -> Result<Vec<Removable>> {
    let order = Order::of(&target.id);
    let mut found = Vec::new();
    let statement = statement(target, leaf, &condition(target, policy, selection), &place);
    let tids = if let Place::Positions(tids) = place { Some(array(tids)) } else { None };
    as_owner_of(&leaf.table, || {
        // The place alone decides: a sequential scan may start in the middle, and a parallel one knows no order.
        set_local("enable_seqscan", "off");
        stream_until(&statement, tids, |row| {
            let recipe = recipes.of_row(row, 0);
            let goes = match (row.instant(1), recipes.list[recipe].cutoff) {
                _ if policy.is_none() => true,
                (Some(at), Some(cutoff)) => order.compare(Position { at, id: row.datum(2) }, cutoff).is_lt(),
                _ => false,
            };
            if goes {
                found.push(Removable::new(row.tid(3), recipe));
            }
            if found.len() < limit { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })
    })?;
    Ok(found)
}

fn statement(target: &Target, leaf: &Leaf, condition: &str, place: &Place) -> String {
    // IS TRUE hides a condition from every index, so that the place alone decides how the rows are reached.
    let place = match place {
        Place::Blocks { after: (block, offset), end } => format!(
            "g.ctid OPERATOR(pg_catalog.>) '({block},{offset})'::tid AND g.ctid OPERATOR(pg_catalog.<) '({end},0)'::tid
             AND ({condition}) IS TRUE"
        ),
        Place::Positions(_) => {
            format!("g.ctid OPERATOR(pg_catalog.=) ANY ((SELECT $1)::pg_catalog.tid[]) AND ({condition}) IS TRUE")
        }
    };
    format!(
        "SELECT {}, {}, {}, g.ctid FROM ONLY {} g WHERE {place}",
        target.recipe.as_key(),
        target.failed_at.as_itself(),
        target.id.as_itself(),
        leaf.table.name
    )
}
