//! Statements without a name, since a named one stays on a server connection that a pooler gives to other clients.

use sqlx::FromRow;
use sqlx::postgres::{PgArguments, PgRow, Postgres};
use sqlx::query::{QueryAs, QueryScalar};

pub fn query_as<T: for<'r> FromRow<'r, PgRow>>(sql: &str) -> QueryAs<'_, Postgres, T, PgArguments> {
    sqlx::query_as(sql).persistent(false)
}

pub fn query_scalar<T>(sql: &str) -> QueryScalar<'_, Postgres, T, PgArguments>
where
    (T,): for<'r> FromRow<'r, PgRow>,
{
    sqlx::query_scalar(sql).persistent(false)
}
