//! What this transaction has done to tables and not rolled back, by PostgreSQL's own count: also what triggers, rules and foreign
//! keys have done. `as_owner_of` has `track_counts` on.

use pgrx::pg_sys;

/// The rows of the tables that it has deleted.
pub fn deleted_of(tables: &[pg_sys::Oid]) -> i64 {
    tables.iter().map(|table| sum(*table, |counts| counts.tuples_deleted)).sum()
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
