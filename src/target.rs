use pgrx::prelude::*;
use pgrx::spi::quote_identifier as quote;

use crate::error::{Result, error, required, spi};
use crate::owner::acting_as;
use crate::read::{read_one, refuse_read_only};

/// One table to look after: a row of `backlog_cleanup.target`, checked against the catalog.
pub struct Target {
    pub name: String,
    pub table: Table,
    pub users: Option<Table>,
    pub recipes: Option<Table>,
    pub ledger: Option<Table>,
    pub account: String,
    pub failed_status: String,
    pub completed_status: String,
    pub pending_status: String,
    pub processing_status: String,
    pub time_zone: String,
    pub id: Column,
    pub account_column: Column,
    pub recipe: Column,
    pub status: Column,
    pub failed_at: Column,
    pub failure_type: Column,
    /// The quoted columns of `recipes`: key and name.
    pub recipe_key: String,
    pub recipe_name: String,
}

/// A table as the catalog has it.
pub struct Table {
    pub oid: pg_sys::Oid,
    pub owner: pg_sys::Oid,
    /// Schema-qualified and quoted.
    pub name: String,
    /// `pg_catalog`, the table's own schema, `pg_temp`: an application's ordinary triggers work.
    pub search_path: String,
}

/// A column of the target's table: its quoted name and its type as SQL.
pub struct Column {
    pub name: String,
    pub sql_type: String,
}

impl Target {
    /// Reads the row `name`, locks it against a second run where `lock`, and checks what it names.
    /// Errors: 22004, 42704, 55P03, 42P01, 42703, 42804.
    pub fn load(name: Option<&str>, lock: bool) -> Result<Target> {
        let (name, row) = row(name, lock)?;
        let text = |key: &str| row[key].as_str().map(str::to_owned);
        let must = |key: &str| text(key).unwrap_or_default();
        let optional = |key: &str| text(key).map(|table| Table::find(&table, Some(key))).transpose();
        let table = Table::find(&must("generations_table"), None)?;
        let column = |key: &str| Column::find(&table, &must(key));
        let failed_at = column("failed_at_column")?;
        if !failed_at.sql_type.starts_with("timestamp") {
            return Err(error(
                PgSqlErrorCode::ERRCODE_DATATYPE_MISMATCH,
                format!("column {} of {} has type {}", failed_at.name, table.name, failed_at.sql_type),
                "name a timestamp or timestamptz column in failed_at_column of backlog_cleanup.target".into(),
            ));
        }
        Ok(Target {
            name: name.to_owned(),
            users: optional("users_table")?,
            recipes: optional("recipes_table")?,
            ledger: optional("ledger_table")?,
            account: must("account"),
            failed_status: must("failed_status"),
            completed_status: must("completed_status"),
            pending_status: must("pending_status"),
            processing_status: must("processing_status"),
            time_zone: must("time_zone"),
            id: column("id_column")?,
            account_column: column("account_column")?,
            recipe: column("recipe_column")?,
            status: column("status_column")?,
            failure_type: column("failure_type_column")?,
            recipe_key: quote(must("recipe_key_column")),
            recipe_name: quote(must("recipe_name_column")),
            failed_at,
            table,
        })
    }

    /// A recipe's id as JSON: a number where the column is one.
    pub fn json_recipe_id(&self, id: Option<&str>) -> serde_json::Value {
        let is_number = matches!(self.recipe.sql_type.as_str(), "smallint" | "integer" | "bigint" | "numeric");
        backlog_cleanup_report::recipe_id(id, is_number)
    }

    /// The `timestamptz` that a failed-at expression means: a `timestamp` is read in the target's time zone.
    pub fn instant(&self, failed_at: &str) -> String {
        match self.failed_at.sql_type.as_str() {
            "timestamp with time zone" => failed_at.to_owned(),
            _ => format!("pg_catalog.timezone({}, {failed_at})", pgrx::spi::quote_literal(&self.time_zone)),
        }
    }
}

impl Table {
    /// Finds a table by its name in SQL; `nullable` is the column of `target` that may be set to NULL instead.
    fn find(name: &str, nullable: Option<&str>) -> Result<Table> {
        let (oid, owner, schema, relation) = Spi::connect(|client| -> spi::Result<_> {
            let found = client
                .select(
                    "SELECT c.oid, c.relowner, n.nspname::pg_catalog.text, c.relname::pg_catalog.text
                     FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
                     WHERE c.oid OPERATOR(pg_catalog.=) pg_catalog.to_regclass($1)::pg_catalog.oid",
                    Some(1),
                    &[name.into()],
                )?;
            if found.is_empty() {
                return Ok((None, None, None, None));
            }
            let found = found.first();
            Ok((
                found.get::<pg_sys::Oid>(1)?,
                found.get::<pg_sys::Oid>(2)?,
                found.get::<String>(3)?,
                found.get::<String>(4)?,
            ))
        })
        .map_err(spi)?;
        match (oid, owner, schema, relation) {
            (Some(oid), Some(owner), Some(schema), Some(relation)) => Ok(Table {
                oid,
                owner,
                name: format!("{}.{}", quote(&schema), quote(&relation)),
                search_path: format!("pg_catalog, {}, pg_temp", quote(&schema)),
            }),
            _ => Err(error(
                PgSqlErrorCode::ERRCODE_UNDEFINED_TABLE,
                format!("table \"{name}\" does not exist"),
                match nullable {
                    Some(column) => format!("UPDATE backlog_cleanup.target SET {column} = NULL"),
                    None => "UPDATE backlog_cleanup.target SET generations_table = 'schema.table'".into(),
                },
            )),
        }
    }
}

impl Column {
    fn find(table: &Table, name: &str) -> Result<Column> {
        let sql_type = read_one::<String>(
            "SELECT pg_catalog.format_type(atttypid, NULL) FROM pg_catalog.pg_attribute
             WHERE attrelid OPERATOR(pg_catalog.=) $1 AND attname OPERATOR(pg_catalog.=) $2::pg_catalog.name
               AND attnum OPERATOR(pg_catalog.>) 0 AND NOT attisdropped",
            &[table.oid.into(), name.into()],
        )?;
        sql_type.map(|sql_type| Column { name: quote(name), sql_type }).ok_or_else(|| {
            error(
                PgSqlErrorCode::ERRCODE_UNDEFINED_COLUMN,
                format!("column \"{name}\" of {} does not exist", table.name),
                "name the table's own columns in backlog_cleanup.target".into(),
            )
        })
    }
}

/// Does `work` on the extension's own tables, as their owner.
pub fn state<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    let owner = read_one::<pg_sys::Oid>(
        "SELECT nspowner FROM pg_catalog.pg_namespace WHERE nspname OPERATOR(pg_catalog.=) 'backlog_cleanup'",
        &[],
    )?
    .unwrap_or(pg_sys::InvalidOid);
    acting_as(owner, "pg_catalog, pg_temp", work)
}

/// The name of a target that exists, its tables there or not.
pub fn exists(name: Option<&str>) -> Result<&str> {
    row(name, false).map(|(name, _)| name)
}

/// The row of a target as JSON, locked until the transaction ends where `lock`.
fn row(name: Option<&str>, lock: bool) -> Result<(&str, serde_json::Value)> {
    let name = required(name, "target", "SELECT name FROM backlog_cleanup.target")?;
    const ROW: &str =
        "SELECT pg_catalog.to_jsonb(t) FROM backlog_cleanup.target t WHERE t.name OPERATOR(pg_catalog.=) $1";
    let unlocked = state(|| read_one::<pgrx::JsonB>(ROW, &[name.into()]))?.ok_or_else(|| {
        error(
            PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT,
            format!("target \"{name}\" does not exist"),
            "SELECT name FROM backlog_cleanup.target".into(),
        )
    })?;
    if !lock {
        return Ok((name, unlocked.0));
    }
    refuse_read_only("remove rows")?;
    let lock = format!("{ROW} FOR NO KEY UPDATE SKIP LOCKED");
    let locked = state(|| {
        Spi::connect_mut(|client| {
            let rows = client.update(lock.as_str(), Some(1), &[name.into()])?;
            if rows.is_empty() { Ok(None) } else { rows.first().get_one::<pgrx::JsonB>() }
        })
        .map_err(spi)
    })?
    .ok_or_else(|| {
        error(
            PgSqlErrorCode::ERRCODE_LOCK_NOT_AVAILABLE,
            format!("target \"{name}\" is locked: another run on it is in progress"),
            "SELECT pid, usename, xact_start, query FROM pg_stat_activity WHERE state <> 'idle'".into(),
        )
    })?;
    Ok((name, locked.0))
}
