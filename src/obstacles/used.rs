/// Puts `used (oid)` before a statement that reads it: the tables in `$1` (`oid[]`), their partitions and children.
pub fn on_tables(statement: &str) -> String {
    format!(
        "WITH RECURSIVE used (oid) AS (
             SELECT unnest($1)
             UNION SELECT i.inhrelid FROM used JOIN pg_inherits i ON i.inhparent = used.oid
         )
         {statement}"
    )
}

/// Puts also `changed (oid, is_removed)` before it: the tables in `used`, whose rows go, and the tables whose rows foreign keys
/// remove (ON DELETE CASCADE) or update (SET NULL, SET DEFAULT) behind them, with their partitions and children.
pub fn on_changed(statement: &str) -> String {
    on_tables(&format!(
        ", changed (oid, is_removed) AS (
             SELECT oid, true FROM used
             UNION
             SELECT next.oid, next.is_removed
             FROM changed CROSS JOIN LATERAL (
                 SELECT inhrelid, changed.is_removed FROM pg_inherits WHERE inhparent = changed.oid
                 UNION ALL
                 SELECT conrelid, confdeltype = 'c' FROM pg_constraint
                 WHERE confrelid = changed.oid AND contype = 'f' AND confdeltype IN ('c', 'n', 'd') AND changed.is_removed
             ) next (oid, is_removed)
         )
         {statement}"
    ))
}
