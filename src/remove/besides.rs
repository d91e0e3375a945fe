use pgrx::pg_sys;
use pgrx::prelude::*;

use crate::postgres::changes::{deleted_of, file_of, is_locked_from_all, is_truncated};
use crate::postgres::error::{Result, error};
use crate::target::leaf::Leaf;

/// Watches whether a statement on a leaf deletes other rows of the target besides: triggers, rules and foreign keys can, and so can code
/// that expressions call.
pub struct Besides<'a> {
    leaf: &'a Leaf,
    /// The target's tables.
    tables: &'a [pg_sys::Oid],
    before: i64,
    /// Where the tables have their rows.
    files: Vec<u32>,
}

impl<'a> Besides<'a> {
    /// Watches from now on.
    pub fn of(leaf: &'a Leaf, tables: &'a [pg_sys::Oid]) -> Besides<'a> {
        let files = tables.iter().map(|table| file_of(*table)).collect();
        Besides { leaf, tables, before: deleted_of(tables), files }
    }

    /// Whether more rows than these are gone.
    pub fn are_gone(&self, rows: usize) -> bool {
        deleted_of(self.tables) - self.before > rows as i64 || self.are_emptied()
    }

    /// Whether the transaction has truncated or dropped one of the tables meanwhile, which deletes no row one by one.
    fn are_emptied(&self) -> bool {
        let mut tables = self.tables.iter().zip(&self.files);
        tables.any(|(table, before)| {
            let file = file_of(*table);
            file != *before && (file == 0 || is_truncated(*table)) && is_locked_from_all(*table)
        })
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
