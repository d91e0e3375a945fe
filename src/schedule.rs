use pgrx::prelude::*;
use pgrx::spi::{quote_identifier, quote_literal};

use crate::error::{Result, error, required, spi};
use crate::read::{read_one, refuse_read_only};
use crate::target::{self, state};

/// Registers the nightly job with pg_cron, or changes the job of that name that is there; returns the job's id.
/// The job belongs to the caller; its times are pg_cron's, which reads them in UTC unless `cron.timezone` says else.
/// Errors: 22004, 22023 (a bad cron expression), 42704 (unknown target), 42710 (the name is taken in another
/// database), 55000 (pg_cron is not here).
#[pg_extern]
fn backlog_cleanup_schedule(
    schedule: default!(Option<&str>, "'0 2 * * *'"),
    batched: default!(Option<bool>, "false"),
    target: default!(Option<&str>, "'generations'"),
    job_name: default!(Option<&str>, "'backlog-cleanup-daily'"),
) -> Result<i64> {
    let schedule = required(schedule, "schedule", "SELECT backlog_cleanup_schedule('0 2 * * *')")?;
    let batched = required(batched, "batched", "SELECT backlog_cleanup_schedule(batched => false)")?;
    let job_name = required(job_name, "job_name", "SELECT backlog_cleanup_schedule()")?;
    let target = target::exists(target)?;
    if batched {
        return Err(error(
            PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
            "batched runs are not supported yet".into(),
            "SELECT backlog_cleanup_schedule(batched => false)".into(),
        ));
    }
    let command = command(target)?;
    if !pg_cron_is_here()? {
        return Err(pg_cron_is_absent(schedule, &command, job_name)?);
    }
    refuse_read_only("schedule a job")?;
    warn_of_time_zone()?;
    let job = match job_named(job_name)? {
        // Somebody else's job: pg_cron lets a superuser change it, and tells others why not.
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
    Ok(job.unwrap_or_default())
}

/// Removes the job of that name; false where there is none.
#[pg_extern]
fn backlog_cleanup_unschedule(job_name: default!(Option<&str>, "'backlog-cleanup-daily'")) -> Result<bool> {
    let job_name = required(job_name, "job_name", "SELECT backlog_cleanup_unschedule()")?;
    if !pg_cron_is_here()? {
        return Err(error(
            PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!("extension \"pg_cron\" is not installed in database \"{}\"", database()?),
            format!("SELECT cron.unschedule({});", quote_literal(job_name)),
        ));
    }
    refuse_read_only("remove a job")?;
    let Some(job) = job_named(job_name)? else {
        return Ok(false);
    };
    Spi::get_one_with_args::<bool>("SELECT cron.unschedule($1)", &[job.id.into()])
        .map(|removed| removed == Some(true))
        .map_err(spi)
}

/// The job that runs this target here, as JSON; null where there is none.
pub fn job_of(target: &str) -> Result<serde_json::Value> {
    if !pg_cron_is_here()? {
        return Ok(serde_json::Value::Null);
    }
    let command = command(target)?;
    let job = state(|| {
        read_one::<pgrx::JsonB>(
            "SELECT pg_catalog.jsonb_build_object('jobId', jobid, 'jobName', jobname, 'schedule', schedule,
                                                  'command', command, 'username', username, 'active', active)
             FROM cron.job
             WHERE command OPERATOR(pg_catalog.=) $1
               AND database OPERATOR(pg_catalog.=) pg_catalog.current_database()::pg_catalog.text
             ORDER BY jobid",
            &[command.into()],
        )
    })?;
    Ok(job.map_or(serde_json::Value::Null, |job| job.0))
}

struct Job {
    id: i64,
    is_callers: bool,
}

/// The job of that name in this database, whoever it belongs to.
fn job_named(job_name: &str) -> Result<Option<Job>> {
    let caller = read_one::<String>("SELECT CURRENT_USER::pg_catalog.text", &[])?;
    let jobs = state(|| {
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
            (Some(id), Some(database)) if database == here => return Ok(Some(Job { id, is_callers })),
            (Some(_), Some(database)) if is_callers => {
                return Err(error(
                    PgSqlErrorCode::ERRCODE_DUPLICATE_OBJECT,
                    format!("job \"{job_name}\" exists already, for database \"{database}\""),
                    format!(
                        "SELECT backlog_cleanup_schedule(job_name => {});",
                        quote_literal(format!("{job_name}-{here}"))
                    ),
                ));
            }
            _ => {}
        }
    }
    Ok(None)
}

/// Calls pg_cron; its complaint about the schedule gets a hint with the valid form.
fn register<T>(schedule: &str, call: impl FnOnce() -> spi::Result<T> + std::panic::UnwindSafe) -> Result<T>
where
    T: std::panic::UnwindSafe,
{
    let schedule = schedule.to_owned();
    PgTryBuilder::new(move || call().map_err(spi))
        .catch_when(PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE, move |_| {
            Err(error(
                PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
                format!("schedule \"{schedule}\" is not a cron expression"),
                "minute hour day month weekday: SELECT backlog_cleanup_schedule('0 2 * * *');".into(),
            ))
        })
        .execute()
}

/// What the job runs.
fn command(target: &str) -> Result<String> {
    let argument = if target == "generations" { String::new() } else { quote_literal(target) };
    Ok(format!("SELECT {}.backlog_cleanup_failed_generations({argument})", schema()?))
}

/// The extension's own schema, quoted.
fn schema() -> Result<String> {
    read_one::<String>(
        "SELECT n.nspname::pg_catalog.text FROM pg_catalog.pg_extension e
         JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) e.extnamespace
         WHERE e.extname OPERATOR(pg_catalog.=) 'backlog_cleanup'",
        &[],
    )
    .map(|schema| quote_identifier(schema.unwrap_or_default()))
}

fn database() -> Result<String> {
    read_one::<String>("SELECT pg_catalog.current_database()::pg_catalog.text", &[]).map(Option::unwrap_or_default)
}

/// A setting of pg_cron's, which not every caller may read.
fn setting(name: &str) -> Result<Option<String>> {
    state(|| read_one::<String>("SELECT pg_catalog.current_setting($1, true)", &[name.into()]))
}

fn pg_cron_is_here() -> Result<bool> {
    read_one::<bool>(
        "SELECT EXISTS (SELECT FROM pg_catalog.pg_extension WHERE extname OPERATOR(pg_catalog.=) 'pg_cron')",
        &[],
    )
    .map(|here| here == Some(true))
}

/// The error where pg_cron is not installed here; its hint is the statement to run, here or where pg_cron lives.
fn pg_cron_is_absent(schedule: &str, command: &str, job_name: &str) -> Result<pgrx::pg_sys::panic::ErrorReport> {
    let here = database()?;
    let state = PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE;
    let home = setting("cron.database_name")?.filter(|home| *home != here);
    Ok(match home {
        Some(home) => error(
            state,
            format!("pg_cron lives in database \"{home}\", not in \"{here}\""),
            format!(
                "SELECT cron.schedule_in_database({}, {}, {}, {});",
                quote_literal(job_name),
                quote_literal(schedule),
                quote_literal(command),
                quote_literal(&here)
            ),
        ),
        None => {
            let schema = schema()?;
            let qualifier = if schema == "public" { String::new() } else { format!("{schema}.") };
            error(
                state,
                format!("extension \"pg_cron\" is not installed in database \"{here}\""),
                format!("CREATE EXTENSION pg_cron; SELECT {qualifier}backlog_cleanup_schedule();"),
            )
        }
    })
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
