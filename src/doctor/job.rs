use backlog_cleanup_report::{DEFAULT_SCHEDULE, job_name};

use crate::doctor::problem::{Problem, Status, problems};
use crate::postgres::error::Result;
use crate::schedule::{self, job_of, pg_cron_elsewhere, pg_cron_is_here};

const PG_CRON: &str = "
    SELECT CASE WHEN home IS NULL THEN 'fail' ELSE 'warn' END,
           CASE WHEN home IS NULL THEN 'pg_cron is not loaded'
                ELSE format('pg_cron runs the jobs of database %I, not of %I', home, current_database()) END,
           CASE WHEN home IS NULL
                THEN format('ALTER SYSTEM SET shared_preload_libraries = %s; -- and restart the server',
                            concat_ws(', ', nullif(current_setting('shared_preload_libraries'), ''), 'pg_cron'))
                ELSE 'DROP EXTENSION pg_cron' END
    FROM current_setting('cron.database_name', true) AS home
    WHERE home IS DISTINCT FROM current_database()";

/// Checks that pg_cron is installed in this database, and loaded; or in another one.
pub fn pg_cron(target: &str) -> Result<Vec<Problem>> {
    if pg_cron_is_here()? { problems(PG_CRON, &[]) } else { absent(target) }
}

/// Checks that a job runs the target, and that it is active.
pub fn job(target: &str) -> Result<Vec<Problem>> {
    if !pg_cron_is_here()? && pg_cron_elsewhere()?.is_none() {
        return absent(target);
    }
    let job = job_of(target)?;
    let problem = |detail: String, fix: String| vec![Problem { status: Status::Warn, detail, fix: Some(fix) }];
    if let (Some(home), Some(check)) = (job["database"].as_str(), job["check"].as_str()) {
        let detail =
            format!("whether a job runs target \"{target}\" is not known here: pg_cron is in database \"{home}\"");
        return Ok(problem(detail, check.into()));
    }
    Ok(match (job["jobId"].as_i64(), job["active"].as_bool()) {
        (None, _) => problem(
            format!("no job runs target \"{target}\""),
            schedule::call_to_schedule(DEFAULT_SCHEDULE, false, target, &job_name(target))?,
        ),
        (Some(id), Some(false)) => problem(
            format!("job {} is not active", job["jobName"]),
            format!("SELECT cron.alter_job({id}, active => true)"),
        ),
        _ => Vec::new(),
    })
}

const USER: &str = "
    SELECT 'fail',
           CASE WHEN r.oid IS NULL THEN format('job %s runs as role \"%s\", which does not exist', j.jobid, j.username)
                WHEN NOT r.rolcanlogin THEN format('job %s runs as role \"%s\", which may not log in', j.jobid, j.username)
                ELSE format('job %s runs as role \"%s\", which may not run it', j.jobid, j.username) END,
           format('SELECT cron.unschedule(%s)', j.jobid)
    FROM cron.job j
    JOIN pg_extension e ON e.extname = 'backlog_cleanup'
    JOIN pg_proc p ON p.pronamespace = e.extnamespace AND p.proname = 'backlog_cleanup_failed_generations'
    LEFT JOIN pg_roles r ON r.rolname = j.username
    WHERE j.jobid = $1 AND (r.oid IS NULL OR NOT r.rolcanlogin OR NOT has_function_privilege(r.oid, p.oid, 'EXECUTE'))";

/// Anybody could have registered the job: what mends it is a job of one's own, and not a right for its role.
pub fn user(target: &str) -> Result<Vec<Problem>> {
    let mut found = of_job(target, USER)?;
    for problem in found.iter_mut().filter(|problem| problem.status == Status::Fail) {
        let own = schedule::call_to_schedule(DEFAULT_SCHEDULE, false, target, &job_name(target))?;
        problem.fix = problem.fix.take().map(|remove| format!("{remove}; {own}"));
    }
    Ok(found)
}

const RUNS: &str = "
    SELECT CASE WHEN last.place = 1 THEN 'fail' ELSE 'warn' END,
           format('the run of %s failed: %s', to_char(last.start_time AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI UTC'),
                  last.return_message),
           format('SELECT * FROM cron.job_run_details WHERE jobid = %s ORDER BY runid DESC LIMIT 5', $1)
    FROM (SELECT row_number() OVER (ORDER BY runid DESC) AS place, status, start_time, return_message
          FROM cron.job_run_details
          WHERE jobid = $1 AND status IN ('succeeded', 'failed')
          ORDER BY runid DESC LIMIT 5) last
    WHERE last.status = 'failed'
    ORDER BY last.place
    LIMIT 1";

/// Finds the newest failure among the last five runs.
pub fn runs(target: &str) -> Result<Vec<Problem>> {
    of_job(target, RUNS)
}

const TIME_ZONE: &str = "
    SELECT 'warn', format('pg_cron reads schedules in time zone %I, not in UTC', zone),
           'ALTER SYSTEM SET cron.timezone = ''GMT''; -- and restart the server'
    FROM current_setting('cron.timezone', true) AS zone
    WHERE zone NOT IN ('', 'GMT', 'UTC')";

pub fn time_zone(_target: &str) -> Result<Vec<Problem>> {
    problems(TIME_ZONE, &[])
}

/// Runs a statement that finds problems of the target's job; `$1` is the job's id.
fn of_job(target: &str, statement: &str) -> Result<Vec<Problem>> {
    match job_of(target)?["jobId"].as_i64() {
        Some(id) => problems(statement, &[id.into()]),
        None => Ok(vec![Problem { status: Status::Ok, detail: "there is no job".into(), fix: None }]),
    }
}

/// The problem if pg_cron is not in this database: the error that `backlog_cleanup_schedule` would raise.
fn absent(target: &str) -> Result<Vec<Problem>> {
    let absent = schedule::cannot_schedule(DEFAULT_SCHEDULE, false, target, &job_name(target))?;
    let (detail, fix) = (absent.message().to_owned(), absent.hint().map(str::to_owned));
    Ok(vec![Problem { status: Status::Warn, detail, fix }])
}
