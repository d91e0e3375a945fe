use pgrx::pg_sys;

use crate::postgres::error::Result;
use crate::postgres::snapshot::with_own_changes;
use crate::rank::removable::Removable;
use crate::rank::tally::Tally;
use crate::remove::by_position::{CHUNK, remove_around};
use crate::remove::find::{Place, find};
use crate::remove::keys;
use crate::remove::left::Left;
use crate::rules::Rules;
use crate::target::leaf::{Leaf, Reach, oids};

/// What is to be removed of a leaf, which is given by its index in the list of leaves.
pub type Step = (usize, Rows);

pub enum Rows {
    At(Vec<Removable>),
    /// All that the run may remove, of which so many have been kept back before.
    All {
        kept_back: i64,
    },
}

/// A step of known rows.
pub fn at((place, rows): (usize, Vec<Removable>)) -> Step {
    (place, Rows::At(rows))
}

impl Rows {
    fn kept_back(&self) -> i64 {
        match self {
            Rows::At(rows) => rows.len() as i64,
            Rows::All { kept_back } => *kept_back,
        }
    }
}

/// Removes rows step by step, then those in `later`. Tries again what was kept back, until nothing of it goes: other rows that
/// have gone since may have held it.
pub fn remove_steps(
    rules: &Rules,
    leaves: &[Leaf],
    steps: Vec<Step>,
    later: Vec<Step>,
    tally: &mut Tally,
    left: &mut Left,
) -> Result<()> {
    let mut again = one_pass(rules, leaves, steps, tally, left)?;
    left.kept_back += later.iter().map(|(_, rows)| rows.kept_back()).sum::<i64>();
    again.extend(later.into_iter().filter(|(_, rows)| rows.kept_back() > 0));
    let mut before = -1;
    while !again.is_empty() && tally.removed() > before {
        before = tally.removed();
        // All but those given up are tried again: the reason is that of a row that stays.
        if left.given_up == 0 {
            left.reason = None;
        }
        left.kept_back -= again.iter().map(|(_, rows)| rows.kept_back()).sum::<i64>();
        again = one_pass(rules, leaves, again, tally, left)?;
    }
    Ok(())
}

/// Returns the steps to try again.
fn one_pass(rules: &Rules, leaves: &[Leaf], steps: Vec<Step>, tally: &mut Tally, left: &mut Left) -> Result<Vec<Step>> {
    let mut again = Vec::new();
    let tables = oids(leaves);
    for (place, wanted) in steps {
        let (leaf, before, given_up) = (&leaves[place], left.kept_back, left.given_up);
        let remove = |left: &mut Left| match wanted {
            // In their order: a row goes behind those that reference it, also where a piece is halved.
            Rows::At(rows) => {
                rows.chunks(CHUNK).try_for_each(|chunk| remove_around(rules, leaf, &tables, chunk, tally, left))
            }
            Rows::All { kept_back } if leaf.reach == Reach::Key => {
                keys::remove_all(rules, leaf, kept_back, tally, left)
            }
            Rows::All { .. } => walk(rules, leaf, &tables, tally, left),
        };
        with_own_changes(|| leaf.as_owner(rules.target, || remove(left)))?;
        let rows = match (leaf.reach, std::mem::take(&mut left.again)) {
            (Reach::Key, _) if left.given_up > given_up => continue,
            (Reach::Key, _) => Rows::All { kept_back: left.kept_back - before },
            (Reach::Position, rows) => Rows::At(rows),
        };
        if rows.kept_back() > 0 {
            again.push((place, rows));
        }
    }
    Ok(again)
}

/// Removes all rows of a leaf that the run may remove, page by page. Used if there are too many positions to keep.
fn walk(rules: &Rules, leaf: &Leaf, tables: &[pg_sys::Oid], tally: &mut Tally, left: &mut Left) -> Result<()> {
    let mut after = (0, 0);
    loop {
        let rows = find(rules, leaf, Place::Blocks { after, end: leaf.pages }, CHUNK, tally)?;
        remove_around(rules, leaf, tables, &rows, tally, left)?;
        match rows.last() {
            Some(last) if rows.len() == CHUNK => after = (last.block(), last.offset()),
            _ => return Ok(()),
        }
    }
}
