pub mod index;
pub mod newest;
pub mod position;
pub mod removable;
pub mod tally;

use pgrx::pg_sys;

use crate::postgres::error::Result;
use crate::postgres::owner::{as_owner_of, set_local};
use crate::postgres::stream::{Row, stream, stream_index};
use crate::rank::newest::{Expired, Newest};
use crate::rank::position::{Order, Position};
use crate::rank::removable::{POSITIONS, PerLeaf, Removable, push};
use crate::rank::tally::{Recipes, Swept};
use crate::rules::policy::Policy;
use crate::rules::selection::Selection;
use crate::target::Target;
use crate::target::leaf::{Leaf, Reach};

/// What one pass over the failed rows finds, without a sort: a row that `keep` newer ones of its recipe push out is
/// removable, whatever comes after it.
pub struct Ranked {
    /// Every recipe that has failed rows; `removed` counts those that a run would remove.
    pub recipes: Recipes,
    /// Where the removable rows are; `None` where there are too many to keep.
    pub positions: Option<PerLeaf>,
    /// Where the write-ahead log was before they were read.
    pub lsn: u64,
}

/// Ranks the expired failed rows of a target, newest first by failed-at, then by id. Takes twice `keep` entries per recipe,
/// and 8 bytes per position. Reads the partial index alone where it can tell, else the table, in one pass.
pub fn rank(target: &Target, policy: &Policy, selection: &Selection, leaves: &[Leaf]) -> Result<Ranked> {
    let cutoff = policy.cutoff_of(target)?;
    let through_index = index::serves(target, selection, leaves)?;
    let lsn = unsafe { pg_sys::GetXLogInsertRecPtr() };
    let order = Order::of(&target.id);
    let keep = usize::try_from(policy.keep).unwrap_or_default();
    let mut recipes = Recipes::of(&target.recipe);
    let mut newest: Vec<Newest> = Vec::new();
    let mut gone = Gone { positions: Some(leaves.iter().map(|_| Vec::new()).collect()), found: 0 };
    for (leaf, place) in leaves.iter().zip(0..) {
        read(target, selection, leaf, through_index, |row| {
            let recipe = recipes.of_row(row, 0);
            let counted = &mut recipes.list[recipe];
            counted.failed += 1;
            newest.resize_with(newest.len().max(recipe + 1), Newest::default);
            if let Some(at) = row.instant(1).filter(|at| *at < cutoff) {
                let expired = Expired {
                    position: Position { at, id: row.datum(2) },
                    tid: row.tid(3),
                    leaf: place,
                    is_selected: row.datum(4).is_some_and(|selected| selected.value() != 0),
                };
                newest[recipe].add(expired, keep, &order, |row| gone.add(row, recipe, counted));
            }
        })?;
    }
    newest.resize_with(recipes.list.len(), Newest::default);
    for ((recipe, counted), newest) in recipes.list.iter_mut().enumerate().zip(&mut newest) {
        counted.cutoff = newest.oldest(keep, &order, |row| gone.add(row, recipe, counted));
    }
    gone.positions.iter_mut().flatten().for_each(|rows| rows.sort_unstable());
    Ok(Ranked { recipes, positions: gone.positions, lsn })
}

/// The removable rows so far.
struct Gone {
    positions: Option<PerLeaf>,
    found: usize,
}

impl Gone {
    fn add(&mut self, row: Expired, recipe: usize, counted: &mut Swept) {
        if !row.is_selected {
            return;
        }
        counted.removed += 1;
        self.found += 1;
        if self.found > POSITIONS {
            self.positions = None;
        }
        if let Some(positions) = &mut self.positions {
            push(&mut positions[row.leaf as usize], Removable::new(row.tid, recipe));
        }
    }
}

/// Reads the failed rows of a leaf: recipe, failed-at, id, position, whether it is selected. As its owner, whose functions
/// the planner calls where an index or a check has any.
fn read(
    target: &Target,
    selection: &Selection,
    leaf: &Leaf,
    through_index: bool,
    mut each: impl FnMut(&Row),
) -> Result<()> {
    let Target { id, recipe, failed_at, .. } = target;
    let statement = |position: &str| {
        format!(
            "SELECT {}, {}, {}, {position}, {} FROM {} g WHERE {}",
            recipe.as_key(),
            failed_at.as_itself(),
            id.as_itself(),
            selection.matches(target),
            leaf.rows(),
            target.is_failed()
        )
    };
    let is_read = through_index
        && as_owner_of(&leaf.table, || {
            for path in ["seqscan", "bitmapscan"] {
                set_local(&format!("enable_{path}"), "off");
            }
            set_local("max_parallel_workers_per_gather", "0");
            Ok(stream_index(&statement("NULL::tid"), &mut each))
        })?;
    if is_read {
        return Ok(());
    }
    as_owner_of(&leaf.table, || {
        leaf.expect_most_rows();
        stream(&statement(if leaf.reach == Reach::Position { "g.ctid" } else { "NULL::tid" }), each)
    })
}
