use std::ptr::null_mut;

use pgrx::itemptr::item_pointer_get_both;
use pgrx::pg_sys;

use crate::postgres::snapshot::with_own_changes;
use crate::rank::removable::Removable;
use crate::target::leaf::Leaf;

/// Follows the positions of rows, in their order, to where the rows are now: after an update and pruning a row is elsewhere on
/// its page; if this transaction, or another one since the ranking, has updated it, it may be anywhere.
pub fn follow(leaf: &Leaf, rows: &[Removable]) -> Vec<Removable> {
    // SAFETY: the caller has locked the leaf and has an active snapshot.
    let follow = |heap, row: &Removable| match unsafe { latest(heap, row.tid()) } {
        Now::At(tid) => row.at(tid),
        Now::Removed => *row,
    };
    in_heap(leaf, |heap, pages| {
        rows.iter().map(|row| if row.block() < pages { follow(heap, row) } else { *row }).collect()
    })
}

/// How many of the rows this transaction has removed.
pub fn removed_here(leaf: &Leaf, rows: &[pg_sys::ItemPointerData]) -> usize {
    // SAFETY: the caller has locked the leaf and the rows.
    in_heap(leaf, |heap, _| rows.iter().filter(|tid| matches!(unsafe { latest(heap, **tid) }, Now::Removed)).count())
}

/// How many of the rows at these positions are there and were made by this transaction: it has updated them.
pub fn made_here(leaf: &Leaf, rows: &[Removable]) -> usize {
    // SAFETY: only asks whose transaction it is.
    let is_ours = |xid| unsafe { pg_sys::TransactionIdIsCurrentTransactionId(xid) };
    let is_made_here = |heap, row: &Removable| {
        // SAFETY: the caller has locked the leaf; the block is there.
        let version = unsafe { Version::of(heap, row.tid()) };
        version.is_some_and(|version| is_ours(version.made_by) && !version.gone_by.is_some_and(is_ours))
    };
    in_heap(leaf, |heap, pages| rows.iter().filter(|row| row.block() < pages && is_made_here(heap, row)).count())
}

/// Does `work` with a leaf's heap and its size in blocks, in a snapshot that shows what this transaction has done.
fn in_heap<T>(leaf: &Leaf, work: impl FnOnce(pg_sys::Relation, u32) -> T) -> T {
    // SAFETY: the caller has locked the leaf.
    with_own_changes(|| unsafe {
        let heap = pg_sys::table_open(leaf.table.oid, pg_sys::NoLock as i32);
        let done = work(heap, blocks(heap));
        pg_sys::table_close(heap, pg_sys::NoLock as i32);
        done
    })
}

/// What has become of a row.
enum Now {
    At(pg_sys::ItemPointerData),
    /// Removed by this transaction.
    Removed,
}

/// What has become of the row at a position, or at the one that an index entry has for it.
///
/// # Safety
///
/// The heap is open, the block is there, and a snapshot is active.
unsafe fn latest(heap: pg_sys::Relation, tid: pg_sys::ItemPointerData) -> Now {
    // SAFETY: the caller's.
    unsafe {
        let mut seen = tid;
        if pg_sys::table_index_fetch_tuple_check(heap, &mut seen, pg_sys::GetActiveSnapshot(), null_mut()) {
            return Now::At(seen);
        }
        // Of the versions on the page, the first: the row itself, or what its position leads to. A position that is no root of
        // versions leads nowhere, and is the row's own.
        if !pg_sys::table_index_fetch_tuple_check(heap, &mut seen, &raw mut pg_sys::SnapshotAnyData, null_mut()) {
            seen = tid;
        }
        let mut made_by = None;
        loop {
            let Some(version) = Version::of(heap, seen) else { return Now::At(tid) };
            if made_by.is_some_and(|xid| xid != version.made_by) {
                // Another row has taken the place.
                return Now::At(tid);
            }
            match (version.gone_by, version.next) {
                (Some(xid), None) if pg_sys::TransactionIdIsCurrentTransactionId(xid) => return Now::Removed,
                (Some(xid), Some(next)) if has_happened(xid) => (made_by, seen) = (Some(xid), next),
                _ => return Now::At(seen),
            }
        }
    }
}

/// Whether a transaction has committed, or is ours.
///
/// # Safety
///
/// None but that of the functions that it calls: a transaction that a row names.
unsafe fn has_happened(xid: pg_sys::TransactionId) -> bool {
    // SAFETY: the caller's.
    unsafe { pg_sys::TransactionIdIsCurrentTransactionId(xid) || pg_sys::TransactionIdDidCommit(xid) }
}

/// A version of a row.
struct Version {
    made_by: pg_sys::TransactionId,
    /// Who has updated or removed it, perhaps in vain.
    gone_by: Option<pg_sys::TransactionId>,
    /// Where the next version is, in this table.
    next: Option<pg_sys::ItemPointerData>,
}

impl Version {
    /// # Safety
    ///
    /// The heap is open and the block is there.
    unsafe fn of(heap: pg_sys::Relation, tid: pg_sys::ItemPointerData) -> Option<Version> {
        // SAFETY: the caller's; the tuple is read while its buffer is locked.
        unsafe {
            let mut tuple = pg_sys::HeapTupleData { t_self: tid, ..Default::default() };
            let mut buffer = pg_sys::InvalidBuffer as pg_sys::Buffer;
            if !pg_sys::heap_fetch(heap, &raw mut pg_sys::SnapshotAnyData, &mut tuple, &mut buffer, false) {
                return None;
            }
            pg_sys::LockBuffer(buffer, pg_sys::BUFFER_LOCK_SHARE as i32);
            let header = tuple.t_data;
            let marks = u32::from((*header).t_infomask);
            let (block, offset) = item_pointer_get_both((*header).t_ctid);
            let is_moved = offset == pg_sys::MovedPartitionsOffsetNumber as u16;
            let gone_by = match marks {
                _ if is_moved => None,
                _ if marks & pg_sys::HEAP_XMAX_INVALID != 0 || pg_sys::HeapTupleHeaderIsOnlyLocked(header) => None,
                _ if marks & pg_sys::HEAP_XMAX_IS_MULTI != 0 => Some(pg_sys::HeapTupleGetUpdateXid(header)),
                _ => Some((*header).t_choice.t_heap.t_xmax),
            };
            let next = ((block, offset) != item_pointer_get_both(tid)).then_some((*header).t_ctid);
            let version = Version { made_by: (*header).t_choice.t_heap.t_xmin, gone_by, next };
            pg_sys::UnlockReleaseBuffer(buffer);
            Some(version)
        }
    }
}

/// Splits rows by whether their page's LSN is at most `lsn`. On such a page a TID still means the same row;
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
