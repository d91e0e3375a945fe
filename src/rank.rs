use std::cmp::{Ordering, Reverse};
use std::collections::{BTreeMap, BinaryHeap};

use pgrx::itemptr::{item_pointer_get_both, item_pointer_set_all};
use pgrx::prelude::*;

use crate::error::Result;
use crate::policy::Policy;
use crate::recipe::Recipes;
use crate::selection::Selection;
use crate::stream::{Row, stream};
use crate::table::Column;
use crate::target::Target;

/// The removable rows, found in one pass over the failed rows that needs no sort: a row that `keep` newer ones of its
/// recipe push out is removable, whatever comes after it.
pub struct Ranked {
    /// Every recipe that has failed rows; `removed` counts those that a run would remove.
    pub recipes: Recipes,
    /// The removable rows per leaf table's oid.
    pub removable: BTreeMap<u32, Vec<Removable>>,
}

/// Ranks the expired failed rows of a target, newest first by failed-at, then by id. Takes 8 bytes per removable row and
/// `keep` entries per recipe.
pub fn rank(target: &Target, policy: &Policy, selection: &Selection) -> Result<Ranked> {
    let mut cutoff = i64::MIN;
    stream(&format!("SELECT {}", target.as_failed_at(&policy.cutoff)), |row| {
        cutoff = instant(row, 0).unwrap_or(cutoff)
    })?;
    let order = Order::of(&target.id);
    let keep = usize::try_from(policy.keep).unwrap_or_default();
    let mut recipes = Recipes::of(&target.recipe);
    let mut newest: Vec<BinaryHeap<Reverse<Expired>>> = Vec::new();
    let mut removable: BTreeMap<u32, Vec<Removable>> = BTreeMap::new();
    stream(&statement(target, selection), |row| {
        let recipe = recipes.of_row(row, 0);
        recipes.list[recipe].failed += 1;
        newest.resize_with(recipes.list.len(), BinaryHeap::new);
        let Some(at) = instant(row, 1).filter(|at| *at < cutoff) else { return };
        let mut row = Expired {
            at,
            id: row.datum(2),
            tid: row.datum(3).map_or_else(Default::default, |tid| unsafe { *tid.cast_mut_ptr() }),
            leaf: row.datum(4).map_or(0, |leaf| leaf.value() as u32),
            is_selected: row.datum(5).is_some_and(|selected| selected.value() != 0),
            order: &order,
        };
        let heap = &mut newest[recipe];
        if heap.len() == keep {
            // The oldest of keep + 1 rows goes: this one, or the one that it pushes out.
            match heap.peek_mut() {
                Some(mut oldest) if oldest.0 < row => {
                    row.id = order.copy(row.id);
                    std::mem::swap(&mut oldest.0, &mut row);
                    order.free(row.id);
                }
                _ => {}
            }
            if row.is_selected {
                recipes.list[recipe].removed += 1;
                removable.entry(row.leaf).or_default().push(Removable::new(row.tid, recipe));
            }
        } else {
            row.id = order.copy(row.id);
            heap.push(Reverse(row));
        }
    })?;
    Ok(Ranked { recipes, removable })
}

fn statement(target: &Target, selection: &Selection) -> String {
    let Target { table, id, recipe, failed_at, .. } = target;
    format!(
        "SELECT {}, g.{}, g.{}, g.ctid, g.tableoid, {} FROM {} g WHERE {}",
        recipe.as_key(),
        failed_at.name,
        id.name,
        selection.matches(target),
        table.name,
        target.is_failed()
    )
}

/// A removable row in 8 bytes that sort in heap order: block (32 bits), offset (11: 32 kB pages have at most 1,164
/// tuples, `MaxHeapTuplesPerPage` in access/htup_details.h), recipe (21).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Removable(u64);

impl Removable {
    const RECIPE_BITS: u32 = 21;
    const OFFSET_BITS: u32 = 11;
    /// Stands for all recipes whose number is too large.
    const SOME_RECIPE: u64 = (1 << Self::RECIPE_BITS) - 1;

    fn new(tid: pg_sys::ItemPointerData, recipe: usize) -> Removable {
        let (block, offset) = item_pointer_get_both(tid);
        let position = u64::from(block) << Self::OFFSET_BITS | u64::from(offset);
        Removable(position << Self::RECIPE_BITS | (recipe as u64).min(Self::SOME_RECIPE))
    }

    pub fn tid(&self) -> pg_sys::ItemPointerData {
        let position = self.0 >> Self::RECIPE_BITS;
        let (block, offset) = (position >> Self::OFFSET_BITS, position & ((1 << Self::OFFSET_BITS) - 1));
        let mut tid = pg_sys::ItemPointerData::default();
        item_pointer_set_all(&mut tid, block as u32, offset as u16);
        tid
    }

    /// The recipe's place in the list, where it fits in.
    pub fn recipe(&self) -> Option<usize> {
        let recipe = self.0 & Self::SOME_RECIPE;
        (recipe != Self::SOME_RECIPE).then_some(recipe as usize)
    }
}

/// An expired row, ordered by age: the greater, the newer.
struct Expired<'a> {
    at: i64,
    id: Option<pg_sys::Datum>,
    tid: pg_sys::ItemPointerData,
    leaf: u32,
    is_selected: bool,
    order: &'a Order,
}

impl Ord for Expired<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.at.cmp(&other.at).then_with(|| self.order.compare(self.id, other.id))
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

/// How the id column's type orders its values, and how they are kept.
struct Order {
    compare: *mut pg_sys::FmgrInfo,
    collation: pg_sys::Oid,
    is_by_value: bool,
    length: i32,
}

impl Order {
    fn of(id: &Column) -> Order {
        unsafe {
            let entry = pg_sys::lookup_type_cache(id.type_oid, pg_sys::TYPECACHE_CMP_PROC_FINFO as i32);
            Order {
                compare: &raw mut (*entry).cmp_proc_finfo,
                collation: id.collation,
                is_by_value: (*entry).typbyval,
                length: (*entry).typlen.into(),
            }
        }
    }

    /// NULL is the newest, as in ORDER BY ... DESC.
    fn compare(&self, a: Option<pg_sys::Datum>, b: Option<pg_sys::Datum>) -> Ordering {
        match (a, b) {
            (Some(a), Some(b)) => {
                let compared = unsafe { pg_sys::FunctionCall2Coll(self.compare, self.collation, a, b) };
                (compared.value() as i32).cmp(&0)
            }
            _ => a.is_none().cmp(&b.is_none()),
        }
    }

    fn copy(&self, value: Option<pg_sys::Datum>) -> Option<pg_sys::Datum> {
        let value = value?;
        if self.is_by_value {
            return Some(value);
        }
        unsafe {
            if self.length < 0 {
                return Some(pg_sys::Datum::from(pg_sys::pg_detoast_datum_copy(value.cast_mut_ptr())));
            }
            let length = self.length.unsigned_abs() as usize;
            let copy = pg_sys::palloc(length);
            std::ptr::copy_nonoverlapping(value.cast_mut_ptr::<u8>(), copy.cast::<u8>(), length);
            Some(pg_sys::Datum::from(copy))
        }
    }

    fn free(&self, value: Option<pg_sys::Datum>) {
        if let Some(value) = value.filter(|_| !self.is_by_value) {
            unsafe { pg_sys::pfree(value.cast_mut_ptr()) };
        }
    }
}

/// Microseconds since 2000, as both timestamp types have them.
fn instant(row: &Row, column: usize) -> Option<i64> {
    row.datum(column).map(|at| at.value() as i64)
}
