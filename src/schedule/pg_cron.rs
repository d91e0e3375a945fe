use backlog_cleanup_report::job_name_in;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use pgrx::spi::{quote_identifier, quote_literal};

use crate::extension;
use crate::postgres::error::{Result, error, spi};
use crate::postgres::read::read_one;
use crate::schedule::home::{database as database_here, setting};
use crate::schedule::statement::call;

/// The caller's job of a name. pg_cron tells jobs apart by name and role, whatever their database.
pub struct OwnJob {
    pub id: i64,
    /// Where it runs, unless that is here.
    pub elsewhere: Option<Elsewhere>,
}

pub struct Elsewhere {
    pub database: String,
    /// False after a restore into a database of another name.
    pub exists: bool,
}

pub fn job_of_caller(job_name: &str) -> Result<Option<OwnJob>> {
    let caller = read_one::<String>("SELECT CURRENT_USER::pg_catalog.text", &[])?;
    let job = extension::as_owner(|| {
        Spi::connect(|client| {
            let job = "SELECT jobid, nullif(database, current_database()),
                              EXISTS (SELECT FROM pg_database WHERE datname = database)
                       FROM cron.job WHERE jobname::text = $1 AND username = $2";
            let rows = client.select(job, Some(1), &[job_name.into(), caller.into()])?;
            if rows.is_empty() { Ok((None, None, None)) } else { rows.first().get_three::<i64, String, bool>() }
        })
        .map_err(spi)
    })?;
    let (Some(id), database, exists) = job else { return Ok(None) };
    let elsewhere = database.map(|database| Elsewhere { database, exists: exists == Some(true) });
    Ok(Some(OwnJob { id, elsewhere }))
}

/// Refuses a name that the caller's job of another database has. Errors: 42710.
pub fn name_is_free(job_name: &str) -> Result<()> {
    let Some(OwnJob { id, elsewhere: Some(Elsewhere { database, exists }) }) = job_of_caller(job_name)? else {
        return Ok(());
    };
    let here = database_here()?;
    let hint = match exists {
        true => call(&format!("schedule(job_name => {})", quote_literal(job_name_in(&here, job_name))))?,
        false => move_here(id)?,
    };
    let message = format!("job \"{job_name}\" exists already, for database \"{database}\"");
    Err(error(PgSqlErrorCode::ERRCODE_DUPLICATE_OBJECT, message, hint))
}

/// The statement that makes a job one of this database.
pub fn move_here(job: i64) -> Result<String> {
    Ok(format!("SELECT cron.alter_job({job}, database => {})", quote_literal(database_here()?)))
}

/// A job of that name that another role has in this database: its id and that role.
pub fn job_of_another(job_name: &str) -> Result<Option<(i64, String)>> {
    let caller = read_one::<String>("SELECT CURRENT_USER::pg_catalog.text", &[])?;
    extension::as_owner(|| {
        Spi::connect(|client| {
            let job = "SELECT jobid, username FROM cron.job
                       WHERE jobname::text = $1 AND username <> $2 AND database = current_database() ORDER BY jobid";
            let rows = client.select(job, Some(1), &[job_name.into(), caller.into()])?;
            if rows.is_empty() { Ok((None, None)) } else { rows.first().get_two::<i64, String>() }
        })
        .map_err(spi)
    })
    .map(|(job, role)| job.zip(role))
}

/// Calls pg_cron. If it rejects the schedule, the error gets a hint with a `valid` call.
pub fn register<T>(
    schedule: &str,
    valid: &str,
    work: impl FnOnce() -> spi::Result<T> + std::panic::UnwindSafe,
) -> Result<T>
where
    T: std::panic::UnwindSafe,
{
    let (schedule, valid) = (schedule.to_owned(), valid.to_owned());
    PgTryBuilder::new(move || work().map_err(spi))
        .catch_when(PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE, move |_| Err(not_a_schedule(&schedule, &valid)))
        .execute()
}

pub fn not_a_schedule(schedule: &str, valid: &str) -> ErrorReport {
    error(
        PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
        format!("schedule \"{schedule}\" is not a cron expression"),
        format!("{valid}; -- minute hour day month weekday"),
    )
}

/// Errors: 55000 (the server has not loaded pg_cron), 42501 (the caller has no USAGE on schema cron).
pub fn may_use_pg_cron() -> Result<()> {
    let loaded = setting("shared_preload_libraries")?.unwrap_or_default();
    if !loaded.split(',').any(|library| library.trim().trim_matches('"').ends_with("pg_cron")) {
        let libraries = if loaded.is_empty() { "pg_cron".to_owned() } else { format!("{loaded}, pg_cron") };
        return Err(error(
            PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            "library \"pg_cron\" is not loaded".into(),
            format!("ALTER SYSTEM SET shared_preload_libraries = {libraries}; -- and restart the server"),
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

/// Warns if the job exists but is paused.
pub fn warn_of_pause(job: i64, job_name: &str) -> Result<()> {
    let paused =
        extension::as_owner(|| read_one::<bool>("SELECT NOT active FROM cron.job WHERE jobid = $1", &[job.into()]))?;
    if paused == Some(true) {
        ErrorReport::new(PgSqlErrorCode::ERRCODE_WARNING, format!("job \"{job_name}\" is paused"), "backlog_cleanup")
            .set_hint(format!("SELECT cron.alter_job({job}, active => true)"))
            .report(PgLogLevel::WARNING);
    }
    Ok(())
}

/// Says so where another role has a job of that name, too: both run. The hint removes it.
pub fn warn_of_another(job_name: &str) -> Result<()> {
    if let Some((job, role)) = job_of_another(job_name)? {
        let message = format!("role \"{role}\" has a job \"{job_name}\", too");
        ErrorReport::new(PgSqlErrorCode::ERRCODE_WARNING, message, "backlog_cleanup")
            .set_hint(format!("SELECT cron.unschedule({job})"))
            .report(PgLogLevel::WARNING);
    }
    Ok(())
}

/// Says so where pg_cron (1.5 and later) reads schedules in another time zone than UTC.
pub fn warn_of_time_zone() -> Result<()> {
    if let Some(zone) = setting("cron.timezone")?.filter(|zone| !matches!(zone.as_str(), "" | "GMT" | "UTC")) {
        ereport!(
            PgLogLevel::WARNING,
            PgSqlErrorCode::ERRCODE_WARNING,
            format!("pg_cron reads the schedule in time zone \"{zone}\", not in UTC")
        );
    }
    Ok(())
}
