use backlog_cleanup_report::{DEFAULT_SCHEDULE, DEFAULT_TARGET, job_name, job_name_in};
use serde_json::Value;
use sqlx::Executor;
use sqlx::postgres::PgConnection;

use super::{Setup, Step, test_job};
use crate::client::calls;
use crate::client::connect::{Server, begin};
use crate::client::statement::query_scalar;
use crate::failure::{Failure, Result};
use crate::printable::printable;
use crate::terminal::output::Output;

/// Registers the job, here or where pg_cron is; asks before that, and before it changes an existing one. Offers a test job.
pub async fn set_up(
    setup: &Setup,
    server: &Server,
    connection: &mut PgConnection,
    output: &Output,
) -> Result<Vec<Step>> {
    let mut steps = Vec::new();
    match registered(setup, server, connection, output, &mut steps).await {
        Err(failure) if failure.sqlstate.is_some() => {
            // The hint of an error of the extension is a statement; PostgreSQL's own errors are about missing privileges.
            let statement = match &failure.hint {
                Some(statement) => statement.clone(),
                None => {
                    let mut work = begin(connection).await?;
                    let statement = grant_statement(&mut work).await?;
                    work.commit().await?;
                    statement
                }
            };
            steps.push(Step::to_do("job", &failure, vec![statement]));
        }
        step => steps.push(step?),
    }
    Ok(steps)
}

async fn registered(
    setup: &Setup,
    server: &Server,
    connection: &mut PgConnection,
    output: &Output,
    steps: &mut Vec<Step>,
) -> Result<Step> {
    let target = &setup.target.name;
    let mut work = begin(connection).await?;
    let ours = calls::job(&mut work, target).await?;
    if let (Some(home), Some(check)) = (ours["database"].as_str(), ours["check"].as_str()) {
        work.commit().await?;
        return elsewhere(setup, server, connection, output, steps, (home, check)).await;
    }
    let name = ours["jobName"].as_str().map_or_else(|| job_name(target), str::to_owned);
    let is_wanted = !ours.is_null()
        && setup.schedule.as_ref().is_none_or(|schedule| ours["schedule"] == **schedule)
        && (!setup.batched || ours["command"].as_str().is_some_and(|command| command.starts_with("CALL")));
    let there = if ours.is_null() { named(&mut work, &name).await? } else { Some(ours) };
    work.commit().await?;
    if let Some(job) = &there {
        let what = described(job);
        if is_wanted || !setup.agrees(setup.yes, "--yes", &format!("Change the existing job {what}?"), output)? {
            return Ok(Step::new("job", "kept", what));
        }
    }
    let schedule = setup.schedule.as_deref().unwrap_or(DEFAULT_SCHEDULE);
    if there.is_none() {
        let mut work = begin(connection).await?;
        let here: String = query_scalar("SELECT current_database()::text").fetch_one(&mut *work).await?;
        let command = dry_run(&mut work, target).await?;
        work.commit().await?;
        steps.extend(test_job::offer(setup, output, connection, &command, None).await?);
        if !arms(setup, output, &name, schedule, &here)? {
            return Ok(not_armed(target));
        }
    }
    let mut work = begin(connection).await?;
    calls::schedule(&mut work, schedule, setup.batched, target, &name).await?;
    work.commit().await?;
    Ok(Step::new("job", if there.is_some() { "changed" } else { "created" }, format!("{name} at {schedule}")))
}

/// The same where pg_cron is in another database: the extension's error has the statement to type there.
async fn elsewhere(
    setup: &Setup,
    server: &Server,
    connection: &mut PgConnection,
    output: &Output,
    steps: &mut Vec<Step>,
    (home, check): (&str, &str),
) -> Result<Step> {
    let target = &setup.target.name;
    let schedule = setup.schedule.as_deref().unwrap_or(DEFAULT_SCHEDULE);
    let mut work = begin(connection).await?;
    let refused = calls::schedule(&mut work, schedule, setup.batched, target, &job_name(target)).await;
    let refused = refused.map_err(Failure::from).err().unwrap_or_else(|| Failure::error("pg_cron has moved"));
    work.rollback().await?;
    let Some(statement) = refused.hint.clone() else { return Err(refused) };
    let mut work = begin(connection).await?;
    let here: String = query_scalar("SELECT current_database()::text").fetch_one(&mut *work).await?;
    let command = dry_run(&mut work, target).await?;
    work.commit().await?;
    let Ok(mut home_connection) = server.connect_to(home).await else {
        return Ok(Step::to_do("job", &refused, vec![statement]));
    };
    let jobs = format!("SELECT to_jsonb(job) FROM ({}) job", check.split(';').next().unwrap_or(check));
    let mut work = begin(&mut home_connection).await?;
    let jobs: Vec<Value> = query_scalar(&jobs).fetch_all(&mut *work).await?;
    work.commit().await?;
    let mut work = begin(connection).await?;
    for job in &jobs {
        if calls::does_regular_run(&mut work, job["command"].as_str().unwrap_or_default(), target).await? {
            work.commit().await?;
            return Ok(Step::new("job", "kept", format!("{}, in database {home}", described(job))));
        }
    }
    work.commit().await?;
    steps.extend(test_job::offer(setup, output, &mut home_connection, &command, Some(&here)).await?);
    let name = job_name_in(&here, &job_name(target));
    if !arms(setup, output, &name, schedule, home)? {
        return Ok(not_armed(target));
    }
    let mut work = begin(&mut home_connection).await?;
    match work.execute(statement.as_str()).await.map_err(Failure::from) {
        Ok(_) => {
            work.commit().await?;
            Ok(Step::new("job", "created", format!("{name} at {schedule}, in database {home}")))
        }
        Err(failure) => Ok(Step::to_do("job", &failure, vec![statement])),
    }
}

/// Asks whether rows are to be removed every night.
fn arms(setup: &Setup, output: &Output, name: &str, schedule: &str, database: &str) -> Result<bool> {
    let target = printable(&setup.target.name);
    let question = format!(
        "Register job {} in pg_cron's database {}? At {} it removes the removable rows of target {target}.",
        printable(name),
        printable(database),
        printable(schedule)
    );
    setup.agrees(setup.arm || setup.yes, "--arm", &question, output)
}

fn not_armed(target: &str) -> Step {
    let target = match target {
        DEFAULT_TARGET => String::new(),
        other => format!(" --target '{}'", printable(other).replace('\'', r"'\''")),
    };
    Step::new("job", "not armed", format!("nothing is removed at night: backlog-cleanup setup --arm{target}"))
}

fn described(job: &Value) -> String {
    let text = |upper: &str, lower: &str| printable(job[upper].as_str().or(job[lower].as_str()).unwrap_or_default());
    format!("{} at {}, {}", text("jobName", "jobname"), text("schedule", "schedule"), text("command", "command"))
}

/// What a test job does.
async fn dry_run(connection: &mut PgConnection, target: &str) -> Result<String> {
    let command = "SELECT format('SELECT %I.backlog_cleanup_failed_generations(%L, dry_run => true)', n.nspname, $1)
                   FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = 'backlog_cleanup'";
    Ok(query_scalar(command).bind(target).fetch_one(connection).await?)
}

/// A job of that name that runs something else, if this role can see it.
pub async fn named(connection: &mut PgConnection, name: &str) -> Result<Option<Value>> {
    let visible = "SELECT coalesce(has_schema_privilege(to_regnamespace('cron')::oid, 'USAGE')
                                   AND has_table_privilege(to_regclass('cron.job')::oid, 'SELECT'), false)";
    if !query_scalar::<bool>(visible).fetch_one(&mut *connection).await? {
        return Ok(None);
    }
    let job = "SELECT jsonb_build_object('jobName', jobname, 'schedule', schedule, 'command', command)
               FROM cron.job WHERE jobname = $1 AND database = current_database()";
    Ok(query_scalar(job).bind(name).fetch_optional(connection).await?)
}

async fn grant_statement(connection: &mut PgConnection) -> Result<String> {
    let level = "SELECT format('SELECT %I.backlog_cleanup_grant(%L, ''admin'')', n.nspname, current_user)
                 FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = 'backlog_cleanup'";
    query_scalar(level).fetch_one(connection).await.map_err(Failure::from)
}
