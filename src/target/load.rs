use pgrx::prelude::*;

use crate::extension;
use crate::postgres::error::{Result, error, required};
use crate::postgres::now::one_now;
use crate::postgres::search_path::with_temporary_last;
use crate::postgres::settings::set_local;
use crate::postgres::table::{Column, Table};
use crate::target::leaf::is_not_distributed;
use crate::target::{Ledger, RecipeTable, Target, TargetRow, Users, trust};

impl Target {
    /// Reads the row `name` and checks what it names.
    /// Errors: 22004, 42704, 42P01, 42501 (a table that does not belong to the role that named it), 42809, 42703, 42804,
    /// 55000 (a partition of another owner, in a table that is not read leaf by leaf).
    pub fn load(name: Option<&str>) -> Result<Target> {
        let row = row(name)?;
        // With this search path names and types come out qualified.
        extension::as_owner(|| Target::check(row))
    }

    fn check(row: TargetRow) -> Result<Target> {
        let mut table = row.find("generations_table", &row.generations_table, "'schema.table'")?;
        if !matches!(table.kind as u8, b'r' | b'p' | b'f') {
            return Err(error(
                PgSqlErrorCode::ERRCODE_WRONG_OBJECT_TYPE,
                format!("\"{}\" is not a table", row.generations_table),
                row.set("generations_table", "'schema.table'"),
            ));
        }
        is_not_distributed(&table)?;
        if let Some(search_path) = &row.search_path {
            table.search_path = with_temporary_last(search_path).ok_or_else(|| {
                error(
                    PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
                    format!("search path \"{search_path}\" is not a list of schemas with pg_temp at its end"),
                    row.set("search_path", "'schema, pg_temp'"),
                )
            })?;
        }
        let failed_at = row.failed_at(&table)?;
        let id = row.id(&table)?;
        let target = Target {
            account_column: row.column(&table, "account_column", &row.account_column)?,
            recipe: row.column(&table, "recipe_column", &row.recipe_column)?,
            status: match &row.status_column {
                Some(status) => Some(row.column(&table, "status_column", status)?),
                None => None,
            },
            failure_type: row.column(&table, "failure_type_column", &row.failure_type_column)?,
            recipes: row.recipes()?,
            users: row.users()?,
            ledger: row.ledger()?,
            id,
            failed_at,
            table,
            row,
        };
        trust::check(&target.tables())?;
        Ok(target)
    }
}

impl TargetRow {
    /// Finds the table `name`, the value of column `key`. The hint of an error sets that column to `mend`.
    fn find(&self, key: &str, name: &str, mend: &str) -> Result<Table> {
        let found = Table::find(name)?.ok_or_else(|| {
            error(
                PgSqlErrorCode::ERRCODE_UNDEFINED_TABLE,
                format!("table \"{name}\" does not exist"),
                self.set(key, mend),
            )
        })?;
        // After DROP and CREATE, or if a schema was renamed, the name means another table.
        let Some(named_by) = &self.named_by else { return Ok(found) };
        let may = "SELECT pg_has_role(oid, $2, 'USAGE') FROM pg_roles WHERE rolname::text = $1";
        if one_now::<bool>(may, &[named_by.as_str().into(), found.owner.into()])? == Some(true) {
            return Ok(found);
        }
        let message = match named_by.as_str() {
            "" => format!("the role that made target \"{}\" use table \"{name}\" does not exist any more", self.name),
            role => format!(
                "table \"{name}\" does not belong to role \"{role}\", which made target \"{}\" use it",
                self.name
            ),
        };
        Err(error(
            PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
            message,
            // For a superuser, after a look at the table. What else the role wrote was allowed by the same right.
            self.set("named_by", "NULL, throttle_query = NULL, search_path = NULL"),
        ))
    }

    /// Finds an optional table. It is not read leaf by leaf, so all its parts must have one owner.
    fn optional(&self, key: &str, name: &Option<String>) -> Result<Option<Table>> {
        let Some(name) = name else { return Ok(None) };
        let table = self.find(key, name, "NULL")?;
        table.is_of_one_owner()?;
        Ok(Some(table))
    }

    /// The column of a table that the column `key` names.
    fn column(&self, table: &Table, key: &str, name: &str) -> Result<Column> {
        self.column_or(table, name, || self.set(key, "'column'"))
    }

    fn column_or(&self, table: &Table, name: &str, hint: impl FnOnce() -> String) -> Result<Column> {
        table.column(name)?.cloned().ok_or_else(|| {
            let message = format!("column \"{name}\" of {} does not exist", table.name);
            error(PgSqlErrorCode::ERRCODE_UNDEFINED_COLUMN, message, hint())
        })
    }

    fn failed_at(&self, table: &Table) -> Result<Column> {
        let column = self.column(table, "failed_at_column", &self.failed_at_column)?;
        if matches!(column.type_oid, pg_sys::TIMESTAMPOID | pg_sys::TIMESTAMPTZOID) {
            return Ok(column);
        }
        let message = format!("column \"{}\" of {} has type {}", self.failed_at_column, table.name, column.type_name);
        let hint = self.set("failed_at_column", "'a timestamp or timestamptz column'");
        Err(error(PgSqlErrorCode::ERRCODE_DATATYPE_MISMATCH, message, hint))
    }

    fn id(&self, table: &Table) -> Result<Column> {
        let column = self.column(table, "id_column", &self.id_column)?;
        if column.is_ordered() {
            return Ok(column);
        }
        let message = format!(
            "column \"{}\" of {} has type {}, which has no order",
            self.id_column, table.name, column.type_name
        );
        Err(error(PgSqlErrorCode::ERRCODE_DATATYPE_MISMATCH, message, self.set("id_column", "'column'")))
    }

    fn recipes(&self) -> Result<Option<RecipeTable>> {
        let Some(table) = self.optional("recipes_table", &self.recipes_table)? else { return Ok(None) };
        Ok(Some(RecipeTable {
            key: self.column(&table, "recipe_key_column", &self.recipe_key_column)?.name,
            name: self.column(&table, "recipe_name_column", &self.recipe_name_column)?.name,
            table,
        }))
    }

    fn users(&self) -> Result<Option<Users>> {
        let Some(table) = self.optional("users_table", &self.users_table)? else { return Ok(None) };
        Ok(Some(Users { key: self.column_or(&table, "id", || self.set("users_table", "NULL"))?.name, table }))
    }

    fn ledger(&self) -> Result<Option<Ledger>> {
        let Some(table) = self.optional("ledger_table", &self.ledger_table)? else { return Ok(None) };
        let column = |name| self.column_or(&table, name, || self.set("ledger_table", "NULL"));
        ["user_id", "amount", "type", "description"].into_iter().try_for_each(|name| column(name).map(drop))?;
        Ok(Some(Ledger { created_at: column("created_at")?, table }))
    }
}

/// The row of a target, whether its tables exist or not. Errors: 22004, 42704.
pub fn row(name: Option<&str>) -> Result<TargetRow> {
    let name = required(name, "target", "SELECT name FROM backlog_cleanup.target")?;
    const ROW: &str = "
        SELECT to_jsonb(t) || jsonb_build_object(
                   'lock_timeout', ceil(extract(epoch FROM t.lock_timeout) * 1000)::bigint)
        FROM backlog_cleanup.target t WHERE t.name = $1";
    let read = || {
        // The target's own is not known yet. An admin can lock the table.
        // SAFETY: a setting, read by the one thread of a backend.
        if unsafe { pg_sys::LockTimeout } == 0 {
            set_local("lock_timeout", "5s");
        }
        one_now::<pgrx::JsonB>(ROW, &[name.into()])
    };
    let row = extension::as_owner(read)?.ok_or_else(|| {
        error(
            PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT,
            format!("target \"{name}\" does not exist"),
            "SELECT name FROM backlog_cleanup.target".into(),
        )
    })?;
    serde_json::from_value(row.0).map_err(|failure| {
        error(
            PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!("target \"{name}\" cannot be read: {failure}"),
            "ALTER EXTENSION backlog_cleanup UPDATE".into(),
        )
    })
}

/// The name of a target that exists. Errors: 22004, 42704.
pub fn exists(name: Option<&str>) -> Result<String> {
    row(name).map(|row| row.name)
}

/// The table of a target, and the target's `lock_timeout` in milliseconds; nothing else is checked.
/// Errors: 22004, 42704, 42P01, 42501.
pub fn table(name: Option<&str>) -> Result<(Table, i64)> {
    let row = row(name)?;
    let table = extension::as_owner(|| row.find("generations_table", &row.generations_table, "'schema.table'"))?;
    Ok((table, row.lock_timeout))
}
