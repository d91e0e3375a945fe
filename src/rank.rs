use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

use pgrx::pg_sys;

use crate::error::Result;
use crate::index;
use crate::leaf::{Leaf, Reach};
use crate::owner::{as_owner_of, set_local};
use crate::policy::Policy;
use crate::position::{Order, Position};
use crate::recipe::Recipes;
use crate::removable::{POSITIONS, PerLeaf, Removable, push};
use crate::selection::Selection;
use crate::stream::{Row, stream, stream_index};
use crate::target::Target;

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

/// Ranks the expired failed rows of a target, newest first by failed-at, then by id. Takes `keep` entries per recipe, and
/// 8 bytes per position. Reads the partial index alone where it can tell, else the table, in one pass.
pub fn rank(target: &Target, policy: &Policy, selection: &Selection, leaves: &[Leaf]) -> Result<Ranked> {
    let cutoff = policy.cutoff_of(target)?;
    let through_index = index::serves(target, selection, leaves)?;
    let lsn = unsafe { pg_sys::GetXLogInsertRecPtr() };
    let order = Order::of(&target.id);
    let keep = usize::try_from(policy.keep).unwrap_or_default();
    let mut recipes = Recipes::of(&target.recipe);
    let mut newest: Vec<BinaryHeap<Reverse<Expired>>> = Vec::new();
    let (mut positions, mut found) = (Some(PerLeaf::new()), 0);
    let mut each = |leaf: &Leaf, row: &Row| {
        let recipe = recipes.of_row(row, 0);
        recipes.list[recipe].failed += 1;
        newest.resize_with(recipes.list.len(), BinaryHeap::new);
        let Some(at) = row.instant(1).filter(|at| *at < cutoff) else { return };
        let mut expired = Expired::of(leaf, row, at, &order);
        let heap = &mut newest[recipe];
        if heap.len() < keep {
            expired.position = order.keep(expired.position);
            return heap.push(Reverse(expired));
        }
        // The oldest of keep + 1 rows goes: this one, or the one that it pushes out.
        match heap.peek_mut() {
            Some(mut oldest) if oldest.0 < expired => {
                expired.position = order.keep(expired.position);
                std::mem::swap(&mut oldest.0, &mut expired);
                order.free(expired.position);
            }
            _ => {}
        }
        if expired.is_selected {
            recipes.list[recipe].removed += 1;
            found += 1;
            if found > POSITIONS {
                positions = None;
            }
            if let Some(positions) = &mut positions {
                push(positions.entry(expired.leaf).or_default(), Removable::new(expired.tid, recipe));
            }
        }
    };
    for leaf in leaves {
        read(target, selection, leaf, through_index, |row| each(leaf, row))?;
    }
    for (recipe, heap) in recipes.list.iter_mut().zip(&newest) {
        recipe.cutoff = match heap.peek() {
            None if keep == 0 => Some(Position::NEWEST),
            Some(oldest) if heap.len() == keep => Some(oldest.0.position),
            _ => None,
        };
    }
    positions.iter_mut().flat_map(PerLeaf::values_mut).for_each(|rows| rows.sort_unstable());
    Ok(Ranked { recipes, positions, lsn })
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

/// An expired row, ordered by age: the greater, the newer.
struct Expired<'a> {
    position: Position,
    tid: pg_sys::ItemPointerData,
    leaf: u32,
    is_selected: bool,
    order: &'a Order,
}

impl<'a> Expired<'a> {
    fn of(leaf: &Leaf, row: &Row, at: i64, order: &'a Order) -> Expired<'a> {
        Expired {
            position: Position { at, id: row.datum(2) },
            tid: row.tid(3),
            leaf: leaf.table.oid.to_u32(),
            is_selected: row.datum(4).is_some_and(|selected| selected.value() != 0),
            order,
        }
    }
}

impl Ord for Expired<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.order.compare(self.position, other.position)
    }
}

impl PartialOrd for Expired<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Expired<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Expired<'_> {}
