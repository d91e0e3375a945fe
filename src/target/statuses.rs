use pgrx::prelude::*;
use pgrx::spi::quote_literal;

use crate::postgres::error::{Result, error};
use crate::postgres::now::one_now;
use crate::postgres::owner::reading_as_owner_of;
use crate::postgres::read::read_one;
use crate::postgres::table::Column;
use crate::target::{Target, TargetRow};

/// A status that reports count: its name, and its value, unless the table has no such status.
pub type Status<'a> = (&'static str, Option<&'a str>);

impl TargetRow {
    /// The statuses that reports count, by their names in `target`, the failed one first.
    pub fn statuses(&self) -> [Status<'_>; 4] {
        [
            ("failed", Some(self.failed_status.as_str())),
            ("completed", self.completed_status.as_deref()),
            ("pending", self.pending_status.as_deref()),
            ("processing", self.processing_status.as_deref()),
        ]
    }
}

impl Target {
    /// Checks that every status is a value of the status column, and that no two are the same value: `yes` and `true` are one
    /// boolean. Errors: 22P02, 42804, 23514.
    pub fn statuses_are_values(&self) -> Result<()> {
        let Some(status) = &self.status else { return Ok(()) };
        self.statuses().iter().filter_map(|(_, value)| *value).try_for_each(|value| self.accepts(status, value))?;
        let statuses = self.statuses();
        (0..statuses.len()).try_for_each(|first| self.is_none_of(statuses[first], &statuses[first + 1..]))
    }

    /// Checks that no other status is the same value as the failed one, whose rows are removed. The column's type may have
    /// changed since the target was written. Errors: 23514.
    pub fn failed_is_no_other_status(&self) -> Result<()> {
        let [failed, others @ ..] = self.statuses();
        self.is_none_of(failed, &others)
    }

    fn is_none_of(&self, (name, value): Status, others: &[Status]) -> Result<()> {
        let (Some(status), Some(value)) = (&self.status, value) else { return Ok(()) };
        const COLLATION: &str = "
            SELECT pg_catalog.format(' COLLATE %I.%I', n.nspname, c.collname)
            FROM pg_catalog.pg_collation c JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.collnamespace
            WHERE c.oid OPERATOR(pg_catalog.=) $1";
        let collation = one_now::<String>(COLLATION, &[status.collation.into()])?.unwrap_or_default();
        for (other_name, other) in others.iter().filter_map(|(name, other)| Some((name, (*other)?))) {
            let (a, b) = (status.literal(value), status.literal(other));
            let compare = format!("SELECT {a}{collation} OPERATOR(pg_catalog.=) {b}");
            if reading_as_owner_of(&self.table, || read_one::<bool>(&compare, &[]))? != Some(true) {
                continue;
            }
            return Err(error(
                PgSqlErrorCode::ERRCODE_CHECK_VIOLATION,
                format!(
                    "{name}_status \"{value}\" and {other_name}_status \"{other}\" of target \"{}\" are the same value of {}",
                    self.name,
                    status.what()
                ),
                self.set(&format!("{other_name}_status"), "NULL"),
            ));
        }
        Ok(())
    }

    /// The condition on a row `g` that it has finished as a row in scope has: it has the failed status. Without a status, it has
    /// a finished-at.
    pub fn has_failed(&self) -> String {
        match &self.status {
            Some(status) => status.is(&self.failed_status),
            None => format!("{} IS NOT NULL", self.failed_at.of_row()),
        }
    }

    /// A status in scope, as rows have it. Errors: 22P02 (no row can have it), 22023 (its rows are out of scope).
    pub fn written_status(&self, status: &str) -> Result<Option<String>> {
        let out_of_scope = || {
            error(
                PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
                format!("status \"{status}\" is none whose rows target \"{}\" may remove", self.name),
                format!("SELECT * FROM backlog_cleanup.target WHERE name = {}", quote_literal(&self.name)),
            )
        };
        let column = self.status.as_ref().ok_or_else(out_of_scope)?;
        self.accepts(column, status)?;
        let is_in_scope = format!(
            "SELECT {}::pg_catalog.text FROM (VALUES ({})) g ({}) WHERE {}",
            column.literal(status),
            column.literal(status),
            column.name,
            self.has_failed()
        );
        let written = reading_as_owner_of(&self.table, || read_one::<String>(&is_in_scope, &[]))?;
        written.ok_or_else(out_of_scope).map(Some)
    }

    /// The condition on a row `g` that it has this status.
    pub fn has_status(&self, status: &str) -> String {
        self.status.as_ref().map_or("false".into(), |column| column.is(status))
    }

    /// The status of a row `g`, as text.
    pub fn status_of_row(&self) -> String {
        self.status.as_ref().map_or("NULL::pg_catalog.text".into(), Column::as_text)
    }
}
