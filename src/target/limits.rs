use pgrx::JsonB;
use pgrx::prelude::*;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::extension;
use crate::postgres::error::Result;
use crate::postgres::read::read_one;
use crate::target::mistake::Mistake;

/// The constraints of `target` on single rows, as a list of VALUES: the first column of each, its value, what it is, whether the row is beyond
/// it, and what is right: the column's default, but for a limit on runs, which that would lift, the nearest value, or a window.
/// A constraint's name is that column and what it is: `batch_size_is_from_1_to_1000000`.
const LIMITS: &str = "
    SELECT string_agg(format('(%L, %I::text, %L, (%s) IS FALSE, to_jsonb(%s))', attname, attname, what, is_kept,
                             CASE WHEN attname = 'run_between' THEN $$'{01:00,05:00}'::text[]$$
                                  WHEN attname = 'pause' THEN $$least(greatest(pause, '0'), '1 day')$$
                                  WHEN attname = 'max_share' THEN 'CASE WHEN max_share < 0 THEN 0 ELSE 100 END'
                                  WHEN starts_with(attname, 'max_') AND atttypid = 'interval'::regtype
                                  THEN format($$least(greatest(%I, '1 s'), '1000 years')$$, attname)
                                  WHEN starts_with(attname, 'max_') THEN '1'
                                  ELSE coalesce(pg_get_expr(adbin, adrelid), 'NULL::text') END), ', ')
    FROM (
        SELECT attrelid, attname, attnum, atttypid, replace(substr(conname, length(attname) + 2), '_', ' '), pg_get_expr(conbin, conrelid)
        FROM pg_constraint JOIN pg_attribute ON (attrelid, attnum) = (conrelid, conkey[1])
        WHERE conrelid = 'backlog_cleanup.target'::regclass AND contype = 'c'
        UNION ALL
        SELECT attrelid, attname, attnum, atttypid, NULL, format('%I IS NOT NULL', attname)
        FROM pg_attribute WHERE attrelid = 'backlog_cleanup.target'::regclass AND attnum > 0 AND attnotnull
    ) limits (attrelid, attname, attnum, atttypid, what, is_kept)
    LEFT JOIN pg_attrdef ON (adrelid, adnum) = (attrelid, attnum)";

/// A column whose value is beyond a limit.
#[derive(Deserialize)]
struct Beyond {
    column: String,
    is_null: bool,
    wrong: String,
    /// What is right.
    right: Value,
}

/// Finds the limits that a row of `target`, a JSON object, is beyond. In their place puts what is right: the row can be looked at further.
pub fn beyond(row: &mut Map<String, Value>) -> Result<Vec<Mistake>> {
    let beyond = extension::as_owner(|| {
        let limits = read_one::<String>(LIMITS, &[])?.unwrap_or_default();
        let beyond = format!(
            "SELECT jsonb_agg(jsonb_build_object(
                        'column', attname, 'is_null', value IS NULL, 'right', is_right,
                        'wrong', CASE WHEN value IS NULL THEN format('%s is NULL', attname)
                                      ELSE format('\"%s\" %s', left(value, 100), regexp_replace(what, '^is', 'is not')) END))
             FROM jsonb_populate_record(NULL::backlog_cleanup.target, $1) written
             CROSS JOIN LATERAL (VALUES {limits}) limits (attname, value, what, is_beyond, is_right)
             WHERE is_beyond"
        );
        read_one::<JsonB>(&beyond, &[JsonB(row.clone().into()).into()])
    })?;
    let Some(JsonB(beyond)) = beyond else { return Ok(Vec::new()) };
    let mistake = |Beyond { column, is_null, wrong, right }: Beyond| {
        row.insert(column.clone(), right.clone());
        let code = match is_null {
            true => PgSqlErrorCode::ERRCODE_NOT_NULL_VIOLATION,
            false => PgSqlErrorCode::ERRCODE_CHECK_VIOLATION,
        };
        Mistake::new(code, column, wrong, "SELECT * FROM backlog_cleanup.target".into()).or(right)
    };
    Ok(serde_json::from_value::<Vec<Beyond>>(beyond).unwrap_or_default().into_iter().map(mistake).collect())
}
