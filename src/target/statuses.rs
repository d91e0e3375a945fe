use pgrx::prelude::*;
use pgrx::spi::quote_literal;

use crate::postgres::collation::collate;
use crate::postgres::error::{Result, error};
use crate::postgres::owner::reading_as_owner_of;
use crate::postgres::read::read_one;
use crate::postgres::subtransaction::{briefly, is_cancel, raise_again, sqlstate};
use crate::postgres::table::{Column, Table};
use crate::target::mistake::Mistake;
use crate::target::{Target, TargetRow};

/// What reports count a status as.
pub struct Status<'a> {
    /// The column of `target` that lists it.
    pub list: &'static str,
    /// The place of that list in `lists`.
    pub place: usize,
    pub value: &'a str,
}

impl TargetRow {
    /// The lists of statuses that reports count, by their names in reports and in `target`; the one that runs remove first.
    pub fn lists(&self) -> [(&'static str, &'static str, &[String]); 4] {
        [
            ("failed", "statuses", &self.statuses),
            ("completed", "completed_status", &self.completed_status),
            ("pending", "pending_status", &self.pending_status),
            ("processing", "processing_status", &self.processing_status),
        ]
    }

    /// The statuses that the column can have, in the order of their lists. Only those whose rows are removed have to be such;
    /// another counts nothing.
    pub fn counted(&self, column: &Column, table: &Table) -> Result<Vec<Status<'_>>> {
        let lists = self.lists().into_iter().enumerate();
        let all =
            lists.flat_map(|(place, (_, list, values))| values.iter().map(move |value| Status { list, place, value }));
        let mut counted = Vec::new();
        for status in all {
            if status.place == 0 || can_have(column, table, status.value)? {
                counted.push(status);
            }
        }
        Ok(counted)
    }

    /// The lists in which a status is the same value as another one: `yes` and `true` are one boolean.
    pub fn same_statuses(&self, column: &Column, table: &Table) -> Result<Vec<Mistake>> {
        self.same(column, table, |_, _| true)
    }

    fn same(
        &self,
        column: &Column,
        table: &Table,
        is_to_differ: impl Fn(&Status, &Status) -> bool,
    ) -> Result<Vec<Mistake>> {
        let collation = collate(column.collation)?;
        let counted = self.counted(column, table)?;
        let mut pairs = Vec::new();
        for (behind, a) in counted.iter().enumerate() {
            pairs.extend(counted[behind + 1..].iter().filter(|b| is_to_differ(a, b)).map(|b| (a, b)));
        }
        if pairs.is_empty() {
            return Ok(Vec::new());
        }
        let are_same = |(a, b): &(&Status, &Status)| {
            let (a, b) = (column.literal(a.value), column.literal(b.value));
            format!("({a}{collation} OPERATOR(pg_catalog.=) {b}) IS TRUE")
        };
        let compare = format!("SELECT ARRAY[{}]", pairs.iter().map(are_same).collect::<Vec<_>>().join(", "));
        let same = reading_as_owner_of(table, || read_one::<Vec<bool>>(&compare, &[]))?.unwrap_or_default();
        let same: Vec<_> =
            pairs.into_iter().zip(same).filter(|(_, are_same)| *are_same).map(|(pair, _)| pair).collect();
        let mistake = |(place, (_, list, values)): (usize, (_, &'static str, &[String]))| {
            let (a, b) = same.iter().find(|(_, b)| b.place == place)?;
            let is_first = |value: &&String| !same.iter().any(|(_, b)| std::ptr::eq(value.as_str(), b.value));
            let right: Vec<String> = values.iter().filter(is_first).cloned().collect();
            let what = column.what();
            let wrong =
                format!("\"{}\" in {} and \"{}\" in {list} are the same value of {what}", a.value, a.list, b.value);
            let look = format!("SELECT * FROM backlog_cleanup.target WHERE name = {}", quote_literal(&self.name));
            Some(Mistake::new(PgSqlErrorCode::ERRCODE_CHECK_VIOLATION, list, wrong, look).or(right.into()))
        };
        Ok(self.lists().into_iter().enumerate().filter_map(mistake).collect())
    }
}

fn can_have(column: &Column, table: &Table, value: &str) -> Result<bool> {
    match briefly(|| reading_as_owner_of(table, || column.accepts(value, table))) {
        Ok(()) => Ok(true),
        Err(failure) => match sqlstate(&failure) {
            PgSqlErrorCode::ERRCODE_INVALID_TEXT_REPRESENTATION | PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE => {
                Ok(false)
            }
            _ => raise_again(failure),
        },
    }
}

impl Target {
    /// Checks that the statuses whose rows are removed are values of their column, and no other status is the same value. The
    /// column's type may have changed since the target was written. Errors: 22P02, 22023, 42804, 23514.
    pub fn removed_are_no_other_statuses(&self) -> Result<()> {
        let Some(column) = &self.status else { return Ok(()) };
        self.statuses.iter().try_for_each(|status| self.accepts(column, status))?;
        let mistakes = self.same(column, &self.table, |a, b| a.place == 0 && b.place > 0)?;
        if mistakes.is_empty() { Ok(()) } else { Err(self.refusal(&mistakes, None)) }
    }

    /// How rows have the statuses that runs remove: of a boolean `true`, whoever wrote `yes`. One that the column cannot have stays as it
    /// is; whoever uses it is told.
    pub fn find_names_of_statuses(&self) -> Result<Vec<String>> {
        let Some(column) = &self.status else { return Ok(Vec::new()) };
        if column.has_text_as_written() {
            return Ok(self.statuses.clone());
        }
        let name = |status: &String| {
            let name = format!("SELECT {}", column.text_of(&column.literal(status)));
            match briefly(|| reading_as_owner_of(&self.table, || read_one::<String>(&name, &[]))) {
                Ok(name) => name.unwrap_or_else(|| status.clone()),
                Err(failure) if is_cancel(&failure) => failure.rethrow(),
                Err(_) => status.clone(),
            }
        };
        Ok(self.statuses.iter().map(name).collect())
    }

    /// Whether reports tell rows in scope apart by their status.
    pub fn has_several_statuses(&self) -> bool {
        self.names_of_statuses.len() > 1
    }

    /// Which of `names_of_statuses` a row `g` in scope has, as a bigint.
    pub fn place_of_status(&self) -> String {
        let Some(column) = self.status.as_ref().filter(|_| self.has_several_statuses()) else {
            return "0::bigint".into();
        };
        let case = |(place, status): (usize, &String)| format!("WHEN {} THEN {place}::bigint", column.is(status));
        let cases: Vec<String> = self.statuses.iter().enumerate().map(case).collect();
        format!("CASE {} END", cases.join(" "))
    }

    /// The condition on a row `g` that it has finished as a row in scope has: it is in one of the statuses. Without a status, it
    /// has a finished-at.
    pub fn has_failed(&self) -> String {
        match &self.status {
            Some(status) => status.is_one_of(&status.of_row(), &self.statuses),
            None => format!("{} IS NOT NULL", self.failed_at.of_row()),
        }
    }

    /// A status in scope, as the target's `names_of_statuses` have it. Errors: 22P02 (no row can have it), 22023 (its rows are out of scope).
    pub fn written_status(&self, status: &str) -> Result<String> {
        let out_of_scope = || {
            error(
                PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
                format!("status \"{status}\" is none whose rows target \"{}\" may remove", self.name),
                format!("SELECT * FROM backlog_cleanup.target WHERE name = {}", quote_literal(&self.name)),
            )
        };
        let Some(column) = &self.status else {
            let message = format!("target \"{}\" has no status_column", self.name);
            let hint = format!("SELECT * FROM backlog_cleanup.target WHERE name = {}", quote_literal(&self.name));
            return Err(error(PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE, message, hint));
        };
        self.accepts(column, status)?;
        let is = |(name, known): (&String, &String)| {
            let (known, value) = (column.literal(known), column.literal(status));
            format!("WHEN {known} OPERATOR(pg_catalog.=) {value} THEN {}", quote_literal(name))
        };
        let cases: Vec<String> = self.names_of_statuses.iter().zip(&self.statuses).map(is).collect();
        let known = format!("SELECT CASE {} END", cases.join(" "));
        let written = reading_as_owner_of(&self.table, || read_one::<String>(&known, &[]))?;
        written.ok_or_else(out_of_scope)
    }

    /// The condition on a row `g` that it has this status.
    pub fn has_status(&self, status: &str) -> String {
        let place = self.names_of_statuses.iter().position(|name| name == status);
        // The list has a value of the column, whatever its type is now.
        let written = place.and_then(|place| self.statuses.get(place));
        let column = self.status.as_ref();
        column.zip(written).map_or("false".into(), |(column, written)| column.is(written))
    }
}
