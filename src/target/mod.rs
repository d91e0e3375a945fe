pub mod leaf;
pub mod steady;

use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use pgrx::spi::quote_literal;

use crate::postgres::error::{Result, error, required};
use crate::postgres::owner::{acting_as, as_owner_of};
use crate::postgres::read::{read_one, read_prepared};
use crate::postgres::table::{Column, Table};
use crate::run::governor;

/// Checks that what a target names is there and can be used. Errors: those of `Target::load`, 22P02 (a value that its
/// column cannot have), 22023 (time zone), what its throttle query raises.
#[pg_extern(stable)]
fn backlog_cleanup_check(target: Option<&str>) -> Result<()> {
    let target = Target::load(target)?;
    let statuses = [&target.failed_status, &target.completed_status, &target.pending_status, &target.processing_status];
    target.accepts(&target.account_column, &target.account)?;
    statuses.iter().try_for_each(|status| target.accepts(&target.status, status))?;
    governor::throttle(&target)?;
    let time_zone = target.time_zone;
    let hint = "SELECT name FROM pg_timezone_names";
    PgTryBuilder::new(|| {
        read_one::<TimestampWithTimeZone>(
            "SELECT pg_catalog.timezone($1, timestamp '2000-01-01')",
            &[time_zone.as_str().into()],
        )
        .map(drop)
    })
    .catch_when(PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE, |_| {
        let message = format!("time zone \"{time_zone}\" is not known");
        Err(error(PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE, message, hint.into()))
    })
    .execute()
}

/// One table to look after: a row of `backlog_cleanup.target`, checked against the catalog.
pub struct Target {
    pub name: String,
    pub table: Table,
    pub users: Option<Users>,
    pub recipes: Option<Recipes>,
    pub ledger: Option<Ledger>,
    pub account: String,
    pub failed_status: String,
    pub completed_status: String,
    pub pending_status: String,
    pub processing_status: String,
    pub time_zone: String,
    /// What triggers find instead of what is in the table's own schema.
    pub search_path: Option<String>,
    /// Rows per batch.
    pub batch_size: i64,
    /// Percent of the failed rows that one regular run may remove.
    pub max_share: f64,
    pub max_rows_per_run: Option<i64>,
    /// Bytes per second.
    pub max_wal_rate: Option<i64>,
    pub throttle_query: Option<String>,
    pub id: Column,
    pub account_column: Column,
    pub recipe: Column,
    pub status: Column,
    pub failed_at: Column,
    pub failure_type: Column,
}

/// Where the recipes' names are; `key` and `name` are quoted columns.
pub struct Recipes {
    pub table: Table,
    pub key: String,
    pub name: String,
}

/// Where the account is; `key` is a quoted column.
pub struct Users {
    pub table: Table,
    pub key: String,
}

/// The platform's audit table.
pub struct Ledger {
    pub table: Table,
    pub created_at: Column,
}

impl Target {
    /// Reads the row `name` and checks what it names.
    /// Errors: 22004, 42704, 42P01, 42501 (a table that is not of whoever named it), 42809, 42703, 42804, 55000 (a partition
    /// of another owner where rows are not reached leaf by leaf).
    pub fn load(name: Option<&str>) -> Result<Target> {
        let (name, row) = row(name)?;
        // With the search path of `state`, names and types come out qualified.
        state(|| Target::check(name, &row))
    }

    fn check(name: &str, row: &serde_json::Value) -> Result<Target> {
        let text = |key: &str| row[key].as_str().map(str::to_owned);
        let must = |key: &str| text(key).unwrap_or_default();
        let set = |key: &str, value: &str| set(name, key, value);
        let find = |key: &str, mend: &str| find(name, row, key, mend);
        let optional = |key: &str| {
            let table = text(key).map(|_| find(key, "NULL")).transpose()?;
            table.as_ref().map_or(Ok(()), Table::is_of_one_owner)?;
            Ok::<_, ErrorReport>(table)
        };
        let mut table = find("generations_table", "'schema.table'")?;
        let search_path = text("search_path");
        table.search_path = search_path.clone().unwrap_or(table.search_path);
        if !matches!(table.kind as u8, b'r' | b'p' | b'f') {
            return Err(error(
                PgSqlErrorCode::ERRCODE_WRONG_OBJECT_TYPE,
                format!("\"{}\" is not a table", must("generations_table")),
                set("generations_table", "'schema.table'"),
            ));
        }
        let column_of = |table: &Table, key: &str| {
            let column = must(key);
            table.column(&column)?.cloned().ok_or_else(|| {
                let message = format!("column \"{column}\" of {} does not exist", table.name);
                error(PgSqlErrorCode::ERRCODE_UNDEFINED_COLUMN, message, set(key, "'column'"))
            })
        };
        let column = |key: &str| column_of(&table, key);
        // The platform's own names, which `target` has no columns for.
        let fixed = |table: &Table, key: &str, column: &str| {
            table.column(column)?.cloned().ok_or_else(|| {
                let message = format!("column \"{column}\" of {} does not exist", table.name);
                error(PgSqlErrorCode::ERRCODE_UNDEFINED_COLUMN, message, set(key, "NULL"))
            })
        };
        let failed_at = column("failed_at_column")?;
        if !matches!(failed_at.sql_type.as_str(), "timestamp without time zone" | "timestamp with time zone") {
            let key = "failed_at_column";
            return Err(error(
                PgSqlErrorCode::ERRCODE_DATATYPE_MISMATCH,
                format!("column \"{}\" of {} has type {}", must(key), table.name, failed_at.sql_type),
                set(key, "'a timestamp or timestamptz column'"),
            ));
        }
        let id = column("id_column")?;
        if !id.is_ordered() {
            return Err(error(
                PgSqlErrorCode::ERRCODE_DATATYPE_MISMATCH,
                format!(
                    "column \"{}\" of {} has type {}, which has no order",
                    must("id_column"),
                    table.name,
                    id.sql_type
                ),
                set("id_column", "'column'"),
            ));
        }
        let recipes = match optional("recipes_table")? {
            None => None,
            Some(table) => Some(Recipes {
                key: column_of(&table, "recipe_key_column")?.name,
                name: column_of(&table, "recipe_name_column")?.name,
                table,
            }),
        };
        let users = match optional("users_table")? {
            None => None,
            Some(table) => Some(Users { key: fixed(&table, "users_table", "id")?.name, table }),
        };
        let ledger = match optional("ledger_table")? {
            None => None,
            Some(table) => {
                for column in ["user_id", "amount", "type", "description"] {
                    fixed(&table, "ledger_table", column)?;
                }
                Some(Ledger { created_at: fixed(&table, "ledger_table", "created_at")?, table })
            }
        };
        Ok(Target {
            name: name.to_owned(),
            users,
            recipes,
            ledger,
            account: must("account"),
            failed_status: must("failed_status"),
            completed_status: must("completed_status"),
            pending_status: must("pending_status"),
            processing_status: must("processing_status"),
            time_zone: must("time_zone"),
            search_path,
            batch_size: row["batch_size"].as_i64().unwrap_or_default(),
            max_share: row["max_share"].as_f64().unwrap_or_default(),
            max_rows_per_run: row["max_rows_per_run"].as_i64(),
            max_wal_rate: row["max_wal_rate"].as_i64(),
            throttle_query: text("throttle_query"),
            id,
            account_column: column("account_column")?,
            recipe: column("recipe_column")?,
            status: column("status_column")?,
            failure_type: column("failure_type_column")?,
            failed_at,
            table,
        })
    }

    /// Errors: 42704 where the target's account is not among the users.
    pub fn account_exists(&self) -> Result<()> {
        let Some(users) = &self.users else { return Ok(()) };
        let found = as_owner_of(&users.table, || {
            read_one::<bool>(
                &format!(
                    "SELECT EXISTS (SELECT FROM {} u WHERE u.{}::pg_catalog.text OPERATOR(pg_catalog.=) $1)",
                    users.table.name, users.key
                ),
                &[self.account.as_str().into()],
            )
        })?;
        if found == Some(true) {
            return Ok(());
        }
        Err(error(
            PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT,
            format!("account \"{}\" does not exist in {}", self.account, users.table.name),
            format!("UPDATE backlog_cleanup.target SET account = '...' WHERE name = {}", quote_literal(&self.name)),
        ))
    }

    /// Checks a value of a column of the table as the table's owner, whose types may run code of his. Errors: 22P02,
    /// 42804.
    pub fn accepts(&self, column: &Column, value: &str) -> Result<()> {
        as_owner_of(&self.table, || column.accepts(value, &self.table))
    }

    /// The condition on a row `g` that it is a failed row: the account's, with the failed status.
    pub fn is_failed(&self) -> String {
        format!("{} AND {}", self.account_column.is(&self.account), self.status.is(&self.failed_status))
    }

    /// The condition on a row `g` that it failed before an instant.
    pub fn failed_before(&self, instant: &str) -> String {
        format!("g.{} OPERATOR(pg_catalog.<) ({})", self.failed_at.name, self.as_failed_at(instant))
    }

    /// A recipe's id as JSON: a number where the column is one.
    pub fn json_recipe_id(&self, id: Option<&str>) -> serde_json::Value {
        backlog_cleanup_report::recipe_id(id, self.recipe.is_number())
    }

    /// An instant (`timestamptz` as text) as a constant of the failed-at column's type: what is before the constant is
    /// before the instant.
    pub fn as_failed_at(&self, instant: &str) -> String {
        let instant = format!("timestamptz {}", quote_literal(instant));
        let local = self.in_time_zone(&self.failed_at, &instant);
        if local == instant {
            return instant;
        }
        // Clocks that go back pass an hour twice, and its times mean the second pass: in the first, the constant is the
        // minute in which that hour starts.
        format!(
            "CASE WHEN {} OPERATOR(pg_catalog.>) {instant}
             THEN (SELECT pg_catalog.min(minute)
                   FROM pg_catalog.generate_series(
                       pg_catalog.date_trunc('minute', {local}) OPERATOR(pg_catalog.-) interval '3 hours', {local},
                       interval '1 minute') AS minute
                   WHERE {} OPERATOR(pg_catalog.>) {instant})
             ELSE {local} END",
            self.instant(&local),
            self.instant("minute"),
        )
    }

    /// The `timestamptz` that a failed-at expression means: a `timestamp` is read in the target's time zone.
    pub fn instant(&self, failed_at: &str) -> String {
        self.in_time_zone(&self.failed_at, failed_at)
    }

    /// From `timestamptz` to the type of `column`, and back: `timezone` goes both ways.
    pub fn in_time_zone(&self, column: &Column, expression: &str) -> String {
        match column.sql_type.as_str() {
            "timestamp without time zone" => {
                format!("pg_catalog.timezone({}, {expression})", quote_literal(&self.time_zone))
            }
            _ => expression.to_owned(),
        }
    }
}

/// Does `work` on the extension's own tables, as their owner.
pub fn state<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    let owner = unsafe {
        let schema = pg_sys::get_namespace_oid(c"backlog_cleanup".as_ptr(), false);
        let row = pg_sys::SearchSysCache1(pg_sys::SysCacheIdentifier::NAMESPACEOID as i32, schema.into());
        let owner = (*pg_sys::GETSTRUCT(row).cast::<pg_sys::FormData_pg_namespace>()).nspowner;
        pg_sys::ReleaseSysCache(row);
        owner
    };
    acting_as(owner, "pg_catalog, pg_temp", work)
}

/// The table of a target, and its `lock_timeout` in milliseconds; nothing else is checked. Errors: 22004, 42704, 42P01, 42501.
pub fn table(name: Option<&str>) -> Result<(Table, i64)> {
    let (name, row) = row(name)?;
    let table = state(|| find(name, &row, "generations_table", "'schema.table'"))?;
    Ok((table, row["lock_timeout_ms"].as_i64().unwrap_or_default()))
}

/// The table that the column `key` of a target names; the hint sets it to `mend`.
fn find(name: &str, row: &serde_json::Value, key: &str, mend: &str) -> Result<Table> {
    let table = row[key].as_str().unwrap_or_default();
    let found = Table::find(table)?.ok_or_else(|| {
        error(
            PgSqlErrorCode::ERRCODE_UNDEFINED_TABLE,
            format!("table \"{table}\" does not exist"),
            set(name, key, mend),
        )
    })?;
    // The name may mean the table of somebody else by now: after a DROP and a CREATE, or where a schema was renamed.
    let Some(named_by) = row["named_by"].as_str() else { return Ok(found) };
    let may = "SELECT pg_has_role(oid, $2, 'USAGE') FROM pg_roles WHERE rolname::text = $1";
    if read_one::<bool>(may, &[named_by.into(), found.owner.into()])? == Some(true) {
        return Ok(found);
    }
    Err(error(
        PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
        format!("table \"{table}\" is not one of role \"{named_by}\", who made target \"{name}\" use it"),
        // For a superuser, who has looked at the table; what else they wrote goes with their right.
        set(name, "named_by", "NULL, throttle_query = NULL, search_path = NULL"),
    ))
}

/// The statement that mends a column of a target.
fn set(name: &str, key: &str, value: &str) -> String {
    format!("UPDATE backlog_cleanup.target SET {key} = {value} WHERE name = {}", quote_literal(name))
}

/// The name of a target that exists, its tables there or not.
pub fn exists(name: Option<&str>) -> Result<&str> {
    row(name).map(|(name, _)| name)
}

/// The row of a target as JSON.
fn row(name: Option<&str>) -> Result<(&str, serde_json::Value)> {
    let name = required(name, "target", "SELECT name FROM backlog_cleanup.target")?;
    const ROW: &str = "SELECT pg_catalog.to_jsonb(t) OPERATOR(pg_catalog.||) pg_catalog.jsonb_build_object(
                    'lock_timeout_ms', pg_catalog.ceil(EXTRACT(epoch FROM t.lock_timeout)
                                                       OPERATOR(pg_catalog.*) 1000)::pg_catalog.int8)
         FROM backlog_cleanup.target t WHERE t.name OPERATOR(pg_catalog.=) $1";
    let row = state(|| read_prepared::<pgrx::JsonB>(ROW, &[name.into()]))?.ok_or_else(|| {
        error(
            PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT,
            format!("target \"{name}\" does not exist"),
            "SELECT name FROM backlog_cleanup.target".into(),
        )
    })?;
    Ok((name, row.0))
}
