use std::panic::AssertUnwindSafe;

use pgrx::prelude::*;
use pgrx::spi::quote_literal;

use crate::postgres::error::{Result, error};
use crate::postgres::settings::{set_local, with_settings};
use crate::postgres::snapshot::with_new_snapshot;
use crate::postgres::subtransaction::look;
use crate::target::Target;
use crate::target::guard::without_unreadable_rows;
use crate::target::leaf::{Leaf, leaves};
use crate::target::load::table;

/// How a table is locked.
#[derive(Clone, Copy, PartialEq)]
pub enum Lock {
    /// Against changes of a table that is read.
    Read = pg_sys::AccessShareLock as isize,
    /// Against changes of a table whose rows are removed.
    Remove = pg_sys::RowExclusiveLock as isize,
}

/// Locks the target's table, loads the target under that lock, takes the transaction's snapshot, and does
/// `work` of a run, whose full-page images are compressed as the target says. While it waits, `lock_timeout` is the shorter of the
/// target's and the session's. Errors: those of `Target::load`, 55P03 (a lock is held for too long).
pub fn steady<T>(name: Option<&str>, lock: Lock, work: impl FnOnce(&Target) -> Result<T>) -> Result<T> {
    hold(name, no_leaves, lock, |target, _| {
        target.begins_run()?;
        work(target)
    })
}

/// The same with all leaves of the target locked: until `work` ends, none is detached or rewritten.
pub fn steady_leaves<T>(name: Option<&str>, lock: Lock, work: impl FnOnce(&Target, &[Leaf]) -> Result<T>) -> Result<T> {
    hold(name, leaves, lock, |target, leaves| {
        target.begins_run()?;
        work(target, leaves)
    })
}

fn no_leaves(_: &Target) -> Result<Vec<Leaf>> {
    Ok(Vec::new())
}

fn hold<T>(
    name: Option<&str>,
    leaves: impl Fn(&Target) -> Result<Vec<Leaf>>,
    lock: Lock,
    work: impl FnOnce(&Target, &[Leaf]) -> Result<T>,
) -> Result<T> {
    let (table, lock_timeout) = table(name)?;
    with_settings(|| {
        // SAFETY: a setting, read by the one thread of a backend.
        let of_session = i64::from(unsafe { pg_sys::LockTimeout });
        let shorter = [lock_timeout, of_session].into_iter().filter(|timeout| *timeout > 0).min().unwrap_or(0);
        set_local("lock_timeout", &shorter.to_string());
        PgTryBuilder::new(AssertUnwindSafe(|| {
            // At once as strongly as it is needed: who makes another table of it takes two locks as well, such as Citus.
            let mut to_lock = vec![(table.oid, lock)];
            let mut locked = Vec::new();
            // During a wait for one lock, the name may come to mean another table, and leaves may come or go.
            let (target, leaves) = loop {
                for (oid, lock) in to_lock {
                    // SAFETY: the lock is released with the transaction.
                    unsafe { pg_sys::LockRelationOid(oid, lock as i32) };
                    locked.push((oid, lock));
                }
                let target = Target::load(name)?;
                let leaves = leaves(&target)?;
                let named = leaves.iter().map(|leaf| (leaf.table.oid, lock));
                to_lock = std::iter::once((target.table.oid, lock)).chain(named).collect();
                to_lock.retain(|needed| !locked.contains(needed));
                if to_lock.is_empty() {
                    break (target, leaves);
                }
            };
            leaves
                .iter()
                .map(|leaf| &leaf.table)
                .chain([&target.table])
                .try_for_each(|table| table.allows_its_owner("SELECT"))?;
            with_new_snapshot(|| work(&target, &leaves))
        }))
        .catch_when(PgSqlErrorCode::ERRCODE_LOCK_NOT_AVAILABLE, |_| {
            Err(error(
                PgSqlErrorCode::ERRCODE_LOCK_NOT_AVAILABLE,
                format!(
                    "target \"{}\": another session has held a lock for longer than lock_timeout",
                    name.unwrap_or_default()
                ),
                format!("SELECT * FROM pg_locks WHERE relation = {}::regclass", quote_literal(&table.name)),
            ))
        })
        .execute()
    })
}

impl Target {
    /// What its types write now is what they write for all of a run.
    fn begins_run(&self) -> Result<()> {
        self.wal_compression.set_local();
        self.find_types(true)?;
        self.spells_as_before().map(drop)
    }
}

/// The same for `work` that only reads, and keeps no lock: the caller may not have the right to lock the tables. Rows for which an
/// expression of the target fails are not read.
pub fn glance<T>(name: Option<&str>, work: impl Fn(&Target) -> Result<T>) -> Result<T> {
    without_unreadable_rows(|| {
        look(|| {
            hold(name, no_leaves, Lock::Read, |target, _| {
                target.spells_as_before()?;
                work(target)
            })
        })
    })
}

/// The same with the leaves.
pub fn glance_leaves<T>(name: Option<&str>, work: impl Fn(&Target, &[Leaf]) -> Result<T>) -> Result<T> {
    without_unreadable_rows(|| {
        look(|| {
            hold(name, leaves, Lock::Read, |target, leaves| {
                target.spells_as_before()?;
                work(target, leaves)
            })
        })
    })
}
