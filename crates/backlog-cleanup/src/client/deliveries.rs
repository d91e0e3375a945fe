//! What channels were told, and what they are to be told. A server that delivers has the lease of the channel, so that no other
//! does; what it takes on is written before it is sent, so that the next server sends the same message if this one dies.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;
use sqlx::postgres::PgConnection;
use sqlx::{FromRow, Result};
use utoipa::ToSchema;

use super::alerts::{Alert, alert_columns};
use super::statement::{bounded_time, query_as, query_scalar};

/// Three periods of the tick: after so long without one, nothing ticks.
pub const WITHOUT_TICK: Duration = Duration::from_secs(900);

/// How the deliveries to a channel go.
#[derive(Clone, Debug, Serialize, FromRow, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct State {
    pub name: String,
    /// webhook, slack, alertmanager, pagerduty, mail
    pub kind: String,
    /// When a server last looked for something to deliver
    pub seen_at: DateTime<Utc>,
    /// When it last took something
    pub delivered_at: Option<DateTime<Utc>>,
    /// Attempts in a row that failed
    pub failures: i32,
    /// Why the last of them did; without failures, what is wrong with the channel all the same
    pub last_error: Option<String>,
    /// Nothing is delivered before
    pub next_attempt_at: DateTime<Utc>,
    /// When the next report is due
    pub report_at: Option<DateTime<Utc>>,
}

/// A server looks at a channel more often.
const UNSERVED: TimeDelta = TimeDelta::minutes(10);

impl State {
    /// Whether no server has served it lately, or one has while the clock was ahead.
    pub fn is_unserved(&self) -> bool {
        let now = Utc::now();
        self.seen_at < now - UNSERVED || self.seen_at > now + UNSERVED
    }
}

/// All channels that servers have had, in the order of their names.
pub async fn states(database: &mut PgConnection) -> Result<Vec<State>> {
    let states = concat!(
        "SELECT name, kind, failures, last_error, ",
        bounded_time!("seen_at"),
        " AS seen_at, ",
        bounded_time!("delivered_at"),
        " AS delivered_at, ",
        bounded_time!("next_attempt_at"),
        " AS next_attempt_at, ",
        bounded_time!("report_at"),
        " AS report_at
         FROM backlog_cleanup.alert_channel ORDER BY name"
    );
    query_as(states).fetch_all(database).await
}

/// What a server that has the lease knows of the channel.
#[derive(FromRow)]
pub struct Lease {
    pub failures: i32,
    pub report_at: Option<DateTime<Utc>>,
    pub now: DateTime<Utc>,
}

/// Takes the lease of a channel, for so long; `None` while another server has it, or nothing is to be sent yet. A time further ahead
/// than a server writes it, the lease's end or the next attempt after the longest backoff, is of a clock that was ahead: it holds nobody up.
pub async fn lease(
    database: &mut PgConnection,
    (name, kind): (&str, &str),
    server: &str,
    long: Duration,
    longest_backoff: Duration,
) -> Result<Option<Lease>> {
    let lease = concat!(
        "INSERT INTO backlog_cleanup.alert_channel AS c (name, kind, leased_by, leased_until)
         VALUES ($1, $2, $3, now() + make_interval(secs => $4))
         ON CONFLICT (name) DO UPDATE
         SET kind = excluded.kind, leased_by = excluded.leased_by, leased_until = excluded.leased_until, seen_at = now(),
             since = least(c.since, now()), failing_since = least(c.failing_since, now())
         WHERE (c.leased_until IS NULL OR c.leased_until <= now() OR c.leased_until > clock_timestamp() + make_interval(secs => $4))
           AND (c.next_attempt_at <= now() OR c.next_attempt_at > clock_timestamp() + make_interval(secs => $5))
         RETURNING failures, now() AS now, ",
        bounded_time!("report_at"),
        " AS report_at"
    );
    let lease = query_as(lease).bind(name).bind(kind).bind(server).bind(long.as_secs_f64());
    lease.bind(longest_backoff.as_secs_f64()).fetch_optional(database).await
}

/// Whether no server has looked for something to deliver to the channel in this minute. Others that ask wait for the transaction.
pub async fn is_first_of_minute(database: &mut PgConnection, name: &str) -> Result<bool> {
    let seen = "SELECT date_trunc('minute', seen_at) = date_trunc('minute', now())
                FROM backlog_cleanup.alert_channel WHERE name = $1 FOR UPDATE";
    Ok(query_scalar(seen).bind(name).fetch_optional(database).await? != Some(true))
}

/// Takes what the channel has refused for good as untold again, if that still matters: the opening of an alert that is open, and the
/// end of one that it was told of.
pub async fn reconsider(database: &mut PgConnection, channel: &str) -> Result<()> {
    let reconsider = "
        UPDATE backlog_cleanup.alert_delivery d SET refused = NULL
        FROM backlog_cleanup.alert a
        WHERE a.id = d.alert AND d.channel = $1 AND d.refused IS NOT NULL
          AND CASE d.change
                  WHEN 'opened' THEN a.resolved_at IS NULL
                  ELSE EXISTS (SELECT FROM backlog_cleanup.alert_delivery opened
                               WHERE opened.channel = d.channel AND opened.alert = d.alert
                                 AND opened.change = 'opened' AND opened.delivered_at IS NOT NULL)
              END";
    sqlx::query(reconsider).persistent(false).bind(channel).execute(database).await.map(drop)
}

/// How long until a lease may be had.
pub async fn wait(database: &mut PgConnection, name: &str) -> Result<Option<f64>> {
    let wait = "SELECT extract(epoch FROM least(greatest(leased_until, next_attempt_at, now()), now() + interval '1 day') - now())::float8
                FROM backlog_cleanup.alert_channel WHERE name = $1";
    query_scalar(wait).bind(name).fetch_optional(database).await
}

/// Takes on what is due: first the message that was begun and not delivered, else everything that the channel was not told
/// of, up to so many changes. Returns the message's id; `None` if nothing is due. An alert that is open is due unless it is
/// snoozed; one that has resolved, if the channel was told that it is open, whatever its targets are now, or could not be told
/// since no server was there. An acknowledgement is due where the channel escalates what was delivered.
pub async fn take_on(
    database: &mut PgConnection,
    channel: &str,
    targets: &[String],
    most: i64,
    escalates: bool,
) -> Result<Option<String>> {
    let begun = "SELECT message::text FROM backlog_cleanup.alert_delivery
                 WHERE channel = $1 AND delivered_at IS NULL AND refused IS NULL ORDER BY begun_at, message LIMIT 1";
    if let Some(message) = query_scalar(begun).bind(channel).fetch_optional(&mut *database).await? {
        return Ok(Some(message));
    }
    let due = "
        WITH due AS (
            SELECT a.id, CASE WHEN a.resolved_at IS NULL THEN 'opened' ELSE 'resolved' END AS change
            FROM backlog_cleanup.alert a JOIN backlog_cleanup.alert_channel c ON c.name = $1
            LEFT JOIN backlog_cleanup.alert_delivery opened
                ON opened.channel = c.name AND opened.alert = a.id AND opened.change = 'opened' AND opened.refused IS NULL
            WHERE a.resolved_at IS NOT NULL AND opened.alert IS NOT NULL
               OR (cardinality($2) = 0 OR a.target IS NULL OR a.target = ANY ($2))
                  AND CASE
                          WHEN a.resolved_at IS NULL THEN a.snoozed_until IS NULL OR a.snoozed_until <= now()
                          ELSE a.resolved_at >= c.since AND (a.snoozed_until IS NULL OR a.snoozed_until <= a.resolved_at)
                      END
            UNION ALL
            SELECT a.id, 'acknowledged'
            FROM backlog_cleanup.alert a JOIN backlog_cleanup.alert_delivery opened
                ON opened.channel = $1 AND opened.alert = a.id AND opened.change = 'opened' AND opened.delivered_at IS NOT NULL
            WHERE $4 AND a.resolved_at IS NULL AND a.acknowledged_at IS NOT NULL
        ), message AS (
            SELECT gen_random_uuid() AS message
        ), begun AS (
            INSERT INTO backlog_cleanup.alert_delivery (channel, alert, change, message)
            SELECT $1, id, change, message
            FROM due CROSS JOIN message
            WHERE NOT EXISTS (SELECT FROM backlog_cleanup.alert_delivery d
                              WHERE d.channel = $1 AND d.alert = due.id AND d.change = due.change)
            ORDER BY id LIMIT $3
            RETURNING message
        )
        SELECT message::text FROM begun LIMIT 1";
    query_scalar(due).bind(channel).bind(targets).bind(most).bind(escalates).fetch_optional(database).await
}

/// The changes of a message: opened, acknowledged or resolved; counts an attempt.
pub async fn attempt(database: &mut PgConnection, channel: &str, message: &str) -> Result<Vec<(String, Alert)>> {
    let attempt = concat!(
        "WITH tried AS (
             UPDATE backlog_cleanup.alert_delivery SET attempts = attempts + 1
             WHERE channel = $1 AND message = $2::uuid AND delivered_at IS NULL AND refused IS NULL
             RETURNING alert, change
         )
         SELECT change, ",
        alert_columns!(),
        " FROM tried JOIN backlog_cleanup.alert a ON a.id = alert ORDER BY a.id, change"
    );
    let told: Vec<Tried> = query_as(attempt).bind(channel).bind(message).fetch_all(database).await?;
    Ok(told.into_iter().map(|tried| (tried.change, tried.alert)).collect())
}

#[derive(FromRow)]
struct Tried {
    change: String,
    #[sqlx(flatten)]
    alert: Alert,
}

/// The alerts that are open and not snoozed, and of which the channel was not told for so long, by the clock as it is now; first the longest.
pub async fn forgotten(database: &mut PgConnection, channel: &str, after: Duration) -> Result<Vec<Alert>> {
    let open = concat!(
        "SELECT ",
        alert_columns!(),
        " FROM backlog_cleanup.alert a JOIN backlog_cleanup.alert_delivery d ON d.alert = a.id
          WHERE a.resolved_at IS NULL AND d.channel = $1 AND d.change = 'opened'
            AND (d.delivered_at <= now() - make_interval(secs => $2) OR d.delivered_at > now())
            AND (a.snoozed_until IS NULL OR a.snoozed_until <= now())
          ORDER BY d.delivered_at, a.id LIMIT 1000"
    );
    query_as(open).bind(channel).bind(after.as_secs_f64()).fetch_all(database).await
}

/// Gives the lease back; nothing was due. A remark, which is no failure, stands where the error of one would.
pub async fn nothing(
    database: &mut PgConnection,
    channel: &str,
    server: &str,
    report_at: Option<DateTime<Utc>>,
    remark: Option<&str>,
) -> Result<()> {
    let free = "UPDATE backlog_cleanup.alert_channel
                SET leased_by = NULL, leased_until = NULL, report_at = $3,
                    last_error = CASE WHEN failures = 0 THEN left($4, 10000) ELSE last_error END
                WHERE name = $1 AND leased_by = $2";
    let free = sqlx::query(free).persistent(false).bind(channel).bind(server).bind(report_at);
    free.bind(remark).execute(database).await.map(drop)
}

/// Records what the channel has taken: which changes of which alerts.
pub async fn taken(database: &mut PgConnection, channel: &str, alerts: &[i64], changes: &[&str]) -> Result<()> {
    let taken = "UPDATE backlog_cleanup.alert_delivery d SET delivered_at = now()
                 FROM unnest($2::bigint[], $3::text[]) AS told (alert, change)
                 WHERE d.channel = $1 AND d.alert = told.alert AND d.change = told.change";
    sqlx::query(taken).persistent(false).bind(channel).bind(alerts).bind(changes).execute(database).await.map(drop)
}

/// Records that the receiver does not take what is left of a message, also not later.
pub async fn refused(database: &mut PgConnection, channel: &str, message: &str, why: &str) -> Result<()> {
    let refused = "UPDATE backlog_cleanup.alert_delivery SET refused = left($3, 10000)
                   WHERE channel = $1 AND message = $2::uuid AND delivered_at IS NULL";
    sqlx::query(refused).persistent(false).bind(channel).bind(message).bind(why).execute(database).await.map(drop)
}

/// Gives the lease back after a message that the channel took; the next one goes after `spacing`.
pub async fn delivered(
    database: &mut PgConnection,
    channel: &str,
    server: &str,
    report_at: Option<DateTime<Utc>>,
    remark: Option<&str>,
    spacing: Duration,
) -> Result<()> {
    let free = "UPDATE backlog_cleanup.alert_channel
                SET leased_by = NULL, leased_until = NULL, delivered_at = now(), failures = 0, failing_since = NULL,
                    last_error = left($5, 10000), report_at = $3, next_attempt_at = now() + make_interval(secs => $4)
                WHERE name = $1 AND leased_by = $2";
    let free = sqlx::query(free).persistent(false).bind(channel).bind(server).bind(report_at);
    free.bind(spacing.as_secs_f64()).bind(remark).execute(database).await.map(drop)
}

/// Gives the lease back after a message that the channel did not take, or not all of it; the next attempt is after `backoff`.
pub async fn failed(
    database: &mut PgConnection,
    channel: &str,
    server: &str,
    (why, has_taken): (&str, bool),
    report_at: Option<DateTime<Utc>>,
    backoff: Duration,
) -> Result<()> {
    let free = "UPDATE backlog_cleanup.alert_channel
                SET leased_by = NULL, leased_until = NULL, failures = failures + 1, last_error = left($3, 10000), report_at = $5,
                    failing_since = coalesce(failing_since, now()), next_attempt_at = now() + make_interval(secs => $4),
                    delivered_at = CASE WHEN $6 THEN now() ELSE delivered_at END
                WHERE name = $1 AND leased_by = $2";
    let free = sqlx::query(free).persistent(false).bind(channel).bind(server).bind(why);
    free.bind(backoff.as_secs_f64()).bind(report_at).bind(has_taken).execute(database).await.map(drop)
}

/// Opens and resolves alerts, as the tick does.
pub async fn evaluate(database: &mut PgConnection) -> Result<()> {
    let evaluate = "SELECT count(*) FROM backlog_cleanup.evaluate_alerts()";
    query_scalar::<i64>(evaluate).fetch_one(database).await.map(drop)
}

/// Whether there was a tick lately. One of the future, from before the clock went back, is none.
pub async fn is_ticking(database: &mut PgConnection) -> Result<bool> {
    let ticking = "SELECT coalesce((SELECT started_at > now() - make_interval(secs => $1) FROM backlog_cleanup.tick
                                    WHERE started_at <= now() ORDER BY id DESC LIMIT 1), false)";
    query_scalar(ticking).bind(WITHOUT_TICK.as_secs_f64()).fetch_one(database).await
}
