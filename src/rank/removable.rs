use pgrx::itemptr::{item_pointer_get_both, item_pointer_set_all};
use pgrx::pg_sys;

/// A removable row in 8 bytes that sort in heap order: block (32 bits), offset (11: 32 kB pages have at most 1,164
/// tuples, `MaxHeapTuplesPerPage` in access/htup_details.h), recipe (21).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Removable(u64);

/// The removable rows of each leaf, in the order of the leaves.
pub type PerLeaf = Vec<Vec<Removable>>;

/// How many positions a run keeps, in 48 MB. If there are more rows, it finds them again, page by page.
pub const POSITIONS: usize = 6_000_000;

/// Adds a row to a list that may reach millions. A long list gets its final capacity at once: only the filled part takes
/// memory, and growing in steps would leave freed copies behind.
pub fn push(rows: &mut Vec<Removable>, row: Removable) {
    if rows.len() == rows.capacity() {
        rows.reserve_exact(if rows.len() < POSITIONS / 16 { rows.len().max(4_096) } else { POSITIONS - rows.len() });
    }
    rows.push(row);
}

impl Removable {
    const RECIPE_BITS: u32 = 21;
    const OFFSET_BITS: u32 = 11;
    /// Stands for all recipes whose index is too large.
    const SOME_RECIPE: u64 = (1 << Self::RECIPE_BITS) - 1;

    /// `recipe` is the recipe's index in the tally.
    pub fn new(tid: pg_sys::ItemPointerData, recipe: usize) -> Removable {
        let (block, offset) = item_pointer_get_both(tid);
        let position = u64::from(block) << Self::OFFSET_BITS | u64::from(offset);
        Removable(position << Self::RECIPE_BITS | (recipe as u64).min(Self::SOME_RECIPE))
    }

    /// The same row at another position.
    pub fn at(&self, tid: pg_sys::ItemPointerData) -> Removable {
        Removable::new(tid, self.recipe().unwrap_or(usize::MAX))
    }

    pub fn block(&self) -> u32 {
        (self.0 >> (Self::RECIPE_BITS + Self::OFFSET_BITS)) as u32
    }

    pub fn offset(&self) -> u16 {
        (self.0 >> Self::RECIPE_BITS & ((1 << Self::OFFSET_BITS) - 1)) as u16
    }

    pub fn tid(&self) -> pg_sys::ItemPointerData {
        let mut tid = pg_sys::ItemPointerData::default();
        item_pointer_set_all(&mut tid, self.block(), self.offset());
        tid
    }

    /// The recipe's index in the tally; `None` if it was too large.
    pub fn recipe(&self) -> Option<usize> {
        let recipe = self.0 & Self::SOME_RECIPE;
        (recipe != Self::SOME_RECIPE).then_some(recipe as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tid(block: u32, offset: u16) -> pg_sys::ItemPointerData {
        let mut tid = pg_sys::ItemPointerData::default();
        item_pointer_set_all(&mut tid, block, offset);
        tid
    }

    #[test]
    fn eight_bytes_hold_a_position_and_its_recipe() {
        for block in [0, 1, 70_000, u32::MAX - 1] {
            for offset in [1, 291, 1_164] {
                for recipe in [0, 1, (1 << 21) - 2] {
                    let row = Removable::new(tid(block, offset), recipe);
                    assert_eq!((row.block(), row.offset(), row.recipe()), (block, offset, Some(recipe)));
                    assert_eq!(item_pointer_get_both(row.tid()), (block, offset));
                }
            }
        }
    }

    #[test]
    fn a_recipe_beyond_two_million_is_not_known() {
        for recipe in [(1 << 21) - 1, 1 << 21, usize::MAX] {
            assert_eq!(Removable::new(tid(1, 1), recipe).recipe(), None);
        }
        assert_eq!(Removable::new(tid(1, 1), usize::MAX).at(tid(2, 2)).recipe(), None);
    }

    #[test]
    fn rows_sort_in_heap_order_whatever_their_recipes() {
        let mut rows = [Removable::new(tid(2, 1), 0), Removable::new(tid(1, 2), 9), Removable::new(tid(1, 1), 10)];
        rows.sort_unstable();
        let places: Vec<_> = rows.iter().map(|row| (row.block(), row.offset())).collect();
        assert_eq!(places, [(1, 1), (1, 2), (2, 1)]);
    }
}
