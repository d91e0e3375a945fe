use std::cmp::Ordering;

use pgrx::pg_sys;

use crate::postgres::error::Result;
use crate::postgres::owner::reading_as_owner_of;
use crate::postgres::settings::set_local;
use crate::postgres::stream::{Row, stream, stream_index};
use crate::rank::index;
use crate::rank::newest::{Newest, Ranks};
use crate::rank::on_shards::rank_on_shards;
use crate::rank::position::{Order, Position};
use crate::rank::removable::{POSITIONS, PerLeaf, Removable, push};
use crate::rank::tally::{RecipeCount, Tally};
use crate::rules::Rules;
use crate::target::Target;
use crate::target::leaf::{Leaf, Reach};

/// What one pass over the failed rows finds, without a sort.
pub struct Ranked {
    /// Every recipe that has failed rows; `removed` counts those that a run would remove.
    pub tally: Tally,
    /// Positions of the removable rows; `None` if there are too many to keep.
    pub positions: Option<PerLeaf>,
    /// The WAL position before they were read.
    pub lsn: u64,
}

/// An expired row: its rank, and where it is stored.
struct Expired {
    position: Position,
    tid: pg_sys::ItemPointerData,
    /// The index of its leaf in the list of leaves.
    leaf: u32,
    /// The index of its entry in the tally.
    recipe: u32,
    is_selected: bool,
}

impl Ranks<Expired> for Order {
    fn compare(&self, a: &Expired, b: &Expired) -> Ordering {
        Order::compare(self, a.position, b.position)
    }

    fn keep(&self, row: Expired) -> Expired {
        Expired { position: Order::keep(self, row.position), ..row }
    }

    fn release(&self, row: Expired) {
        // SAFETY: only a row that `keep` has made is released, once, and nothing else has its position.
        unsafe { self.free(row.position) };
    }
}

/// Ranks the expired rows in scope of a target, newest first by failed-at, then by id; of each recipe and policy, the policy's `keep`
/// newest stay unless they are older than its `max_keep_age`. Needs memory for 2 x `keep` rows per recipe and policy, and 8 bytes per removable row. Reads only the partial index if that is
/// enough, else the table, in one pass.
pub fn rank(rules: &Rules, leaves: &[Leaf]) -> Result<Ranked> {
    let target = rules.target;
    let ages = rules.policies.ages(target)?;
    let keep = |policy: usize| usize::try_from(rules.policies.list[policy].keep).unwrap_or_default();
    let through_index = index::serves(rules, leaves)?;
    // SAFETY: only reads the WAL position.
    let lsn = unsafe { pg_sys::GetXLogInsertRecPtr() };
    let order = Order::of(&target.id.value);
    let mut tally = Tally::of(target, &rules.policies);
    if rank_on_shards(rules, leaves, &order, &mut tally)? {
        return Ok(Ranked { tally, positions: Some(vec![Vec::new()]), lsn });
    }
    let mut newest: Vec<Newest<Expired>> = Vec::new();
    let mut gone = Gone { positions: Some(leaves.iter().map(|_| Vec::new()).collect()), found: 0 };
    for (leaf, place) in leaves.iter().zip(0..) {
        read(rules, leaf, through_index, |row| {
            let recipe = tally.of_row(row);
            let counted = &mut tally.list[recipe];
            counted.failed += 1;
            let RecipeCount { policy, ranked_with, .. } = *counted;
            newest.resize_with(newest.len().max(ranked_with + 1), Newest::default);
            let age = ages[policy];
            if let Some(at) = row.number(3).filter(|at| *at < age.cutoff) {
                let expired = Expired {
                    position: Position { at, id: row.datum(4) },
                    // SAFETY: the sixth column of the statement is a tid.
                    tid: unsafe { row.tid(5) },
                    leaf: place,
                    recipe: recipe as u32,
                    is_selected: row.number(6).is_some_and(|selected| selected != 0),
                };
                newest[ranked_with].add(expired, keep(policy), &order, |row| gone.add(row, &mut tally.list));
            }
        })?;
    }
    newest.resize_with(tally.list.len(), Newest::default);
    // The comparison of ids may be the code of their type's owner.
    reading_as_owner_of(&target.table, || {
        for (place, newest) in newest.iter_mut().enumerate() {
            let RecipeCount { policy, ranked_with, .. } = tally.list[place];
            if ranked_with < place {
                tally.list[place].cutoff = tally.list[ranked_with].cutoff;
                continue;
            }
            let age = ages[policy];
            let (keep, too_old) = (keep(policy), age.keep_cutoff.min(age.cutoff));
            let oldest =
                newest.oldest(keep, &order, |row| gone.add(row, &mut tally.list)).map(|oldest| oldest.position);
            let is_too_old = |row: &&Expired| row.position.at < too_old;
            newest.kept().iter().filter(is_too_old).for_each(|row| gone.add(row, &mut tally.list));
            tally.list[place].cutoff = match oldest {
                _ if keep == 0 => Some(Position::before(age.cutoff)),
                Some(oldest) if oldest.at >= too_old => Some(oldest),
                None if too_old == i64::MIN => None,
                _ => Some(Position::before(too_old)),
            };
        }
        Ok(())
    })?;
    gone.positions.iter_mut().flatten().for_each(|rows| rows.sort_unstable());
    Ok(Ranked { tally, positions: gone.positions, lsn })
}

/// The removable rows so far.
struct Gone {
    positions: Option<PerLeaf>,
    found: usize,
}

impl Gone {
    fn add(&mut self, row: &Expired, recipes: &mut [RecipeCount]) {
        if !row.is_selected {
            return;
        }
        let recipe = row.recipe as usize;
        recipes[recipe].removed += 1;
        self.found += 1;
        if self.found > POSITIONS {
            self.positions = None;
        }
        if let Some(positions) = &mut self.positions {
            push(&mut positions[row.leaf as usize], Removable::new(row.tid, recipe));
        }
    }
}

/// Reads the rows in scope of a leaf: `Policies::group_columns`, failed-at, id, position, whether it is selected. Runs as the leaf's owner,
/// since planning may call functions of indexes and check constraints.
pub fn read(rules: &Rules, leaf: &Leaf, through_index: bool, mut each: impl FnMut(&Row)) -> Result<()> {
    let is_read = through_index
        && leaf.reading_as_owner(rules.target, || Ok(stream_index(&through_index_alone(rules, leaf), &mut each)))?;
    if is_read {
        return Ok(());
    }
    leaf.reading_as_owner(rules.target, || {
        leaf.expect_most_rows();
        stream(&statement(rules, leaf, if leaf.reach == Reach::Position { "g.ctid" } else { NOWHERE }), each)
    })
}

const NOWHERE: &str = "NULL::pg_catalog.tid";

fn statement(rules: &Rules, leaf: &Leaf, position: &str) -> String {
    let Target { id, failed_at, .. } = rules.target;
    format!(
        "SELECT {}, {}, {}, {position}, {} FROM {} g WHERE {}",
        rules.policies.group_columns(rules.target, &rules.target.recipe_key()),
        failed_at.as_itself(),
        id.value.as_itself(),
        rules.selection.matches(rules.target),
        leaf.rows(),
        rules.target.is_failed()
    )
}

/// The statement that ranks a leaf by an index-only scan, if the planner finds one. Sets what the planner may do until the caller has
/// read the leaf.
pub fn through_index_alone(rules: &Rules, leaf: &Leaf) -> String {
    for path in ["seqscan", "bitmapscan"] {
        set_local(&format!("enable_{path}"), "off");
    }
    // Another index could be cheaper while few pages are all-visible, as the statistics have it.
    for cost in ["random_page_cost", "seq_page_cost"] {
        set_local(cost, "0");
    }
    set_local("max_parallel_workers_per_gather", "0");
    statement(rules, leaf, NOWHERE)
}
