use std::panic::AssertUnwindSafe;

use pgrx::prelude::*;
use pgrx::spi::quote_literal;

use crate::postgres::error::{Result, error};
use crate::postgres::owner::set_local;
use crate::target::{self, Target};

/// Does `work` on a target whose table nobody rebuilds meanwhile, and waits for locks no longer than the target's
/// `lock_timeout`, or the session's where that is shorter. Whoever rebuilds the table now is waited for, and what he has made
/// of it is what `work` sees. Errors: those of `Target::load`, 55P03 (a lock that is held for too long).
pub fn steady<T>(name: Option<&str>, work: impl FnOnce(&Target) -> Result<T>) -> Result<T> {
    let (mut table, lock_timeout) = target::table(name)?;
    let nest = unsafe { pg_sys::NewGUCNestLevel() };
    let of_session = i64::from(unsafe { pg_sys::LockTimeout });
    let shorter = [lock_timeout, of_session].into_iter().filter(|timeout| *timeout > 0).min().unwrap_or(0);
    set_local("lock_timeout", &shorter.to_string());
    let table_name = table.name.clone();
    let done = PgTryBuilder::new(AssertUnwindSafe(|| {
        let target = loop {
            unsafe {
                pg_sys::LockRelationOid(table.oid, pg_sys::AccessShareLock as i32);
                pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot());
            }
            let target = Target::load(name)?;
            if target.table.oid == table.oid {
                break target;
            }
            unsafe { pg_sys::PopActiveSnapshot() };
            table = target.table;
        };
        let done = work(&target);
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
    .execute();
    unsafe { pg_sys::AtEOXact_GUC(false, nest) };
    done
}
