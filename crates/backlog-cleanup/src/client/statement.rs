//! Statements without a name, since a named one stays on a server connection that a pooler gives to other clients.

use sqlx::FromRow;
use sqlx::postgres::{PgArguments, PgRow, Postgres};
use sqlx::query::{QueryAs, QueryScalar};

/// A query of the last regular run of a target without a selection that has ended.
macro_rules! last_whole_run {
    ($target:literal) => {
        concat!(
            "(SELECT r.id FROM backlog_cleanup.run r
              WHERE r.target = ",
            $target,
            " AND r.mode = 'regular' AND r.state <> 'running'
                AND r.recipe_id IS NULL AND r.failure_type IS NULL AND r.status IS NULL
              ORDER BY r.id DESC LIMIT 1)"
        )
    };
}
pub(super) use last_whole_run;

/// A column of times, from year 1 to 9999 as RFC 3339 has them: `infinity`, and what chrono cannot hold, is the end of that.
macro_rules! bounded_time {
    ($column:literal) => {
        concat!(
            "CASE WHEN ",
            $column,
            " IS NOT NULL THEN greatest(least(",
            $column,
            ", timestamptz '9999-12-31 23:59:59 UTC'), timestamptz '0001-01-01 UTC') END"
        )
    };
}
pub(super) use bounded_time;

pub fn query_as<T: for<'r> FromRow<'r, PgRow>>(sql: &str) -> QueryAs<'_, Postgres, T, PgArguments> {
    sqlx::query_as(sql).persistent(false)
}

pub fn query_scalar<T>(sql: &str) -> QueryScalar<'_, Postgres, T, PgArguments>
where
    (T,): for<'r> FromRow<'r, PgRow>,
{
    sqlx::query_scalar(sql).persistent(false)
}
