use std::cell::Cell;
use std::ffi::CString;

use pgrx::PgList;
use pgrx::prelude::*;

use crate::postgres::error::{Result, spi};
use crate::postgres::prepared::prepared;

/// The prepared statements of the caller's session. Code of another role could read their texts, and what they select.
pub struct PreparedStatements(Vec<(*mut pg_sys::PreparedStatement, *mut pg_sys::CachedPlanSource)>);

const NAMES: &str = "SELECT name FROM pg_catalog.pg_prepared_statements";

thread_local! {
    /// Stands for each of them meanwhile. It selects nothing.
    static NOTHING: Cell<*mut pg_sys::CachedPlanSource> = const { Cell::new(std::ptr::null_mut()) };
}

impl PreparedStatements {
    /// Puts a statement that selects nothing in the place of each, until `show`. In a security-restricted operation none can be
    /// added or removed.
    pub fn hide() -> Result<PreparedStatements> {
        let names: Vec<String> = Spi::connect(|client| {
            client
                .select(prepared(client, NAMES, &[])?, None, &[])?
                .filter_map(|row| row.get(1).transpose())
                .collect::<spi::Result<_>>()
        })
        .map_err(spi)?;
        if names.is_empty() {
            return Ok(PreparedStatements(Vec::new()));
        }
        let nothing = nothing();
        let hide = |name: String| {
            let name = CString::new(name).unwrap_or_default();
            // SAFETY: the statement stays until it is deallocated, and its name is a C string.
            unsafe {
                let statement = pg_sys::FetchPreparedStatement(name.as_ptr(), false);
                let hidden = (!statement.is_null()).then(|| (statement, (*statement).plansource));
                hidden.inspect(|(statement, _)| (**statement).plansource = nothing)
            }
        };
        Ok(PreparedStatements(names.into_iter().filter_map(hide).collect()))
    }

    pub fn show(&self) {
        for (statement, source) in &self.0 {
            // SAFETY: what `hide` has found.
            unsafe { (**statement).plansource = *source };
        }
    }
}

fn nothing() -> *mut pg_sys::CachedPlanSource {
    if NOTHING.get().is_null() {
        // SAFETY: a plan that is kept lives as long as the process; this one has one source. It reads no table, so its columns
        // cannot change, without which EXECUTE would refuse it as an internal error.
        NOTHING.set(Spi::connect(|_| unsafe {
            let plan = pg_sys::SPI_prepare(c"SELECT WHERE false".as_ptr(), 0, std::ptr::null_mut());
            pg_sys::SPI_keepplan(plan);
            let source =
                PgList::<pg_sys::CachedPlanSource>::from_pg(pg_sys::SPI_plan_get_plan_sources(plan)).get_ptr(0);
            let source = source.unwrap_or(std::ptr::null_mut());
            (*source).fixed_result = true;
            source
        }));
    }
    NOTHING.get()
}
