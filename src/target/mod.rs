//! What is looked after: a row of `backlog_cleanup.target`, checked against the catalog. Knows nothing of policies.

mod below;
pub mod check;
pub mod column;
pub mod expression;
mod failing;
mod failure_type;
mod far;
mod find;
mod fingerprint;
pub mod foreign_keys;
pub mod guard;
pub mod id;
mod instead;
pub mod leaf;
pub mod limits;
pub mod load;
pub mod meaning;
pub mod mistake;
pub mod nearest;
mod own;
pub mod pace;
pub mod parts;
pub mod passed_over;
pub mod reading;
pub mod recipes;
pub mod row;
pub mod spelling;
pub mod statuses;
pub mod steady;
pub mod time;
pub mod trust;
mod unreadable;
mod unused;
pub mod window;

use std::cell::OnceCell;

use backlog_cleanup_report::Nouns;
use pgrx::prelude::*;
use pgrx::spi::quote_literal;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::postgres::elsewhere::elsewhere;
use crate::postgres::error::{Result, error};
use crate::postgres::expression::Expression;
use crate::postgres::names::naming_anything;
use crate::postgres::owner::reading_as_owner_of;
use crate::postgres::read::read_one;
use crate::postgres::table::{Column, Table};
use crate::postgres::wal::WalCompression;
use crate::target::id::Id;
use crate::target::pace::Pace;
use crate::target::spelling::Spelling;
use crate::target::window::Window;

/// A row of `backlog_cleanup.target`, not checked. The comments on its columns explain them.
#[derive(Clone, Deserialize)]
pub struct TargetRow {
    pub name: String,
    pub generations_table: String,
    pub recipes_table: Option<String>,
    pub users_table: Option<String>,
    pub ledger_table: Option<String>,
    pub id_column: String,
    /// Versions before 0.3.0 have none.
    #[serde(default)]
    pub id_columns: Option<Vec<String>>,
    pub account_column: Option<String>,
    pub recipe_column: Option<String>,
    pub recipe_columns: Option<Vec<String>>,
    pub status_column: Option<String>,
    pub failed_at_column: String,
    pub failure_type_column: Option<String>,
    pub condition: Option<String>,
    /// Versions before 0.3.0 have none.
    #[serde(default)]
    pub fingerprint: bool,
    pub recipe_key_column: String,
    pub recipe_name_column: String,
    pub account: Option<String>,
    #[serde(alias = "failed_status", deserialize_with = "list")]
    pub statuses: Vec<String>,
    #[serde(deserialize_with = "list")]
    pub completed_status: Vec<String>,
    #[serde(deserialize_with = "list")]
    pub pending_status: Vec<String>,
    #[serde(deserialize_with = "list")]
    pub processing_status: Vec<String>,
    #[serde(flatten)]
    pub nouns: Nouns,
    pub time_zone: String,
    pub search_path: Option<String>,
    /// That of a batched run whose call says no other.
    #[serde(flatten)]
    pub pace: Pace,
    /// Milliseconds.
    #[serde(rename = "lock_timeout_ms")]
    pub lock_timeout: i64,
    /// Percent.
    pub max_share: f64,
    pub max_rows_per_run: Option<i64>,
    /// Bytes per second.
    pub max_wal_rate: Option<i64>,
    pub throttle_query: Option<String>,
    /// Versions before 0.3.0 have none.
    #[serde(default)]
    pub run_between: Option<Window>,
    #[serde(default)]
    pub wal_compression: WalCompression,
    /// The role that made the target use its tables; `None` is a superuser, and `""` a role that is gone.
    pub named_by: Option<String>,
    /// The whole row, as its `to_jsonb`.
    #[serde(skip)]
    pub document: Value,
}

/// Reads a list of statuses; NULL is an empty one. Until ALTER EXTENSION UPDATE it is one text.
fn list<'de, D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Written {
        List(Option<Vec<String>>),
        Text(String),
    }
    Written::deserialize(deserializer).map(|written| match written {
        Written::List(list) => list.unwrap_or_default(),
        Written::Text(text) => vec![text],
    })
}

/// A target with its tables and columns. The fields of its row can be read from it directly.
pub struct Target {
    row: TargetRow,
    pub table: Table,
    pub users: Option<Users>,
    pub recipes: Option<RecipeTable>,
    pub ledger: Option<Ledger>,
    pub id: Id,
    /// `None` if every row of the table is the target's.
    pub account_column: Option<Column>,
    /// NULL in every row if the target has none.
    pub recipe: Column,
    /// `None` if every row has the same: then a row in scope is one that has finished.
    pub status: Option<Column>,
    /// `statuses` as rows have them, as texts; none without a status.
    pub names_of_statuses: Vec<String>,
    pub failed_at: Column,
    /// NULL in every row if the target has none.
    pub failure_type: Column,
    /// The condition, if the target has one.
    pub meets: Option<Expression>,
    /// The columns of the table that all of these read, with their names without quotes.
    pub reads: Vec<(String, Column)>,
    /// The labels and casts of its types, as the first look at a leaf's rows has found them.
    spelling: OnceCell<Spelling>,
    /// The types that these are of.
    types: OnceCell<Vec<pg_sys::Oid>>,
    /// The qualified function that takes the fingerprint of a failure type; `None` if it is off.
    pub fingerprint_function: Option<String>,
}

/// The table that names the recipes; `name` is a quoted column.
pub struct RecipeTable {
    pub table: Table,
    pub key: Column,
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

impl std::ops::Deref for Target {
    type Target = TargetRow;

    fn deref(&self) -> &TargetRow {
        &self.row
    }
}

impl TargetRow {
    /// Why a regular run in batches does not work now; `None` inside of `run_between`.
    pub fn outside_of_window(&self) -> Result<Option<String>> {
        self.run_between.as_ref().map_or(Ok(None), |window| window.outside(&self.time_zone))
    }

    /// The statement that sets a column of this row.
    pub fn set(&self, column: &str, value: &str) -> String {
        format!("UPDATE backlog_cleanup.target SET {column} = {value} WHERE name = {}", quote_literal(&self.name))
    }

    /// Runs the throttle query as the owner of the target's table. Returns the beginning of its first value as text, whatever its
    /// type: the reason to wait.
    pub fn throttle(&self, table: &Table) -> Result<Option<String>> {
        let Some(query) = &self.throttle_query else { return Ok(None) };
        let query = query.trim_end().trim_end_matches(';');
        reading_as_owner_of(table, || {
            let reason = format!(
                "SELECT pg_catalog.left(throttle.reason::pg_catalog.text, 1000) FROM (\n{query}\n) throttle (reason)"
            );
            naming_anything(|| read_one::<String>(&reason, &[]))
        })
    }
}

impl Target {
    /// All tables that it names.
    pub fn tables(&self) -> Vec<pg_sys::Oid> {
        let Target { table, users, recipes, ledger, .. } = self;
        let others = [
            users.as_ref().map(|users| users.table.oid),
            recipes.as_ref().map(|recipes| recipes.table.oid),
            ledger.as_ref().map(|ledger| ledger.table.oid),
        ];
        std::iter::once(table.oid).chain(others.into_iter().flatten()).collect()
    }

    /// Errors: 42704 (the account is not among the users), 22P02 (its column, whose type may have changed, cannot have it).
    pub fn account_exists(&self) -> Result<()> {
        let account = self.account_column.as_ref().zip(self.account.as_deref());
        account.map_or(Ok(()), |(column, account)| self.accepts(column, account))?;
        let Some((users, account)) = self.users.as_ref().zip(self.account.as_deref()) else { return Ok(()) };
        let find = format!(
            "SELECT EXISTS (SELECT FROM {} u WHERE u.{}::pg_catalog.text OPERATOR(pg_catalog.=) $1)",
            users.table.name, users.key
        );
        let found = elsewhere(|| reading_as_owner_of(&users.table, || read_one::<bool>(&find, &[account.into()])))?;
        if found == Some(true) {
            return Ok(());
        }
        Err(error(
            PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT,
            format!("account \"{account}\" does not exist in {}", users.table.name),
            self.set("account", "'...'"),
        ))
    }

    /// Checks a value for a column of the table, as the table's owner: the type may run code. Errors: 22P02, 22023, 42804.
    pub fn accepts(&self, column: &Column, value: &str) -> Result<()> {
        reading_as_owner_of(&self.table, || column.accepts(value, &self.table))
    }

    /// The condition on a row `g` that it is one of the account: of no other that the column's collation or type calls equal.
    /// Without an account, every row is.
    pub fn is_of_account(&self) -> String {
        let account = self.account_column.as_ref().zip(self.account.as_deref());
        account.map_or("true".into(), |(column, account)| column.identifies(account))
    }

    /// What to say of a target that may remove every row of its table, and the statement that limits it.
    pub fn without_limit(&self) -> Option<(String, String)> {
        let is_limited = self.max_rows_per_run.is_some() || self.max_share < 100.0;
        if self.account.is_some() || self.condition.is_some() || is_limited {
            return None;
        }
        let message = format!(
            "target \"{}\" has no account, no condition and no limit: every row of {} that its statuses and policies let go can go in one run",
            self.name, self.table.name
        );
        Some((message, self.set("max_rows_per_run", "100000")))
    }

    /// The condition on a row `g` that it is a failed row of the account, meets the target's condition, and can be read.
    pub fn is_failed(&self) -> String {
        [self.is_of_account(), self.has_failed()].into_iter().chain(self.is_met()).collect::<Vec<_>>().join(" AND ")
    }

    /// The condition on a failed row `g` that it meets the target's condition, and can be read; `None` if every row does.
    pub fn is_met(&self) -> Option<String> {
        let conditions: Vec<String> = self.meets.iter().map(Expression::of_row).chain(self.can_be_read()).collect();
        (!conditions.is_empty()).then(|| conditions.join(" AND "))
    }
}
