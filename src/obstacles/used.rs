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

/// Puts also `key` before it: the foreign keys that PostgreSQL looks at when a row in `changed` goes, with the owners of their own tables.
pub fn on_keys(statement: &str) -> String {
    on_changed(&format!(
        ", key AS (
             SELECT f.oid, f.conname, f.conrelid, f.confrelid, f.confdeltype, c.relnamespace, r.oid AS owner, r.rolname, f.conkey, f.confdelsetcols
             FROM pg_constraint f JOIN pg_class c ON c.oid = f.conrelid JOIN pg_roles r ON r.oid = c.relowner
             WHERE f.contype = 'f' AND f.confrelid IN (SELECT oid FROM changed WHERE is_removed)
               -- A key onto a whole has one onto each of its partitions.
               AND NOT EXISTS (SELECT FROM pg_constraint whole WHERE whole.oid = f.conparentid AND whole.confrelid IN (SELECT oid FROM changed))
               AND (to_jsonb(f) ->> 'conenforced') IS DISTINCT FROM 'false'
         )
         {statement}"
    ))
}
