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

pub fn query_as<T: for<'r> FromRow<'r, PgRow>>(sql: &str) -> QueryAs<'_, Postgres, T, PgArguments> {
    sqlx::query_as(sql).persistent(false)
}

pub fn query_scalar<T>(sql: &str) -> QueryScalar<'_, Postgres, T, PgArguments>
where
    (T,): for<'r> FromRow<'r, PgRow>,
{
    sqlx::query_scalar(sql).persistent(false)
}
