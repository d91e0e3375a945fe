//! What this transaction has done to tables and not rolled back, by PostgreSQL's own count: also what triggers, rules and foreign
//! keys have done. `as_owner_of` has `track_counts` on.

use pgrx::pg_sys;

/// Watches what is deleted from tables.
pub struct Deleted<'a> {
    tables: &'a [pg_sys::Oid],
    before: i64,
    /// Where each table has its rows, and whether it was truncated.
    files: Vec<(u32, bool)>,
}

impl<'a> Deleted<'a> {
    /// From now on.
    pub fn from(tables: &'a [pg_sys::Oid]) -> Deleted<'a> {
        let files = tables.iter().map(|table| (file_of(*table), is_truncated(*table))).collect();
        Deleted { tables, before: deleted_of(tables), files }
    }

    /// Whether it is more than so many rows.
    pub fn is_more_than(&self, rows: usize) -> bool {
        deleted_of(self.tables) - self.before > rows as i64 || self.is_truncated_or_dropped()
    }

    /// Which deletes no row one by one.
    fn is_truncated_or_dropped(&self) -> bool {
        let mut tables = self.tables.iter().zip(&self.files);
        tables.any(|(table, (before, was_truncated))| {
            let (file, is_truncated) = (file_of(*table), is_truncated(*table));
            // A file that the same subtransaction has made is truncated where it is.
            let is_truncated = is_truncated && (file != *before || !was_truncated);
            (is_truncated || file == 0 && *before != 0) && is_locked_from_all(*table)
        })
    }
}

/// The rows of the tables that it has deleted.
fn deleted_of(tables: &[pg_sys::Oid]) -> i64 {
    tables.iter().map(|table| sum(*table, |counts| counts.tuples_deleted)).sum()
}

/// The file that a table has its rows in: another one after TRUNCATE or a rewrite, and 0 once it is dropped.
fn file_of(table: pg_sys::Oid) -> u32 {
    // SAFETY: the relation is closed again.
    unsafe {
        let relation = pg_sys::RelationIdGetRelation(table);
        if relation.is_null() {
            return 0;
        }
        let file = (*(*relation).rd_rel).relfilenode.to_u32();
        pg_sys::RelationClose(relation);
        file
    }
}

/// Whether it has truncated a table.
fn is_truncated(table: pg_sys::Oid) -> bool {
    sum(table, |counts| counts.truncdropped.into()) > 0
}

/// Whether this transaction holds the lock of TRUNCATE and DROP on a table.
fn is_locked_from_all(table: pg_sys::Oid) -> bool {
    let tag = pg_sys::LOCKTAG {
        // SAFETY: the database of this process.
        locktag_field1: unsafe { pg_sys::MyDatabaseId }.to_u32(),
        locktag_field2: table.to_u32(),
        locktag_type: pg_sys::LockTagType::LOCKTAG_RELATION as u8,
        locktag_lockmethodid: pg_sys::DEFAULT_LOCKMETHOD as u8,
        ..Default::default()
    };
    let mode = pg_sys::AccessExclusiveLock as pg_sys::LOCKMODE;
    // SAFETY: a look into the locks of this process.
    unsafe {
        #[cfg(any(feature = "pg15", feature = "pg16"))]
        return pg_sys::LockHeldByMe(&tag, mode);
        #[cfg(any(feature = "pg17", feature = "pg18"))]
        return pg_sys::LockHeldByMe(&tag, mode, false);
    }
}

/// Whether it has updated rows of a table.
pub fn is_updated(table: pg_sys::Oid) -> bool {
    sum(table, |counts| counts.tuples_updated) > 0
}

fn sum(table: pg_sys::Oid, of: impl Fn(&pg_sys::PgStat_TableXactStatus) -> i64) -> i64 {
    let mut rows = 0;
    // SAFETY: the relation is closed below; its counts, one entry per level of subtransactions, live until their levels end.
    unsafe {
        let relation = pg_sys::RelationIdGetRelation(table);
        if relation.is_null() {
            return 0;
        }
        // Whatever others do to a table, VACUUM for one, has this process load it anew, which loses what it is counted by.
        if (*relation).pgstat_info.is_null() {
            pg_sys::pgstat_init_relation(relation);
            if (*relation).pgstat_enabled {
                pg_sys::pgstat_assoc_relation(relation);
            }
        }
        let mut level = (*relation).pgstat_info.as_ref().map_or(std::ptr::null_mut(), |counts| counts.trans);
        while let Some(counts) = level.as_ref() {
            rows += of(counts);
            level = counts.upper;
        }
        pg_sys::RelationClose(relation);
    }
    rows
}
