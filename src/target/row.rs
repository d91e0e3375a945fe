use pgrx::prelude::*;

use crate::extension;
use crate::postgres::error::{Result, error, required};
use crate::postgres::now::one_now;
use crate::postgres::settings::set_local;
use crate::target::TargetRow;

/// The row of a target, whether its tables exist or not. Errors: 22004, 42704.
pub fn row(name: Option<&str>) -> Result<TargetRow> {
    let name = required(name, "target", "SELECT name FROM backlog_cleanup.target")?;
    const ROW: &str = "
        SELECT to_jsonb(t) || jsonb_build_object(
                   'lock_timeout_ms', ceil(extract(epoch FROM t.lock_timeout) * 1000)::bigint)
        FROM backlog_cleanup.target t WHERE t.name = $1";
    let read = || {
        // The target's own is not known yet. An admin can lock the table.
        // SAFETY: a setting, read by the one thread of a backend.
        if unsafe { pg_sys::LockTimeout } == 0 {
            set_local("lock_timeout", "5s");
        }
        one_now::<pgrx::JsonB>(ROW, &[name.into()])
    };
    let row = extension::as_owner(read)?.ok_or_else(|| {
        error(
            PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT,
            format!("target \"{name}\" does not exist"),
            "SELECT name FROM backlog_cleanup.target".into(),
        )
    })?;
    read_row(name, row.0)
}

/// The row that a target had or is to have, from its `to_jsonb`. Its `lock_timeout` is not read.
pub fn row_of(name: &str, mut row: serde_json::Map<String, serde_json::Value>) -> Result<TargetRow> {
    row.insert("lock_timeout_ms".into(), 0.into());
    read_row(name, row.into())
}

fn read_row(name: &str, document: serde_json::Value) -> Result<TargetRow> {
    let row = serde_json::from_value::<TargetRow>(document.clone()).map_err(|failure| {
        error(
            PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!("target \"{name}\" cannot be read: {failure}"),
            "ALTER EXTENSION backlog_cleanup UPDATE".into(),
        )
    })?;
    Ok(TargetRow { document, ..row })
}

/// The name of a target that exists. Errors: 22004, 42704.
pub fn exists(name: Option<&str>) -> Result<String> {
    row(name).map(|row| row.name)
}
