//! What rules have found.

use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::postgres::PgConnection;
use sqlx::{FromRow, Result};

use super::statement::query_as;

/// An alert.
#[derive(Debug, Serialize, FromRow)]
#[serde(rename_all = "camelCase")]
pub struct Alert {
    pub id: i64,
    pub rule: String,
    /// Null if it is about no target
    pub target: Option<String>,
    /// A recipe, as text
    pub subject: Option<String>,
    pub opened_at: DateTime<Utc>,
    /// Null while it is open
    pub resolved_at: Option<DateTime<Utc>>,
    pub value: f64,
    pub threshold: f64,
    pub sentence: String,
    /// The statement that mends it
    pub fix: Option<String>,
    pub acknowledged_at: Option<DateTime<Utc>>,
    pub acknowledged_by: Option<String>,
    pub snoozed_until: Option<DateTime<Utc>>,
    pub note: Option<String>,
}

impl Alert {
    /// `open`, `acknowledged`, `snoozed` or `resolved`.
    pub fn state(&self) -> &'static str {
        match self {
            Alert { resolved_at: Some(_), .. } => "resolved",
            Alert { snoozed_until: Some(until), .. } if *until > Utc::now() => "snoozed",
            Alert { acknowledged_at: Some(_), .. } => "acknowledged",
            _ => "open",
        }
    }
}

/// The open alerts of a target or of all, or also those that have resolved; the newest first.
pub async fn list(database: &mut PgConnection, target: Option<&str>, resolved: bool) -> Result<Vec<Alert>> {
    let alerts =
        "SELECT id, rule, target, subject, opened_at, resolved_at, value, threshold, sentence, fix, acknowledged_at,
                         acknowledged_by::text AS acknowledged_by, snoozed_until, note
                  FROM backlog_cleanup.alert
                  WHERE ($1 IS NULL OR target = $1 OR target IS NULL) AND ($2 OR resolved_at IS NULL)
                  ORDER BY id DESC LIMIT 1000";
    query_as(alerts).bind(target).bind(resolved).fetch_all(database).await
}
