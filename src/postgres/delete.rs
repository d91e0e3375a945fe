use std::ptr::null_mut;
use std::sync::atomic::{AtomicPtr, Ordering};

use pgrx::prelude::*;

use crate::postgres::executor::start;
use crate::postgres::stream::Row;

/// Values that are handed over in one go: between two rows of a DELETE what counts them leaves the processor's cache.
const CHUNK: usize = 65_536;

/// Who watches the scan of the statement that runs.
struct Watch<'a> {
    next: unsafe extern "C-unwind" fn(*mut pg_sys::PlanState) -> *mut pg_sys::TupleTableSlot,
    column: i16,
    values: Vec<Option<pg_sys::Datum>>,
    each: &'a mut dyn FnMut(&[Option<pg_sys::Datum>]),
}

/// A process has one, and one thread.
static WATCH: AtomicPtr<Watch> = AtomicPtr::new(null_mut());

/// Executes a DELETE of a table's rows as of now, and hands over what a column, whose values are passed by value, has in each
/// row that its scan finds, in chunks: a RETURNING list would fetch every row a second time, for a fifth of the time of a
/// run. Returns how many rows were removed, which are fewer than were found where a trigger kept some or another session
/// removed them. `None` where no simple scan finds the rows, and nothing is removed, and where a row changed while it was
/// waited for, which the caller rolls back: it may have gone from another recipe than it was found in.
pub fn delete_scanned(
    delete: &str,
    table: pg_sys::Oid,
    column: i16,
    mut each: impl FnMut(&[Option<pg_sys::Datum>]),
) -> Option<u64> {
    let removed = unsafe {
        pg_sys::PushCopiedSnapshot(pg_sys::GetActiveSnapshot());
        pg_sys::CommandCounterIncrement();
        pg_sys::UpdateActiveSnapshotCommandId();
        start(delete, pg_sys::CreateDestReceiver(pg_sys::CommandDest::DestNone), |started| {
            let plan = started.plan();
            // A rule may have made an UPDATE of it, or a DELETE of another table's rows.
            let is_delete = (*plan).type_ == pg_sys::NodeTag::T_ModifyTableState && {
                let modify = plan.cast::<pg_sys::ModifyTableState>();
                (*modify).operation == pg_sys::CmdType::CMD_DELETE
                    && (*(*(*modify).resultRelInfo).ri_RelationDesc).rd_id == table
            };
            let scan = if is_delete { (*plan).lefttree } else { null_mut() };
            let is_simple = scan.as_ref().is_some_and(|scan| {
                use pg_sys::NodeTag::*;
                matches!(scan.type_, T_SeqScanState | T_IndexScanState | T_BitmapHeapScanState)
            });
            let real = if is_simple { (*scan).ExecProcNodeReal } else { None };
            real.map(|real| {
                let mut watch = Watch { next: real, column, values: Vec::with_capacity(CHUNK), each: &mut each };
                pg_sys::ExecSetExecProcNode(scan, Some(next));
                // A trigger may run another of these.
                let outer = Restore(WATCH.swap((&raw mut watch).cast(), Ordering::Relaxed));
                let removed = started.run();
                drop(outer);
                (watch.each)(&watch.values);
                // A row that changed while it was waited for is another than the scan found.
                let modify = plan.cast::<pg_sys::ModifyTableState>();
                (*modify).mt_epqstate.recheckestate.is_null().then_some(removed)
            })
        })
    };
    unsafe { pg_sys::PopActiveSnapshot() };
    removed.flatten().flatten()
}

/// Gives the watch back to the statement around, also on an error.
struct Restore(*mut Watch<'static>);

impl Drop for Restore {
    fn drop(&mut self) {
        WATCH.store(self.0, Ordering::Relaxed);
    }
}

/// Fetches the next row of the scan. An error of the scan leaves by this frame, which has nothing to drop: a guard around
/// each row would cost more than to count it.
unsafe extern "C-unwind" fn next(scan: *mut pg_sys::PlanState) -> *mut pg_sys::TupleTableSlot {
    unsafe {
        let watch = WATCH.load(Ordering::Relaxed);
        let slot = ((*watch).next)(scan);
        if !slot.is_null() && u32::from((*slot).tts_flags) & pg_sys::TTS_FLAG_EMPTY == 0 {
            // The slot of the scan has all of its columns.
            let column = (*watch).column;
            let row = Row::of_slot((*scan.cast::<pg_sys::ScanState>()).ss_ScanTupleSlot, column);
            let values = &mut (*watch).values;
            values.push(row.datum(column as usize - 1));
            if values.len() == CHUNK {
                hand_over(watch);
            }
        }
        slot
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn hand_over(watch: *mut Watch) {
    unsafe {
        ((*watch).each)(&(*watch).values);
        (*watch).values.clear();
    }
}
