use std::panic::AssertUnwindSafe;

use pgrx::prelude::*;
use pgrx::spi::quote_literal;

use crate::postgres::error::{Result, error};
use crate::postgres::settings::{set_local, with_settings};
use crate::postgres::subtransaction::briefly;
use crate::target::Target;
use crate::target::load::table;

/// Locks the target's table (ACCESS SHARE) before taking the snapshot, loads the target under that lock, and does `work`.
/// While it waits, `lock_timeout` is the shorter of the target's and the session's. Errors: those of `Target::load`, 55P03 (a
/// lock is held for too long).
pub fn steady<T>(name: Option<&str>, work: impl FnOnce(&Target) -> Result<T>) -> Result<T> {
    let (mut table, lock_timeout) = table(name)?;
    let table_name = table.name.clone();
    with_settings(|| {
        // SAFETY: a setting, read by the one thread of a backend.
        let of_session = i64::from(unsafe { pg_sys::LockTimeout });
        let shorter = [lock_timeout, of_session].into_iter().filter(|timeout| *timeout > 0).min().unwrap_or(0);
        set_local("lock_timeout", &shorter.to_string());
        PgTryBuilder::new(AssertUnwindSafe(|| {
            let target = loop {
                // SAFETY: the lock is released with the transaction, the snapshot below or by an abort.
                unsafe {
                    pg_sys::LockRelationOid(table.oid, pg_sys::AccessShareLock as i32);
                    pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot());
                }
                let target = Target::load(name)?;
                if target.table.oid == table.oid {
                    break target;
                }
                // SAFETY: pushed above.
                unsafe { pg_sys::PopActiveSnapshot() };
                table = target.table;
            };
            let done = work(&target);
            // SAFETY: pushed above.
            unsafe { pg_sys::PopActiveSnapshot() };
            done
        }))
        .catch_when(PgSqlErrorCode::ERRCODE_LOCK_NOT_AVAILABLE, |_| {
            Err(error(
                PgSqlErrorCode::ERRCODE_LOCK_NOT_AVAILABLE,
                format!(
                    "target \"{}\": another session has held a lock for longer than lock_timeout",
                    name.unwrap_or_default()
                ),
                format!("SELECT * FROM pg_locks WHERE relation = {}::regclass", quote_literal(&table_name)),
            ))
        })
        .execute()
    })
}

/// The same for `work` that only reads: a caller who may not lock the tables keeps none of them locked.
pub fn glance<T>(name: Option<&str>, work: impl FnOnce(&Target) -> Result<T>) -> Result<T> {
    Ok(briefly(|| steady(name, work)).unwrap_or_else(|failure| failure.rethrow()))
}
