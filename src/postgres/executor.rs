use std::ffi::CString;
use std::ptr::null_mut;

use pgrx::pg_sys;
use pgrx::spi::Spi;

use crate::postgres::names::naming_anything;

/// A statement that the executor has started and not yet run.
pub struct Started(*mut pg_sys::QueryDesc);

impl Started {
    /// The top of its plan, for as long as `work` of `start` runs.
    pub fn plan(&self) -> *mut pg_sys::PlanState {
        // SAFETY: `start` has made it and ends it after `work`.
        unsafe { (*self.0).planstate }
    }

    /// Runs and ends another node than the top of its plan.
    pub fn replace_plan(&mut self, node: *mut pg_sys::PlanState) {
        // SAFETY: as above.
        unsafe { (*self.0).planstate = node };
    }

    /// Runs it to its end. Returns the number of rows that it returned or removed.
    pub fn run(&mut self) -> u64 {
        let direction = pg_sys::ScanDirection::ForwardScanDirection;
        // SAFETY: as above.
        unsafe {
            #[cfg(not(feature = "pg18"))]
            pg_sys::ExecutorRun(self.0, direction, 0, true);
            #[cfg(feature = "pg18")]
            pg_sys::ExecutorRun(self.0, direction, 0);
            (*(*self.0).estate).es_processed
        }
    }
}

/// Starts a statement in the active snapshot and passes it to `work`, which may inspect its plan and run it. Its rows go to
/// `receiver`. Returns `None` if a rule has rewritten it into anything but one statement. An error in `work` skips
/// ExecutorEnd and FreeQueryDesc: the abort of the (sub)transaction releases what they would.
///
/// # Safety
///
/// `receiver` outlives the call.
pub unsafe fn start<T>(
    statement: &str,
    receiver: *mut pg_sys::DestReceiver,
    work: impl FnOnce(&mut Started) -> T,
) -> Option<T> {
    let statement = CString::new(statement).unwrap_or_default();
    // SAFETY: SPI_prepare returns a plan or raises an ERROR; the list's length is asked before its element is taken; a plan
    // that is not saved lives until Spi::connect ends.
    Spi::connect(|_| unsafe {
        let prepared = pg_sys::SPI_prepare(statement.as_ptr(), 0, null_mut());
        let cached = pg_sys::SPI_plan_get_cached_plan(prepared);
        let statements = (*cached).stmt_list.as_ref();
        let alone = statements.filter(|list| list.length == 1).map(|list| (*list.elements).ptr_value);
        let alone = alone.filter(|planned| (*planned.cast::<pg_sys::PlannedStmt>()).utilityStmt.is_null());
        let done = alone.map(|planned| {
            let mut started = Started(pg_sys::CreateQueryDesc(
                planned.cast(),
                statement.as_ptr(),
                pg_sys::GetActiveSnapshot(),
                null_mut(),
                receiver,
                null_mut(),
                null_mut(),
                0,
            ));
            // What it names is known. The statements that it sets off, such as those of foreign keys, are not its own.
            naming_anything(|| {
                pg_sys::ExecutorStart(started.0, 0);
                let done = work(&mut started);
                pg_sys::ExecutorFinish(started.0);
                pg_sys::ExecutorEnd(started.0);
                pg_sys::FreeQueryDesc(started.0);
                done
            })
        });
        // A plan that is not saved belongs to no resource owner.
        pg_sys::ReleaseCachedPlan(cached, null_mut());
        done
    })
}
