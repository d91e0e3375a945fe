use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use pgrx::spi::{quote_identifier, quote_literal};

use crate::extension::{self, schema};
use crate::postgres::error::{Result, error, required, spi};
use crate::postgres::read::{read_one, refuse_read_only};
use crate::target::load::exists;

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

struct Job {
    id: i64,
    is_callers: bool,
}

/// The job of that name in this database, if the caller may change it: their own, or, for a superuser, anybody's. Errors:
/// 42501, 42710.
fn job_named(job_name: &str) -> Result<Option<Job>> {
    let caller = read_one::<String>("SELECT CURRENT_USER::pg_catalog.text", &[])?;
    let jobs = extension::as_owner(|| {
        Spi::connect(|client| {
            client
                .select(
                    "SELECT jobid, username, database FROM cron.job
                     WHERE jobname::pg_catalog.text OPERATOR(pg_catalog.=) $1
                     ORDER BY username OPERATOR(pg_catalog.=) $2 DESC, jobid",
                    None,
                    &[job_name.into(), caller.clone().into()],
                )?
                .map(|row| Ok((row.get::<i64>(1)?, row.get::<String>(2)?, row.get::<String>(3)?)))
                .collect::<spi::Result<Vec<_>>>()
        })
        .map_err(spi)
    })?;
    let here = database()?;
    for (id, username, database) in jobs {
        let is_callers = username == caller;
        match (id, database) {
            (Some(_), Some(database)) if database == here && !is_callers && !unsafe { pg_sys::superuser() } => {
                let owner = username.unwrap_or_default();
                return Err(error(
                    PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
                    format!("job \"{job_name}\" belongs to role \"{owner}\""),
                    format!("SET ROLE {}", quote_identifier(owner)),
                ));
            }
            (Some(id), Some(database)) if database == here => return Ok(Some(Job { id, is_callers })),
            (Some(_), Some(database)) if is_callers => {
                return Err(error(
                    PgSqlErrorCode::ERRCODE_DUPLICATE_OBJECT,
                    format!("job \"{job_name}\" exists already, for database \"{database}\""),
                    call(&format!("schedule(job_name => {})", quote_literal(format!("{job_name}-{here}"))))?,
                ));
            }
            _ => {}
        }
    }
    Ok(None)
}

/// Calls pg_cron; its complaint about the schedule gets a hint with the valid form.
fn register<T>(schedule: &str, work: impl FnOnce() -> spi::Result<T> + std::panic::UnwindSafe) -> Result<T>
where
    T: std::panic::UnwindSafe,
{
    let (schedule, valid) = (schedule.to_owned(), call("schedule('0 2 * * *')")?);
    PgTryBuilder::new(move || work().map_err(spi))
        .catch_when(PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE, move |_| Err(not_a_schedule(&schedule, &valid)))
        .execute()
}

fn not_a_schedule(schedule: &str, valid: &str) -> ErrorReport {
    error(
        PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
        format!("schedule \"{schedule}\" is not a cron expression"),
        format!("minute hour day month weekday: {valid};"),
    )
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

/// What the job runs.
pub fn command(target: &str, batched: bool) -> Result<String> {
    let argument = if target == "generations" { String::new() } else { quote_literal(target) };
    let run = if batched { "CALL" } else { "SELECT" };
    let name = if batched { "run" } else { "failed_generations" };
    Ok(format!("{run} {}.backlog_cleanup_{name}({argument})", schema()?))
}

/// The statement to type that calls `backlog_cleanup_` + `function`, found without a search path where it must be.
fn call(function: &str) -> Result<String> {
    let schema = schema()?;
    let qualifier = if schema == "public" { String::new() } else { format!("{schema}.") };
    Ok(format!("SELECT {qualifier}backlog_cleanup_{function}"))
}

fn database() -> Result<String> {
    read_one::<String>("SELECT pg_catalog.current_database()::pg_catalog.text", &[]).map(Option::unwrap_or_default)
}

/// A setting, which only superusers may look at.
fn setting(name: &str) -> Result<Option<String>> {
    extension::as_owner(|| read_one::<String>("SELECT pg_catalog.current_setting($1, true)", &[name.into()]))
}

/// The one database whose jobs pg_cron runs.
fn pg_cron_home() -> Result<Option<String>> {
    setting("cron.database_name")
}

/// Whether pg_cron is installed here, and not left behind when its database became another one.
pub fn pg_cron_is_here() -> Result<bool> {
    let is_installed = read_one::<bool>(
        "SELECT EXISTS (SELECT FROM pg_catalog.pg_extension WHERE extname OPERATOR(pg_catalog.=) 'pg_cron')",
        &[],
    )?;
    let here = database()?;
    Ok(is_installed == Some(true) && pg_cron_home()?.is_none_or(|home| home == here))
}

/// Errors: 55000 where the server has not loaded pg_cron, 42501 where the caller may not even look into its schema.
fn may_use_pg_cron() -> Result<()> {
    let loaded = setting("shared_preload_libraries")?.unwrap_or_default();
    if !loaded.split(',').any(|library| library.trim().trim_matches('"').ends_with("pg_cron")) {
        let libraries = if loaded.is_empty() { "pg_cron".to_owned() } else { format!("{loaded}, pg_cron") };
        return Err(error(
            PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            "library \"pg_cron\" is not loaded".into(),
            format!("ALTER SYSTEM SET shared_preload_libraries = {libraries}; then restart the server"),
        ));
    }
    let caller = read_one::<String>(
        "SELECT CURRENT_USER::pg_catalog.text WHERE NOT pg_catalog.has_schema_privilege('cron', 'USAGE')",
        &[],
    )?;
    let Some(caller) = caller else { return Ok(()) };
    Err(error(
        PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
        format!("role \"{caller}\" may not use schema \"cron\""),
        format!("GRANT USAGE ON SCHEMA cron TO {}", quote_identifier(caller)),
    ))
}

/// Says so where the job is there and does not run.
fn warn_of_pause(job: i64, job_name: &str) -> Result<()> {
    let paused = extension::as_owner(|| {
        read_one::<bool>("SELECT NOT active FROM cron.job WHERE jobid OPERATOR(pg_catalog.=) $1", &[job.into()])
    })?;
    if paused == Some(true) {
        ErrorReport::new(PgSqlErrorCode::ERRCODE_WARNING, format!("job \"{job_name}\" is paused"), "backlog_cleanup")
            .set_hint(format!("SELECT cron.alter_job({job}, active => true)"))
            .report(PgLogLevel::WARNING);
    }
    Ok(())
}

/// The call that registers a job.
pub fn call_to_schedule(schedule: &str, batched: bool, target: &str, job_name: &str) -> Result<String> {
    let mut arguments = Vec::new();
    for (argument, value, default) in [
        ("schedule", schedule, "0 2 * * *"),
        ("target", target, "generations"),
        ("job_name", job_name, "backlog-cleanup-daily"),
    ] {
        if value != default {
            arguments.push(format!("{argument} => {}", quote_literal(value)));
        }
    }
    if batched {
        arguments.push("batched => true".into());
    }
    call(&format!("schedule({})", arguments.join(", ")))
}

/// The error where a job cannot be registered from here: what to type instead.
pub fn cannot_schedule(schedule: &str, batched: bool, target: &str, job_name: &str) -> Result<ErrorReport> {
    let here = format!("CREATE EXTENSION pg_cron; {};", call_to_schedule(schedule, batched, target, job_name)?);
    let command = command(target, batched)?;
    let [name, schedule, command, database] = [job_name, schedule, &command, &database()?].map(quote_literal);
    let there = format!("SELECT cron.schedule_in_database({name}, {schedule}, {command}, {database});");
    pg_cron_is_absent(&here, &there)
}

/// The error where pg_cron is not here: what to type here, or in the database where pg_cron lives.
fn pg_cron_is_absent(here: &str, there: &str) -> Result<ErrorReport> {
    let database = database()?;
    let (message, hint) = match pg_cron_home()?.filter(|home| *home != database) {
        Some(home) => (format!("pg_cron lives in database \"{home}\", not in \"{database}\""), there),
        None => (format!("extension \"pg_cron\" is not installed in database \"{database}\""), here),
    };
    Ok(error(PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE, message, hint.into()))
}

/// Says so where pg_cron (1.5 and later) reads schedules in another time zone than UTC.
fn warn_of_time_zone() -> Result<()> {
    if let Some(zone) = setting("cron.timezone")?.filter(|zone| !matches!(zone.as_str(), "" | "GMT" | "UTC")) {
        ereport!(
            PgLogLevel::WARNING,
            PgSqlErrorCode::ERRCODE_WARNING,
            format!("pg_cron reads the schedule in time zone \"{zone}\", not in UTC")
        );
    }
    Ok(())
}
