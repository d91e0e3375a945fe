use pgrx::prelude::*;

use crate::extension;
use crate::postgres::error::{Result, error, required, spi};
use crate::postgres::prepared;
use crate::postgres::read::{read_one, refuse_read_only};
use crate::run::begin::caller;
use crate::schedule::call;

const OPEN: &str = "SELECT * FROM backlog_cleanup.alert WHERE resolved_at IS NULL";

/// Keeps an alert from being told of until then; NULL ends that. A note replaces the one that it has. Errors: 22004, 22023 (a time
/// that is over or never comes, a note of more than 10,000 characters), 25006, 42704 (unknown alert), 55000 (the alert has resolved).
#[pg_extern]
fn backlog_cleanup_snooze(
    alert: Option<i64>,
    until: Option<TimestampWithTimeZone>,
    note: default!(Option<&str>, "NULL"),
) -> Result<()> {
    let alert = of_open(alert)?;
    is_short(note, "snooze", alert)?;
    // Later ones are not read by all that read times.
    let is_possible = "SELECT $1 OPERATOR(pg_catalog.>) pg_catalog.now()
                       AND $1 OPERATOR(pg_catalog.<=) (pg_catalog.now() OPERATOR(pg_catalog.+) '1000 years'::pg_catalog.interval)";
    if until.is_some() && read_one::<bool>(is_possible, &[until.into()])? == Some(false) {
        return Err(error(
            PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
            "argument \"until\" must be in the future, within 1000 years".into(),
            format!("{}({alert}, now() + interval '1 day')", call("snooze")?),
        ));
    }
    const SNOOZE: &str = "UPDATE backlog_cleanup.alert SET snoozed_until = $2, note = coalesce($3, note) WHERE id = $1";
    extension::as_owner(|| Spi::run_with_args(SNOOZE, &[alert.into(), until.into(), note.into()]).map_err(spi))
}

/// Records that the caller has taken an alert on. A note replaces the one that it has. Errors: 22004, 22023 (a note of more than 10,000
/// characters), 25006, 42704 (unknown alert),
/// 55000 (the alert has resolved).
#[pg_extern]
fn backlog_cleanup_acknowledge(alert: Option<i64>, note: default!(Option<&str>, "NULL")) -> Result<()> {
    let alert = of_open(alert)?;
    is_short(note, "acknowledge", alert)?;
    let caller = caller()?;
    const ACKNOWLEDGE: &str = "
        UPDATE backlog_cleanup.alert SET acknowledged_at = now(), acknowledged_by = $2::name, note = coalesce($3, note) WHERE id = $1";
    extension::as_owner(|| Spi::run_with_args(ACKNOWLEDGE, &[alert.into(), caller.into(), note.into()]).map_err(spi))
}

/// Errors: 22023.
fn is_short(note: Option<&str>, function: &str, alert: i64) -> Result<()> {
    const LONGEST: usize = 10_000;
    if note.is_none_or(|note| note.chars().nth(LONGEST).is_none()) {
        return Ok(());
    }
    let until = if function == "snooze" { ", now() + interval '1 day'" } else { "" };
    Err(error(
        PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
        format!("argument \"note\" has more than {LONGEST} characters"),
        format!("{}({alert}{until}, note => 'at work on it')", call(function)?),
    ))
}

/// The id of an alert that is open.
fn of_open(alert: Option<i64>) -> Result<i64> {
    let alert = required(alert, "alert", OPEN)?;
    refuse_read_only("change an alert")?;
    let is_open = "SELECT resolved_at IS NULL FROM backlog_cleanup.alert WHERE id = $1 FOR UPDATE";
    let is_open = extension::as_owner(|| prepared::get_one::<bool>(is_open, &[alert.into()]))?;
    let refused = |sqlstate, what: &str| Err(error(sqlstate, format!("alert {alert} {what}"), OPEN.into()));
    match is_open {
        Some(true) => Ok(alert),
        Some(false) => refused(PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE, "has resolved"),
        None => refused(PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT, "does not exist"),
    }
}
