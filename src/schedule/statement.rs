use backlog_cleanup_report::{DEFAULT_JOB, DEFAULT_SCHEDULE, DEFAULT_TARGET, TICK_JOB, TICK_SCHEDULE, job_name_in};
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use pgrx::spi::quote_literal;

use crate::extension::schema;
use crate::postgres::error::{Result, error};
use crate::schedule::home::{database, pg_cron_elsewhere};

/// The statement that the job runs.
pub fn command(target: &str, batched: bool) -> Result<String> {
    let argument = if target == DEFAULT_TARGET { String::new() } else { quote_literal(target) };
    let run = if batched { "CALL" } else { "SELECT" };
    let name = if batched { "run" } else { "failed_generations" };
    Ok(format!("{run} {}.backlog_cleanup_{name}({argument})", schema()?))
}

/// The statement that the job of the tick runs.
pub fn command_of_tick() -> Result<String> {
    Ok(format!("SELECT {}.backlog_cleanup_tick()", schema()?))
}

/// The statement to type that calls `backlog_cleanup_` + `function`, schema-qualified unless the schema is `public`.
pub fn call(function: &str) -> Result<String> {
    let schema = schema()?;
    let qualifier = if schema == "public" { String::new() } else { format!("{schema}.") };
    Ok(format!("SELECT {qualifier}backlog_cleanup_{function}"))
}

/// The call that registers a job.
pub fn call_to_schedule(schedule: &str, batched: bool, target: &str, job_name: &str) -> Result<String> {
    let mut arguments = Vec::new();
    for (argument, value, default) in [
        ("schedule", schedule, DEFAULT_SCHEDULE),
        ("target", target, DEFAULT_TARGET),
        ("job_name", job_name, DEFAULT_JOB),
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

/// The call that registers the job of the tick.
pub fn call_to_schedule_tick(schedule: &str, job_name: &str) -> Result<String> {
    let arguments = [("schedule", schedule, TICK_SCHEDULE), ("job_name", job_name, TICK_JOB)];
    let given = arguments.iter().filter(|(_, value, default)| value != default);
    let arguments: Vec<String> =
        given.map(|(argument, value, _)| format!("{argument} => {}", quote_literal(value))).collect();
    call(&format!("schedule_tick({})", arguments.join(", ")))
}

/// The error if the job of a target cannot be registered from this database.
pub fn cannot_schedule(schedule: &str, batched: bool, target: &str, job_name: &str) -> Result<ErrorReport> {
    let call = call_to_schedule(schedule, batched, target, job_name)?;
    cannot_place(schedule, job_name, &command(target, batched)?, &call)
}

/// The error if a job cannot be registered from this database by `call`. Its hint is what to type instead: in pg_cron's database the
/// job has a name that carries this one.
pub fn cannot_place(schedule: &str, job_name: &str, command: &str, call: &str) -> Result<ErrorReport> {
    let here = format!("CREATE EXTENSION pg_cron; {call};");
    let database = database()?;
    let name = job_name_in(&database, job_name);
    let [name, schedule, command, database] = [&name, schedule, command, &database].map(quote_literal);
    let there = format!("SELECT cron.schedule_in_database({name}, {schedule}, {command}, {database});");
    pg_cron_is_absent(&here, &there)
}

/// The statement that shows the jobs of this database where pg_cron is.
pub fn jobs_of_database(home: &str) -> Result<String> {
    Ok(format!(
        "SELECT jobid, jobname, schedule, command, active FROM cron.job WHERE database = {} AND command LIKE '%backlog_cleanup%'; {}",
        quote_literal(database()?),
        in_database(home)
    ))
}

/// The error if pg_cron is not in this database. Its hint is what to type here, or in the database that has pg_cron.
pub fn pg_cron_is_absent(here: &str, there: &str) -> Result<ErrorReport> {
    let database = database()?;
    let (message, hint) = match pg_cron_elsewhere()? {
        Some(home) => (
            format!("pg_cron lives in database \"{home}\", not in \"{database}\""),
            format!("{there} {}", in_database(&home)),
        ),
        None => (format!("extension \"pg_cron\" is not installed in database \"{database}\""), here.into()),
    };
    Ok(error(PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE, message, hint))
}

/// Says where to type the statement before it. A name of several lines would end the comment.
fn in_database(home: &str) -> String {
    format!("-- in database {}", serde_json::Value::from(home))
}
