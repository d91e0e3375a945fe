use std::ffi::CString;
use std::ops::ControlFlow;
use std::slice;

use pgrx::datum::DatumWithOid;
use pgrx::prelude::*;

use crate::postgres::error::{Result, error};
use crate::postgres::executor::start;
use crate::postgres::index_only::InHeapOrder;
use crate::postgres::memory::context_below;
use crate::postgres::names::naming_once;

/// One row of a running statement. Its values live until the next row.
pub struct Row<'a> {
    values: &'a [pg_sys::Datum],
    nulls: &'a [bool],
    /// The position in the index entry, in `stream_index`.
    position: Option<pg_sys::ItemPointerData>,
}

impl Row<'_> {
    /// The first columns of a slot.
    ///
    /// # Safety
    ///
    /// The slot has that many columns, and keeps its row for as long as this is used. An error jumps over the caller's
    /// frame, which has nothing to drop.
    pub unsafe fn of_slot<'a>(slot: *mut pg_sys::TupleTableSlot, columns: i16) -> Row<'a> {
        // SAFETY: the caller's; both arrays have an entry for each column of the slot.
        unsafe {
            fetch_columns(slot, columns);
            Row {
                values: slice::from_raw_parts((*slot).tts_values, columns as usize),
                nulls: slice::from_raw_parts((*slot).tts_isnull, columns as usize),
                position: None,
            }
        }
    }

    /// The value of a column, counted from 0, as PostgreSQL passes it; `None` for NULL, and behind the last column.
    pub fn datum(&self, column: usize) -> Option<pg_sys::Datum> {
        self.nulls.get(column).is_some_and(|is_null| !is_null).then(|| self.values[column])
    }

    /// A bigint. A smaller integer, a boolean or a timestamp (microseconds since 2000) is as long as one here.
    pub fn number(&self, column: usize) -> Option<i64> {
        self.datum(column).map(|number| number.value() as i64)
    }

    /// A text.
    ///
    /// # Safety
    ///
    /// The column is of type `text`.
    pub unsafe fn text(&self, column: usize) -> Option<&str> {
        // SAFETY: the caller's.
        self.datum(column).and_then(|text| unsafe { FromDatum::from_datum(text, false) })
    }

    /// The position of the row in its table.
    ///
    /// # Safety
    ///
    /// The column is of type `tid`.
    pub unsafe fn tid(&self, column: usize) -> pg_sys::ItemPointerData {
        // SAFETY: the caller's; a tid is passed as a pointer.
        let read = |tid: pg_sys::Datum| unsafe { *tid.cast_mut_ptr() };
        self.position.unwrap_or_else(|| self.datum(column).map_or_else(Default::default, read))
    }
}

#[repr(C)]
struct Receiver<'a> {
    base: pg_sys::DestReceiver,
    each: &'a mut dyn FnMut(&Row) -> ControlFlow<()>,
    scan: *mut pg_sys::IndexOnlyScanState,
    /// What `each` allocates in PostgreSQL's memory, such as a compressed value in full; reset after each row.
    memory: pg_sys::MemoryContext,
}

impl<'a> Receiver<'a> {
    fn new(each: &'a mut dyn FnMut(&Row) -> ControlFlow<()>) -> Receiver<'a> {
        Receiver {
            base: pg_sys::DestReceiver {
                receiveSlot: Some(receive),
                rStartup: Some(startup),
                rShutdown: Some(shutdown),
                rDestroy: Some(shutdown),
                mydest: pg_sys::CommandDest::DestNone,
            },
            each,
            scan: std::ptr::null_mut(),
            memory: std::ptr::null_mut(),
        }
    }

    /// Called when SPI is connected, whose memory context has the receiver's.
    fn prepare(&mut self) {
        // SAFETY: only reads which context is current.
        self.memory = context_below(unsafe { pg_sys::CurrentMemoryContext }, c"backlog_cleanup row");
    }
}

/// Runs a statement that only reads, and calls `each` with every row as the executor returns it. Keeps no rows: a million
/// take no memory and no copies.
pub fn stream(query: &str, mut each: impl FnMut(&Row)) -> Result<()> {
    execute(query, None, true, |row| {
        each(row);
        ControlFlow::Continue(())
    })
}

/// The same with a value for `$1`, until `each` breaks.
pub fn stream_until(
    query: &str,
    argument: Option<DatumWithOid>,
    each: impl FnMut(&Row) -> ControlFlow<()>,
) -> Result<()> {
    execute(query, argument, true, each)
}

/// The same for a statement that writes, with or without a RETURNING list.
pub fn stream_writing(query: &str, argument: Option<DatumWithOid>, mut each: impl FnMut(&Row)) -> Result<()> {
    execute(query, argument, false, |row| {
        each(row);
        ControlFlow::Continue(())
    })
}

fn execute(
    query: &str,
    argument: Option<DatumWithOid>,
    read_only: bool,
    mut each: impl FnMut(&Row) -> ControlFlow<()>,
) -> Result<()> {
    let query = CString::new(query).unwrap_or_default();
    let mut receiver = Receiver::new(&mut each);
    let options = pg_sys::SPIExecuteOptions {
        params: argument.map_or(std::ptr::null_mut(), params),
        read_only,
        dest: (&raw mut receiver).cast(),
        ..pg_sys::SPIExecuteOptions::default()
    };
    let code = Spi::connect(|_| {
        receiver.prepare();
        // SAFETY: the query, its parameters and the receiver outlive the call.
        naming_once(|| unsafe { pg_sys::SPI_execute_extended(query.as_ptr(), &options) })
    });
    if code < 0 {
        let message = format!("SPI_execute_extended returned {code}");
        return Err(error(PgSqlErrorCode::ERRCODE_INTERNAL_ERROR, message, "report this as a bug".into()));
    }
    Ok(())
}

/// The list of one value, for `$1`.
fn params(argument: DatumWithOid) -> pg_sys::ParamListInfo {
    // SAFETY: makeParamList(1) has room for one.
    unsafe {
        let list = pg_sys::makeParamList(1);
        let value = argument.datum().map(|value| value.sans_lifetime());
        *(*list).params.as_mut_ptr() = pg_sys::ParamExternData {
            value: value.unwrap_or(pg_sys::Datum::null()),
            isnull: value.is_none(),
            pflags: pg_sys::PARAM_FLAG_CONST as u16,
            ptype: argument.oid(),
        };
        list
    }
}

/// Runs a statement if its plan is an index-only scan and nothing else; returns false, without a row, if it is not. Each row
/// has the position in its index entry, which SQL cannot return. `remove::heap::follow` leads from there to the row.
pub fn stream_index(query: &str, mut each: impl FnMut(&Row)) -> bool {
    let mut each = |row: &Row| {
        each(row);
        ControlFlow::Continue(())
    };
    let mut receiver = Receiver::new(&mut each);
    // SAFETY: the receiver outlives the statement; the tag says what kind of node the plan is.
    let is_index_alone = unsafe {
        start(query, (&raw mut receiver).cast(), |started| {
            let is_index_alone = (*started.plan()).type_ == pg_sys::NodeTag::T_IndexOnlyScanState;
            if is_index_alone {
                let scan = started.plan().cast();
                let mut in_order = InHeapOrder::of(scan);
                let node = in_order.as_mut().map_or(scan, InHeapOrder::node);
                started.replace_plan(node.cast());
                receiver.scan = node;
                receiver.prepare();
                started.run();
                // The executor ends the node after its new place is gone.
                *scan = *node;
                started.replace_plan(scan.cast());
            }
            is_index_alone
        })
    };
    is_index_alone == Some(true)
}

unsafe extern "C-unwind" {
    /// Declared without pgrx's guard, which costs more than fetching a column. An error jumps over the callers' frames, which
    /// must have nothing to drop.
    fn slot_getsomeattrs_int(slot: *mut pg_sys::TupleTableSlot, up_to: i32);
}

/// `slot_getsomeattrs` of executor/tuptable.h.
///
/// # Safety
///
/// The slot has a row of at least `up_to` columns, and no frame up to the executor has something to drop.
unsafe fn fetch_columns(slot: *mut pg_sys::TupleTableSlot, up_to: i16) {
    // SAFETY: the caller's.
    unsafe {
        if (*slot).tts_nvalid < up_to {
            slot_getsomeattrs_int(slot, up_to.into());
        }
    }
}

/// # Safety
///
/// Called by the executor, with the slot of a row and the receiver that it was given.
unsafe extern "C-unwind" fn receive(slot: *mut pg_sys::TupleTableSlot, this: *mut pg_sys::DestReceiver) -> bool {
    // SAFETY: `base` is the first field of a Receiver, which is what the executor was given.
    unsafe {
        fetch_columns(slot, (*(*slot).tts_tupleDescriptor).natts as i16);
        hand_over(slot, this.cast())
    }
}

/// # Safety
///
/// As `receive`, with all columns of the slot fetched.
#[pg_guard]
unsafe extern "C-unwind" fn hand_over(slot: *mut pg_sys::TupleTableSlot, receiver: *mut Receiver) -> bool {
    // SAFETY: the caller's; the scan, if there is one, has returned this row. After an error PostgreSQL goes on in the
    // memory context of whoever catches it.
    unsafe {
        let row = Row::of_slot(slot, (*(*slot).tts_tupleDescriptor).natts as i16);
        let position = (*receiver).scan.as_ref().map(|scan| (*scan.ioss_ScanDesc).xs_heaptid);
        let (memory, outer) = ((*receiver).memory, pg_sys::CurrentMemoryContext);
        pg_sys::CurrentMemoryContext = memory;
        let goes_on = ((*receiver).each)(&Row { position, ..row }).is_continue();
        pg_sys::CurrentMemoryContext = outer;
        // The call alone would cost more than counting a row.
        if !(*memory).isReset {
            pg_sys::MemoryContextReset(memory);
        }
        goes_on
    }
}

unsafe extern "C-unwind" fn startup(_: *mut pg_sys::DestReceiver, _: i32, _: pg_sys::TupleDesc) {}

unsafe extern "C-unwind" fn shutdown(_: *mut pg_sys::DestReceiver) {}
