use pgrx::pg_sys;

use crate::rank::removable::Removable;
use crate::target::leaf::Leaf;

/// Follows the positions in index entries to the rows, as an index scan does: after an update and pruning a row is elsewhere
/// on its page.
pub fn follow(leaf: &Leaf, rows: &[Removable]) -> Vec<Removable> {
    // SAFETY: the caller has locked the leaf and has an active snapshot.
    unsafe {
        let heap = pg_sys::table_open(leaf.table.oid, pg_sys::NoLock as i32);
        let pages = blocks(heap);
        let follow = |row: &Removable| {
            let mut tid = row.tid();
            pg_sys::table_index_fetch_tuple_check(heap, &mut tid, pg_sys::GetActiveSnapshot(), std::ptr::null_mut());
            row.at(tid)
        };
        let followed = rows.iter().filter(|row| row.block() < pages).map(follow).collect();
        pg_sys::table_close(heap, pg_sys::NoLock as i32);
        followed
    }
}

/// Splits rows (in heap order) by whether their page's LSN is at most `lsn`. On such a page a TID still means the same row;
/// the others must be looked up again. Pages of an unlogged table carry no usable LSN and count as changed. The argument is
/// that of `_bt_killitems` (nbtree/README).
pub fn unchanged_since(leaf: &Leaf, lsn: u64, rows: &[Removable]) -> (Vec<Removable>, Vec<Removable>) {
    let (mut same, mut others) = (Vec::with_capacity(rows.len()), Vec::new());
    // SAFETY: the caller has locked the leaf; a buffer is read only if its block is there, and released at once.
    unsafe {
        let heap = pg_sys::table_open(leaf.table.oid, pg_sys::NoLock as i32);
        let is_logged = (*(*heap).rd_rel).relpersistence as u8 == pg_sys::RELPERSISTENCE_PERMANENT;
        let pages = blocks(heap);
        for page in rows.chunk_by(|row, next| row.block() == next.block()) {
            let block = page[0].block();
            let is_same = is_logged && block < pages && {
                let buffer = pg_sys::ReadBuffer(heap, block);
                let changed_at = pg_sys::BufferGetLSNAtomic(buffer);
                pg_sys::ReleaseBuffer(buffer);
                changed_at <= lsn
            };
            if is_same { &mut same } else { &mut others }.extend_from_slice(page);
        }
        pg_sys::table_close(heap, pg_sys::NoLock as i32);
    }
    (same, others)
}

/// # Safety
///
/// The relation is open.
unsafe fn blocks(heap: pg_sys::Relation) -> u32 {
    // SAFETY: the caller's.
    unsafe { pg_sys::RelationGetNumberOfBlocksInFork(heap, pg_sys::ForkNumber::MAIN_FORKNUM) }
}
