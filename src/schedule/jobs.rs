use std::collections::HashMap;

use backlog_cleanup_report::{Mode, period};
use pgrx::JsonB;
use pgrx::prelude::*;
use pgrx::spi::quote_literal;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::extension::{self, schema};
use crate::postgres::error::{Result, spi};
use crate::postgres::read::read_one;
use crate::schedule::home::{database, pg_cron_elsewhere, pg_cron_is_here};
use crate::schedule::statement::{command, jobs_of_database};
use crate::schedule::work::{Work, told};
use crate::target::window::Window;

/// A job of pg_cron that calls a run or the tick, in any database.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Job {
    pub job_id: i64,
    pub job_name: Option<String>,
    pub schedule: String,
    pub command: String,
    pub username: String,
    pub active: bool,
    pub time_zone: String,
    /// The hour and its time zone, of a job that follows the quietest hour.
    #[serde(skip_deserializing, skip_serializing_if = "Option::is_none")]
    pub quietest_hour: Option<String>,
    #[serde(skip_serializing)]
    pub database: String,
    /// Whether pg_cron's list of databases has the job's.
    #[serde(skip_serializing)]
    pub database_exists: bool,
    /// Jobs of its role that are not among these: there are too many.
    #[serde(skip_serializing)]
    pub unseen: i64,
    /// Whether its role may run what it calls. Anybody could have registered another one.
    #[serde(skip_serializing)]
    pub may_run: bool,
    #[serde(skip_serializing)]
    is_readable: bool,
    #[serde(skip)]
    pub works: Vec<Work>,
    /// Whether it ticks.
    #[serde(skip)]
    pub ticks: bool,
    /// Functions of our names in other schemas: of an extension that had another one, or somebody's own.
    #[serde(skip)]
    pub calls_elsewhere: Vec<String>,
    /// The tables that have to be there for its command, with their schemas.
    #[serde(skip)]
    pub tables: Vec<(Option<String>, String)>,
}

impl Job {
    /// What it does to a target; a run whose target cannot be told counts for none.
    pub fn works_on<'a>(&'a self, target: &'a str) -> impl Iterator<Item = &'a Work> {
        self.works.iter().filter(move |work| work.target.as_deref() == Some(target))
    }

    /// Whether it does a regular run of the whole target.
    pub fn does_regular_run(&self, target: &str) -> bool {
        self.works.iter().any(|work| work.is_regular_run_of(target))
    }

    /// The call that has it do its runs in batches, if that is all that changes.
    pub fn in_batches(&self, target: &str) -> Result<Option<String>> {
        let [Work { is_alone: true, mode: Mode::Regular, .. }] = self.works[..] else { return Ok(None) };
        let command = quote_literal(command(target, true)?);
        Ok(Some(format!("SELECT cron.alter_job({}, command => {command})", self.job_id)))
    }

    /// Its number, name, role and schedule in words.
    pub fn describe(&self) -> String {
        let name = self.job_name.as_ref().map_or(String::new(), |name| format!(" \"{name}\""));
        let hour = self.quietest_hour.as_ref().map_or(String::new(), |hour| format!(", the quietest hour: {hour}"));
        format!("job {}{name} of role \"{}\" at \"{}\"{hour}", self.job_id, self.username, self.schedule)
    }
}

/// The jobs that call a run or the tick, those that run first: their role may run them, they are active, the older ones. Of a role the first
/// 1,000, and of a command the first 4,096 characters: anybody with a job could take memory and time of whoever looks. The
/// command of another role's job is the calls that were found in it.
pub fn jobs() -> Result<Vec<Job>> {
    const JOBS: &str = "
        SELECT jsonb_build_object('jobId', jobid, 'jobName', left(jobname, 100), 'schedule', left(schedule, 1000), 'command', beginning,
                                  'username', username, 'active', active, 'database', database,
                                  'databaseExists', EXISTS (SELECT FROM pg_database WHERE datname = database),
                                  'timeZone', coalesce(current_setting('cron.timezone', true), 'GMT'),
                                  'unseen', greatest(jobs - 1000, 0), 'isReadable', is_readable,
                                  'mayRun', may_run)
        FROM (SELECT j.*, beginning, (r.rolcanlogin AND has_function_privilege(r.oid, p.oid, 'EXECUTE')
                             AND (database <> current_database() OR has_database_privilege(r.oid, database, 'CONNECT'))) IS TRUE AS may_run,
                     coalesce(pg_has_role($1::name, r.oid, 'USAGE'), me.rolsuper) AS is_readable,
                     count(*) OVER (PARTITION BY username) AS jobs,
                     row_number() OVER (PARTITION BY username ORDER BY active DESC, jobid) AS place
              FROM cron.job j
              CROSS JOIN LATERAL left(command, 4096) AS beginning
              JOIN pg_roles me ON me.rolname = $1
              JOIN pg_extension e ON e.extname = 'backlog_cleanup'
              JOIN pg_proc p ON p.pronamespace = e.extnamespace AND p.proname = 'backlog_cleanup_failed_generations'
              LEFT JOIN pg_roles r ON r.rolname = username
              WHERE beginning ~* 'backlog_cleanup|u&\"') job
        WHERE place <= 1000
        ORDER BY may_run DESC, active DESC, jobid";
    if !pg_cron_is_here()? {
        return Ok(Vec::new());
    }
    let caller = read_one::<String>("SELECT CURRENT_USER::pg_catalog.text", &[])?;
    let found: Vec<JsonB> = extension::as_owner(|| {
        Spi::connect(|client| {
            let rows = client.select(JOBS, None, &[caller.into()])?;
            rows.filter_map(|row| row.get::<JsonB>(1).transpose()).collect::<spi::Result<_>>()
        })
        .map_err(spi)
    })?;
    let (schema, hours) = (schema()?, hours_of_jobs()?);
    let job = |JsonB(job)| {
        let mut job: Job = serde_json::from_value(job).ok()?;
        job.quietest_hour = hours.get(&job.job_id).cloned();
        let told = told(&job.command, &schema);
        (job.works, job.ticks) = (told.works, told.ticks);
        (job.calls_elsewhere, job.tables) = (told.elsewhere, told.tables);
        if !job.is_readable {
            job.command = job.works.iter().map(Work::call).collect::<Vec<_>>().join("; ");
        }
        (!job.works.is_empty() || job.ticks || !job.calls_elsewhere.is_empty()).then_some(job)
    };
    Ok(found.into_iter().filter_map(job).collect())
}

/// The jobs that tick this database, as roles that may, those first that are active.
pub fn ticking() -> Result<Vec<Job>> {
    let here = database()?;
    let mut found: Vec<Job> =
        jobs()?.into_iter().filter(|job| job.ticks && job.may_run && job.database == here).collect();
    found.sort_by_key(|job| !job.active);
    Ok(found)
}

#[allow(clippy::type_complexity)] // pgrx reads the columns from the signature itself
#[pg_extern(sql = false)]
fn tick_jobs()
-> Result<TableIterator<'static, (name!(job_id, i64), name!(job_name, Option<String>), name!(active, bool))>> {
    Ok(TableIterator::new(ticking()?.into_iter().map(|job| (job.job_id, job.job_name, job.active))))
}

#[pg_extern(sql = false)]
fn does_regular_run(command: Option<&str>, target: Option<&str>) -> Result<bool> {
    let (Some(command), Some(target)) = (command, target) else { return Ok(false) };
    Ok(told(command, &schema()?).works.iter().any(|work| work.is_regular_run_of(target)))
}

/// The jobs of this database that run a target, those with a regular run of the whole target first.
pub fn jobs_of(target: &str) -> Result<Vec<Job>> {
    let mut found = all_jobs_of(target)?;
    found.retain(|job| job.may_run);
    Ok(found)
}

/// The same with those whose role may not run it.
pub fn all_jobs_of(target: &str) -> Result<Vec<Job>> {
    let here = database()?;
    let mut found: Vec<Job> =
        jobs()?.into_iter().filter(|job| job.database == here && job.works_on(target).next().is_some()).collect();
    found.sort_by_key(|job| (!job.may_run, !job.does_regular_run(target)));
    Ok(found)
}

/// The first of these jobs as JSON; null if there is none. If pg_cron is in another database, it cannot be known from here: the
/// value says so, and how to see it.
pub fn job_of(target: &str) -> Result<Value> {
    if let Some(home) = pg_cron_elsewhere()? {
        return Ok(json!({ "known": false, "database": home, "check": jobs_of_database(&home)? }));
    }
    let jobs = jobs_of(target)?;
    Ok(jobs.first().map_or(Value::Null, |job| serde_json::to_value(job).unwrap_or_default()))
}

/// The longest time between two runs of the job of a target, in hours: a day where there is none. One that waits for the target's window
/// runs at none of its times while that is closed.
pub fn period_of_job(target: &str, window: Option<&Window>) -> Result<i32> {
    let found = jobs_of(target)?;
    let Some(job) = found.first() else { return Ok(24) };
    let waits = job.works_on(target).any(Work::waits_for_window);
    let closed = window.filter(|_| waits).map_or(0, Window::closed_hours);
    let hours = period(&job.schedule);
    Ok(if hours < 24 { (hours + closed).min(24) } else { hours })
}

/// The hour of each job that follows the quietest one, with its time zone.
fn hours_of_jobs() -> Result<HashMap<i64, String>> {
    const HOURS: &str = "
        SELECT job_id, to_char(make_interval(hours => hour), 'HH24:00 ') || time_zone
        FROM backlog_cleanup.auto_schedule a JOIN backlog_cleanup.target t ON t.name = a.target
        JOIN cron.job j ON j.jobid = a.job_id AND (j.jobname::text, j.username) IS NOT DISTINCT FROM (a.job_name, a.username)";
    if !extension::is_updated()? {
        return Ok(HashMap::new());
    }
    extension::as_owner(|| {
        Spi::connect(|client| {
            let rows = client.select(HOURS, None, &[])?;
            rows.map(|row| Ok((row.get(1)?.unwrap_or_default(), row.get(2)?.unwrap_or_default())))
                .collect::<spi::Result<_>>()
        })
        .map_err(spi)
    })
}
