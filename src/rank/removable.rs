use pgrx::datum::DatumWithOid;
use pgrx::itemptr::{item_pointer_get_both, item_pointer_set_all};
use pgrx::pg_sys;

/// A removable row in 8 bytes that sort in heap order: block (32 bits), offset (11: 32 kB pages have at most 1,164
/// tuples, `MaxHeapTuplesPerPage` in access/htup_details.h), recipe (21).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Removable(u64);

/// The removable rows of each leaf, in the order of the leaves.
pub type PerLeaf = Vec<Vec<Removable>>;

/// How many positions are kept, in 48 MB; what is beyond is found again, page by page.
pub const POSITIONS: usize = 6_000_000;

/// Adds a row to what may become millions. A list that has become long gets its last size at once, of which only what is
/// filled takes memory: one that grows in steps leaves behind what it grew out of.
pub fn push(rows: &mut Vec<Removable>, row: Removable) {
    if rows.len() == rows.capacity() {
        rows.reserve_exact(if rows.len() < POSITIONS / 16 { rows.len().max(4_096) } else { POSITIONS - rows.len() });
    }
    rows.push(row);
}

/// Positions as a value of type `tid[]`, which points to them.
pub fn array(tids: &[pg_sys::ItemPointerData]) -> DatumWithOid<'_> {
    let mut pointers: Vec<pg_sys::Datum> = tids.iter().map(|tid| pg_sys::Datum::from(&raw const *tid)).collect();
    let length = size_of::<pg_sys::ItemPointerData>() as i32;
    unsafe {
        let array = pg_sys::construct_array(
            pointers.as_mut_ptr(),
            pointers.len() as i32,
            pg_sys::TIDOID,
            length,
            false,
            pg_sys::TYPALIGN_SHORT as core::ffi::c_char,
        );
        DatumWithOid::new(pg_sys::Datum::from(array), pg_sys::TIDARRAYOID)
    }
}

impl Removable {
    const RECIPE_BITS: u32 = 21;
    const OFFSET_BITS: u32 = 11;
    /// Stands for all recipes whose place is too large.
    const SOME_RECIPE: u64 = (1 << Self::RECIPE_BITS) - 1;

    /// `recipe` is the recipe's place in its list.
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

    /// The recipe's place in the list, where it fits in.
    pub fn recipe(&self) -> Option<usize> {
        let recipe = self.0 & Self::SOME_RECIPE;
        (recipe != Self::SOME_RECIPE).then_some(recipe as usize)
    }
}
