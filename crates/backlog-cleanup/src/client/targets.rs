//! What is configured, and the extension itself.

use std::fmt;

use backlog_cleanup_report::{DEFAULT_TARGET, Nouns};
use sqlx::FromRow;
use sqlx::postgres::PgConnection;
use sqlx::types::Json;

use super::columns;
use super::statement::{query_as, query_scalar};
use crate::failure::Failure;

/// The names of all targets, in their order.
pub async fn names(database: &mut PgConnection) -> sqlx::Result<Vec<String>> {
    query_scalar("SELECT name FROM backlog_cleanup.target ORDER BY name").fetch_all(database).await
}

/// The names of the targets whose table is there, in their order; of all, where none is there.
pub async fn usable(database: &mut PgConnection) -> sqlx::Result<Vec<String>> {
    // to_regclass() fails in a schema that the role may not use.
    let usable = "SELECT t.name FROM backlog_cleanup.target t
                  CROSS JOIN parse_ident(t.generations_table) AS name_of_table (parts)
                  JOIN pg_namespace n ON n.nspname = parts[cardinality(parts) - 1]
                  JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = parts[cardinality(parts)]
                  ORDER BY t.name";
    let usable = query_scalar(usable).fetch_all(&mut *database).await?;
    if usable.is_empty() { names(database).await } else { Ok(usable) }
}

/// Errors: 42704 (there is no such target, and there was none that has left something).
pub async fn known(database: &mut PgConnection, target: Option<&str>) -> Result<(), Failure> {
    let Some(target) = target else { return Ok(()) };
    let known = "SELECT EXISTS (SELECT FROM backlog_cleanup.target WHERE name = $1
                                UNION ALL SELECT FROM backlog_cleanup.run WHERE target = $1
                                UNION ALL SELECT FROM backlog_cleanup.alert WHERE target = $1
                                UNION ALL SELECT FROM backlog_cleanup.sample WHERE target = $1)";
    let is_known: bool = query_scalar(known).bind(target).fetch_one(database).await?;
    if is_known { Ok(()) } else { Err(columns::missing(target)) }
}

/// Which of these names no target has.
pub async fn missing(database: &mut PgConnection, names: &[String]) -> sqlx::Result<Vec<String>> {
    let missing = "SELECT name FROM unnest($1::text[]) AS named (name)
                   WHERE NOT EXISTS (SELECT FROM backlog_cleanup.target t WHERE t.name = named.name) ORDER BY name";
    query_scalar(missing).bind(names).fetch_all(database).await
}

/// Of the usable targets, the one to show where none is named: `generations`, or else the first.
pub fn usual(names: &[String]) -> &str {
    let usual = names.iter().find(|name| *name == DEFAULT_TARGET).or(names.first());
    usual.map_or(DEFAULT_TARGET, String::as_str)
}

/// Of the usable targets, the one that is meant where none is named: `generations`, or the only one.
pub fn meant(names: &[String]) -> Result<&str, Unclear<'_>> {
    match usual(names) {
        usual if names.len() > 1 && usual != DEFAULT_TARGET => Err(Unclear { names }),
        usual => Ok(usual),
    }
}

/// There are several targets, and none is meant where none is named.
pub struct Unclear<'a> {
    pub names: &'a [String],
}

impl fmt::Display for Unclear<'_> {
    fn fmt(&self, to: &mut fmt::Formatter) -> fmt::Result {
        write!(to, "the targets are \"{}\": name one", self.names.join("\", \""))
    }
}

/// What a page says of a target.
#[derive(FromRow)]
pub struct About {
    pub database: String,
    pub table: String,
    pub account: Option<String>,
    /// Those whose rows runs remove; none if the rows have no status.
    pub statuses: Vec<String>,
    /// Of the default policy, if it is enabled, in seconds.
    pub max_age: Option<i64>,
    pub keep: Option<i32>,
}

/// `None` if there is no such target.
pub async fn about(database: &mut PgConnection, target: &str) -> sqlx::Result<Option<About>> {
    let about = "SELECT current_database()::text AS database, t.generations_table::text AS table, t.account,
                        CASE WHEN t.status_column IS NULL THEN '{}' ELSE t.statuses END AS statuses,
                        extract(epoch FROM p.max_age)::bigint AS max_age, p.keep
                 FROM backlog_cleanup.target t
                 LEFT JOIN backlog_cleanup.policy p
                        ON p.target = t.name AND p.enabled
                       AND p.recipe_id IS NULL AND p.failure_type IS NULL AND p.status IS NULL
                 WHERE t.name = $1";
    query_as(about).bind(target).fetch_optional(database).await
}

/// What people call the groups and rows of a target; those of the platform if there is no such target.
pub async fn nouns(database: &mut PgConnection, target: &str) -> sqlx::Result<Nouns> {
    let nouns = query_scalar("SELECT to_jsonb(t) FROM backlog_cleanup.target t WHERE name = $1");
    let nouns: Option<Json<Nouns>> = nouns.bind(target).fetch_optional(database).await?;
    Ok(nouns.map(|Json(nouns)| nouns).unwrap_or_default())
}

/// What confirms an emergency run.
#[derive(Default, FromRow)]
pub struct Confirming {
    /// `account`, or `target` if it has none.
    pub what: String,
    pub name: String,
}

/// `None` if there is no such target.
pub async fn confirming(database: &mut PgConnection, target: &str) -> sqlx::Result<Option<Confirming>> {
    let confirming =
        "SELECT CASE WHEN account IS NULL THEN 'target' ELSE 'account' END AS what, coalesce(account, name) AS name
                      FROM backlog_cleanup.target WHERE name = $1";
    query_as(confirming).bind(target).fetch_optional(database).await
}

/// The version of the extension; `None` if the database does not have it.
pub async fn extension_version(database: &mut PgConnection) -> sqlx::Result<Option<String>> {
    let version = "SELECT extversion FROM pg_extension WHERE extname = 'backlog_cleanup'";
    query_scalar(version).fetch_optional(database).await
}
