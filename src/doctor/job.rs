use backlog_cleanup_report::{DEFAULT_SCHEDULE, counted, is_schedule, job_name, job_name_in, never_fires};
use pgrx::spi::quote_literal;

use crate::doctor::job_window::outside_of_window;
use crate::extension::{self, schema};
use crate::obstacles::problem::{Problem, Status, problems};
use crate::postgres::error::Result;
use crate::postgres::read::read_one;
use crate::schedule::{
    self, Job, Work, all_jobs_of, database, jobs, jobs_of, jobs_of_database, pg_cron_elsewhere, pg_cron_is_here,
    setting,
};
use crate::target::row::row;

const PG_CRON: &str = "
    SELECT CASE WHEN home IS NULL THEN 'fail' ELSE 'warn' END,
           CASE WHEN home IS NULL THEN 'pg_cron is not loaded'
                ELSE format('pg_cron runs the jobs of database %I, not of %I', home, current_database()) END,
           CASE WHEN home IS NULL
                THEN format('ALTER SYSTEM SET shared_preload_libraries = %s; -- and restart the server',
                            concat_ws(', ', nullif(current_setting('shared_preload_libraries'), ''), 'pg_cron'))
                ELSE 'DROP EXTENSION pg_cron' END
    FROM (SELECT CASE WHEN current_setting('shared_preload_libraries') ~ 'pg_cron'
                      THEN current_setting('cron.database_name', true) END) server (home)
    WHERE home IS DISTINCT FROM current_database()";

/// What to do where pg_cron is not in this database; `$1` says that, `$2` is what to type in the database that has it.
const ABSENT: &str = "
    SELECT 'warn',
           CASE WHEN home <> current_database() THEN format('%s: connect to that database, and type %s', $1, $2)
                WHEN available.name IS NULL THEN format('%s: install its package', $1)
                ELSE $1 END,
           CASE WHEN home <> current_database() OR available.name IS NULL THEN NULL
                WHEN home IS NULL THEN format('ALTER SYSTEM SET shared_preload_libraries = %s; -- and restart the server',
                                              concat_ws(', ', nullif(current_setting('shared_preload_libraries'), ''), 'pg_cron'))
                ELSE 'CREATE EXTENSION pg_cron' END
    FROM (SELECT CASE WHEN current_setting('shared_preload_libraries') ~ 'pg_cron'
                      THEN current_setting('cron.database_name', true) END) server (home)
    LEFT JOIN pg_available_extensions available ON available.name = 'pg_cron'";

/// Checks that pg_cron is installed in this database, and loaded.
pub fn pg_cron(target: &str) -> Result<Vec<Problem>> {
    if pg_cron_is_here()? {
        return problems(PG_CRON, &[]);
    }
    let absent = schedule::cannot_schedule(DEFAULT_SCHEDULE, false, target, &job_name(target))?;
    let (detail, hint) = (absent.message(), absent.hint().unwrap_or_default());
    problems(ABSENT, &[detail.into(), hint.into()])
}

const SCHEDULER: &str = "
    SELECT 'fail', coalesce((
               SELECT format('the scheduler of pg_cron has ended, so that no job runs, as it does at job %s of role \"%s\", which does not '
                             'exist: type SELECT cron.unschedule(%s); restart the server if it does not come back by itself',
                             jobid, username, jobid)
               FROM cron.job WHERE active AND NOT EXISTS (SELECT FROM pg_roles WHERE rolname = username)
               ORDER BY jobid LIMIT 1),
               'the scheduler of pg_cron has ended, so that no job runs: restart the server'), NULL
    WHERE current_setting('cron.database_name', true) IS NOT NULL AND NOT pg_is_in_recovery()
      -- Who may not see other roles' sessions cannot tell.
      AND pg_has_role('pg_read_all_stats', 'USAGE')
      AND NOT EXISTS (SELECT FROM pg_stat_activity
                      WHERE application_name = 'pg_cron scheduler' OR backend_type ~ '^pg_cron (scheduler|launcher)')
    UNION ALL
    SELECT 'fail', 'cron.launch_active_jobs is off, so that no job runs',
           CASE WHEN EXISTS (SELECT FROM pg_file_settings WHERE name = 'cron.launch_active_jobs'
                                                            AND setting IN ('on', 'true', 'yes', '1') AND applied)
                THEN 'SELECT pg_reload_conf()' ELSE 'ALTER SYSTEM SET cron.launch_active_jobs = on' END
    WHERE current_setting('cron.launch_active_jobs', true) = 'off'";

/// Checks that pg_cron's background process is alive: it does not come back by itself after a pg_terminate_backend, and ends at
/// each job of a role that is gone.
pub fn scheduler(_target: &str) -> Result<Vec<Problem>> {
    if pg_cron_is_here()? { problems(SCHEDULER, &[]) } else { no_job() }
}

/// Checks that one job runs the target, and that it is active.
pub fn job(target: &str) -> Result<Vec<Problem>> {
    if let Some(home) = pg_cron_elsewhere()? {
        let detail = format!(
            "whether a job runs target \"{target}\" is not known here: connect to database \"{home}\", which has pg_cron, and type {}",
            jobs_of_database(&home)?
        );
        return Ok(vec![Problem { status: Status::Warn, detail, fix: None }]);
    }
    if !pg_cron_is_here()? {
        let detail = format!("no job runs target \"{target}\", since pg_cron is not here: see check \"pg_cron\"");
        return Ok(vec![Problem { status: Status::Warn, detail, fix: None }]);
    }
    let warning = |detail: String, fix: Option<String>| Ok(vec![Problem { status: Status::Warn, detail, fix }]);
    let found = jobs_of(target)?;
    let (active, paused): (Vec<&Job>, Vec<&Job>) = found.iter().partition(|job| job.active);
    let all = || found.iter().map(|job| describe(job, target)).collect::<Vec<_>>().join(", ");
    let whole = active.iter().filter(|job| job.works_on(target).any(|work| !work.is_selective)).count();
    for problems in
        [unreadable(&active, DEFAULT_SCHEDULE)?, failing(target, &active)?, without_tables(&active)?, seldom(&active)]
    {
        if !problems.is_empty() {
            return Ok(problems);
        }
    }
    match (active.iter().find(|job| job.does_regular_run(target)), paused.first()) {
        (Some(_), _) if whole > 1 => {
            warning(format!("{whole} active jobs run target \"{target}\", decide which is to stay: {}", all()), None)
        }
        (Some(_), _) => {
            let mut problems = without_limits(target, &active)?;
            problems.extend(outside_of_window(target, &active)?);
            if problems.is_empty() && found.len() > 1 { remark(&all()) } else { Ok(problems) }
        }
        (None, Some(job)) if job.does_regular_run(target) => warning(
            format!("{} is not active", all()),
            Some(format!("SELECT cron.alter_job({}, active => true)", job.job_id)),
        ),
        _ if !found.is_empty() => {
            let detail = format!("no job does a regular run of all of target \"{target}\": {}", all());
            warning(detail, Some(schedule_call(target)?))
        }
        _ => absent(target),
    }
}

/// Finds active jobs whose schedule pg_cron cannot read, as after a restore from a server with a newer one, or an UPDATE by hand: it skips
/// them, and says so in the server's log only. They are to have another one.
pub(super) fn unreadable(active: &[&Job], schedule: &str) -> Result<Vec<Problem>> {
    // To ask pg_cron itself would be to schedule a job. These settings came with intervals of seconds and with the last day of a month.
    let (has_seconds, has_last_day) =
        (setting("cron.timezone")?.is_some(), setting("cron.launch_active_jobs")?.is_some());
    let problem = |job: &&Job| Problem {
        status: Status::Fail,
        detail: format!("{} never runs: pg_cron cannot read its schedule", job.describe()),
        fix: Some(format!("SELECT cron.alter_job({}, schedule => {})", job.job_id, quote_literal(schedule))),
    };
    let unreadable = active.iter().filter(|job| !is_schedule(&job.schedule, has_seconds, has_last_day));
    Ok(unreadable.map(problem).collect())
}

/// Finds active jobs whose command cannot run the target, as it is written.
fn failing(target: &str, active: &[&Job]) -> Result<Vec<Problem>> {
    let (command, mut found) = (quote_literal(schedule::command(target, true)?), Vec::new());
    for job in active {
        for work in job.works_on(target) {
            let reason = work.fails.clone().map_or_else(|| as_another(job, work), |reason| Ok(Some(reason)))?;
            let Some(reason) = reason else { continue };
            let detail = format!(
                "{} fails, or removes nothing: its call of {} {reason}; decide what its command is to be, and type \
                 SELECT cron.alter_job({}, command => {command})",
                job.describe(),
                work.function(),
                job.job_id
            );
            found.push(Problem { status: Status::Fail, detail, fix: None });
        }
    }
    Ok(found)
}

/// Why the role that a job becomes by its command cannot run the target. Its name is part of a command that is not everybody's to read.
fn as_another(job: &Job, work: &Work) -> Result<Option<String>> {
    const REFUSED: &str = "
        SELECT 'stands behind SET ROLE, and the role there ' || CASE
                   WHEN r.oid IS NULL THEN 'does not exist'
                   WHEN NOT pg_has_role($2::name, r.oid, 'MEMBER') THEN 'is none that the job''s can become'
                   WHEN NOT (has_function_privilege(r.oid, p.oid, 'EXECUTE') AND has_schema_privilege(r.oid, e.extnamespace, 'USAGE'))
                   THEN 'may not run it' END
        FROM pg_extension e
        JOIN pg_proc p ON p.pronamespace = e.extnamespace AND p.proname = $3
        LEFT JOIN pg_roles r ON r.rolname = $1
        WHERE e.extname = 'backlog_cleanup'";
    let Some(role) = &work.role else { return Ok(None) };
    let arguments = [role.clone().into(), job.username.clone().into(), work.function().into()];
    extension::as_owner(|| read_one::<String>(REFUSED, &arguments))
}

/// Finds active jobs whose command names a table that is in no schema, whatever their search path.
fn without_tables(active: &[&Job]) -> Result<Vec<Problem>> {
    const ABSENT: &str = "
        SELECT concat_ws('.', schema, name) FROM unnest($1, $2) AS wanted (schema, name)
        WHERE NOT EXISTS (SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
                          WHERE relname = name AND nspname = coalesce(schema, nspname))
        LIMIT 1";
    let mut found = Vec::new();
    for job in active.iter().filter(|job| !job.tables.is_empty()) {
        let (schemas, names): (Vec<Option<String>>, Vec<String>) = job.tables.iter().cloned().unzip();
        let absent = extension::as_owner(|| read_one::<String>(ABSENT, &[schemas.into(), names.into()]))?;
        found.extend(absent.map(|table| {
            let detail = format!(
                "{} fails: its command names table {table}, which does not exist; decide what it is to be",
                job.describe()
            );
            Problem { status: Status::Fail, detail, fix: None }
        }));
    }
    Ok(found)
}

/// Finds active jobs that run never, or only when the server starts.
fn seldom(active: &[&Job]) -> Vec<Problem> {
    let problem = |job: &&Job| {
        let when = match job.schedule.trim() {
            "@reboot" => "runs only when the server starts",
            schedule if never_fires(schedule) => "never runs: no year has such a day",
            _ => return None,
        };
        let detail = format!(
            "{} {when}; decide when it is to run, and type SELECT cron.alter_job({}, schedule => {})",
            job.describe(),
            job.job_id,
            quote_literal(DEFAULT_SCHEDULE)
        );
        Some(Problem { status: Status::Warn, detail, fix: None })
    };
    active.iter().filter_map(problem).collect()
}

/// Finds active jobs that run the target in one transaction, which its limits of batched runs do not reach.
fn without_limits(target: &str, active: &[&Job]) -> Result<Vec<Problem>> {
    let limits = row(Some(target))?.limits_of_batches()?;
    if limits.is_empty() {
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    for job in active.iter().filter(|job| job.works_on(target).any(Work::is_one_transaction)) {
        let detail = format!("{} is a run in one transaction, which passes over {}", job.describe(), limits.join(", "));
        let fix = job.in_batches(target)?;
        let decide = if fix.is_none() { ": decide whether it is to CALL backlog_cleanup_run instead" } else { "" };
        found.push(Problem { status: Status::Warn, detail: format!("{detail}{decide}"), fix });
    }
    Ok(found)
}

/// The problem of a target that no job of this database runs, as far as that can be told.
fn absent(target: &str) -> Result<Vec<Problem>> {
    let (here, jobs, mut found) = (database()?, jobs()?, Vec::new());
    for job in &jobs {
        let unclear = job.database == here && job.works.iter().any(|work| work.target.is_none());
        if unclear {
            let detail = format!("{} runs a target that its command does not tell: look at it", job.describe());
            found.push(Problem { status: Status::Warn, detail, fix: None });
        } else if !job.database_exists && job.works_on(target).next().is_some() {
            let detail = format!(
                "{} runs target \"{target}\" in database \"{}\", which does not exist",
                job.describe(),
                job.database
            );
            found.push(Problem { status: Status::Warn, detail, fix: Some(schedule::move_here(job.job_id)?) });
        }
    }
    let mut crowds: Vec<(&str, i64)> = jobs.iter().map(|job| (job.username.as_str(), job.unseen)).collect();
    crowds.retain(|(_, unseen)| *unseen > 0);
    crowds.sort_unstable();
    crowds.dedup();
    for (role, unseen) in crowds {
        let (jobs, were) = (counted(unseen, "job"), if unseen == 1 { "was" } else { "were" });
        let detail = format!("{jobs} of role \"{role}\" {were} not looked at: it has too many");
        found.push(Problem { status: Status::Warn, detail, fix: None });
    }
    if found.is_empty() {
        // Those that may run it would have been found.
        if let Some(job) = all_jobs_of(target)?.first() {
            return remark(&format!(
                "{} does not count, since its role may not run it: see check \"job_user\"",
                job.describe()
            ));
        }
        let detail = format!("no job runs target \"{target}\"");
        found.push(Problem { status: Status::Warn, detail, fix: Some(schedule_call(target)?) });
    }
    Ok(found)
}

/// The call that registers a job, with a name that no job of another database has.
fn schedule_call(target: &str) -> Result<String> {
    let (name, here) = (job_name(target), database()?);
    let is_taken = jobs()?.iter().any(|job| job.job_name.as_ref() == Some(&name) && job.database != here);
    let name = if is_taken { job_name_in(&here, &name) } else { name };
    let has_limits = !row(Some(target))?.limits_of_batches()?.is_empty();
    schedule::call_to_schedule(DEFAULT_SCHEDULE, has_limits, target, &name)
}

/// A job, with what it does to a target.
fn describe(job: &Job, target: &str) -> String {
    let works: Vec<String> = job
        .works_on(target)
        .map(|work| format!("{}{}", work.mode, if work.is_selective { ", selective" } else { "" }))
        .collect();
    let paused = if job.active { "" } else { ", paused" };
    format!("{} ({}{paused})", job.describe(), works.join("; "))
}

const USER: &str = "
    SELECT 'fail',
           CASE WHEN r.oid IS NULL THEN format('job %s runs as role \"%s\", which does not exist', j.jobid, j.username)
                WHEN NOT r.rolcanlogin THEN format('job %s runs as role \"%s\", which may not log in', j.jobid, j.username)
                WHEN NOT has_database_privilege(r.oid, current_database(), 'CONNECT')
                THEN format('job %s runs as role \"%s\", which may not connect to database \"%s\"', j.jobid, j.username, current_database())
                ELSE format('job %s runs as role \"%s\", which may not run it', j.jobid, j.username) END,
           format('SELECT cron.unschedule(%s)', j.jobid)
    FROM cron.job j
    JOIN pg_extension e ON e.extname = 'backlog_cleanup'
    JOIN pg_proc p ON p.pronamespace = e.extnamespace AND p.proname = 'backlog_cleanup_failed_generations'
    LEFT JOIN pg_roles r ON r.rolname = j.username
    WHERE j.jobid = $1 AND (r.oid IS NULL OR NOT r.rolcanlogin OR NOT has_function_privilege(r.oid, p.oid, 'EXECUTE')
                              OR NOT has_database_privilege(r.oid, current_database(), 'CONNECT'))";

/// Makes a statement that begins with `job` and with `setting`: those of these names that the job's role has in this database.
macro_rules! with_settings_of_job {
    ($names:literal, $rest:literal) => {
        concat!(
            "WITH job AS (
                 SELECT r.oid AS role, r.rolname, d.oid AS database, d.datname, j.command ~* 'backlog_cleanup_run' AS is_batched
                 FROM cron.job j JOIN pg_roles r ON r.rolname = j.username JOIN pg_database d ON d.datname = current_database()
                 WHERE j.jobid = $1
             ), setting AS (
                 SELECT DISTINCT ON (name) name, rolname, datname, is_batched, value
                 FROM job
                 CROSS JOIN LATERAL (
                     SELECT setrole <> 0, setdatabase <> 0, split_part(setting, '=', 1), substr(setting, strpos(setting, '=') + 1)
                     FROM pg_db_role_setting, unnest(setconfig) AS setting
                     WHERE setrole IN (0, job.role) AND setdatabase IN (0, job.database)
                     UNION ALL
                     SELECT NULL, NULL, f.name, f.setting FROM pg_file_settings f WHERE f.applied
                 ) known (of_role, of_database, name, value)
                 WHERE name IN (",
            $names,
            ")
                 ORDER BY name, of_role DESC NULLS LAST, of_database DESC NULLS LAST
             ) ",
            $rest
        )
    };
}
pub(super) use with_settings_of_job;

const SETTINGS: &str = with_settings_of_job!(
    "'default_transaction_read_only', 'role'",
    "SELECT 'fail', format('job %s runs as role \"%s\", whose setting %s = %s stops it', $1, rolname, name, value),
            format('ALTER ROLE %I IN DATABASE %I SET %I = %s', rolname, datname, name, CASE name WHEN 'role' THEN 'none' ELSE 'off' END)
     FROM setting
     WHERE CASE name WHEN 'role'
                THEN value <> 'none' AND NOT EXISTS (
                         SELECT FROM pg_roles r, pg_extension e JOIN pg_proc p ON p.pronamespace = e.extnamespace
                         WHERE r.rolname = value AND e.extname = 'backlog_cleanup' AND p.proname = 'backlog_cleanup_failed_generations'
                           AND has_function_privilege(r.oid, p.oid, 'EXECUTE'))
                ELSE value::boolean END"
);

/// Anybody could have registered the job: what mends it is a job of one's own, and not a right for its role.
pub fn user(target: &str) -> Result<Vec<Problem>> {
    // Of a job that may run, nothing is wrong with its user.
    let mut found = about(all_jobs_of(target)?.first(), target, USER)?;
    if found.is_empty() {
        return of_job(target, SETTINGS);
    }
    for problem in found.iter_mut().filter(|problem| problem.status == Status::Fail) {
        let own = schedule_call(target)?;
        let own = own.trim_start_matches("SELECT ");
        problem.fix = problem.fix.take().map(|remove| format!("{remove}, {own}"));
    }
    Ok(found)
}

const TIME_ZONE: &str = "
    SELECT 'warn', format('pg_cron reads schedules in time zone %I, not in UTC', zone),
           'ALTER SYSTEM SET cron.timezone = ''GMT''; -- and restart the server'
    FROM current_setting('cron.timezone', true) AS zone
    WHERE zone NOT IN ('', 'GMT', 'UTC')";

pub fn time_zone(_target: &str) -> Result<Vec<Problem>> {
    problems(TIME_ZONE, &[])
}

/// Finds jobs of this database whose target has been deleted, or whose function is gone, as after ALTER SCHEMA RENAME: they fail
/// every night.
pub fn lost(_target: &str) -> Result<Vec<Problem>> {
    if !pg_cron_is_here()? {
        return no_job();
    }
    let (here, mut found) = (database()?, Vec::new());
    for job in jobs()?.iter().filter(|job| job.database == here) {
        let status = if job.active { Status::Fail } else { Status::Warn };
        if let Some(function) = gone(&job.calls_elsewhere)? {
            let detail = format!(
                "{} calls {function}, which does not exist: decide whether the job is to call {}.backlog_cleanup_..., or type \
                 SELECT cron.unschedule({})",
                job.describe(),
                schema()?,
                job.job_id
            );
            found.push(Problem { status, detail, fix: None });
        }
        let lost = job.works.iter().filter_map(|work| work.target.as_deref()).find(|name| row(Some(name)).is_err());
        let Some(lost) = lost else { continue };
        let detail = format!("{} runs target {}, which does not exist", job.describe(), quote_literal(lost));
        let fix = (job.works.len() == 1).then(|| format!("SELECT cron.unschedule({})", job.job_id));
        found.push(Problem { status, detail, fix });
    }
    Ok(found)
}

/// The first of these functions that does not exist.
fn gone(functions: &[String]) -> Result<Option<String>> {
    const GONE: &str = "
        SELECT name FROM unnest($1) AS name
        WHERE NOT EXISTS (SELECT FROM pg_proc p JOIN pg_namespace n ON n.oid = pronamespace
                          WHERE format('%I.%I', nspname, proname) = name)
        LIMIT 1";
    extension::as_owner(|| read_one::<String>(GONE, &[functions.to_vec().into()]))
}

/// Runs a statement that finds problems of the target's job; `$1` is the job's id, `$2` the target.
pub fn of_job(target: &str, statement: &str) -> Result<Vec<Problem>> {
    about(jobs_of(target)?.first(), target, statement)
}

fn about(job: Option<&Job>, target: &str, statement: &str) -> Result<Vec<Problem>> {
    match job {
        Some(job) => problems(statement, &[job.job_id.into(), target.into()]),
        None => no_job(),
    }
}

/// Says that there is no job to look at, or that jobs cannot be seen.
pub fn no_job() -> Result<Vec<Problem>> {
    match pg_cron_elsewhere()? {
        Some(home) => remark(&format!("jobs cannot be seen from here: pg_cron is in database \"{home}\"")),
        None if pg_cron_is_here()? => remark("there is no job"),
        None => remark("there is no pg_cron to look at"),
    }
}

pub fn remark(detail: &str) -> Result<Vec<Problem>> {
    Ok(vec![Problem { status: Status::Ok, detail: detail.into(), fix: None }])
}
