use std::cell::Cell;

use pgrx::prelude::*;
use pgrx::spi::quote_literal;

use crate::extension;
use crate::postgres::error::{Result, spi};
use crate::postgres::expression::{Expression, called, is_immutable};
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
    if let Some(hidden) = hidden(&called)? {
        let look = "SELECT * FROM backlog_cleanup.target".into();
        let wrong = format!("{}{hidden}", wrong(text));
        return Ok(Err(Mistake::new(PgSqlErrorCode::ERRCODE_INVALID_OBJECT_DEFINITION, key, wrong, look)));
    }
    let read = briefly(|| reading_as_owner_of(table, || Expression::read(text, table.oid, &called)));
    Ok(read.map_err(|failure| Mistake::caught(key, &wrong(text), failure)))
}

/// What is wrong with these objects, or with those that they call, that an analysed expression does not show: a function in BEGIN ATOMIC
/// that names a table, a domain's CHECK that is not immutable.
fn hidden(called: &[Object]) -> Result<Option<String>> {
    const CODE: &str = "
        WITH RECURSIVE code (class, object) AS (
            SELECT class, object FROM ROWS FROM (unnest($1), unnest($2)) called (class, object)
            UNION
            SELECT below.class, below.object FROM code CROSS JOIN LATERAL (
                SELECT refclassid, refobjid FROM pg_depend
                WHERE classid = code.class AND objid = code.object
                  AND classid IN ('pg_proc'::regclass, 'pg_operator'::regclass, 'pg_constraint'::regclass)
                  AND refclassid IN ('pg_proc'::regclass, 'pg_operator'::regclass, 'pg_type'::regclass)
                UNION ALL
                SELECT 'pg_type'::regclass, unnest(ARRAY[typbasetype, typelem]) FROM pg_type
                WHERE code.class = 'pg_type'::regclass AND oid = code.object
                UNION ALL
                SELECT 'pg_type'::regclass, atttypid FROM pg_type JOIN pg_attribute ON attrelid = typrelid AND attnum > 0
                WHERE code.class = 'pg_type'::regclass AND pg_type.oid = code.object AND typtype = 'c'
                UNION ALL
                SELECT 'pg_type'::regclass, rngsubtype FROM pg_range
                WHERE code.class = 'pg_type'::regclass AND code.object IN (rngtypid, rngmultitypid)
                UNION ALL
                SELECT 'pg_constraint'::regclass, oid FROM pg_constraint
                WHERE code.class = 'pg_type'::regclass AND conrelid = 0 AND contypid = code.object
            ) below (class, object)
        )
        SELECT pg_describe_object(class, object, 0), pg_describe_object(refclassid, refobjid, 0), NULL
        FROM code JOIN pg_depend ON classid = class AND objid = object
        WHERE class = 'pg_proc'::regclass AND refclassid = 'pg_class'::regclass
        UNION ALL
        SELECT pg_describe_object(class, object, 0), NULL, conbin::text
        FROM code JOIN pg_constraint ON oid = object
        WHERE class = 'pg_constraint'::regclass
        ORDER BY 2 NULLS LAST, 1";
    let (classes, objects): (Vec<_>, Vec<_>) = called.iter().copied().filter(|object| !is_own(*object)).unzip();
    if objects.is_empty() {
        return Ok(None);
    }
    let found = rows_now(CODE, &[classes.into(), objects.into()], |row| {
        let (object, table, check) = (row.get(1)?, row.get(2)?, row.get(3)?);
        Ok((object.unwrap_or_default(), table, check))
    })?;
    let wrong = |(object, table, check): (String, Option<String>, Option<String>)| match (table, check) {
        (Some(table), _) => Some(format!("{object} names {table}: it is to be of the row alone")),
        (None, Some(check)) if !is_immutable(&check) => {
            Some(format!("{object} calls functions that are not IMMUTABLE"))
        }
        _ => None,
    };
    Ok(found.into_iter().find_map(wrong))
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
    Column::made_of(Expression {
        of_row,
        sql,
        guard: None,
        type_oid,
        collation,
        columns,
        calls: Vec::new(),
        inside: Vec::new(),
    })
}
