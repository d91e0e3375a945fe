//! The history of runs, and how far those are that are running.

use backlog_cleanup_report::{Mode, Nouns, PolicyDetail, State, StatusDetail, kept_back_reason};
use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::FromRow;
use sqlx::postgres::PgConnection;
use sqlx::types::Json;
use utoipa::ToSchema;

use crate::words::count;

use super::calls::{self, Mark};
use super::statement::{last_whole_run, query_as, query_scalar};

/// A run; while it is running, with its progress.
#[derive(Debug, Serialize, FromRow, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Run {
    pub id: i64,
    pub target: String,
    #[sqlx(json)]
    #[serde(flatten)]
    pub nouns: Nouns,
    #[sqlx(try_from = "String")]
    pub mode: Mode,
    #[sqlx(try_from = "String")]
    pub state: State,
    /// The role that asked for it
    pub requested_by: String,
    /// The role that asked it to stop
    pub stop_requested_by: Option<String>,
    /// As text
    pub recipe_id: Option<String>,
    pub failure_type: Option<String>,
    /// The status that was selected
    pub status: Option<String>,
    pub cutoff: Option<DateTime<Utc>>,
    /// Before it; null if an emergency run of version 0.2.0 in batches has not come to all of them
    pub total_failed: Option<i64>,
    pub removed: i64,
    /// Rows that another session had locked
    pub skipped: i64,
    /// Rows that stayed because of what their deletion met: a trigger, a rule, a foreign key, any error
    pub kept_back: i64,
    /// Of these, rows for which an expression of the target fails
    pub unreadable: i64,
    /// Of the rows kept back, those not tried one by one, since too many others were refused
    pub given_up: i64,
    /// What the first of them met; null if a trigger or a rule left it where it is
    pub kept_back_sqlstate: Option<String>,
    pub kept_back_message: Option<String>,
    /// Its id as text
    pub kept_back_row: Option<String>,
    /// Rows that policies hold, and that the run has passed over
    pub held: i64,
    /// Whether an emergency run was to remove what policies hold
    pub include_held: bool,
    pub recipes_affected: i64,
    /// 0 for a run in one transaction
    pub batches: i64,
    pub batch_size: Option<i32>,
    /// Background workers that it had
    pub workers: Option<i32>,
    pub started_at: DateTime<Utc>,
    pub finished_at: Option<DateTime<Utc>>,
    /// Until now, while it is running
    pub duration_ms: Option<i64>,
    /// From 0 to 1, while it is running
    pub share_done: Option<f64>,
    pub rows_per_second: Option<f64>,
    pub seconds_left: Option<f64>,
    /// Why it waits
    pub waiting_for: Option<String>,
    /// The SQLSTATE of what ended it
    pub error_sqlstate: Option<String>,
    /// What ended it
    pub error_message: Option<String>,
    /// What it worked on then
    pub error_at: Option<String>,
    /// The WAL that it has written; null if it is a run of an earlier version
    pub wal_bytes: Option<i64>,
    /// The full-page images in it
    pub full_page_images: Option<i64>,
}

impl Run {
    /// What the first row that was kept back met, and which row it is.
    pub fn kept_back_reason(&self) -> Option<String> {
        let message = self.kept_back_message.as_deref()?;
        Some(kept_back_reason(self.kept_back_row.as_deref(), message, self.kept_back_sqlstate.as_deref()))
    }
}

impl Run {
    /// The WAL that it has written, in words.
    pub fn wal(&self) -> Option<String> {
        let (bytes, images) = self.wal_bytes.zip(self.full_page_images)?;
        Some(format!("{}, {}", count(bytes, "byte"), count(images, "full-page image")))
    }
}

/// Selects runs with their progress; `finished_at` is NULL while a run is running. Of a target that is gone they have the words of a new
/// one.
macro_rules! runs {
    ($rest:literal) => {
        concat!(
            "SELECT r.id, r.target,
                    jsonb_build_object('groupWord', COALESCE(t.group_word, 'group'), 'rowWord', COALESCE(t.row_word, 'row'))
                        AS nouns,
                    r.mode, COALESCE(p.state, r.state) AS state, r.requested_by::text AS requested_by,
                    r.stop_requested_by::text AS stop_requested_by,
                    r.recipe_id, r.failure_type, r.status,
                    CASE WHEN r.cutoff >= '0001-01-01 UTC' AND r.cutoff < '10000-01-01 UTC' THEN r.cutoff END AS cutoff,
                    CASE WHEN r.mode = 'regular' OR r.batch_size IS NULL OR r.state = 'completed' OR r.total_failed > r.removed
                         THEN r.total_failed END
                        AS total_failed, r.removed, r.skipped, r.kept_back, r.unreadable, r.given_up,
                    r.kept_back_sqlstate, r.kept_back_message, r.kept_back_row, r.held, r.include_held,
                    r.recipes_affected, r.batches,
                    r.batch_size, r.workers,
                    r.started_at, r.finished_at,
                    (EXTRACT(epoch FROM COALESCE(r.finished_at, CASE WHEN p.state = 'running' THEN clock_timestamp() END)
                                        - r.started_at) * 1000)::bigint AS duration_ms,
                    p.share_done, p.rows_per_second, EXTRACT(epoch FROM p.time_left)::float8 AS seconds_left,
                    p.waiting_for, r.error_sqlstate, r.error_message, r.error_at, r.wal_bytes, r.full_page_images
             FROM backlog_cleanup.run r
             LEFT JOIN backlog_cleanup.progress p ON p.run_id = r.id
             LEFT JOIN backlog_cleanup.target t ON t.name = r.target
             ",
            $rest
        )
    };
}

impl Run {
    /// What ended it, in a line.
    pub fn error(&self) -> Option<String> {
        let message = self.error_message.as_ref()?;
        let sqlstate = self.error_sqlstate.as_ref().map_or(String::new(), |sqlstate| format!(" ({sqlstate})"));
        let at = self.error_at.as_ref().map_or(String::new(), |at| format!(", at {at}"));
        Some(format!("{message}{sqlstate}{at}"))
    }
}

/// Up to `limit` runs, newest first: of one target or of all, and only those before a run if one is given.
pub async fn runs(
    database: &mut PgConnection,
    target: Option<&str>,
    before: Option<i64>,
    limit: i64,
) -> sqlx::Result<Vec<Run>> {
    query_as(runs!(
        "WHERE ($1::text IS NULL OR r.target = $1) AND ($2::bigint IS NULL OR r.id < $2) ORDER BY r.id DESC LIMIT $3"
    ))
    .bind(target)
    .bind(before)
    .bind(limit)
    .fetch_all(database)
    .await
}

/// A night that failed without a run: its transaction is gone, and only pg_cron knows of it.
#[derive(Debug, Serialize, FromRow, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Night {
    /// The job of pg_cron
    pub job_id: i64,
    pub target: String,
    #[sqlx(try_from = "String")]
    pub mode: Mode,
    #[sqlx(try_from = "String")]
    pub state: State,
    /// The role whose job it is
    pub requested_by: String,
    pub started_at: DateTime<Utc>,
    pub finished_at: Option<DateTime<Utc>>,
    /// The SQLSTATE of what ended it; null where pg_cron does not keep it
    pub error_sqlstate: Option<String>,
    /// What ended it
    pub error_message: Option<String>,
}

impl Night {
    /// What ended it, in a line.
    pub fn error(&self) -> String {
        let sqlstate = self.error_sqlstate.as_ref().map_or(String::new(), |sqlstate| format!(" ({sqlstate})"));
        format!("{}{sqlstate}", self.error_message.as_deref().unwrap_or_default())
    }
}

/// The failed nights between the runs of a page of the history, newest first: up to `limit`, of one target or of all, and only those
/// before a run if one is given.
pub async fn nights(
    database: &mut PgConnection,
    target: Option<&str>,
    before: Option<i64>,
    page: &[Run],
    limit: i64,
) -> sqlx::Result<Vec<Night>> {
    let is_full = i64::try_from(page.len()).is_ok_and(|runs| runs == limit);
    query_as(
        "SELECT job_id, target, mode, state, requested_by, started_at, finished_at, error_sqlstate, error_message
         FROM backlog_cleanup.history
         WHERE run_id IS NULL AND ($1::text IS NULL OR target = $1) AND ($2::timestamptz IS NULL OR started_at >= $2)
           AND ($3::bigint IS NULL OR started_at < (SELECT started_at FROM backlog_cleanup.run WHERE id = $3))
         ORDER BY started_at DESC LIMIT $4",
    )
    .bind(target)
    .bind(page.last().filter(|_| is_full).map(|run| run.started_at))
    .bind(before)
    .bind(limit)
    .fetch_all(database)
    .await
}

/// One run, if it is there.
pub async fn run(database: &mut PgConnection, id: i64) -> sqlx::Result<Option<Run>> {
    query_as(runs!("WHERE r.id = $1")).bind(id).fetch_optional(database).await
}

/// What a run did under each policy that it obeyed, those that name most first; none while it is running, since the sums are written
/// at its end.
pub async fn policies(database: &mut PgConnection, id: i64) -> sqlx::Result<Vec<PolicyDetail>> {
    let policies = "
        SELECT jsonb_build_object('recipeId', p.recipe_id, 'failureType', p.failure_type, 'status', p.status,
                                  'inScope', p.in_scope, 'removed', p.removed, 'kept', p.in_scope - p.removed,
                                  'keptBack', p.kept_back)
        FROM backlog_cleanup.run_policy p JOIN backlog_cleanup.run r ON r.id = p.run_id
        WHERE r.id = $1 AND r.state <> 'running' ORDER BY p.place";
    let policies: Vec<Json<PolicyDetail>> = query_scalar(policies).bind(id).fetch_all(database).await?;
    Ok(policies.into_iter().map(|Json(policy)| policy).collect())
}

/// What a run did to the rows of each status that it was to remove; none while it is running, as for policies.
pub async fn statuses(database: &mut PgConnection, id: i64) -> sqlx::Result<Vec<StatusDetail>> {
    let statuses = "
        SELECT jsonb_build_object('status', s.status, 'inScope', s.in_scope, 'removed', s.removed,
                                  'kept', s.in_scope - s.removed, 'keptBack', s.kept_back)
        FROM backlog_cleanup.run_status s JOIN backlog_cleanup.run r ON r.id = s.run_id
        WHERE r.id = $1 AND r.state <> 'running' ORDER BY s.place";
    let statuses: Vec<Json<StatusDetail>> = query_scalar(statuses).bind(id).fetch_all(database).await?;
    Ok(statuses.into_iter().map(|Json(status)| status).collect())
}

/// The last regular run of a target without a selection that has ended.
pub async fn last_whole_run(database: &mut PgConnection, target: &str) -> sqlx::Result<Option<i64>> {
    let last = concat!("SELECT ", last_whole_run!("$1"));
    query_scalar(last).bind(target).fetch_one(database).await
}

/// The batched runs that are running.
pub async fn running(database: &mut PgConnection) -> sqlx::Result<Vec<Run>> {
    query_as(runs!("WHERE p.state = 'running' ORDER BY r.id")).fetch_all(database).await
}

/// The run of a marked call, once it is visible. Until then an interrupted run of the same target shows the call's process
/// too, so start times are compared.
pub async fn run_of(database: &mut PgConnection, mark: &Mark) -> sqlx::Result<Option<Run>> {
    query_as(runs!(
        "JOIN pg_stat_activity a ON a.pid = p.pid
         WHERE starts_with(a.query, $1) AND a.state = 'active' AND r.started_at >= a.query_start"
    ))
    .bind(mark.as_str())
    .fetch_optional(database)
    .await
}

/// Asks a batched run to stop, whose current batch ends early; false if it has ended. A run that failed may still be called running:
/// nobody is left to stop it.
pub async fn stop(database: &mut PgConnection, id: i64) -> sqlx::Result<bool> {
    Ok(calls::stop(database, id).await? && run(database, id).await?.is_some_and(|run| run.state == State::Running))
}

/// Cancels a marked statement; false if no process executes it.
pub async fn cancel(database: &mut PgConnection, mark: &Mark) -> sqlx::Result<bool> {
    let cancel =
        "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE state = 'active' AND starts_with(query, $1)";
    let cancelled = query_scalar::<bool>(cancel).bind(mark.as_str()).fetch_optional(database).await?;
    Ok(cancelled.is_some())
}

/// The batched runs that are running, of one target or with `""` of all, as a list in JSON.
pub async fn progress(database: &mut PgConnection, target: &str) -> sqlx::Result<String> {
    let progress = "
        SELECT COALESCE(jsonb_agg(jsonb_build_object(
                   'runId', run_id, 'target', target, 'mode', mode, 'state', state, 'batches', batches,
                   'removed', removed, 'skipped', skipped, 'keptBack', kept_back, 'shareDone', share_done,
                   'rowsPerSecond', rows_per_second, 'secondsLeft', EXTRACT(epoch FROM time_left)::float8,
                   'waitingFor', waiting_for) ORDER BY run_id), '[]')::text
        FROM backlog_cleanup.progress WHERE target = $1 OR $1 = ''";
    query_scalar(progress).bind(target).fetch_one(database).await
}
