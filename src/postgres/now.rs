//! Reads catalogs and configuration in a new snapshot. `Spi` reads in the transaction's snapshot, which in REPEATABLE READ is as
//! old as the transaction's first statement. Rows of a target are read in the transaction's snapshot.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::{CStr, CString};

use pgrx::datum::DatumWithOid;
use pgrx::prelude::*;
use pgrx::spi::SpiHeapTupleData;

use crate::postgres::error::{Result, spi};
use crate::postgres::settings::{set_local, with_settings};

/// Plans by their statements.
type Plans = HashMap<&'static str, pg_sys::SPIPlanPtr>;

thread_local! {
    /// By search paths: PostgreSQL would analyse and plan a statement anew whenever it comes under another one, as the extension's owner and the
    /// table's do in turn.
    static PLANS: RefCell<HashMap<Vec<u8>, Plans>> = RefCell::default();
}

/// So many search paths have plans of their own.
const KEPT: usize = 100;

/// Runs a read-only statement in a new snapshot and returns its rows, converted by `row`. It sees what other sessions have
/// committed and what this transaction has done. The session prepares the statement once.
pub fn rows_now<T>(
    query: &'static str,
    arguments: &[DatumWithOid],
    mut row: impl FnMut(SpiHeapTupleData) -> spi::Result<T>,
) -> Result<Vec<T>> {
    let value = |argument: &DatumWithOid| argument.datum().map(|value| value.sans_lifetime());
    let mut values: Vec<_> =
        arguments.iter().map(|argument| value(argument).unwrap_or(pg_sys::Datum::null())).collect();
    let nulls: Vec<_> = arguments.iter().map(|argument| if value(argument).is_none() { b'n' } else { b' ' }).collect();
    // SAFETY: a plan that is kept lives as long as the process. Values and nulls, one per argument, outlive the call. The
    // result lives until Spi::connect ends.
    Spi::connect(|_| unsafe {
        with_settings(|| {
            // Compiling takes far longer than it saves, and so does planning for the oid of each table.
            set_local("jit", "off");
            set_local("plan_cache_mode", "force_generic_plan");
            pg_sys::SPI_execute_snapshot(
                plan(query, arguments),
                values.as_mut_ptr(),
                nulls.as_ptr().cast(),
                pg_sys::GetLatestSnapshot(),
                std::ptr::null_mut(),
                true,
                false,
                0,
            );
        });
        let found = pg_sys::SPI_tuptable;
        (0..pg_sys::SPI_processed as usize)
            .filter_map(|place| SpiHeapTupleData::new((*found).tupdesc, *(*found).vals.add(place)).transpose())
            .map(|found| row(found?))
            .collect::<spi::Result<Vec<T>>>()
    })
    .map_err(spi)
}

/// The first column of the first row of such a statement; `None` for NULL and for no row.
pub fn one_now<T: FromDatum + IntoDatum>(query: &'static str, arguments: &[DatumWithOid]) -> Result<Option<T>> {
    rows_now(query, arguments, |row| row.get::<T>(1)).map(|rows| rows.into_iter().next().flatten())
}

/// The plan of a statement, made at its first use. PostgreSQL plans it again if an object that it names has changed.
///
/// # Safety
///
/// SPI is connected.
unsafe fn plan(query: &'static str, arguments: &[DatumWithOid]) -> pg_sys::SPIPlanPtr {
    // SAFETY: a setting, which the one thread of a backend reads.
    let path = unsafe { CStr::from_ptr(pg_sys::namespace_search_path) }.to_bytes();
    // Those that are too many share their plans.
    let path = PLANS.with_borrow(|paths| if paths.len() < KEPT || paths.contains_key(path) { path } else { b"" });
    if let Some(plan) = PLANS.with_borrow(|paths| paths.get(path)?.get(query).copied()) {
        return plan;
    }
    let text = CString::new(query).unwrap_or_default();
    let mut types: Vec<pg_sys::Oid> = arguments.iter().map(DatumWithOid::oid).collect();
    // SAFETY: text and types outlive the call, which returns a plan or raises an ERROR.
    let plan = unsafe {
        let plan = pg_sys::SPI_prepare(text.as_ptr(), types.len() as i32, types.as_mut_ptr());
        pg_sys::SPI_keepplan(plan);
        plan
    };
    PLANS.with_borrow_mut(|paths| paths.entry(path.to_owned()).or_default().insert(query, plan));
    plan
}
