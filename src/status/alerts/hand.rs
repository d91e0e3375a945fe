use pgrx::prelude::*;

use crate::extension;
use crate::postgres::error::{Result, error, required, spi};
use crate::postgres::prepared;
use crate::postgres::read::{read_one, refuse_read_only};
use crate::run::begin::caller;
use crate::schedule::call;

const OPEN: &str = "SELECT * FROM backlog_cleanup.alert WHERE resolved_at IS NULL";

/// Keeps an alert from being told of until then; NULL ends that. A note replaces the one that it has. Errors: 22004, 22023 (a time
/// that is over), 25006, 42704 (unknown alert), 55000 (the alert has resolved).
#[pg_extern]
fn backlog_cleanup_snooze(
    alert: Option<i64>,
    until: Option<TimestampWithTimeZone>,
    note: default!(Option<&str>, "NULL"),
) -> Result<()> {
    let alert = of_open(alert)?;
    let is_over = "SELECT $1 OPERATOR(pg_catalog.<=) pg_catalog.now()";
    if until.is_some() && read_one::<bool>(is_over, &[until.into()])? == Some(true) {
        return Err(error(
            PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
            "argument \"until\" must be in the future".into(),
            format!("{}({alert}, now() + interval '1 day')", call("snooze")?),
        ));
    }
    const SNOOZE: &str = "UPDATE backlog_cleanup.alert SET snoozed_until = $2, note = coalesce($3, note) WHERE id = $1";
    extension::as_owner(|| Spi::run_with_args(SNOOZE, &[alert.into(), until.into(), note.into()]).map_err(spi))
}

/// Records that the caller has taken an alert on. A note replaces the one that it has. Errors: 22004, 25006, 42704 (unknown alert),
/// 55000 (the alert has resolved).
#[pg_extern]
fn backlog_cleanup_acknowledge(alert: Option<i64>, note: default!(Option<&str>, "NULL")) -> Result<()> {
    let alert = of_open(alert)?;
    let caller = caller()?;
    const ACKNOWLEDGE: &str = "
        UPDATE backlog_cleanup.alert SET acknowledged_at = now(), acknowledged_by = $2::name, note = coalesce($3, note) WHERE id = $1";
    extension::as_owner(|| Spi::run_with_args(ACKNOWLEDGE, &[alert.into(), caller.into(), note.into()]).map_err(spi))
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
