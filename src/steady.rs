use std::panic::AssertUnwindSafe;

use pgrx::prelude::*;
use pgrx::spi::quote_literal;

use crate::error::{Result, error};
use crate::owner::set_local;
use crate::target::Target;

/// Does `work` on a target whose table nobody rebuilds meanwhile, and waits for locks no longer than the target's
/// `lock_timeout`. Whoever rebuilds the table now is waited for, and what he has made of it is what `work` sees. Errors: those
/// of `Target::load`, 55P03 (a lock that is held for too long).
pub fn steady<T>(name: Option<&str>, work: impl FnOnce(&Target) -> Result<T>) -> Result<T> {
    let mut target = Target::load(name)?;
    let nest = unsafe { pg_sys::NewGUCNestLevel() };
    set_local("lock_timeout", &target.lock_timeout.to_string());
    let (label, table) = (target.name.clone(), target.table.name.clone());
    let done = PgTryBuilder::new(AssertUnwindSafe(|| {
        loop {
            let oid = target.table.oid;
            unsafe {
                pg_sys::LockRelationOid(oid, pg_sys::AccessShareLock as i32);
                pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot());
            }
            target = Target::load(name)?;
            if target.table.oid == oid {
                break;
            }
            unsafe { pg_sys::PopActiveSnapshot() };
        }
        let done = work(&target);
        unsafe { pg_sys::PopActiveSnapshot() };
        done
    }))
    .catch_when(PgSqlErrorCode::ERRCODE_LOCK_NOT_AVAILABLE, |_| {
        Err(error(
            PgSqlErrorCode::ERRCODE_LOCK_NOT_AVAILABLE,
            format!("target \"{label}\": another session has held a lock for longer than lock_timeout"),
            format!("SELECT * FROM pg_locks WHERE relation = {}::regclass", quote_literal(&table)),
        ))
    })
    .execute();
    unsafe { pg_sys::AtEOXact_GUC(false, nest) };
    done
}
