use pgrx::itemptr::item_pointer_get_both;
use pgrx::pg_sys;
use pgrx::pg_sys::ffi::pg_guard_ffi_boundary;

/// A larger heap is read as PostgreSQL does, in blocks: what is known of a block takes 4 bytes, and one bit per row.
const LARGEST: u32 = 8 << 20;

/// An index-only scan that visits each heap page at most once, and in heap order. PostgreSQL visits a page that is not all-visible
/// once per row, in the order of the index, which takes longer than to read the table.
#[repr(C)]
pub struct InHeapOrder {
    scan: pg_sys::IndexOnlyScanState,
    /// Of each block where its bits begin in `shown`, `UNKNOWN`, or `WANTED`.
    starts: Vec<u32>,
    /// Of each page in how many bytes its bits are, and a bit for each line pointer: whether the index leads from it to a row that the
    /// snapshot shows. A line pointer without a bit is newer than the snapshot.
    shown: Vec<u8>,
}

const UNKNOWN: u32 = u32::MAX;
const WANTED: u32 = u32::MAX - 1;

impl InHeapOrder {
    /// Reads the visibility of the rows that an index-only scan leads to, before the scan has begun. `None` if all pages are
    /// all-visible, or if PostgreSQL has to read the scan itself.
    ///
    /// What is read stays true: a row that a snapshot shows stays where the index leads to for as long as the snapshot is held, and no
    /// other row becomes visible to it.
    ///
    /// # Safety
    ///
    /// The executor has started the scan and not yet run it.
    pub unsafe fn of(scan: *mut pg_sys::IndexOnlyScanState) -> Option<InHeapOrder> {
        // SAFETY: the caller's; the relations stay open until the scan ends.
        unsafe {
            let (heap, index) = ((*scan).ss.ss_currentRelation, (*scan).ioss_RelationDesc);
            let pages = pg_sys::RelationGetNumberOfBlocksInFork(heap, pg_sys::ForkNumber::MAIN_FORKNUM);
            let mut all_visible = 0;
            pg_sys::visibilitymap_count(heap, &mut all_visible, std::ptr::null_mut());
            // A serializable transaction has to lock what it reads. PostgreSQL pads names.
            if all_visible >= pages
                || pages > LARGEST
                || (*(*heap).rd_rel).relam != pg_sys::HEAP_TABLE_AM_OID
                || (*(*index).rd_rel).relam != pg_sys::BTREE_AM_OID
                || pg_sys::XactIsoLevel == pg_sys::XACT_SERIALIZABLE as i32
                || (*scan).ioss_NumRuntimeKeys > 0
                || (*scan).ioss_NameCStringCount > 0
            {
                return None;
            }
            let starts = vec![UNKNOWN; pages as usize];
            let mut in_order = InHeapOrder { scan: *scan, starts, shown: Vec::new() };
            in_order.scan.ioss_ScanDesc = begin(&in_order.scan);
            // PostgreSQL's functions are called without pgrx's guard. An error of theirs jumps over frames that have nothing to drop.
            pg_guard_ffi_boundary(|| {
                in_order.want();
                in_order.look();
                (*in_order.scan.ioss_ScanDesc).xs_want_itup = true;
                in_order.rescan();
            });
            pg_sys::ExecSetExecProcNode(&raw mut in_order.scan.ss.ps, Some(next_row));
            Some(in_order)
        }
    }

    /// The node to run.
    pub fn node(&mut self) -> *mut pg_sys::IndexOnlyScanState {
        &raw mut self.scan
    }

    unsafe fn rescan(&mut self) {
        let pg_sys::IndexOnlyScanState { ioss_ScanDesc: scan, ioss_ScanKeys, ioss_NumScanKeys, .. } = self.scan;
        // SAFETY: the executor has made the keys, whose values are known.
        unsafe { pg_sys::index_rescan(scan, ioss_ScanKeys, ioss_NumScanKeys, std::ptr::null_mut(), 0) };
    }

    /// Marks the pages that the index leads to and that are not all-visible.
    unsafe fn want(&mut self) {
        // SAFETY: the scan is open; its position lives until the next one.
        unsafe {
            self.rescan();
            while let Some(tid) = unguarded::next(self.scan.ioss_ScanDesc).as_ref() {
                let (block, _) = item_pointer_get_both(*tid);
                if self.starts.get(block as usize) == Some(&UNKNOWN) && !self.is_all_visible(block) {
                    self.starts[block as usize] = WANTED;
                }
            }
        }
    }

    /// Whether the row is visible that the index leads to from a position, where the page was read.
    fn is_shown(&self, block: u32, offset: u16) -> Option<bool> {
        let start = *self.starts.get(block as usize)? as usize;
        let (bytes, bits) = self.shown.get(start..)?.split_first()?;
        let byte = usize::from(offset / 8);
        Some(byte < usize::from(*bytes) && bits.get(byte).is_some_and(|byte| byte >> (offset % 8) & 1 == 1))
    }

    unsafe fn is_all_visible(&mut self, block: u32) -> bool {
        // SAFETY: the heap is open; the node's end releases the map's page.
        let status = unsafe {
            unguarded::visibilitymap_get_status(
                self.scan.ss.ss_currentRelation,
                block,
                &raw mut self.scan.ioss_VMBuffer,
            )
        };
        u32::from(status) & pg_sys::VISIBILITYMAP_ALL_VISIBLE != 0
    }

    /// Visits these pages.
    unsafe fn look(&mut self) {
        // SAFETY: the heap is open, and its blocks are there: the lock on the table lets nobody truncate it below a row that the
        // snapshot shows, and VACUUM waits for the lock.
        unsafe {
            let heap = self.scan.ss.ss_currentRelation;
            let snapshot = (*self.scan.ss.ps.state).es_snapshot;
            let InHeapOrder { starts, shown, .. } = self;
            for (start, block) in starts.iter_mut().zip(0..).filter(|(start, _)| **start == WANTED) {
                unguarded::interrupts();
                *start = shown.len() as u32;
                look_at(heap, block, snapshot, shown);
            }
        }
    }
}

/// Adds the bits of a page.
///
/// # Safety
///
/// The heap is open, the block is there, and no frame up to a guard has something to drop.
unsafe fn look_at(heap: pg_sys::Relation, block: u32, snapshot: pg_sys::Snapshot, shown: &mut Vec<u8>) {
    // SAFETY: the caller's; the page is read while its buffer is locked.
    unsafe {
        let buffer = unguarded::ReadBuffer(heap, block);
        unguarded::LockBuffer(buffer, pg_sys::BUFFER_LOCK_SHARE as i32);
        let page = pg_sys::BufferGetPage(buffer);
        let last = pg_sys::PageGetMaxOffsetNumber(page);
        // Larger than any page's number of line pointers.
        let mut roots = [0; pg_sys::BLCKSZ as usize / 8];
        unguarded::heap_get_root_tuples(page, roots.as_mut_ptr());
        let bytes = last / 8 + 1;
        shown.push(bytes as u8);
        let start = shown.len();
        shown.resize(start + usize::from(bytes), 0);
        let mut tuple = pg_sys::HeapTupleData { t_tableOid: (*heap).rd_id, ..Default::default() };
        for offset in 1..=last {
            let item = pg_sys::PageGetItemId(page, offset);
            if (*item).lp_flags() != pg_sys::LP_NORMAL {
                continue;
            }
            tuple.t_data = pg_sys::PageGetItem(page, item).cast();
            tuple.t_len = (*item).lp_len();
            pgrx::itemptr::item_pointer_set_all(&mut tuple.t_self, block, offset);
            if unguarded::HeapTupleSatisfiesVisibility(&raw mut tuple, snapshot, buffer) {
                let is_below_root = u32::from((*tuple.t_data).t_infomask2) & pg_sys::HEAP_ONLY_TUPLE != 0;
                let root = if is_below_root { roots[usize::from(offset) - 1] } else { offset };
                shown[start + usize::from(root / 8)] |= 1 << (root % 8);
            }
        }
        unguarded::UnlockReleaseBuffer(buffer);
    }
}

/// # Safety
///
/// The node is the scan of an `InHeapOrder`.
unsafe extern "C-unwind" fn next_row(node: *mut pg_sys::PlanState) -> *mut pg_sys::TupleTableSlot {
    // SAFETY: the caller's.
    unsafe { unguarded::ExecScan(node.cast(), Some(next_entry), Some(is_still_right)) }
}

/// As `IndexOnlyNext` of executor/nodeIndexonlyscan.c. Index pages stay pinned, so what the visibility map says of an entry is true.
///
/// # Safety
///
/// The same.
unsafe extern "C-unwind" fn next_entry(node: *mut pg_sys::ScanState) -> *mut pg_sys::TupleTableSlot {
    // SAFETY: `scan` is the first field of an InHeapOrder; the slot has the columns of the index.
    unsafe {
        let in_order = &mut *node.cast::<InHeapOrder>();
        let (scan, slot) = (in_order.scan.ioss_ScanDesc, in_order.scan.ss.ss_ScanTupleSlot);
        unguarded::clear(slot);
        while let Some(tid) = unguarded::next(scan).as_ref() {
            let (block, offset) = item_pointer_get_both(*tid);
            let is_shown = in_order.is_shown(block, offset).unwrap_or_else(|| {
                in_order.is_all_visible(block) || {
                    let is_found = unguarded::index_fetch_heap(scan, in_order.scan.ioss_TableSlot);
                    unguarded::clear(in_order.scan.ioss_TableSlot);
                    is_found
                }
            });
            if is_shown {
                unguarded::index_deform_tuple(
                    (*scan).xs_itup,
                    (*scan).xs_itupdesc,
                    (*slot).tts_values,
                    (*slot).tts_isnull,
                );
                return unguarded::ExecStoreVirtualTuple(slot);
            }
            unguarded::interrupts();
        }
        slot
    }
}

/// Only EvalPlanQual asks, for statements that lock rows.
unsafe extern "C-unwind" fn is_still_right(_: *mut pg_sys::ScanState, _: *mut pg_sys::TupleTableSlot) -> bool {
    true
}

/// # Safety
///
/// As `InHeapOrder::of`.
unsafe fn begin(scan: &pg_sys::IndexOnlyScanState) -> pg_sys::IndexScanDesc {
    // SAFETY: the caller's.
    unsafe {
        let (heap, index) = (scan.ss.ss_currentRelation, scan.ioss_RelationDesc);
        let snapshot = (*scan.ss.ps.state).es_snapshot;
        #[cfg(not(feature = "pg18"))]
        return pg_sys::index_beginscan(heap, index, snapshot, scan.ioss_NumScanKeys, 0);
        #[cfg(feature = "pg18")]
        pg_sys::index_beginscan(heap, index, snapshot, std::ptr::null_mut(), scan.ioss_NumScanKeys, 0)
    }
}

/// PostgreSQL's functions without pgrx's guard, which costs more than some of them do for a row.
mod unguarded {
    use pgrx::pg_sys;

    unsafe extern "C-unwind" {
        fn index_getnext_tid(
            scan: pg_sys::IndexScanDesc,
            direction: pg_sys::ScanDirection::Type,
        ) -> pg_sys::ItemPointer;
        pub fn index_fetch_heap(scan: pg_sys::IndexScanDesc, slot: *mut pg_sys::TupleTableSlot) -> bool;
        pub fn index_deform_tuple(
            tuple: pg_sys::IndexTuple,
            columns: pg_sys::TupleDesc,
            values: *mut pg_sys::Datum,
            nulls: *mut bool,
        );
        pub fn ExecStoreVirtualTuple(slot: *mut pg_sys::TupleTableSlot) -> *mut pg_sys::TupleTableSlot;
        pub fn ExecScan(
            node: *mut pg_sys::ScanState,
            access: pg_sys::ExecScanAccessMtd,
            recheck: pg_sys::ExecScanRecheckMtd,
        ) -> *mut pg_sys::TupleTableSlot;
        pub fn visibilitymap_get_status(heap: pg_sys::Relation, block: u32, map: *mut pg_sys::Buffer) -> u8;
        pub fn heap_get_root_tuples(page: pg_sys::Page, roots: *mut pg_sys::OffsetNumber);
        pub fn HeapTupleSatisfiesVisibility(
            tuple: pg_sys::HeapTuple,
            snapshot: pg_sys::Snapshot,
            buffer: pg_sys::Buffer,
        ) -> bool;
        pub fn ReadBuffer(heap: pg_sys::Relation, block: u32) -> pg_sys::Buffer;
        pub fn LockBuffer(buffer: pg_sys::Buffer, mode: i32);
        pub fn UnlockReleaseBuffer(buffer: pg_sys::Buffer);
        fn ProcessInterrupts();
    }

    /// The next position that an index leads to; null at its end.
    pub unsafe fn next(scan: pg_sys::IndexScanDesc) -> pg_sys::ItemPointer {
        // SAFETY: the caller has opened the scan.
        unsafe { index_getnext_tid(scan, pg_sys::ScanDirection::ForwardScanDirection) }
    }

    /// `ExecClearTuple` of executor/tuptable.h.
    pub unsafe fn clear(slot: *mut pg_sys::TupleTableSlot) {
        // SAFETY: the caller's slot; every kind has this.
        unsafe { (*(*slot).tts_ops).clear.map(|clear| clear(slot)) };
    }

    /// `CHECK_FOR_INTERRUPTS` of miscadmin.h.
    pub unsafe fn interrupts() {
        // SAFETY: a flag that signal handlers set.
        unsafe {
            if std::ptr::read_volatile(&raw const pg_sys::InterruptPending) != 0 {
                ProcessInterrupts();
            }
        }
    }
}
