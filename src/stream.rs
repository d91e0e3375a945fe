use std::ffi::CString;
use std::ops::ControlFlow;

use pgrx::prelude::*;

use crate::error::{Result, error};

/// One row of a running statement; its values live until the next.
pub struct Row {
    slot: *mut pg_sys::TupleTableSlot,
}

impl Row {
    /// Microseconds since 2000 from a column of either timestamp type.
    pub fn instant(&self, column: usize) -> Option<i64> {
        self.datum(column).map(|at| at.value() as i64)
    }

    /// The position of the row in its table, from a column of type `tid`.
    pub fn tid(&self, column: usize) -> pg_sys::ItemPointerData {
        self.datum(column).map_or_else(Default::default, |tid| unsafe { *tid.cast_mut_ptr() })
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
}

/// Runs a statement that only reads and hands over each row as the executor makes it, keeping none: a million rows
/// take no memory and no copies.
pub fn stream(query: &str, mut each: impl FnMut(&Row)) -> Result<()> {
    stream_until(query, |row| {
        each(row);
        ControlFlow::Continue(())
    })
}

/// The same until `each` breaks off.
pub fn stream_until(query: &str, each: impl FnMut(&Row) -> ControlFlow<()>) -> Result<()> {
    execute(query, true, each)
}

/// The same for a statement that writes and has a RETURNING list.
pub fn stream_returning(query: &str, mut each: impl FnMut(&Row)) -> Result<()> {
    execute(query, false, |row| {
        each(row);
        ControlFlow::Continue(())
    })
}

fn execute(query: &str, read_only: bool, mut each: impl FnMut(&Row) -> ControlFlow<()>) -> Result<()> {
    let query = CString::new(query).unwrap_or_default();
    let mut receiver = Receiver {
        base: pg_sys::DestReceiver {
            receiveSlot: Some(receive),
            rStartup: Some(startup),
            rShutdown: Some(shutdown),
            rDestroy: Some(shutdown),
            mydest: pg_sys::CommandDest::DestNone,
        },
        each: &mut each,
    };
    let options = pg_sys::SPIExecuteOptions {
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

#[pg_guard]
unsafe extern "C-unwind" fn receive(slot: *mut pg_sys::TupleTableSlot, this: *mut pg_sys::DestReceiver) -> bool {
    unsafe {
        pg_sys::slot_getallattrs(slot);
        ((*this.cast::<Receiver>()).each)(&Row { slot }).is_continue()
    }
}

unsafe extern "C-unwind" fn startup(_: *mut pg_sys::DestReceiver, _: i32, _: pg_sys::TupleDesc) {}

unsafe extern "C-unwind" fn shutdown(_: *mut pg_sys::DestReceiver) {}
