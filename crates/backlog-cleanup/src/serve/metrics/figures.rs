use std::time::Instant;

use backlog_cleanup_report::{StatusReport, longest_gap};
use chrono::{DateTime, Utc};
use sqlx::postgres::PgPool;
use sqlx::types::Json;

/// So many failure types have a series of their own; `backlog_cleanup_failures` calls the others `(other)`.
const TYPES: i32 = 20;

/// What a target's tables hold, and whether the last count came to its end.
#[derive(Debug, Clone, Default)]
pub struct Counted {
    pub success: bool,
    pub figures: Option<Figures>,
}

/// What was counted, and when.
#[derive(Debug, Clone)]
pub struct Figures {
    pub at: DateTime<Utc>,
    /// How long it took.
    pub seconds: f64,
    /// By status, with the failed ones among them.
    pub rows: [(&'static str, i64); 5],
    pub removable: i64,
    pub oldest_failed_at: Option<DateTime<Utc>>,
    /// The longest time between two runs that the schedule allows, as the doctor reckons it.
    pub period_days: i32,
    pub failure_types: Vec<(String, i64)>,
    /// The ledger's removed rows less those of the runs; `None` without a ledger.
    pub books_difference: Option<i64>,
}

const STATUS: &str = "SELECT now(), backlog_cleanup_status_json($1::text)";

const FAILURE_TYPES: &str = "
    SELECT failure_type, sum(failed_count)::bigint FROM backlog_cleanup_failures($1::text, NULL, $2)
    GROUP BY failure_type ORDER BY failure_type";

const BOOKS: &str = "SELECT difference FROM backlog_cleanup_books($1::text)";

impl Counted {
    /// Where a count fails, the figures of the last one stay, with their time.
    pub fn renew(&mut self, target: &str, figures: sqlx::Result<Figures>) {
        self.success = figures.is_ok();
        match figures {
            Ok(figures) => self.figures = Some(figures),
            Err(error) => tracing::warn!(target_name = target, %error, "the target could not be counted"),
        }
    }
}

pub async fn figures(pool: &PgPool, target: &str) -> sqlx::Result<Figures> {
    let started = Instant::now();
    let mut connection = pool.acquire().await?;
    let (at, Json(status)): (DateTime<Utc>, Json<StatusReport>) =
        sqlx::query_as(STATUS).bind(target).fetch_one(&mut *connection).await?;
    let failure_types = sqlx::query_as(FAILURE_TYPES).bind(target).bind(TYPES).fetch_all(&mut *connection).await?;
    let books_difference = sqlx::query_scalar(BOOKS).bind(target).fetch_optional(&mut *connection).await?;
    Ok(Figures {
        at,
        seconds: started.elapsed().as_secs_f64(),
        rows: rows(&status),
        removable: status.removable_generations,
        // An infinite failed-at is no time.
        oldest_failed_at: status
            .recipes_with_failed_generations
            .iter()
            .filter_map(|recipe| recipe.oldest_failed_at.as_ref()?.parse().ok())
            .min(),
        period_days: status.schedule["schedule"].as_str().map_or(1, longest_gap),
        failure_types,
        books_difference,
    })
}

fn rows(status: &StatusReport) -> [(&'static str, i64); 5] {
    let StatusReport {
        total_generations: total,
        completed_generations: completed,
        failed_generations: failed,
        pending_generations: pending,
        processing_generations: processing,
        ..
    } = *status;
    let other = total - completed - failed - pending - processing;
    [("completed", completed), ("failed", failed), ("pending", pending), ("processing", processing), ("other", other)]
}
