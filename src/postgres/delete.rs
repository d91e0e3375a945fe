use std::ptr::null_mut;
use std::sync::atomic::{AtomicPtr, Ordering};

use pgrx::prelude::*;

use crate::postgres::executor::start;
use crate::postgres::snapshot::with_own_changes;
use crate::postgres::stream::Row;

/// Values per call of `each`: counting after every row would evict the DELETE from the processor's cache.
const CHUNK: usize = 65_536;

/// Collects the column's values while a DELETE scans.
struct Watch<'a> {
    next: unsafe extern "C-unwind" fn(*mut pg_sys::PlanState) -> *mut pg_sys::TupleTableSlot,
    column: i16,
    values: Vec<Option<pg_sys::Datum>>,
    each: &'a mut dyn FnMut(&[Option<pg_sys::Datum>]),
}

/// The innermost watch; `delete_scanned` sets it while its statement runs. A backend has one thread.
static WATCH: AtomicPtr<Watch> = AtomicPtr::new(null_mut());

/// The column that `delete_scanned` reads.
#[derive(Clone, Copy)]
pub struct Scanned {
    pub table: pg_sys::Oid,
    /// Its `attnum` in the table.
    pub number: i16,
    pub type_oid: pg_sys::Oid,
}

/// Runs a DELETE and calls `each` with the value of one column of every row that its scan returns, in chunks. (RETURNING
/// would fetch each row twice, a fifth of a run's time.) Returns the number of rows removed, which is less than scanned if a
/// trigger or another session kept some. `None`, with nothing removed, if the plan has no plain scan; also `None` if
/// EvalPlanQual rechecked a row: another session may have changed its recipe since the scan, and the caller must roll back.
///
/// # Safety
///
/// The column's type is passed by value.
pub unsafe fn delete_scanned(
    delete: &str,
    column: Scanned,
    mut each: impl FnMut(&[Option<pg_sys::Datum>]),
) -> Option<u64> {
    // SAFETY: nodes are cast to what their tags say. Nothing puts ExecProcNodeReal back, since ExecutorEnd follows.
    let removed = with_own_changes(|| unsafe {
        start(delete, pg_sys::CreateDestReceiver(pg_sys::CommandDest::DestNone), |started| {
            let plan = started.plan();
            // A rule may have made it an UPDATE, or a DELETE from another table.
            let is_delete = (*plan).type_ == pg_sys::NodeTag::T_ModifyTableState && {
                let modify = plan.cast::<pg_sys::ModifyTableState>();
                (*modify).operation == pg_sys::CmdType::CMD_DELETE
                    && (*(*(*modify).resultRelInfo).ri_RelationDesc).rd_id == column.table
            };
            let scan = if is_delete { (*plan).lefttree } else { null_mut() };
            let is_simple = scan.as_ref().is_some_and(|scan| {
                use pg_sys::NodeTag::*;
                matches!(scan.type_, T_SeqScanState | T_IndexScanState | T_BitmapHeapScanState) && column.is_in(scan)
            });
            let next_of_scan = if is_simple { (*scan).ExecProcNodeReal } else { None };
            next_of_scan.map(|next_of_scan| {
                let values = Vec::with_capacity(CHUNK);
                let mut watch = Watch { next: next_of_scan, column: column.number, values, each: &mut each };
                pg_sys::ExecSetExecProcNode(scan, Some(next));
                // A trigger may run another `delete_scanned`.
                let outer = Restore(WATCH.swap((&raw mut watch).cast(), Ordering::Relaxed));
                let removed = started.run();
                drop(outer);
                (watch.each)(&watch.values);
                let modify = plan.cast::<pg_sys::ModifyTableState>();
                (*modify).mt_epqstate.recheckestate.is_null().then_some(removed)
            })
        })
    });
    removed.flatten().flatten()
}

impl Scanned {
    /// Whether the rows of a scan have the column, of its type.
    ///
    /// # Safety
    ///
    /// The scan is one of a relation, and started.
    unsafe fn is_in(&self, scan: *const pg_sys::PlanState) -> bool {
        // SAFETY: the caller's.
        unsafe {
            let slot = (*scan.cast::<pg_sys::ScanState>()).ss_ScanTupleSlot;
            pg_sys::SPI_gettypeid((*slot).tts_tupleDescriptor, self.number.into()) == self.type_oid
        }
    }
}

/// Restores the watch of the outer statement, also after an error.
struct Restore(*mut Watch<'static>);

impl Drop for Restore {
    fn drop(&mut self) {
        WATCH.store(self.0, Ordering::Relaxed);
    }
}

/// Fetches the next row of the scan. An error in the scan jumps over this frame, which has nothing to drop: a guard around
/// each row would cost more than counting it.
///
/// # Safety
///
/// Called by the executor for the scan of the DELETE of the innermost watch.
unsafe extern "C-unwind" fn next(scan: *mut pg_sys::PlanState) -> *mut pg_sys::TupleTableSlot {
    // SAFETY: the watch lives in the frame of `delete_scanned` that runs this statement; the slot of the scan has all
    // columns of the table.
    unsafe {
        let watch = WATCH.load(Ordering::Relaxed);
        let slot = ((*watch).next)(scan);
        if !slot.is_null() && u32::from((*slot).tts_flags) & pg_sys::TTS_FLAG_EMPTY == 0 {
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

/// # Safety
///
/// `watch` is the innermost one.
#[pg_guard]
unsafe extern "C-unwind" fn hand_over(watch: *mut Watch) {
    // SAFETY: the caller's.
    unsafe {
        ((*watch).each)(&(*watch).values);
        (*watch).values.clear();
    }
}
