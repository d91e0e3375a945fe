use pgrx::JsonB;
use pgrx::prelude::*;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::extension;
use crate::postgres::error::Result;
use crate::postgres::read::read_one;
use crate::target::check::check_row;
use crate::target::load::row_of;
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

/// The role, unless it is a superuser, and whether it may name all of the tables that there are.
const NAMER: &str = "
    SELECT jsonb_build_object('name', rolname, 'may', NOT EXISTS (
        SELECT FROM unnest($2) named JOIN pg_class c ON c.oid = to_regclass(named) WHERE NOT pg_has_role($1, relowner, 'USAGE')))
    FROM pg_roles r WHERE r.oid = $1 AND NOT rolsuper";

/// A column whose value is beyond a limit.
#[derive(Deserialize)]
struct Beyond {
    column: String,
    is_null: bool,
    wrong: String,
    /// What is right.
    right: Value,
}

/// Tells at once all limits that a row of `target` is beyond, and what else is wrong in it: PostgreSQL would end the statement at the first
/// limit, before the row can be checked. `row` and `before`, an empty object if the row is new, are JSON objects. What else is wrong is told to
/// whoever may name the tables. Errors: 23514, 23502.
#[pg_extern(sql = false)]
fn check_limits_of_target(row: Option<&str>, before: Option<&str>) -> Result<()> {
    // SAFETY: only reads who calls.
    let caller = unsafe { pg_sys::GetUserId() };
    let Some(Ok(mut row)) = row.map(serde_json::from_str::<Map<String, Value>>) else { return Ok(()) };
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
    let Some(JsonB(beyond)) = beyond else { return Ok(()) };
    let mut mistakes = Vec::new();
    for Beyond { column, is_null, wrong, right } in serde_json::from_value::<Vec<Beyond>>(beyond).unwrap_or_default() {
        row.insert(column.clone(), right.clone());
        let code = match is_null {
            true => PgSqlErrorCode::ERRCODE_NOT_NULL_VIOLATION,
            false => PgSqlErrorCode::ERRCODE_CHECK_VIOLATION,
        };
        mistakes.push(Mistake::new(code, column, wrong, "SELECT * FROM backlog_cleanup.target".into()).or(right));
    }
    let name = row.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
    let mut row = row_of(&name, row)?;
    // Whoever calls this could say that another role has named them.
    let tables = [&row.recipes_table, &row.users_table, &row.ledger_table];
    let tables = tables.into_iter().flatten().chain([&row.generations_table]).cloned().collect::<Vec<_>>();
    let namer = extension::as_owner(|| read_one::<JsonB>(NAMER, &[caller.into(), tables.into()]))?;
    if let Some(JsonB(namer)) = namer {
        if namer["may"] != true {
            return Err(row.refusal(&mistakes, before));
        }
        row.named_by = namer["name"].as_str().map(str::to_owned);
    }
    check_row(row, before, mistakes).map(drop)
}
