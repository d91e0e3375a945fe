//! A target as a row of its table. The columns, their types and what they mean come from the catalog, so that whatever the
//! table has can be read and written here.

use serde::Serialize;
use serde_json::{Map, Value};
use sqlx::FromRow;
use sqlx::postgres::PgConnection;
use sqlx::types::Json;
use utoipa::ToSchema;

use super::statement::{query_as, query_scalar};
use crate::failure::Failure;

/// Values by the names of their columns, as `to_jsonb()` writes them. A text is read as a literal of the column's type.
pub type Row = Map<String, Value>;

/// A column of `backlog_cleanup.target`, and what a target has in it.
#[derive(Serialize, FromRow, ToSchema)]
pub struct Column {
    pub column: String,
    /// As SQL calls it
    #[serde(rename = "type")]
    pub sql_type: String,
    /// A text, a number, true, false, a list of texts, or null
    #[schema(value_type = Value)]
    pub value: Option<Json<Value>>,
    /// The value as a literal of the type
    #[serde(skip)]
    pub literal: Option<String>,
    /// The expression whose value a new target has
    pub default: Option<String>,
    /// What the column means
    pub meaning: Option<String>,
}

/// The rows of all targets, in the order of their names.
pub async fn list(database: &mut PgConnection) -> sqlx::Result<Vec<Row>> {
    let rows: Vec<Json<Row>> =
        query_scalar("SELECT to_jsonb(t) FROM backlog_cleanup.target t ORDER BY name").fetch_all(database).await?;
    Ok(rows.into_iter().map(|Json(row)| row).collect())
}

/// The columns of a target; none if there is no such target.
pub async fn of(database: &mut PgConnection, target: &str) -> sqlx::Result<Vec<Column>> {
    read(database, Some(target)).await
}

/// The columns of a new target: the literals are those of the defaults.
pub async fn of_new(database: &mut PgConnection) -> sqlx::Result<Vec<Column>> {
    read(database, None).await
}

async fn read(database: &mut PgConnection, target: Option<&str>) -> sqlx::Result<Vec<Column>> {
    // A default is written as SQL: '{failed}'::text[], 10000, true.
    let columns = "
        SELECT a.attname::text AS column, format_type(a.atttypid, a.atttypmod) AS sql_type, v.value,
               CASE WHEN t.name IS NULL AND e.given LIKE '''%'
                        THEN replace(substring(e.given FROM '^''(.*)''::[^'']*$'), '''''', '''')
                    WHEN t.name IS NULL THEN e.given
                    WHEN jsonb_typeof(v.value) = 'array' THEN ARRAY(SELECT jsonb_array_elements_text(v.value))::text
                    ELSE v.value #>> '{}'
               END AS literal,
               e.given AS default, col_description(a.attrelid, a.attnum) AS meaning
        FROM pg_attribute a
        LEFT JOIN backlog_cleanup.target t ON t.name = $1
        LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
        CROSS JOIN LATERAL (SELECT pg_get_expr(d.adbin, d.adrelid)) e (given)
        CROSS JOIN LATERAL (SELECT to_jsonb(t) -> a.attname::text) v (value)
        WHERE ($1 IS NULL OR t.name IS NOT NULL)
          AND a.attrelid = 'backlog_cleanup.target'::regclass AND a.attnum > 0 AND NOT a.attisdropped
        ORDER BY a.attnum";
    query_as(columns).bind(target).fetch_all(database).await
}

/// Writes a statement with the names of the columns of a row, `%1$s`, and executes it.
macro_rules! with_columns {
    ($database:expr, $row:expr, $statement:literal $(, $argument:expr)?) => {{
        let write = concat!(
            "SELECT format('", $statement, "', string_agg(quote_ident(name), ', ')) FROM jsonb_object_keys($1) AS name"
        );
        are_there($database, $row).await?;
        let write: String = query_scalar(write).bind(Json($row)).fetch_one(&mut *$database).await?;
        Ok(query_scalar(&write).bind(Json($row))$(.bind($argument))?.fetch_optional($database).await?)
    }};
}

/// Errors: 42703 (the table of targets has no such column).
async fn are_there(database: &mut PgConnection, row: &Row) -> Result<(), Failure> {
    let unknown = "SELECT name FROM jsonb_object_keys($1) AS name
                   WHERE NOT EXISTS (SELECT FROM pg_attribute WHERE attrelid = 'backlog_cleanup.target'::regclass
                                                                AND attname = name AND attnum > 0 AND NOT attisdropped)
                   ORDER BY name LIMIT 1";
    let unknown: Option<String> = query_scalar(unknown).bind(Json(row)).fetch_optional(database).await?;
    let refusal = |column| Failure {
        // undefined_column
        sqlstate: Some("42703".into()),
        ..Failure::error(format!("a target has no column \"{column}\""))
    };
    unknown.map_or(Ok(()), |column: String| Err(refusal(column).hint(COLUMNS)))
}

const COLUMNS: &str =
    "SELECT attname FROM pg_attribute WHERE attrelid = 'backlog_cleanup.target'::regclass AND attnum > 0";

/// Adds a target; what the row does not have has its default. Returns its name.
pub async fn add(database: &mut PgConnection, row: &Row) -> Result<Option<String>, Failure> {
    with_columns!(
        database,
        row,
        "INSERT INTO backlog_cleanup.target (%1$s)
         SELECT %1$s FROM jsonb_populate_record(NULL::backlog_cleanup.target, $1) RETURNING name"
    )
}

/// Changes columns of a target. Returns its name, which may be among them; `None` if there is no such target.
pub async fn set(database: &mut PgConnection, target: &str, row: &Row) -> Result<Option<String>, Failure> {
    with_columns!(
        database,
        row,
        "UPDATE backlog_cleanup.target
         SET (%1$s) = (SELECT %1$s FROM jsonb_populate_record(NULL::backlog_cleanup.target, $1))
         WHERE name = $2 RETURNING name",
        target
    )
}

/// Removes a target and its policies; false if there was none. Its history stays.
pub async fn drop(database: &mut PgConnection, target: &str) -> sqlx::Result<bool> {
    let dropped = query_scalar::<String>("DELETE FROM backlog_cleanup.target WHERE name = $1 RETURNING name");
    Ok(dropped.bind(target).fetch_optional(database).await?.is_some())
}

/// The error for a target that does not exist, as the extension has it.
pub fn missing(target: &str) -> Failure {
    Failure {
        // undefined_object
        sqlstate: Some("42704".into()),
        ..Failure::error(format!("target \"{target}\" does not exist"))
    }
    .hint("SELECT name FROM backlog_cleanup.target")
}
