//! The extension's functions, each once: its arguments and what it returns. Reports come as the type that is asked for;
//! [`Raw`] is JSON as the database wrote it. The connection is in a transaction of `connect::begin`, unless it says otherwise.

use backlog_cleanup_report::{CleanupDetail, Mode};
use chrono::{DateTime, Utc};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;
use sqlx::postgres::PgConnection;
use sqlx::types::Json;
use sqlx::{Executor, FromRow, Result, Row};
use utoipa::ToSchema;

use super::statement::{bounded_time, query_as, query_scalar};
use crate::failure::Failure;
use crate::random;

pub type Raw = Box<RawValue>;

/// A type that a report can be read as.
pub trait FromReport: DeserializeOwned + Send + Unpin + 'static {}
impl<T: DeserializeOwned + Send + Unpin + 'static> FromReport for T {}

/// The rows in scope that a run is about.
#[derive(Clone, Copy)]
pub struct Selection<'a> {
    pub target: &'a str,
    pub recipe_id: Option<&'a str>,
    pub failure_type: Option<&'a str>,
    pub status: Option<&'a str>,
}

/// Whether rows go.
#[derive(Clone, Copy, PartialEq)]
pub enum Trial {
    /// They go.
    No,
    /// They are counted.
    DryRun,
    /// They go, and all of it is rolled back.
    Rehearsal,
}

/// How a batched run goes about it; `None` is the target's.
#[derive(Default)]
pub struct Pace {
    pub batch_size: Option<i32>,
    /// Intervals as PostgreSQL reads them.
    pub pause: Option<String>,
    pub max_rows_per_second: Option<i32>,
    pub max_duration: Option<String>,
    pub max_rows: Option<i64>,
    pub workers: Option<i32>,
    /// Lets a regular run through that would remove more than the target allows.
    pub force: bool,
    /// Lets an emergency run remove what policies hold.
    pub include_held: bool,
}

/// A check of the doctor.
#[derive(Clone, Serialize, Deserialize, FromRow, ToSchema)]
pub struct Finding {
    #[sqlx(rename = "check_name")]
    pub check: String,
    /// ok, warn, fail
    pub status: String,
    pub detail: String,
    /// The statement that fixes it
    pub fix: Option<String>,
}

/// The rows of a failure type that came into scope in an hour.
#[derive(Serialize, Deserialize, FromRow)]
pub struct Failures {
    pub hour: DateTime<Utc>,
    pub failure_type: String,
    pub failed_count: i64,
}

/// A call of a function that removes, with its arguments in its text. It needs no transaction, no search path and no prepared
/// statement, so that a batched run can commit behind a pooler too.
pub struct Removal(String);

/// The number of a call, by which its server process is found: that of a connection may change behind a pooler.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark(String);

impl Mark {
    /// Errors: there are no random bytes.
    pub fn new() -> Result<Mark, Failure> {
        Ok(Mark(format!("/* backlog-cleanup {} */", random::name()?)))
    }

    /// The comment with which a marked statement begins.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub fn on(&self, statement: &str) -> String {
        format!("{} {statement}", self.0)
    }
}

/// Formats a call: the first argument is the format, its first `%I` the extension's schema.
macro_rules! removal {
    ($format:literal, $arguments:literal) => {
        concat!(
            "SELECT format('",
            $format,
            "', n.nspname, ",
            $arguments,
            ")
             FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = 'backlog_cleanup'"
        )
    };
}

/// Removes the removable rows in one transaction, or tries it.
pub async fn cleanup(
    database: &mut PgConnection,
    selection: Selection<'_>,
    trial: Trial,
    force: bool,
) -> Result<Removal> {
    let call = removal!(
        "SELECT %I.backlog_cleanup_failed_generations(target => %L, recipe_id => %L, failure_type => %L, dry_run => %L,
                                                      rehearse => %L, force => %L, status => %L)",
        "$1, $2, $3, $4, $5, $6, $7"
    );
    let call = query_scalar(call).bind(selection.target).bind(selection.recipe_id).bind(selection.failure_type);
    let call = call.bind(trial == Trial::DryRun).bind(trial == Trial::Rehearsal).bind(force).bind(selection.status);
    call.fetch_one(database).await.map(Removal)
}

/// Removes every row in scope in one transaction, with those that are held or without them, or tries it.
pub async fn emergency(
    database: &mut PgConnection,
    selection: Selection<'_>,
    trial: Trial,
    include_held: bool,
) -> Result<Removal> {
    let call = removal!(
        "SELECT %I.backlog_cleanup_emergency(target => %L, recipe_id => %L, failure_type => %L, dry_run => %L,
                                             rehearse => %L, include_held => %L, status => %L)",
        "$1, $2, $3, $4, $5, $6, $7"
    );
    let call = query_scalar(call).bind(selection.target).bind(selection.recipe_id).bind(selection.failure_type);
    let call = call.bind(trial == Trial::DryRun).bind(trial == Trial::Rehearsal).bind(include_held);
    let call = call.bind(selection.status);
    call.fetch_one(database).await.map(Removal)
}

/// Removes in batches what a run of that mode removes.
pub async fn run(database: &mut PgConnection, mode: Mode, selection: Selection<'_>, pace: &Pace) -> Result<Removal> {
    let call = removal!(
        "CALL %I.backlog_cleanup_run(target => %L, recipe_id => %L, failure_type => %L, mode => %L, batch_size => %L,
                                     pause => %L, max_duration => %L, max_rows => %L, workers => %L, force => %L,
                                     max_rows_per_second => %L, include_held => %L, status => %L)",
        "$1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13"
    );
    let call = query_scalar(call).bind(selection.target).bind(selection.recipe_id).bind(selection.failure_type);
    let call = call.bind(mode.as_str()).bind(pace.batch_size).bind(&pace.pause).bind(&pace.max_duration);
    let call = call.bind(pace.max_rows).bind(pace.workers).bind(pace.force).bind(pace.max_rows_per_second);
    call.bind(pace.include_held).bind(selection.status).fetch_one(database).await.map(Removal)
}

impl Removal {
    /// Calls the function, in the transaction of the connection or outside of one.
    pub async fn report<T: FromReport>(&self, database: &mut PgConnection) -> Result<T> {
        let Json(report) = database.fetch_one(self.0.as_str()).await?.try_get(0)?;
        Ok(report)
    }

    pub fn marked(&self, mark: &Mark) -> Removal {
        Removal(mark.on(&self.0))
    }
}

/// Asks a batched run to stop, whose current batch ends early; false if it has ended.
pub async fn stop(database: &mut PgConnection, run_id: i64) -> Result<bool> {
    query_scalar("SELECT backlog_cleanup_stop(run_id => $1)").bind(run_id).fetch_one(database).await
}

/// The rows of a target by status, and its recipes that have rows in scope.
pub async fn status<T: FromReport>(database: &mut PgConnection, target: &str) -> Result<T> {
    let call = query_scalar("SELECT backlog_cleanup_status_json(target => $1)");
    let Json(report) = call.bind(target).fetch_one(database).await?;
    Ok(report)
}

/// What is wrong with a target and around it.
pub async fn doctor(database: &mut PgConnection, target: &str) -> Result<Vec<Finding>> {
    let call = "SELECT check_name, status, detail, fix FROM backlog_cleanup_doctor(target => $1)";
    query_as(call).bind(target).fetch_all(database).await
}

/// Keeps an alert from being told of for so long: an interval as PostgreSQL reads it. Returns until when.
pub async fn snooze(
    database: &mut PgConnection,
    alert: i64,
    interval: &str,
    note: Option<&str>,
) -> Result<DateTime<Utc>> {
    let call = concat!(
        "SELECT ",
        bounded_time!("until"),
        " FROM (SELECT now() + $2::text::interval) AS t (until),
               LATERAL (SELECT backlog_cleanup_snooze(alert => $1, until => until, note => $3)) AS snoozed"
    );
    query_scalar(call).bind(alert).bind(interval).bind(note).fetch_one(database).await
}

/// Records that the caller has taken an alert on.
pub async fn acknowledge(database: &mut PgConnection, alert: i64, note: Option<&str>) -> Result<()> {
    let call = "SELECT backlog_cleanup_acknowledge(alert => $1, note => $2)::text";
    query_scalar::<Option<String>>(call).bind(alert).bind(note).fetch_one(database).await.map(drop)
}

/// How far back a report looks that nobody has said more of.
pub const WEEK: &str = "7 days";

/// What has happened to a target in the last so long, in the format `text` or `markdown`.
pub async fn report(database: &mut PgConnection, since: &str, target: &str, format: &str) -> Result<String> {
    let call = "SELECT backlog_cleanup_report(since => $1::text::interval, target => $2, format => $3)";
    query_scalar(call).bind(since).bind(target).bind(format).fetch_one(database).await
}

/// The statement that builds the index of a target.
pub async fn index_sql(database: &mut PgConnection, target: &str) -> Result<String> {
    query_scalar("SELECT backlog_cleanup_index_sql(target => $1)").bind(target).fetch_one(database).await
}

/// The rows in scope of the last `hours` by hour and failure type, those that are there and those that runs have removed; beyond the most frequent
/// `types` they are `(other)`.
pub async fn failures(database: &mut PgConnection, target: &str, hours: i32, types: i32) -> Result<Vec<Failures>> {
    let call = "SELECT hour, failure_type, failed_count + removed_count AS failed_count
                FROM backlog_cleanup_failures(target => $1, since => make_interval(hours => $2), types => $3)
                WHERE hour >= '0001-01-01 UTC' AND hour < '10000-01-01 UTC' AND failed_count + removed_count > 0";
    query_as(call).bind(target).bind(hours).bind(types).fetch_all(database).await
}

/// All rows in scope by failure type; beyond the most frequent `types` they are `(other)`.
pub async fn failure_types(database: &mut PgConnection, target: &str, types: i32) -> Result<Vec<(String, i64)>> {
    let call = "SELECT failure_type, sum(failed_count)::bigint
                FROM backlog_cleanup_failures(target => $1, since => NULL, types => $2)
                WHERE failed_count > 0
                GROUP BY failure_type ORDER BY failure_type";
    query_as(call).bind(target).bind(types).fetch_all(database).await
}

/// The removed rows of the ledger less those of the runs; `None` without a ledger.
pub async fn books_difference(database: &mut PgConnection, target: &str) -> Result<Option<i64>> {
    let call = "SELECT difference FROM backlog_cleanup_books(target => $1)";
    query_scalar(call).bind(target).fetch_optional(database).await
}

/// What a run did to each recipe, most removed first; so far, if it is running.
pub async fn run_details(database: &mut PgConnection, run_id: i64) -> Result<Vec<CleanupDetail>> {
    let call = query_scalar("SELECT backlog_cleanup_run_details(run_id => $1)");
    let Json(details) = call.bind(run_id).fetch_one(database).await?;
    Ok(details)
}

/// Registers the job of a target, or changes it; returns its id.
pub async fn schedule(
    database: &mut PgConnection,
    schedule: &str,
    batched: bool,
    target: &str,
    job_name: &str,
) -> Result<i64> {
    let call = "SELECT backlog_cleanup_schedule(schedule => $1, batched => $2, target => $3, job_name => $4)";
    query_scalar(call).bind(schedule).bind(batched).bind(target).bind(job_name).fetch_one(database).await
}

/// Removes a job; false if there was none of that name.
pub async fn unschedule(database: &mut PgConnection, job_name: &str) -> Result<bool> {
    let call = "SELECT backlog_cleanup_unschedule(job_name => $1)";
    query_scalar(call).bind(job_name).fetch_one(database).await
}

/// The names of the jobs of this database that call the extension, as far as the role sees them.
pub async fn job_names(database: &mut PgConnection) -> Result<Vec<String>> {
    let names = "SELECT coalesce(jobname, jobid::text) FROM cron.job
                 WHERE database = current_database() AND command ~* 'backlog_cleanup' ORDER BY 1";
    query_scalar(names).fetch_all(database).await
}

/// Whether a job with this command does a regular run of the whole target.
pub async fn does_regular_run(database: &mut PgConnection, command: &str, target: &str) -> Result<bool> {
    let ask = "SELECT backlog_cleanup.does_regular_run($1, $2)";
    query_scalar(ask).bind(command).bind(target).fetch_one(database).await
}

/// The job that runs a target; null if there is none.
pub async fn job(database: &mut PgConnection, target: &str) -> Result<Value> {
    let call = "SELECT backlog_cleanup_status_json(target => $1) -> 'schedule'";
    query_scalar(call).bind(target).fetch_one(database).await
}
