//! What could be written instead of a name that is wrong.

use pgrx::prelude::*;
use pgrx::spi::quote_literal;

use crate::postgres::error::Result;
use crate::postgres::now::{one_now, rows_now};
use crate::postgres::owner::reading_as_owner_of;
use crate::postgres::read::read_one;
use crate::postgres::subtransaction::briefly;
use crate::postgres::table::{Column, Table};
use crate::target::mistake::Mistake;
use crate::target::nearest::nearest;

/// Tables that have the name of `written` in other schemas, and the one whose whole name is like it, or else those whose name is like it; those
/// of an extension only in the schema that `written` has.
pub fn tables_like(written: &str, kinds: &str) -> Result<Vec<String>> {
    const TABLES: &str = "
        SELECT relname::text, oid::regclass::text FROM pg_class
        WHERE strpos($1, relkind::text) > 0 AND relpersistence <> 't'
          AND relnamespace::regnamespace::text NOT IN ('pg_catalog', 'information_schema')
          AND (starts_with($2, relnamespace::regnamespace || '.')
               OR NOT EXISTS (SELECT FROM pg_depend WHERE (classid, objid, deptype) = ('pg_class'::regclass, pg_class.oid, 'e')))
        ORDER BY 1, 2";
    let tables = rows_now(TABLES, &[kinds.into(), written.into()], |row| {
        Ok((row.get::<String>(1)?.unwrap_or_default(), row.get::<String>(2)?.unwrap_or_default()))
    })?;
    let (mut names, qualified): (Vec<String>, Vec<String>) = tables.iter().cloned().unzip();
    let name = written.rsplit('.').next().unwrap_or_default().trim_matches('"');
    let whole = nearest(written, &qualified);
    names.dedup();
    let near = whole.is_none().then(|| nearest(name, &names)).flatten();
    let is_like =
        |(other, qualified): &&(String, String)| other == name || Some(qualified) == whole || Some(other) == near;
    Ok(tables.iter().filter(is_like).map(|(_, qualified)| qualified.clone()).collect())
}

/// The names of the other targets.
pub fn other_targets(name: &str) -> Result<Vec<String>> {
    const OTHERS: &str = "SELECT array_agg(name ORDER BY name) FROM backlog_cleanup.target WHERE name <> $1";
    Ok(one_now::<Vec<String>>(OTHERS, &[name.into()])?.unwrap_or_default())
}

/// The tables that a view reads.
pub fn read_by(view: &Table, kinds: &str) -> Result<Vec<String>> {
    const TABLES: &str = "
        SELECT array_agg(DISTINCT c.oid::regclass::text ORDER BY c.oid::regclass::text)
        FROM pg_rewrite r
        JOIN pg_depend d ON (d.classid, d.objid, d.refclassid) = ('pg_rewrite'::regclass, r.oid, 'pg_class'::regclass)
        JOIN pg_class c ON c.oid = d.refobjid
        WHERE r.ev_class = $1 AND strpos($2, c.relkind::text) > 0";
    Ok(one_now::<Vec<String>>(TABLES, &[view.oid.into(), kinds.into()])?.unwrap_or_default())
}

const ANY_COLUMN: &str = "SELECT array_agg(attname::text ORDER BY attnum) FROM pg_attribute
    WHERE attrelid = $1 AND attnum > 0 AND NOT attisdropped";
/// The times among the columns of table `$1`.
pub const TIMES: &str = "SELECT array_agg(attname::text ORDER BY attnum) FROM pg_attribute
    WHERE attrelid = $1 AND attnum > 0 AND NOT attisdropped AND atttypid IN ('timestamp'::regtype, 'timestamptz'::regtype, 'date'::regtype)";
/// The columns of the primary key of table `$1`.
pub const PRIMARY_KEY: &str = "SELECT array_agg(attname::text ORDER BY attnum) FROM pg_attribute
    JOIN pg_index ON indrelid = attrelid AND indisprimary AND attnum = ANY (indkey) WHERE attrelid = $1";

/// The names of a table's columns, by a statement such as `TIMES`.
pub fn columns(table: &Table, which: &'static str) -> Result<Vec<String>> {
    Ok(one_now::<Vec<String>>(which, &[table.oid.into()])?.unwrap_or_default())
}

/// That there is no column `written`, the value of column `key` of the target.
pub fn no_column(key: &'static str, written: &str, table: &Table) -> Result<Mistake> {
    let wrong = format!("column \"{written}\" of {} does not exist", table.name);
    let mistake = Mistake::new(PgSqlErrorCode::ERRCODE_UNDEFINED_COLUMN, key, wrong, look_at_columns(table));
    Ok(mistake.there_are("columns", &columns(table, ANY_COLUMN)?, written))
}

/// The statement that shows a table's columns.
pub fn look_at_columns(table: &Table) -> String {
    format!(
        "SELECT attname, atttypid::regtype FROM pg_attribute WHERE attrelid = {}::regclass AND attnum > 0 AND NOT attisdropped",
        quote_literal(&table.name)
    )
}

/// The expression that reads a number as an instant: seconds since 1970, or parts of one as large as the first of its rows.
pub fn instant_of_number(column: &Column, table: &Table) -> Option<String> {
    let numbers = [pg_sys::INT4OID, pg_sys::INT8OID, pg_sys::NUMERICOID, pg_sys::FLOAT8OID];
    if !numbers.contains(&column.type_oid) {
        return None;
    }
    let name = &column.name;
    let first = format!(
        "SELECT pg_catalog.max(instant)::pg_catalog.float8 FROM (SELECT {name} FROM {} WHERE {name} IS NOT NULL LIMIT 100) rows (instant)",
        table.name
    );
    let first =
        briefly(|| reading_as_owner_of(table, || read_one::<f64>(&first, &[]))).ok().flatten().unwrap_or_default();
    Some(match first {
        // From the year 5138 on, seconds would be as large.
        ..1e11 => format!("(to_timestamp({name}))"),
        ..1e14 => format!("(to_timestamp({name} / 1000.0))"),
        _ => format!("(to_timestamp({name} / 1000000.0))"),
    })
}
