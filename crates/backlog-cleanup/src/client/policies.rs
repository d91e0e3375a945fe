//! Which rows go: the policies of a target, what another one would do, and why a row stays.

use backlog_cleanup_report::policy_name;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use sqlx::FromRow;
use sqlx::postgres::PgConnection;
use utoipa::ToSchema;

use super::statement::{last_whole_run, query_as, query_scalar};
use super::targets::nouns;

/// What a policy is for; what is missing is any.
#[derive(Debug, Clone, Default, PartialEq, Serialize, FromRow, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Names {
    /// The recipe, as text
    pub recipe_id: Option<String>,
    pub failure_type: Option<String>,
    pub status: Option<String>,
}

/// What a policy says; what is missing stays as it is, or has its default.
#[derive(Debug, Clone, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Values {
    /// A row older than this is expired: an interval as PostgreSQL reads it, such as '30 days'
    pub max_age: Option<String>,
    /// Number of the newest expired rows of a recipe that stay
    #[schema(minimum = 0)]
    pub keep: Option<i32>,
    /// Rows older than this go even if they are among those newest
    pub max_keep_age: Option<String>,
    /// Takes maxKeepAge back
    #[serde(default)]
    pub no_max_keep_age: bool,
    /// False makes it a hold, under which nothing goes; of the default policy, regular runs remove nothing under it
    pub enabled: Option<bool>,
    /// For people; an empty one is none
    pub note: Option<String>,
}

/// A policy, with its rows in the last regular run.
#[derive(Debug, Serialize, FromRow, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Policy {
    /// What it is for, in words
    #[sqlx(skip)]
    pub policy: String,
    /// What people call a recipe
    #[serde(skip)]
    pub group_word: String,
    #[sqlx(flatten)]
    #[serde(flatten)]
    pub names: Names,
    /// An interval as PostgreSQL writes it
    pub max_age: String,
    pub keep: i32,
    /// An interval; null is off
    pub max_keep_age: Option<String>,
    pub enabled: bool,
    pub note: Option<String>,
    /// The last regular run without a selection; null if it has not obeyed this policy
    pub run_id: Option<i64>,
    /// Rows under it before that run
    pub in_scope: Option<i64>,
    /// Rows that run removed under it
    pub removed: Option<i64>,
}

impl Policy {
    /// `enabled`, `hold`, or of the default policy `disabled`.
    pub fn state(&self) -> &'static str {
        match self.enabled {
            true => "enabled",
            false if self.policy == DEFAULT => "disabled",
            false => "hold",
        }
    }

    fn named(self) -> Policy {
        Policy { policy: self.names.words(&self.group_word), ..self }
    }
}

/// The name of the policy that names nothing.
pub const DEFAULT: &str = "default";

impl Names {
    /// As in the extension's reports: `recipe "1", status "failed"`, where people call a recipe so.
    pub fn words(&self, group_word: &str) -> String {
        policy_name(group_word, self.recipe_id.as_deref(), self.failure_type.as_deref(), self.status.as_deref())
    }
}

/// What regular runs would do to the rows in scope of a recipe under a policy, now and if another policy were written.
#[derive(Debug, Serialize, FromRow, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Simulated {
    pub policy: String,
    /// As text; null for rows without a recipe
    pub recipe_id: Option<String>,
    pub recipe_name: String,
    pub removable_now: i64,
    pub kept_now: i64,
    pub removable_then: i64,
    pub kept_then: i64,
}

impl Simulated {
    /// Whether the other policy makes a difference.
    pub fn changes(&self) -> bool {
        (self.removable_now, self.kept_now) != (self.removable_then, self.kept_then)
    }
}

/// Why a row stays or goes.
#[derive(Debug, Serialize, FromRow, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Verdict {
    /// removable, kept, young, held, kept back, out of scope, no such row
    pub verdict: String,
    pub reason: String,
    /// What its policy is for
    pub policy: Option<String>,
    /// Among the expired rows of its recipe and policy, the newest first
    pub rank: Option<i64>,
    /// How many of these stay
    pub keep: Option<i32>,
    pub expires_at: Option<DateTime<Utc>>,
    /// When it can go, as its recipe is now
    pub removable_at: Option<DateTime<Utc>>,
}

/// Selects policies with their rows in the last regular run.
macro_rules! policies {
    ($from:literal, $rest:literal) => {
        concat!(
            "SELECT t.group_word, p.recipe_id, p.failure_type, p.status, p.max_age::text AS max_age, p.keep, p.max_keep_age::text AS max_keep_age,
                    p.enabled, p.note, l.run_id, l.in_scope, l.removed
             FROM ",
            $from,
            " p JOIN backlog_cleanup.target t ON t.name = p.target
             LEFT JOIN backlog_cleanup.run_policy l
                 ON (l.recipe_id, l.failure_type, l.status) IS NOT DISTINCT FROM (p.recipe_id, p.failure_type, p.status)
                AND l.run_id = ",
            last_whole_run!("p.target"),
            " ",
            $rest
        )
    };
}

/// The policies of a target, those that name most first, as runs look for them.
pub async fn list(database: &mut PgConnection, target: &str) -> sqlx::Result<Vec<Policy>> {
    let policies: Vec<Policy> = query_as(policies!(
        "backlog_cleanup.policy",
        "WHERE p.target = $1
         ORDER BY p.recipe_id IS NULL, p.failure_type IS NULL, p.status IS NULL, p.recipe_id, p.failure_type, p.status"
    ))
    .bind(target)
    .fetch_all(database)
    .await?;
    Ok(policies.into_iter().map(Policy::named).collect())
}

/// Writes a policy; returns it.
pub async fn set(database: &mut PgConnection, target: &str, names: &Names, values: &Values) -> sqlx::Result<Policy> {
    let call = query_as(policies!(
        "backlog_cleanup_set_policy(target => $1, recipe_id => $2, failure_type => $3, status => $4,
                                    max_age => $5::text::interval, keep => $6, max_keep_age => $7::text::interval,
                                    enabled => $8, note => $9, no_max_keep_age => $10)",
        ""
    ));
    let call = call.bind(target).bind(&names.recipe_id).bind(&names.failure_type).bind(&names.status);
    let call = call.bind(&values.max_age).bind(values.keep).bind(&values.max_keep_age);
    call.bind(values.enabled)
        .bind(&values.note)
        .bind(values.no_max_keep_age)
        .fetch_one(database)
        .await
        .map(Policy::named)
}

/// Removes a policy; returns what it was for in words, and false if there was none.
pub async fn drop(database: &mut PgConnection, target: &str, names: &Names) -> sqlx::Result<(String, bool)> {
    let call = query_scalar(
        "SELECT backlog_cleanup_drop_policy(target => $1, recipe_id => $2, failure_type => $3, status => $4)",
    );
    let call = call.bind(target).bind(&names.recipe_id).bind(&names.failure_type).bind(&names.status);
    let dropped = call.fetch_one(&mut *database).await?;
    Ok((names.words(&nouns(database, target).await?.group_word), dropped))
}

/// What `set` would change, per policy and recipe, most removable then first; nothing changes.
pub async fn simulate(
    database: &mut PgConnection,
    target: &str,
    names: &Names,
    values: &Values,
) -> sqlx::Result<Vec<Simulated>> {
    let call = query_as(
        "SELECT policy, recipe AS recipe_id, recipe_name, removable_now, kept_now, removable_then, kept_then
         FROM backlog_cleanup_simulate(target => $1, recipe_id => $2, failure_type => $3, status => $4,
                                       max_age => $5::text::interval, keep => $6, max_keep_age => $7::text::interval,
                                       enabled => $8, no_max_keep_age => $9)",
    );
    let call = call.bind(target).bind(&names.recipe_id).bind(&names.failure_type).bind(&names.status);
    let call = call.bind(&values.max_age).bind(values.keep).bind(&values.max_keep_age).bind(values.enabled);
    call.bind(values.no_max_keep_age).fetch_all(database).await
}

/// Why a row stays or goes, of a run that starts now.
pub async fn explain(database: &mut PgConnection, target: &str, id: &str) -> sqlx::Result<Verdict> {
    let call = "SELECT verdict, reason, policy, rank, keep,
                       CASE WHEN expires_at >= '0001-01-01 UTC' AND expires_at < '10000-01-01 UTC' THEN expires_at END
                           AS expires_at,
                       CASE WHEN removable_at >= '0001-01-01 UTC' AND removable_at < '10000-01-01 UTC' THEN removable_at END
                           AS removable_at
                FROM backlog_cleanup_explain(id => $2, target => $1)";
    query_as(call).bind(target).bind(id).fetch_one(database).await
}
