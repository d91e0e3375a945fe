//! The nightly job in pg_cron. Of runs it knows only what a job calls.

pub mod auto;
mod course;
mod home;
mod jobs;
mod pg_cron;
pub mod quiet_hours;
mod statement;
mod work;

use backlog_cleanup_report::job_name_in;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use pgrx::spi::{quote_identifier, quote_literal};

use crate::postgres::error::{Result, error, required, spi};
use crate::postgres::nodes::refuse_on_worker_node;
use crate::postgres::read::refuse_read_only;
use crate::schedule::auto::{AUTO, Place};
use crate::schedule::pg_cron::{
    Elsewhere, job_of_another, job_of_caller, may_use_pg_cron, name_is_free, not_a_schedule, register, warn_of_another,
    warn_of_pause, warn_of_time_zone,
};
use crate::schedule::statement::{cannot_place, command_of_tick, pg_cron_is_absent};
use crate::target::row::exists;

pub use home::{database, pg_cron_elsewhere, pg_cron_is_here, setting};
pub use jobs::{Job, all_jobs_of, job_of, jobs, jobs_of, period_of_job, ticking};
pub use pg_cron::move_here;
pub use statement::{call, call_to_schedule, call_to_schedule_tick, cannot_schedule, command, jobs_of_database};
pub use work::{Work, told};

/// Registers the nightly job with pg_cron, or changes the existing job of that name. Returns the job's id.
/// The job belongs to the caller. pg_cron reads its schedule in UTC unless `cron.timezone` names another time zone. With the schedule
/// `auto` the tick moves it to the quietest hour of the day.
/// Errors: 22004, 22023 (a bad cron expression or job name; no hour for `auto` in the window), 42501 (no privilege on pg_cron; another role's job),
/// 42704 (unknown target), 42710 (the name is taken in another database), 55000 (pg_cron is not in this database; a worker node of Citus).
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
    let command = command(&target, batched)?;
    let auto = (schedule == AUTO).then(|| Place::first(&target, job_name)).transpose()?;
    if let Some(place) = auto.as_ref().filter(|_| pg_cron_elsewhere().is_ok_and(|home| home.is_some())) {
        return Err(cannot_schedule(&place.schedule, batched, &target, job_name)?
            .set_detail("There the job stays at this hour: the tick moves jobs of its own database only."));
    }
    let job = place(
        auto.as_ref().map_or(schedule, |place| &place.schedule),
        job_name,
        &command,
        &call_to_schedule(schedule, batched, &target, job_name)?,
        &call("schedule('0 2 * * *')")?,
    )?;
    match auto {
        Some(place) => {
            place.remember(job, &target)?;
            warn_without_tick(job)?;
        }
        None => auto::forget(job)?,
    }
    Ok(job)
}

/// Says so where nothing moves a job to the quietest hour.
fn warn_without_tick(job: i64) -> Result<()> {
    if !ticking()?.iter().any(|job| job.active) {
        ErrorReport::new(
            PgSqlErrorCode::ERRCODE_WARNING,
            format!("job {job} stays at its hour, since no job ticks"),
            "backlog_cleanup",
        )
        .set_hint(call("schedule_tick()")?)
        .report(PgLogLevel::WARNING);
    }
    Ok(())
}

/// Registers the job of the tick with pg_cron, or changes the existing job of that name. Returns the job's id.
/// `backlog_cleanup_unschedule` removes it. Errors: those of `backlog_cleanup_schedule`.
#[pg_extern]
fn backlog_cleanup_schedule_tick(
    schedule: default!(Option<&str>, "'*/5 * * * *'"),
    job_name: default!(Option<&str>, "'backlog-cleanup-tick'"),
) -> Result<i64> {
    let schedule = required(schedule, "schedule", &call("schedule_tick('*/5 * * * *')")?)?;
    let job_name = checked(job_name, "schedule_tick()")?;
    let here = call_to_schedule_tick(schedule, job_name)?;
    place(schedule, job_name, &command_of_tick()?, &here, &call("schedule_tick('*/5 * * * *')")?)
}

/// Registers a job of the caller; `call` is what was called, and `valid` a call with a schedule that is one.
fn place(schedule: &str, job_name: &str, command: &str, call: &str, valid: &str) -> Result<i64> {
    refuse_on_worker_node("schedule a job")?;
    if !pg_cron_is_here()? {
        return Err(cannot_place(schedule, job_name, command, call)?);
    }
    refuse_read_only("schedule a job")?;
    may_use_pg_cron()?;
    // pg_cron ignores what follows the fifth field, and would read a leading field of seconds as the minutes.
    if schedule.split_whitespace().count() > 5 {
        return Err(not_a_schedule(schedule, valid));
    }
    warn_of_time_zone()?;
    name_is_free(job_name)?;
    let job = register(schedule, valid, || {
        Spi::get_one_with_args::<i64>(
            "SELECT cron.schedule($1, $2, $3)",
            &[job_name.into(), schedule.into(), command.into()],
        )
    })?;
    warn_of_another(job_name)?;
    let job = job.unwrap_or_default();
    warn_of_pause(job, job_name)?;
    Ok(job)
}

/// Removes the job of that name, also one whose database is gone. Returns false if there is none. Errors: 22004, 22023, 42501
/// (another role's job), 55000 (a job of another database).
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
    if let Some(Elsewhere { database, exists: true }) = job.elsewhere {
        return Err(error(
            PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!("job \"{job_name}\" runs in database \"{database}\""),
            format!("SELECT cron.unschedule({})", job.id),
        ));
    }
    let removed = Spi::get_one_with_args::<bool>("SELECT cron.unschedule($1)", &[job.id.into()]).map_err(spi)?;
    auto::forget(job.id)?;
    Ok(removed == Some(true))
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
