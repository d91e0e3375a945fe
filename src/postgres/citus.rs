//! What is asked of Citus, which stores the rows of a distributed table in shards on several nodes. Its own code is not needed.

use pgrx::pg_sys::panic::CaughtError;
use pgrx::prelude::*;
use pgrx::spi::{quote_identifier, quote_literal};

use crate::postgres::error::{Result, spi};
use crate::postgres::names::naming_anything;
use crate::postgres::now::one_now;
use crate::postgres::search_path::names;
use crate::postgres::settings::{set_local, with_settings};
use crate::postgres::subtransaction::{or_nothing, sqlstate};

/// Whether Citus is in this database.
fn is_here() -> bool {
    // SAFETY: a look-up in the system cache.
    let catalog =
        unsafe { pg_sys::get_relname_relid(c"pg_dist_partition".as_ptr(), pg_sys::PG_CATALOG_NAMESPACE.into()) };
    catalog != pg_sys::InvalidOid
}

/// Whether Citus has this table, as of now: a distributed or a reference table, or one that it knows beside these. It looks like a plain
/// one, but it is empty, and a position means a row in each of its shards.
pub fn is_distributed(table: pg_sys::Oid) -> Result<bool> {
    if !is_here() {
        return Ok(false);
    }
    const IS_LISTED: &str = "SELECT EXISTS (SELECT FROM pg_catalog.pg_dist_partition
                                            WHERE logicalrelid::pg_catalog.oid OPERATOR(pg_catalog.=) $1)";
    naming_anything(|| one_now::<bool>(IS_LISTED, &[table.into()])).map(|is_distributed| is_distributed == Some(true))
}

/// Which rows of a distributed table are in one shard.
#[derive(PartialEq)]
pub enum Together {
    /// All of them: of a reference table, of one with one shard, of one that Citus only knows of.
    All,
    /// Those that have the same value in this column, by its name.
    Of(String),
    Unknown,
}

/// Which rows of a table are in one shard, as of now.
pub fn together(table: pg_sys::Oid) -> Result<Together> {
    const COLUMN: &str = "
        SELECT CASE WHEN partmethod OPERATOR(pg_catalog.=) 'n' THEN ''
                    WHEN partmethod OPERATOR(pg_catalog.=) 'h' THEN pg_catalog.column_to_column_name(logicalrelid, partkey) END
        FROM pg_catalog.pg_dist_partition WHERE logicalrelid::pg_catalog.oid OPERATOR(pg_catalog.=) $1";
    let column = naming_anything(|| one_now::<String>(COLUMN, &[table.into()]))?;
    Ok(column.map_or(Together::Unknown, |column| if column.is_empty() { Together::All } else { Together::Of(column) }))
}

/// Does `work`, which reads. Its statements end on the nodes at once, unless this transaction has written there: each one that is open
/// there costs a connection more when a subtransaction is rolled back.
pub fn reading_shards<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    with_settings(|| {
        set_local("citus.select_opens_transaction_block", "off");
        work()
    })
}

/// Does `work`, whose statements open a second connection to a node, and further ones, only as they last. Citus opens one more every
/// 10 ms, which takes as long.
pub fn with_few_connections<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    with_settings(|| {
        set_local("citus.executor_slow_start_interval", "100");
        work()
    })
}

/// Does `work`, whose statements wait on the nodes no longer than this one does, and whose triggers have this process's search path there.
/// Citus passes on nothing but SET LOCAL, and that only in a subtransaction.
pub fn with_settings_on_nodes<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    or_nothing(|| {
        set_local("citus.propagate_set_commands", "local");
        // SAFETY: settings, read by the one thread of a backend.
        let (timeout, path) = unsafe {
            let path = pg_sys::GetConfigOption(c"search_path".as_ptr(), false, false);
            (pg_sys::LockTimeout, std::ffi::CStr::from_ptr(path).to_string_lossy().into_owned())
        };
        let path: Vec<String> = names(&path).unwrap_or_default().into_iter().map(quote_identifier).collect();
        tell_nodes(&[&timeout.to_string(), &path.join(", ")])?;
        let done = work()?;
        tell_nodes(&["DEFAULT", "DEFAULT"])?;
        Ok(done)
    })
}

/// Has the nodes wait for locks no longer than so many milliseconds.
pub fn wait_on_nodes(milliseconds: i32) -> Result<()> {
    Spi::run(&format!("SET LOCAL lock_timeout = {}", quote_literal(milliseconds.to_string()))).map_err(spi)
}

fn tell_nodes([lock_timeout, search_path]: &[&str; 2]) -> Result<()> {
    Spi::run(&format!("SET LOCAL lock_timeout = {lock_timeout}")).map_err(spi)?;
    Spi::run(&format!("SET LOCAL search_path = {search_path}")).map_err(spi)
}

/// Whether Citus has ended a statement because of a deadlock between nodes. It cancels the process, and says why only when the error is
/// sent: in the hook that is called here.
pub fn is_deadlock(failure: &CaughtError) -> bool {
    if sqlstate(failure) != PgSqlErrorCode::ERRCODE_QUERY_CANCELED || !is_here() {
        return false;
    }
    let mut sent = pg_sys::ErrorData {
        elevel: pg_sys::PGERROR as i32,
        sqlerrcode: PgSqlErrorCode::ERRCODE_QUERY_CANCELED as i32,
        message: c"canceling statement due to user request".as_ptr().cast_mut(),
        ..pg_sys::ErrorData::default()
    };
    // SAFETY: the hook gets an error that goes neither to the log nor to the client; it may put another text in the message's place.
    unsafe {
        if let Some(hook) = pg_sys::emit_log_hook {
            pg_sys::ffi::pg_guard_ffi_boundary(|| hook(&raw mut sent));
        }
    }
    sent.sqlerrcode == PgSqlErrorCode::ERRCODE_T_R_DEADLOCK_DETECTED as i32
}
