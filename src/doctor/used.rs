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
