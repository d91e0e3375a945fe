//! The nightly job in pg_cron. Of runs it knows only what a job calls.

mod home;
mod pg_cron;
mod statement;

use pgrx::prelude::*;
use pgrx::spi::{quote_identifier, quote_literal};
use serde_json::{Value, json};

use backlog_cleanup_report::job_name_in;

use crate::extension;
use crate::postgres::error::{Result, error, required, spi};
use crate::postgres::read::{read_one, refuse_read_only};
use crate::schedule::home::database;
use crate::schedule::pg_cron::{
    job_of_another, job_of_caller, may_use_pg_cron, not_a_schedule, register, warn_of_another, warn_of_pause,
    warn_of_time_zone,
};
use crate::schedule::statement::{call, command, jobs_of_database, pg_cron_is_absent};
use crate::target::load::exists;

pub use home::{pg_cron_elsewhere, pg_cron_is_here};
pub use statement::{call_to_schedule, cannot_schedule};

/// Registers the nightly job with pg_cron, or changes the existing job of that name. Returns the job's id.
/// The job belongs to the caller. pg_cron reads its schedule in UTC unless `cron.timezone` names another time zone.
/// Errors: 22004, 22023 (a bad cron expression or job name), 42501 (no privilege on pg_cron; another role's job),
/// 42704 (unknown target), 42710 (the name is taken in another database), 55000 (pg_cron is not in this database).
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
    // pg_cron ignores what follows the fifth field, and would read a leading field of seconds as the minutes.
    if schedule.split_whitespace().count() > 5 {
        return Err(not_a_schedule(schedule, &call("schedule('0 2 * * *')")?));
    }
    warn_of_time_zone()?;
    job_of_caller(job_name)?;
    let job = register(schedule, || {
        Spi::get_one_with_args::<i64>(
            "SELECT cron.schedule($1, $2, $3)",
            &[job_name.into(), schedule.into(), command.as_str().into()],
        )
    })?;
    warn_of_another(job_name)?;
    let job = job.unwrap_or_default();
    warn_of_pause(job, job_name)?;
    Ok(job)
}

/// Removes the job of that name. Returns false if there is none.
#[pg_extern]
fn backlog_cleanup_unschedule(job_name: default!(Option<&str>, "'backlog-cleanup-daily'")) -> Result<bool> {
    let job_name = checked(job_name, "unschedule()")?;
    if !pg_cron_is_here()? {
        // Up to 0.2.0 the name did not carry the database.
        let here = database()?;
        let names = [job_name, &job_name_in(&here, job_name)].map(quote_literal).join(", ");
        let there = format!(
            "SELECT cron.unschedule(jobid) FROM cron.job WHERE database = {} AND jobname IN ({names});",
            quote_literal(here)
        );
        return Err(pg_cron_is_absent("CREATE EXTENSION pg_cron;", &there)?);
    }
    refuse_read_only("remove a job")?;
    may_use_pg_cron()?;
    let Some(job) = job_of_caller(job_name)? else {
        let Some((_, role)) = job_of_another(job_name)? else { return Ok(false) };
        return Err(error(
            PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
            format!("job \"{job_name}\" belongs to role \"{role}\""),
            format!("SET ROLE {}", quote_identifier(role)),
        ));
    };
    Spi::get_one_with_args::<bool>("SELECT cron.unschedule($1)", &[job.into()])
        .map(|removed| removed == Some(true))
        .map_err(spi)
}

/// The job that runs this target in this database, as JSON, with the time zone of its schedule; null if there is none. If
/// pg_cron is in another database, it cannot be known from here: the value says so, and how to see it.
pub fn job_of(target: &str) -> Result<Value> {
    if let Some(home) = pg_cron_elsewhere()? {
        return Ok(json!({ "known": false, "database": home, "check": jobs_of_database(&home)? }));
    }
    if !pg_cron_is_here()? {
        return Ok(Value::Null);
    }
    let commands = vec![command(target, false)?, command(target, true)?];
    let job = extension::as_owner(|| {
        read_one::<pgrx::JsonB>(
            "SELECT jsonb_build_object('jobId', jobid, 'jobName', jobname, 'schedule', schedule, 'command', command,
                                       'username', username, 'active', active,
                                       'timeZone', coalesce(current_setting('cron.timezone', true), 'GMT'))
             FROM cron.job
             JOIN pg_extension e ON e.extname = 'backlog_cleanup'
             JOIN pg_proc p ON p.pronamespace = e.extnamespace AND p.proname = 'backlog_cleanup_failed_generations'
             LEFT JOIN pg_roles r ON r.rolname = username
             WHERE command = ANY ($1) AND database = current_database()
             ORDER BY (r.rolcanlogin AND has_function_privilege(r.oid, p.oid, 'EXECUTE')) IS TRUE DESC, active DESC, jobid",
            &[commands.into()],
        )
    })?;
    Ok(job.map_or(Value::Null, |job| job.0))
}

/// Checks the length of a job's name: pg_cron would truncate a longer one, and not find it again. Errors: 22004, 22023.
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
