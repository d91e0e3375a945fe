//! What looks after itself, as numbers: alerts, ticks, samples, deliveries.

use sqlx::postgres::PgConnection;
use sqlx::{FromRow, Result};

use super::statement::{query_as, query_scalar};

/// How many rules and channels have a number of their own; the others share `(other)`.
const MOST: i64 = 50;

#[derive(Debug, Clone, Default)]
pub struct Watched {
    /// By rule, the alerts that are open.
    pub open: Vec<(String, i64)>,
    pub tick: Option<LastTick>,
    /// By target, when the last sample was taken, in seconds since 1970.
    pub samples: Vec<(String, f64)>,
    /// By channel, the attempts in a row that failed.
    pub failures: Vec<(String, i64)>,
}

#[derive(Debug, Clone, FromRow)]
pub struct LastTick {
    /// In seconds since 1970.
    pub at: f64,
    pub seconds: f64,
}

const OPEN: &str = "
    SELECT CASE WHEN place <= $1 THEN name ELSE '(other)' END, sum(open)::bigint
    FROM (SELECT r.name, count(a.id) AS open, row_number() OVER (ORDER BY count(a.id) DESC, r.name) AS place
          FROM (SELECT name FROM backlog_cleanup.alert_rule
                UNION SELECT rule FROM backlog_cleanup.alert WHERE resolved_at IS NULL) r
          LEFT JOIN backlog_cleanup.alert a ON a.rule = r.name AND a.resolved_at IS NULL
          GROUP BY r.name) rules
    GROUP BY 1 ORDER BY 1";

const SAMPLES: &str = "
    SELECT t.name, extract(epoch FROM s.sampled_at)::float8
    FROM backlog_cleanup.target t
    JOIN LATERAL (SELECT sampled_at FROM backlog_cleanup.sample s WHERE s.target = t.name AND s.grain = 'fine'
                  ORDER BY sampled_at DESC LIMIT 1) s ON true
    ORDER BY 1";

const FAILURES: &str = "
    SELECT CASE WHEN place <= $1 THEN name ELSE '(other)' END, sum(failures)::bigint
    FROM (SELECT name, failures, row_number() OVER (ORDER BY failures DESC, name) AS place FROM backlog_cleanup.alert_channel) c
    GROUP BY 1 ORDER BY 1";

/// Reads all of it; nothing before ALTER EXTENSION UPDATE, when there are no such tables.
pub async fn watched(database: &mut PgConnection) -> Result<Watched> {
    let is_there = "SELECT to_regclass('backlog_cleanup.alert_channel') IS NOT NULL";
    if !query_scalar::<bool>(is_there).fetch_one(&mut *database).await? {
        return Ok(Watched::default());
    }
    let tick = "SELECT extract(epoch FROM started_at)::float8 AS at, milliseconds / 1000 AS seconds
                FROM backlog_cleanup.tick WHERE started_at <= now() ORDER BY id DESC LIMIT 1";
    Ok(Watched {
        open: query_as(OPEN).bind(MOST).fetch_all(&mut *database).await?,
        tick: query_as(tick).fetch_optional(&mut *database).await?,
        samples: query_as(SAMPLES).fetch_all(&mut *database).await?,
        failures: query_as(FAILURES).bind(MOST).fetch_all(&mut *database).await?,
    })
}
