//! This extension in its database: its owner, its schema, its version.

use pgrx::prelude::*;
use pgrx::spi::quote_identifier;

use crate::postgres::acting::acting_as;
use crate::postgres::error::{Result, error};
use crate::postgres::read::read_one;

/// Does `work` on the extension's own tables as their owner. The search path is `pg_catalog, pg_temp`: inside, plain SQL
/// means PostgreSQL's own functions and operators. Outside, qualify them.
pub fn as_owner<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    // SAFETY: the row of the system cache is read before it is released; a missing schema raises an ERROR.
    let owner = unsafe {
        let schema = pg_sys::get_namespace_oid(c"backlog_cleanup".as_ptr(), false);
        let row = pg_sys::SearchSysCache1(pg_sys::SysCacheIdentifier::NAMESPACEOID as i32, schema.into());
        let owner = (*pg_sys::GETSTRUCT(row).cast::<pg_sys::FormData_pg_namespace>()).nspowner;
        pg_sys::ReleaseSysCache(row);
        owner
    };
    acting_as(owner, "pg_catalog, pg_temp", work)
}

/// The extension's schema, quoted.
pub fn schema() -> Result<String> {
    let schema = as_owner(|| {
        read_one::<String>(
            "SELECT n.nspname::text FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace
             WHERE e.extname = 'backlog_cleanup'",
            &[],
        )
    })?;
    Ok(quote_identifier(schema.unwrap_or_default()))
}

const LIBRARY: &str = env!("CARGO_PKG_VERSION");

/// The version of the extension that the database has.
pub fn version() -> Result<Option<String>> {
    as_owner(|| read_one::<String>("SELECT extversion FROM pg_extension WHERE extname = 'backlog_cleanup'", &[]))
}

/// Whether that is the version of this library.
pub fn is_updated() -> Result<bool> {
    Ok(version()?.is_none_or(|version| version == LIBRARY))
}

/// Refuses to work if the database has another version of the extension than this library. Errors: 55000.
pub fn is_of_this_version() -> Result<()> {
    match version()? {
        Some(version) if version != LIBRARY => Err(error(
            PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!(
                "this database has version {version} of \"backlog_cleanup\", and the server's library is {LIBRARY}"
            ),
            "ALTER EXTENSION backlog_cleanup UPDATE".into(),
        )),
        _ => Ok(()),
    }
}
