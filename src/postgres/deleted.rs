use pgrx::pg_sys;

/// The rows of tables that this transaction has deleted and not rolled back, by PostgreSQL's own count: also those that
/// triggers, rules and foreign keys have deleted. Too few where `track_counts` is off.
pub fn deleted_of(tables: &[pg_sys::Oid]) -> i64 {
    tables.iter().map(|table| deleted(*table)).sum()
}

fn deleted(table: pg_sys::Oid) -> i64 {
    let mut rows = 0;
    // SAFETY: the relation is closed below; its counts, one entry per level of subtransactions, live until their levels end.
    unsafe {
        let relation = pg_sys::RelationIdGetRelation(table);
        let Some(known) = relation.as_ref() else { return 0 };
        let mut level = known.pgstat_info.as_ref().map_or(std::ptr::null_mut(), |counts| counts.trans);
        while let Some(counts) = level.as_ref() {
            rows += counts.tuples_deleted;
            level = counts.upper;
        }
        pg_sys::RelationClose(relation);
    }
    rows
}
