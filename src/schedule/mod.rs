//! The nightly job in pg_cron. Knows nothing of runs but what a job calls.

mod home;
mod pg_cron;
mod statement;

use pgrx::prelude::*;
use pgrx::spi::quote_literal;

use crate::extension;
use crate::postgres::error::{Result, error, required, spi};
use crate::postgres::read::{read_one, refuse_read_only};
use crate::schedule::pg_cron::{
    job_named, may_use_pg_cron, not_a_schedule, register, warn_of_pause, warn_of_time_zone,
};
use crate::schedule::statement::{call, command, pg_cron_is_absent};
use crate::target::load::exists;

pub use home::pg_cron_is_here;
pub use statement::{call_to_schedule, cannot_schedule};

/// Registers the nightly job with pg_cron, or changes the job of that name that is there; returns the job's id.
/// The job belongs to the caller; its times are pg_cron's, which reads them in UTC unless `cron.timezone` says else.
/// Errors: 22004, 22023 (a bad cron expression or job name), 42501 (no privilege on pg_cron; somebody else's job),
/// 42704 (unknown target), 42710 (the name is taken in another database), 55000 (pg_cron is not here).
#[pg_extern]
fn backlog_cleanup_schedule(
    schedule: default!(Option<&str>, "'0 2 * * *'"),
    batched: default!(Option<bool>, "false"),
    target: default!(Option<&str>, "'generations'"),
    job_name: default!(Option<&str>, "'backlog-cleanup-daily'"),
) -> Result<i64> {
    let schedule = required(schedule, "schedule", &call("schedule('0 2 * * *')")?)?;
    let batched = required(batched, "batched", &call("schedule(batched => false)")?)?;
    let job_name = checked(job_name, "schedule()")?;
    let target = exists(target)?;
    if !pg_cron_is_here()? {
        return Err(cannot_schedule(schedule, batched, &target, job_name)?);
    }
    let command = command(&target, batched)?;
    refuse_read_only("schedule a job")?;
    may_use_pg_cron()?;
    // pg_cron ignores what follows the fifth field, and would take a leading field of seconds for the minutes.
    if schedule.split_whitespace().count() > 5 {
        return Err(not_a_schedule(schedule, &call("schedule('0 2 * * *')")?));
    }
    warn_of_time_zone()?;
    let job = match job_named(job_name)? {
        // Somebody else's job, which pg_cron lets a superuser change.
        Some(job) if !job.is_callers => {
            let change = "SELECT cron.alter_job($1, schedule => $2, command => $3)";
            register(schedule, || {
                Spi::run_with_args(change, &[job.id.into(), schedule.into(), command.as_str().into()])
            })?;
            Some(job.id)
        }
        _ => register(schedule, || {
            Spi::get_one_with_args::<i64>(
                "SELECT cron.schedule($1, $2, $3)",
                &[job_name.into(), schedule.into(), command.as_str().into()],
            )
        })?,
    };
    let job = job.unwrap_or_default();
    warn_of_pause(job, job_name)?;
    Ok(job)
}

/// Removes the job of that name; false where there is none.
#[pg_extern]
fn backlog_cleanup_unschedule(job_name: default!(Option<&str>, "'backlog-cleanup-daily'")) -> Result<bool> {
    let job_name = checked(job_name, "unschedule()")?;
    if !pg_cron_is_here()? {
        let there = format!("SELECT cron.unschedule({});", quote_literal(job_name));
        return Err(pg_cron_is_absent("CREATE EXTENSION pg_cron;", &there)?);
    }
    refuse_read_only("remove a job")?;
    may_use_pg_cron()?;
    let Some(job) = job_named(job_name)? else {
        return Ok(false);
    };
    Spi::get_one_with_args::<bool>("SELECT cron.unschedule($1)", &[job.id.into()])
        .map(|removed| removed == Some(true))
        .map_err(spi)
}

/// The job that runs this target here, as JSON, with the time zone in which pg_cron reads its schedule; null where there is
/// none.
pub fn job_of(target: &str) -> Result<serde_json::Value> {
    if !pg_cron_is_here()? {
        return Ok(serde_json::Value::Null);
    }
    let commands = vec![command(target, false)?, command(target, true)?];
    let job = extension::as_owner(|| {
        read_one::<pgrx::JsonB>(
            "SELECT pg_catalog.jsonb_build_object('jobId', jobid, 'jobName', jobname, 'schedule', schedule,
                                                  'command', command, 'username', username, 'active', active,
                                                  'timeZone', COALESCE(pg_catalog.current_setting('cron.timezone', true),
                                                                       'GMT'))
             FROM cron.job
             WHERE command OPERATOR(pg_catalog.=) ANY ($1)
               AND database OPERATOR(pg_catalog.=) pg_catalog.current_database()::pg_catalog.text
             ORDER BY jobid",
            &[commands.into()],
        )
    })?;
    Ok(job.map_or(serde_json::Value::Null, |job| job.0))
}

/// A job's name as pg_cron stores it; a longer one it would cut off, and not find again. Errors: 22004, 22023.
fn checked<'a>(job_name: Option<&'a str>, instead: &str) -> Result<&'a str> {
    let job_name = required(job_name, "job_name", &call(instead)?)?;
    if matches!(job_name.len(), 1..=63) {
        return Ok(job_name);
    }
    Err(error(
        PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
        format!("job name \"{job_name}\" is not 1 to 63 bytes long"),
        call(instead)?,
    ))
}
