use pgrx::pg_sys;

use crate::postgres::error::Result;
use crate::postgres::snapshot::with_own_changes;
use crate::rank::removable::Removable;
use crate::rank::tally::Tally;
use crate::remove::across::remove_across;
use crate::remove::by_position::remove_around;
use crate::remove::find::{Place, find};
use crate::remove::keys;
use crate::remove::left::{Left, Patience, is_worth_while};
use crate::remove::order::{Linked, Ordered};
use crate::remove::pieces::CHUNK;
use crate::rules::Rules;
use crate::target::leaf::{Leaf, Reach, oids};

/// What is to be removed of a leaf, which is given by its index in the list of leaves.
pub type Step = (usize, Rows);

/// How many blocks a walk through a table takes at a time.
const BLOCKS: usize = 1_024;

pub enum Rows {
    At(Vec<Removable>),
    /// Rows in circles, which go in one statement.
    InCircles(Vec<Removable>),
    /// Rows of several leaves, which go in one statement.
    Across(Vec<Linked>),
    /// All that the run may remove, of which so many have been kept back before: those whose recipes are known, at no positions.
    All {
        kept_back: i64,
        known: Vec<Removable>,
    },
}

/// Ordered rows as steps, and those to try later.
pub fn ordered(rows: Ordered) -> (Vec<Step>, Vec<Step>) {
    let Ordered { steps, circles, across, held } = rows;
    let at = |(place, rows)| (place, Rows::At(rows));
    let circles = circles.into_iter().map(|(place, rows)| (place, Rows::InCircles(rows)));
    let across = across.into_iter().map(|rows| (rows.first().map_or(0, |row| row.place), Rows::Across(rows)));
    (steps.into_iter().map(at).chain(circles).chain(across).collect(), held.into_iter().map(at).collect())
}

/// The rows of a step that are known, with their tables.
pub fn rows_of((place, rows): &Step, leaves: &[Leaf]) -> Vec<(pg_sys::Oid, Removable)> {
    let table = |place: usize| leaves[place].table.oid;
    match rows {
        Rows::At(rows) | Rows::InCircles(rows) | Rows::All { known: rows, .. } => {
            rows.iter().map(|row| (table(*place), *row)).collect()
        }
        Rows::Across(rows) => rows.iter().map(|linked| (table(linked.place), linked.row)).collect(),
    }
}

impl Rows {
    pub fn all() -> Rows {
        Rows::All { kept_back: 0, known: Vec::new() }
    }

    pub fn kept_back(&self) -> i64 {
        match self {
            Rows::At(rows) | Rows::InCircles(rows) => rows.len() as i64,
            Rows::Across(rows) => rows.len() as i64,
            Rows::All { kept_back, .. } => *kept_back,
        }
    }

    fn reversed(self) -> Rows {
        match self {
            Rows::At(rows) => Rows::At(rows.into_iter().rev().collect()),
            others => others,
        }
    }

    /// How many of the first rows go in one statement or not at all.
    pub fn together(&self) -> usize {
        match self {
            Rows::At(_) | Rows::All { .. } => 1,
            Rows::InCircles(rows) => rows.len(),
            Rows::Across(rows) => rows.iter().skip(1).take_while(|row| !row.is_first).count() + 1,
        }
    }

    /// Takes out the rows behind those that are at most so many: whole circles, where these are through several leaves.
    pub fn split_off(&mut self, most: usize) -> Rows {
        match self {
            Rows::At(rows) => Rows::At(rows.split_off(most.min(rows.len()))),
            Rows::InCircles(rows) => Rows::InCircles(rows.split_off(most.min(rows.len()))),
            Rows::Across(rows) => {
                let ends = rows.iter().enumerate().skip(1).filter(|(_, row)| row.is_first).map(|(end, _)| end);
                let end = ends.chain([rows.len()]).take_while(|end| *end <= most).last();
                Rows::Across(rows.split_off(end.unwrap_or_default()))
            }
            Rows::All { .. } => Rows::At(Vec::new()),
        }
    }
}

fn reversed(steps: Vec<Step>) -> Vec<Step> {
    steps.into_iter().rev().map(|(place, rows)| (place, rows.reversed())).collect()
}

/// Removes rows step by step, then those in `later`. Tries again what was kept back, as long as a pass is worth while: other rows that
/// have gone since may have held it. Each pass goes the other way than the one before.
pub fn remove_steps(
    rules: &Rules,
    leaves: &[Leaf],
    steps: Vec<Step>,
    later: Vec<Step>,
    tally: &mut Tally,
    left: &mut Left,
) -> Result<()> {
    let (tables, mut at_start) = (oids(leaves), tally.removed());
    let mut again = reversed(one_pass(rules, leaves, &tables, steps, tally, left)?);
    left.kept_back += later.iter().map(|(_, rows)| rows.kept_back()).sum::<i64>();
    again.extend(later.into_iter().filter(|(_, rows)| rows.kept_back() > 0));
    let mut before = None;
    loop {
        let removed = tally.removed() - at_start;
        if again.is_empty() || !is_worth_while(removed, before, left.given_up) {
            left.again = again.iter().flat_map(|step| rows_of(step, leaves)).map(|(_, row)| row).collect();
            return Ok(());
        }
        (at_start, before) = (tally.removed(), Some(removed));
        left.kept_back -= again.iter().map(|(_, rows)| rows.kept_back()).sum::<i64>();
        // The reason is that of a row that stays.
        let first = if left.kept_back == 0 { left.reason.take() } else { None };
        (left.given_up, left.patience) = (0, Patience::default());
        again = reversed(one_pass(rules, leaves, &tables, again, tally, left)?);
        if tally.removed() == at_start {
            left.reason = left.reason.take().map(|now| first.unwrap_or(now));
        }
    }
}

/// Removes rows step by step. Returns the steps to try again. `tables` are the target's.
pub fn one_pass(
    rules: &Rules,
    leaves: &[Leaf],
    tables: &[pg_sys::Oid],
    steps: Vec<Step>,
    tally: &mut Tally,
    left: &mut Left,
) -> Result<Vec<Step>> {
    let mut again = Vec::new();
    for (place, wanted) in steps {
        let (leaf, before) = (&leaves[place], left.kept_back);
        if let Rows::Across(rows) = wanted {
            let rows = with_own_changes(|| remove_across(rules, leaves, tables, &rows, tally, left))?;
            again.extend((!rows.is_empty()).then_some((place, Rows::Across(rows))));
            continue;
        }
        let in_circles = matches!(wanted, Rows::InCircles(_));
        let remove = |left: &mut Left| match wanted {
            // In their order: a row goes behind those that reference it, also where a piece is halved.
            Rows::At(rows) => {
                rows.chunks(CHUNK).try_for_each(|chunk| remove_around(rules, leaf, tables, chunk, tally, left))
            }
            Rows::InCircles(rows) => remove_around(rules, leaf, tables, &rows, tally, left),
            Rows::All { kept_back, .. } if leaf.reach == Reach::Key => {
                keys::remove_all(rules, leaf, tables, kept_back, tally, left)
            }
            Rows::All { .. } | Rows::Across(_) => walk(rules, leaf, tables, tally, left),
        };
        with_own_changes(|| leaf.as_owner(rules.target, || remove(left)))?;
        let rows = match (leaf.reach, std::mem::take(&mut left.again)) {
            (Reach::Key, known) => Rows::All { kept_back: left.kept_back - before, known },
            (Reach::Position, rows) if in_circles => Rows::InCircles(rows),
            (Reach::Position, rows) => Rows::At(rows),
        };
        if rows.kept_back() > 0 {
            again.push((place, rows));
        }
    }
    Ok(again)
}

/// Removes all rows of a leaf that the run may remove, some blocks at a time. Used if there are too many positions to keep. The end
/// of the table comes first: who references another row is younger, as a rule.
fn walk(rules: &Rules, leaf: &Leaf, tables: &[pg_sys::Oid], tally: &mut Tally, left: &mut Left) -> Result<()> {
    for first in (0..leaf.pages).step_by(BLOCKS).rev() {
        let place = Place::Blocks { after: (first, 0), end: leaf.pages.min(first + BLOCKS as u32) };
        for chunk in find(rules, leaf, place, usize::MAX, tally)?.chunks(CHUNK) {
            remove_around(rules, leaf, tables, chunk, tally, left)?;
        }
    }
    Ok(())
}
