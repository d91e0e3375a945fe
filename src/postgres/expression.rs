//! Expressions as the catalogs store them, and as people write them: checked by PostgreSQL's own parser and analyser, as those
//! of an index are.

use std::ffi::{CStr, CString};

use pgrx::prelude::*;

use crate::postgres::analysed::{Analysed, columns, deparsed, refused};
use crate::postgres::calls::{found_in, is_collatable};
use crate::postgres::error::Result;
use crate::postgres::names::{Object, is_own};
use crate::postgres::settings::{set_local, with_settings};

/// Whether an expression, as its `pg_node_tree` is written, calls immutable functions only. Executes nothing.
pub fn is_immutable(tree: &str) -> bool {
    let Ok(tree) = CString::new(tree) else { return false };
    // SAFETY: the text is what PostgreSQL has written into a catalog; the node lives in the current memory context.
    unsafe { !pg_sys::contain_mutable_functions(pg_sys::stringToNode(tree.as_ptr()).cast()) }
}

/// So many columns may an expression read: a function has at most 100 arguments, and what guards an expression has one besides.
const MOST: usize = 99;

/// An expression of the columns of a table's row.
#[derive(Clone, PartialEq)]
pub struct Expression {
    /// As SQL in parentheses. Every name in it is qualified, so that no search path changes what it means.
    pub sql: String,
    /// The same of a row that statements call `g`.
    pub of_row: String,
    /// The condition that it has a value for the row, if it has failed for one.
    pub guard: Option<String>,
    pub type_oid: pg_sys::Oid,
    pub collation: pg_sys::Oid,
    /// The numbers of the columns that it reads.
    pub columns: Vec<i16>,
    /// What it calls that PostgreSQL does not come with.
    pub calls: Vec<Object>,
    /// The same of what PostgreSQL makes of it: the texts of functions in SQL are in it.
    pub inside: Vec<Object>,
}

/// What an expression on a table calls: functions, operators, types. Runs none of it. The search path is the current one. Errors:
/// those of PostgreSQL's parser and analyser, 42601.
pub fn called(text: &str, table: pg_sys::Oid) -> Result<Vec<Object>> {
    // SAFETY: what was analysed.
    as_written(|| unsafe { Ok(found_in(Analysed::of(text, table, None)?.node).objects) })
}

/// Does `work` with an expression. What its text means is not for the session to say.
fn as_written<T>(work: impl FnOnce() -> T) -> T {
    with_settings(|| {
        for (name, value) in [
            ("standard_conforming_strings", "on"),
            ("array_nulls", "on"),
            ("transform_null_equals", "off"),
            ("TimeZone", "UTC"),
            ("DateStyle", "ISO, MDY"),
        ] {
            set_local(name, value);
        }
        work()
    })
}

impl Expression {
    /// Reads an expression on a table, by the current search path. Types' input functions and immutable functions of constants
    /// may run, as far as they are among those that `called` has found. Errors: those of PostgreSQL's parser and analyser, 42601, 42P17
    /// (not immutable, or not of the row's columns alone), 0A000 (an operator that only a search path finds, a constant that another type
    /// of its type's name would read by its code), 55000 (it calls others now).
    pub fn read(text: &str, table: pg_sys::Oid, called: &[Object]) -> Result<Expression> {
        as_written(|| {
            // SAFETY: the trees are in the current memory context; the snapshot is for functions, and popped below or by an abort.
            unsafe {
                pg_sys::PushActiveSnapshot(pg_sys::GetLatestSnapshot());
                let written = Analysed::of(text, table, None)?.with_strings(called)?;
                let of_row = deparsed(written, table, true)?;
                // From here on, what statements will have.
                let node = Analysed::of(&of_row, table, Some(c"g"))?.with_strings(called)?;
                let mut found = found_in(node);
                let mut calls = std::mem::take(&mut found.objects);
                calls.retain(|object| !is_own(*object));
                if found.is_loose || deparsed(node, table, true)? != of_row {
                    return Err(refused(
                        PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
                        "its operators depend on the search path: write IS DISTINCT FROM, NULLIF and CASE with = of values of one type",
                    ));
                }
                let columns = columns(node)?;
                if columns.len() > MOST {
                    let wrong = format!("it reads {} columns, and at most {MOST} can be read", columns.len());
                    return Err(refused(PgSqlErrorCode::ERRCODE_TOO_MANY_ARGUMENTS, &wrong));
                }
                let planned = pg_sys::expression_planner(node.cast()).cast();
                let mut inside = found_in(planned).objects;
                inside.retain(|object| !is_own(*object));
                if pg_sys::contain_mutable_functions(planned) {
                    return Err(refused(
                        PgSqlErrorCode::ERRCODE_INVALID_OBJECT_DEFINITION,
                        "functions in it must be marked IMMUTABLE",
                    ));
                }
                if let Some(constant) = found.misread {
                    let wrong = format!("{constant}: another object may come under that name");
                    return Err(refused(PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED, &wrong));
                }
                if let Some(loose) = found.replaceable {
                    let wrong = format!(
                        "{loose} does not take exactly the types of its arguments: another of its name could take its place"
                    );
                    return Err(refused(PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED, &wrong));
                }
                let (type_oid, collation) = (pg_sys::exprType(node), pg_sys::exprCollation(node));
                if pg_sys::get_typtype(type_oid) as u8 == b'p' {
                    let type_name = CStr::from_ptr(pg_sys::format_type_be(type_oid)).to_string_lossy();
                    let wrong = format!("it has pseudo-type {type_name}");
                    return Err(refused(PgSqlErrorCode::ERRCODE_DATATYPE_MISMATCH, &wrong));
                }
                if found.is_mixed || is_collatable(node) && collation == pg_sys::InvalidOid {
                    return Err(refused(
                        PgSqlErrorCode::ERRCODE_INDETERMINATE_COLLATION,
                        "its columns have different collations: write COLLATE",
                    ));
                }
                let sql = deparsed(node, table, false)?;
                pg_sys::PopActiveSnapshot();
                let (sql, of_row) = (format!("({sql})"), format!("({of_row})"));
                Ok(Expression { sql, of_row, guard: None, type_oid, collation, columns, calls, inside })
            }
        })
    }
}
