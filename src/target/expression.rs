use std::cell::Cell;

use pgrx::prelude::*;
use pgrx::spi::quote_literal;

use crate::extension;
use crate::postgres::error::{Result, spi};
use crate::postgres::expression::{Expression, called};
use crate::postgres::names::{Object, is_own};
use crate::postgres::now::rows_now;
use crate::postgres::owner::reading_as_owner_of;
use crate::postgres::subtransaction::briefly;
use crate::postgres::table::{Column, Table};
use crate::target::mistake::Mistake;
use crate::target::{Target, trust};

/// Reads an expression that the column `key` of a target has, as the table's owner. What it calls belongs to roles that the owners
/// of the table and of its parts trust: before that is known, nothing of it runs. Errors: 42501.
pub fn expression(key: &'static str, text: &str, table: &Table) -> Result<std::result::Result<Expression, Mistake>> {
    let called = match briefly(|| reading_as_owner_of(table, || called(text, table.oid))) {
        Ok(called) => called,
        Err(failure) => return Ok(Err(Mistake::caught(key, &wrong(text), failure))),
    };
    trust::check(&[table.oid], &called)?;
    if let Some((function, read)) = reads_a_table(&called)? {
        let wrong = format!("{}{function} names {read}: it is to be of the row alone", wrong(text));
        let look = "SELECT * FROM backlog_cleanup.target".into();
        return Ok(Err(Mistake::new(PgSqlErrorCode::ERRCODE_INVALID_OBJECT_DEFINITION, key, wrong, look)));
    }
    let read = briefly(|| reading_as_owner_of(table, || Expression::read(text, table.oid, &called)));
    Ok(read.map_err(|failure| Mistake::caught(key, &wrong(text), failure)))
}

/// The first of these objects, or of those that they call, that is a function in BEGIN ATOMIC which names a table, and the table.
fn reads_a_table(called: &[Object]) -> Result<Option<(String, String)>> {
    const READ: &str = "
        WITH RECURSIVE code (class, object) AS (
            SELECT class, object FROM ROWS FROM (unnest($1), unnest($2)) called (class, object)
            UNION
            SELECT refclassid, refobjid FROM code JOIN pg_depend ON classid = class AND objid = object
            WHERE class IN ('pg_proc'::regclass, 'pg_operator'::regclass)
              AND refclassid IN ('pg_proc'::regclass, 'pg_operator'::regclass)
        )
        SELECT pg_describe_object(class, object, 0), pg_describe_object(refclassid, refobjid, 0)
        FROM code JOIN pg_depend ON classid = class AND objid = object
        WHERE class = 'pg_proc'::regclass AND refclassid = 'pg_class'::regclass
        ORDER BY object, refobjid LIMIT 1";
    let (classes, objects): (Vec<_>, Vec<_>) = called.iter().copied().filter(|object| !is_own(*object)).unzip();
    if objects.is_empty() {
        return Ok(None);
    }
    let found = rows_now(READ, &[classes.into(), objects.into()], |row| {
        Ok((row.get(1)?.unwrap_or_default(), row.get(2)?.unwrap_or_default()))
    })?;
    Ok(found.into_iter().next())
}

fn wrong(text: &str) -> String {
    format!("expression \"{text}\" cannot be used: ")
}

/// Whether a column of a target has an expression.
pub fn is_expression(written: &str) -> bool {
    written.starts_with('(')
}

impl Target {
    /// Writes the expressions that its row has with every name qualified. Returns false if they are so already.
    pub fn write_expressions(&self) -> Result<bool> {
        let columns = [
            (
                "recipe_column",
                &self.recipe_column.clone().filter(|_| self.recipe_columns.is_none()),
                &self.recipe.expression,
            ),
            ("status_column", &self.status_column, self.status.as_ref().map_or(&None, |status| &status.expression)),
            ("failed_at_column", &Some(self.failed_at_column.clone()), &self.failed_at.expression),
            ("failure_type_column", &self.failure_type_column, &self.failure_type.expression),
            ("condition", &self.condition, &self.meets),
        ];
        let read =
            columns.into_iter().filter_map(|(key, written, read)| Some((key, written.as_ref()?, read.as_ref()?)));
        let set = read
            .filter(|(key, written, read)| (*key == "condition" || is_expression(written)) && **written != read.sql)
            .map(|(key, _, read)| format!("{key} = {}", quote_literal(&read.sql)))
            .collect::<Vec<_>>();
        if set.is_empty() {
            return Ok(false);
        }
        let write = format!(
            "UPDATE backlog_cleanup.target SET {} WHERE name OPERATOR(pg_catalog.=) {}",
            set.join(", "),
            quote_literal(&self.name)
        );
        let _written = Written::begin();
        extension::as_owner(|| Spi::run(&write).map_err(spi)).map(|()| true)
    }
}

thread_local! {
    static WRITES: Cell<bool> = const { Cell::new(false) };
}

/// Lives as long as expressions are written, also if an ERROR ends that.
struct Written;

impl Written {
    fn begin() -> Written {
        WRITES.set(true);
        Written
    }
}

impl Drop for Written {
    fn drop(&mut self) {
        WRITES.set(false);
    }
}

/// Whether a target is written by `write_expressions`, and means what it meant before.
pub fn writes_expressions() -> bool {
    WRITES.get()
}

/// A column of a target that names nothing: NULL in every row.
pub fn null(type_oid: pg_sys::Oid, type_name: &str) -> Result<Column> {
    let sql = format!("(NULL::pg_catalog.{type_name})");
    let collation = pg_sys::Oid::INVALID;
    let (of_row, columns) = (sql.clone(), Vec::new());
    Column::made_of(Expression { of_row, sql, type_oid, collation, columns, has_code: false, calls: Vec::new() })
}
