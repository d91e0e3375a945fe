use pgrx::pg_sys;
use pgrx::prelude::*;

use crate::postgres::changes::Deleted;
use crate::postgres::error::{Result, error};
use crate::target::leaf::Leaf;

/// Watches whether a statement on a leaf deletes other rows of the target besides: triggers, rules and foreign keys can, and so can code
/// that expressions call.
pub struct Besides<'a> {
    leaf: &'a Leaf,
    /// From the target's tables.
    deleted: Deleted<'a>,
}

impl<'a> Besides<'a> {
    /// Watches the target's tables from now on.
    pub fn of(leaf: &'a Leaf, tables: &'a [pg_sys::Oid]) -> Besides<'a> {
        Besides { leaf, deleted: Deleted::from(tables) }
    }

    /// Whether more rows than these are gone.
    pub fn are_gone(&self, rows: usize) -> bool {
        self.deleted.is_more_than(rows)
    }

    /// Refuses a statement that has deleted more than these rows: others may have to stay. Errors: 27000.
    pub fn are_none(&self, rows: usize) -> Result<()> {
        if !self.are_gone(rows) {
            return Ok(());
        }
        let table = &self.leaf.table;
        let who = if table.has_triggers || table.has_rules { "a trigger, a rule or a foreign key" } else { "code" };
        Err(error(
            PgSqlErrorCode::ERRCODE_TRIGGERED_DATA_CHANGE_VIOLATION,
            format!("{who} of table \"{}\" deletes other rows of the target", table.name),
            "SELECT * FROM backlog_cleanup_doctor()".into(),
        ))
    }
}
