//! What is configured, and the extension itself.

use sqlx::{PgExecutor, Result};

/// The names of all targets, in their order.
pub async fn names(database: impl PgExecutor<'_>) -> Result<Vec<String>> {
    sqlx::query_scalar("SELECT name FROM backlog_cleanup.target ORDER BY name").fetch_all(database).await
}

/// The account of a target; `None` if there is no such target.
pub async fn account(database: impl PgExecutor<'_>, target: &str) -> Result<Option<String>> {
    let account = sqlx::query_scalar("SELECT account FROM backlog_cleanup.target WHERE name = $1");
    account.bind(target).fetch_optional(database).await
}

/// The version of the extension; `None` if the database does not have it.
pub async fn extension_version(database: impl PgExecutor<'_>) -> Result<Option<String>> {
    let version = "SELECT extversion FROM pg_extension WHERE extname = 'backlog_cleanup'";
    sqlx::query_scalar(version).fetch_optional(database).await
}
