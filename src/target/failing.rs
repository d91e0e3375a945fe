use pgrx::itemptr::item_pointer_get_both;
use pgrx::pg_sys::panic::{CaughtError, ErrorReport};
use pgrx::prelude::*;
use pgrx::spi::quote_literal;

use crate::postgres::error::{Result, error};
use crate::postgres::expression::Expression;
use crate::postgres::met::is_about_a_row;
use crate::postgres::owner::reading_as_owner_of;
use crate::postgres::read::read_one;
use crate::postgres::settings::set_local;
use crate::postgres::sqlstate::{exact, raise_as, unknown};
use crate::postgres::stream::stream;
use crate::postgres::subtransaction::{briefly, raise_again, reported, sqlstate};
use crate::postgres::table::{Column, Table};
use crate::target::Target;
use crate::target::guard::Unreadable;

/// An expression of a target, and the rows for which runs need its value.
struct Read<'a> {
    /// The column of `backlog_cleanup.target` that has it.
    key: &'static str,
    expression: &'a Expression,
    rows: String,
}

/// Part of a table, as statements read it.
pub struct Rows<'a> {
    pub table: &'a Table,
    /// As a FROM clause has them.
    pub from: &'a str,
    pub have_positions: bool,
}

impl Target {
    /// What to raise in place of a failure to read rows: if an expression fails for one of them, an error that names it and the row, of
    /// the same SQLSTATE.
    pub fn failed_to_read(&self, rows: &Rows, failure: CaughtError) -> ErrorReport {
        let code = sqlstate(&failure);
        // An error of the extension itself is told as it is.
        if !matches!(failure, CaughtError::PostgresError(_)) || !is_about_a_row(&failure, &exact(code)) {
            raise_again(failure);
        }
        let raised = unknown(code);
        // Reports ask each row of the account.
        let of_reports = self.reads_of_operands(&self.is_of_account());
        let reads = self.reads_of_expressions().into_iter().chain(of_reports);
        let told = reads.map(|read| self.fails(rows, &read)).find_map(Result::transpose);
        if let Some(sqlstate) = raised {
            raise_as(sqlstate);
        }
        match told {
            Some(told) => told.unwrap_or_else(|failure| failure),
            None => failure.rethrow(),
        }
    }

    /// Reads the values of all expressions. Errors: that of the first row for which one fails.
    pub(super) fn read_rows(&self, rows: &Rows) -> Result<()> {
        self.reads_of_expressions().iter().try_for_each(|read| self.fails(rows, read)?.map_or(Ok(()), Err))
    }

    /// Status and condition are asked of each row of the account, the others of rows in scope.
    fn reads_of_expressions(&self) -> Vec<Read<'_>> {
        let of_account =
            [("status_column", self.status.as_ref().and_then(written)), ("condition", self.meets.as_ref())];
        let mut reads = reads(of_account, &self.is_of_account());
        reads.extend(self.reads_of_operands(&self.is_failed()));
        reads
    }

    fn reads_of_operands(&self, rows: &str) -> Vec<Read<'_>> {
        let operands = [
            ("failed_at_column", written(&self.failed_at)),
            ("recipe_column", written(&self.recipe)),
            ("failure_type_column", written(&self.failure_type)),
        ];
        reads(operands, rows)
    }

    /// The error of the first row for which an expression fails; `None` if it has a value for each.
    fn fails(&self, rows: &Rows, Read { key, expression, rows: condition }: &Read) -> Result<Option<ErrorReport>> {
        let Rows { table, from, have_positions } = rows;
        let position = if *have_positions { "g.ctid" } else { "NULL::pg_catalog.tid" };
        let read = |what: &str, which: &str| format!("SELECT {what} FROM {from} WHERE {condition}{which}");
        let in_order = || {
            for path in ["indexscan", "indexonlyscan", "bitmapscan"] {
                set_local(&format!("enable_{path}"), "off");
            }
            set_local("max_parallel_workers_per_gather", "0");
            set_local("synchronize_seqscans", "off");
        };
        let mut last = None;
        let values = read(&format!("{position}, ({}) IS NULL", expression.of_row()), "");
        let tried = briefly(|| {
            reading_as_owner_of(table, || {
                in_order();
                // SAFETY: the first column is a tid.
                stream(&values, |row| last = Some(unsafe { row.tid(0) }))
            })
        });
        let Err(failure) = tried else { return Ok(None) };
        let sqlstate = exact(sqlstate(&failure));
        if !is_about_a_row(&failure, &sqlstate) {
            raise_again(failure);
        }
        let report = reported(&failure);
        let (code, wrong, detail) =
            (report.sql_error_code(), report.message().to_owned(), report.detail().map(str::to_owned));
        // The statement has returned every row before the one that fails.
        let behind = last.map_or(String::new(), |last| {
            let (block, offset) = item_pointer_get_both(last);
            format!(" AND g.ctid OPERATOR(pg_catalog.>) '({block},{offset})'::pg_catalog.tid")
        });
        let find = |what: &str| {
            let first = read(what, &format!("{behind} LIMIT 1"));
            reading_as_owner_of(table, || {
                in_order();
                read_one::<String>(&first, &[])
            })
        };
        let id_of_row = self.id.as_text();
        let id = if *have_positions { find(&id_of_row)? } else { None };
        let which = id.as_ref().map_or("a row".into(), |id| format!("row {id}"));
        let message =
            format!("expression {} fails for {which}: {wrong} ({key} of target \"{}\")", expression.sql, self.name);
        let guarded = self.guarded(expression)?;
        let helps = guarded.filter(|(of_row, _)| briefly(|| find(&format!("({of_row})::pg_catalog.text"))).is_ok());
        let hint = match (helps, &id) {
            (Some((_, sql)), _) => self.set(key, &quote_literal(sql)),
            (None, Some(id)) => {
                let is_it = format!("{id_of_row} OPERATOR(pg_catalog.=) {}", quote_literal(id));
                format!("SELECT * FROM {} g WHERE {is_it}", self.table.name)
            }
            (None, None) => format!("SELECT * FROM {} LIMIT 10", self.table.name),
        };
        self.guard(expression, Unreadable { rows: 0, sqlstate, message: message.clone(), hint: hint.clone(), row: id });
        let told = error(code, message, hint);
        Ok(Some(match detail {
            Some(detail) => told.set_detail(detail),
            None => told,
        }))
    }

    /// An expression that has no value where a text that it reads is no JSON document, as statements and as people write it.
    pub(super) fn guarded(&self, expression: &Expression) -> Result<Option<(String, String)>> {
        if !expression.sql.contains("json") {
            return Ok(None);
        }
        let is_json = if cfg!(feature = "pg15") { "LIKE '{%'" } else { "IS JSON" };
        for number in &expression.columns {
            let Some((_, column)) = self.table.numbered(*number)? else { continue };
            if matches!(column.type_oid, pg_sys::TEXTOID | pg_sys::VARCHAROID) {
                let case = |name: &str, sql: &str| format!("(CASE WHEN {name} {is_json} THEN {sql} END)");
                let of_row = case(&column.of_row(), &expression.of_row);
                return Ok(Some((of_row, case(&column.name, &expression.sql))));
            }
        }
        Ok(None)
    }
}

fn reads<'a, const N: usize>(of: [(&'static str, Option<&'a Expression>); N], rows: &str) -> Vec<Read<'a>> {
    of.into_iter()
        .filter_map(|(key, expression)| Some(Read { key, expression: expression?, rows: rows.into() }))
        .collect()
}

/// The expression that a column of a target is, if it reads something.
fn written(column: &Column) -> Option<&Expression> {
    column.expression.as_ref().filter(|expression| !expression.columns.is_empty())
}
