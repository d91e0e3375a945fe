//! What rules have found.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use sqlx::postgres::PgConnection;
use sqlx::{FromRow, Result};
use utoipa::ToSchema;

use super::statement::{query_as, query_scalar};

/// An alert.
#[derive(Debug, Clone, Serialize, FromRow, ToSchema)]
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
    /// One that a server has found itself, and no rule.
    pub fn of_server(rule: &str, sentence: String) -> Alert {
        Alert {
            id: 0,
            rule: rule.to_owned(),
            target: None,
            subject: None,
            opened_at: Utc::now(),
            resolved_at: None,
            value: 1.0,
            threshold: 0.0,
            sentence,
            fix: None,
            acknowledged_at: None,
            acknowledged_by: None,
            snoozed_until: None,
            note: None,
        }
    }

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

/// A rule by which alerts open and resolve.
#[derive(Debug, Serialize, FromRow, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Rule {
    pub name: String,
    /// What is measured: docs/alerts.md has the kinds and their units
    pub kind: String,
    /// Null is every target that has no rule of this kind for itself
    pub target: Option<String>,
    /// An alert opens when the value is above this
    pub threshold: f64,
    /// It resolves when the value is at most this; null is the threshold
    pub resolve_at: Option<f64>,
    /// How long the rule looks back, or ahead, as PostgreSQL writes an interval
    pub within: Option<String>,
    pub enabled: bool,
    pub note: Option<String>,
}

/// All rules, in the order of their kinds and names.
pub async fn rules(database: &mut PgConnection) -> Result<Vec<Rule>> {
    let rules = "SELECT name, kind, target, threshold, resolve_at, within::text AS within, enabled, note
                 FROM backlog_cleanup.alert_rule ORDER BY kind, target NULLS FIRST, name";
    query_as(rules).fetch_all(database).await
}

/// What a rule is written with; null leaves what is there.
#[derive(Default, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct RuleValues {
    pub kind: Option<String>,
    pub target: Option<String>,
    pub threshold: Option<f64>,
    pub resolve_at: Option<f64>,
    /// An interval as PostgreSQL reads it
    pub within: Option<String>,
    pub enabled: Option<bool>,
    pub note: Option<String>,
}

/// Writes a rule; what is not given stays, or has its default.
pub async fn set_rule(database: &mut PgConnection, name: &str, values: &RuleValues) -> Result<Rule> {
    let set = "
        INSERT INTO backlog_cleanup.alert_rule (name, kind, target, threshold, resolve_at, within, enabled, note)
        SELECT $1, coalesce($2, r.kind), coalesce($3, r.target), coalesce($4, r.threshold), coalesce($5, r.resolve_at),
               coalesce($6::text::interval, r.within), coalesce($7, r.enabled, true), coalesce($8, r.note)
        FROM (VALUES (true)) one LEFT JOIN backlog_cleanup.alert_rule r ON r.name = $1
        ON CONFLICT (name) DO UPDATE
        SET (kind, target, threshold, resolve_at, within, enabled, note)
          = (excluded.kind, excluded.target, excluded.threshold, excluded.resolve_at, excluded.within, excluded.enabled, excluded.note)
        RETURNING name, kind, target, threshold, resolve_at, within::text AS within, enabled, note";
    let set = query_as(set).bind(name).bind(&values.kind).bind(&values.target).bind(values.threshold);
    let set = set.bind(values.resolve_at).bind(&values.within).bind(values.enabled).bind(&values.note);
    set.fetch_one(database).await
}

/// Removes a rule; false if there was none.
pub async fn drop_rule(database: &mut PgConnection, name: &str) -> Result<bool> {
    let dropped = "DELETE FROM backlog_cleanup.alert_rule WHERE name = $1 RETURNING true";
    Ok(query_scalar::<bool>(dropped).bind(name).fetch_optional(database).await?.is_some())
}

/// The columns of an alert, of `a`.
macro_rules! alert_columns {
    () => {
        concat!(
            "a.id, a.rule, a.target, a.subject, a.value, a.threshold, a.sentence, a.fix, a.note,
             a.acknowledged_by::text AS acknowledged_by, ",
            crate::client::statement::bounded_time!("a.opened_at"),
            " AS opened_at, ",
            crate::client::statement::bounded_time!("a.resolved_at"),
            " AS resolved_at, ",
            crate::client::statement::bounded_time!("a.acknowledged_at"),
            " AS acknowledged_at, ",
            crate::client::statement::bounded_time!("a.snoozed_until"),
            " AS snoozed_until"
        )
    };
}
pub(super) use alert_columns;

/// The open alerts of a target or of all, or also those that have resolved; the newest first.
pub async fn list(database: &mut PgConnection, target: Option<&str>, resolved: bool) -> Result<Vec<Alert>> {
    let alerts = concat!(
        "SELECT ",
        alert_columns!(),
        " FROM backlog_cleanup.alert a
          WHERE ($1 IS NULL OR target = $1 OR target IS NULL) AND ($2 OR resolved_at IS NULL)
          ORDER BY id DESC LIMIT 1000"
    );
    query_as(alerts).bind(target).bind(resolved).fetch_all(database).await
}
