//! What samples and ticks say, for charts and tables.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sqlx::postgres::PgConnection;
use sqlx::types::Json;
use sqlx::{FromRow, Result};
use utoipa::ToSchema;

use super::statement::{query_as, query_scalar};

/// How a target was at a time, and what has happened since the sample before.
#[derive(Debug, Serialize, FromRow, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Sample {
    /// Of an hour or a day, its start
    pub sampled_at: DateTime<Utc>,
    /// Null if they were not counted
    pub in_scope: Option<i64>,
    pub removable: Option<i64>,
    /// Rows that came into scope
    pub failed: Option<i64>,
    /// Rows that runs removed
    pub removed: Option<i64>,
    /// The table with its indexes
    pub bytes: Option<i64>,
    pub dead_rows: Option<i64>,
    /// Transactions of the database
    pub transactions: Option<i64>,
    /// The seconds in which they happened
    pub seconds: Option<f64>,
}

/// What the last sample has counted.
#[derive(FromRow)]
pub struct LastCount {
    pub sampled_at: DateTime<Utc>,
    pub in_scope: i64,
    pub removable: i64,
    pub oldest_at: Option<DateTime<Utc>>,
}

/// The last count of a target's rows that a tick has made within an hour.
pub async fn last_count(database: &mut PgConnection, target: &str) -> Result<Option<LastCount>> {
    let last = "
        SELECT sampled_at, in_scope, removable, CASE WHEN isfinite(oldest_at) THEN oldest_at END AS oldest_at
        FROM backlog_cleanup.sample
        WHERE target = $1 AND grain = 'fine' AND in_scope IS NOT NULL AND removable IS NOT NULL AND sampled_at > now() - interval '1 hour'
        ORDER BY sampled_at DESC LIMIT 1";
    query_as(last).bind(target).fetch_optional(database).await
}

/// The grain of samples.
#[derive(Clone, Copy, Default, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Grain {
    Fine,
    #[default]
    Hour,
    Day,
}

/// The last samples of a target, the oldest first.
pub async fn samples(database: &mut PgConnection, target: &str, grain: Grain, limit: i64) -> Result<Vec<Sample>> {
    let samples = "
        SELECT sampled_at, in_scope, removable, failed, removed, table_bytes + index_bytes AS bytes, dead_rows, transactions, seconds
        FROM backlog_cleanup.sample WHERE target = $1 AND grain = $2 ORDER BY sampled_at DESC LIMIT $3";
    let grain = match grain {
        Grain::Fine => "fine",
        Grain::Hour => "hour",
        Grain::Day => "day",
    };
    let mut samples: Vec<Sample> = query_as(samples).bind(target).bind(grain).bind(limit).fetch_all(database).await?;
    samples.reverse();
    Ok(samples)
}

/// How busy the database is at an hour of the day, in transactions per second.
#[derive(Debug, Serialize, FromRow, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Hour {
    /// In the target's time zone
    pub hour: String,
    pub transactions_per_second: Option<f64>,
    pub mon: Option<f64>,
    pub tue: Option<f64>,
    pub wed: Option<f64>,
    pub thu: Option<f64>,
    pub fri: Option<f64>,
    pub sat: Option<f64>,
    pub sun: Option<f64>,
    /// Names the quietest hours
    pub note: Option<String>,
}

/// The hours of the day; those that are not known have nulls.
pub async fn quiet_hours(database: &mut PgConnection, target: &str) -> Result<Vec<Hour>> {
    query_as("SELECT * FROM backlog_cleanup_quiet_hours(target => $1)").bind(target).fetch_all(database).await
}

/// A tick, with what each of its steps took.
#[derive(Debug, Serialize, FromRow, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Tick {
    pub id: i64,
    pub started_at: DateTime<Utc>,
    pub milliseconds: f64,
    /// Objects of step, target, milliseconds, skipped and error
    #[schema(value_type = Vec<Object>)]
    pub steps: Json<Value>,
}

/// The last ticks, the newest first.
pub async fn ticks(database: &mut PgConnection, limit: i64) -> Result<Vec<Tick>> {
    let ticks = "SELECT id, started_at, milliseconds, steps FROM backlog_cleanup.tick ORDER BY id DESC LIMIT $1";
    query_as(ticks).bind(limit).fetch_all(database).await
}

/// Ticks once; returns what each step took.
pub async fn tick(database: &mut PgConnection) -> Result<Value> {
    query_scalar("SELECT backlog_cleanup_tick()").fetch_one(database).await
}

/// A job of pg_cron that ticks.
#[derive(FromRow)]
pub struct TickJob {
    pub job_id: i64,
    pub job_name: Option<String>,
    pub active: bool,
}

/// Those of this database, as far as pg_cron is in it: those first that are active.
pub async fn tick_jobs(database: &mut PgConnection) -> Result<Vec<TickJob>> {
    query_as("SELECT job_id, job_name, active FROM backlog_cleanup.tick_jobs()").fetch_all(database).await
}

/// Registers the job of the tick, or changes it; returns its id.
pub async fn schedule_tick(database: &mut PgConnection) -> Result<i64> {
    query_scalar("SELECT backlog_cleanup_schedule_tick()").fetch_one(database).await
}
