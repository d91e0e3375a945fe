use std::ffi::CString;
use std::ops::ControlFlow;

use pgrx::datum::DatumWithOid;
use pgrx::prelude::*;

use crate::postgres::error::{Result, error};
use crate::postgres::executor::start;

/// One row of a running statement; its values live until the next.
pub struct Row {
    slot: *mut pg_sys::TupleTableSlot,
    scan: *mut pg_sys::IndexOnlyScanState,
}

impl Row {
    /// What is in a slot, up to a column, counted from 1.
    ///
    /// # Safety
    ///
    /// The slot has that column, and keeps its row for as long as this is used; an error leaves by the caller's frame, which has
    /// nothing to drop.
    pub unsafe fn of_slot(slot: *mut pg_sys::TupleTableSlot, up_to: i16) -> Row {
        unsafe { fetch_columns(slot, up_to) };
        Row { slot, scan: std::ptr::null_mut() }
    }

    /// Microseconds since 2000 from a column of either timestamp type.
    pub fn instant(&self, column: usize) -> Option<i64> {
        self.datum(column).map(|at| at.value() as i64)
    }

    /// The value of a column of type `text`.
    pub fn text(&self, column: usize) -> Option<&str> {
        self.datum(column).and_then(|text| unsafe { FromDatum::from_datum(text, false) })
    }

    /// The position of the row in its table: what its index says, else a column of type `tid`.
    pub fn tid(&self, column: usize) -> pg_sys::ItemPointerData {
        match unsafe { self.scan.as_ref() } {
            Some(scan) => unsafe { (*scan.ioss_ScanDesc).xs_heaptid },
            None => self.datum(column).map_or_else(Default::default, |tid| unsafe { *tid.cast_mut_ptr() }),
        }
    }

    /// The value of a column, counted from 0, as PostgreSQL passes it; `None` for NULL.
    pub fn datum(&self, column: usize) -> Option<pg_sys::Datum> {
        unsafe { (!*(*self.slot).tts_isnull.add(column)).then(|| *(*self.slot).tts_values.add(column)) }
    }
}

#[repr(C)]
struct Receiver<'a> {
    base: pg_sys::DestReceiver,
    each: &'a mut dyn FnMut(&Row) -> ControlFlow<()>,
    scan: *mut pg_sys::IndexOnlyScanState,
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
        }
    }
}

/// Runs a statement that only reads and hands over each row as the executor makes it, keeping none: a million rows
/// take no memory and no copies.
pub fn stream(query: &str, mut each: impl FnMut(&Row)) -> Result<()> {
    execute(query, None, true, |row| {
        each(row);
        ControlFlow::Continue(())
    })
}

/// The same with a value for `$1`, until `each` breaks off.
pub fn stream_until(
    query: &str,
    argument: Option<DatumWithOid>,
    each: impl FnMut(&Row) -> ControlFlow<()>,
) -> Result<()> {
    execute(query, argument, true, each)
}

/// The same for a statement that writes and has a RETURNING list.
pub fn stream_returning(query: &str, mut each: impl FnMut(&Row)) -> Result<()> {
    execute(query, None, false, |row| {
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
    let code = Spi::connect(|_| unsafe { pg_sys::SPI_execute_extended(query.as_ptr(), &options) });
    if code < 0 {
        let message = format!("SPI_execute_extended returned {code}");
        return Err(error(PgSqlErrorCode::ERRCODE_INTERNAL_ERROR, message, "report this as a bug".into()));
    }
    Ok(())
}

/// The list of one value, for `$1`.
fn params(argument: DatumWithOid) -> pg_sys::ParamListInfo {
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

/// Runs a statement that the planner makes a scan of one index alone of, whose rows then know their positions, which no
/// SQL can ask an index for; false, and no row, where it makes something else of it. A position is where the index leads
/// to: `leaf.follow` goes from there to the row.
pub fn stream_index(query: &str, mut each: impl FnMut(&Row)) -> bool {
    let mut each = |row: &Row| {
        each(row);
        ControlFlow::Continue(())
    };
    let mut receiver = Receiver::new(&mut each);
    let is_index_alone = start(query, (&raw mut receiver).cast(), |started| unsafe {
        let is_index_alone = (*started.plan()).type_ == pg_sys::NodeTag::T_IndexOnlyScanState;
        if is_index_alone {
            receiver.scan = started.plan().cast();
            started.run();
        }
        is_index_alone
    });
    is_index_alone == Some(true)
}

unsafe extern "C-unwind" {
    /// Without the guard that pgrx puts around each of PostgreSQL's functions, which costs more than to fetch a column: an
    /// error leaves by the frames of its callers, which must have nothing to drop.
    fn slot_getsomeattrs_int(slot: *mut pg_sys::TupleTableSlot, up_to: i32);
}

/// `slot_getsomeattrs` of executor/tuptable.h.
unsafe fn fetch_columns(slot: *mut pg_sys::TupleTableSlot, up_to: i16) {
    unsafe {
        if (*slot).tts_nvalid < up_to {
            slot_getsomeattrs_int(slot, up_to.into());
        }
    }
}

unsafe extern "C-unwind" fn receive(slot: *mut pg_sys::TupleTableSlot, this: *mut pg_sys::DestReceiver) -> bool {
    unsafe {
        fetch_columns(slot, (*(*slot).tts_tupleDescriptor).natts as i16);
        hand_over(slot, this.cast())
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn hand_over(slot: *mut pg_sys::TupleTableSlot, receiver: *mut Receiver) -> bool {
    unsafe { ((*receiver).each)(&Row { slot, scan: (*receiver).scan }).is_continue() }
}

unsafe extern "C-unwind" fn startup(_: *mut pg_sys::DestReceiver, _: i32, _: pg_sys::TupleDesc) {}

unsafe extern "C-unwind" fn shutdown(_: *mut pg_sys::DestReceiver) {}
