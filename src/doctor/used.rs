use pgrx::pg_sys;

use crate::target::Target;

/// A statement on `used (oid)`: the tables of `$1` (`oid[]`), their partitions and children.
pub fn on_tables(statement: &str) -> String {
    format!(
        "WITH RECURSIVE used (oid) AS (
             SELECT unnest($1)
             UNION SELECT i.inhrelid FROM used JOIN pg_inherits i ON i.inhparent = used.oid
         )
         {statement}"
    )
}

/// All tables that a target names.
pub fn tables(target: &Target) -> Vec<pg_sys::Oid> {
    let Target { table, users, recipes, ledger, .. } = target;
    let others = [
        users.as_ref().map(|users| users.table.oid),
        recipes.as_ref().map(|recipes| recipes.table.oid),
        ledger.as_ref().map(|ledger| ledger.table.oid),
    ];
    std::iter::once(table.oid).chain(others.into_iter().flatten()).collect()
}
