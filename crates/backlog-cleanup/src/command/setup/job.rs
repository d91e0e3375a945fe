use backlog_cleanup_report::{DEFAULT_SCHEDULE, job_name};
use serde_json::Value;
use sqlx::postgres::PgConnection;

use super::{Setup, Step};
use crate::client::calls;
use crate::client::connect::begin;
use crate::client::statement::query_scalar;
use crate::failure::{Failure, Result};
use crate::printable::printable;
use crate::terminal::output::Output;

/// Registers the job; asks before it changes an existing one.
pub async fn set_up(setup: &Setup, connection: &mut PgConnection, output: &Output) -> Result<Step> {
    match registered(setup, connection, output).await {
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
            Ok(Step::to_do("job", &failure, vec![statement]))
        }
        step => step,
    }
}

async fn registered(setup: &Setup, connection: &mut PgConnection, output: &Output) -> Result<Step> {
    let target = &setup.target.name;
    let mut work = begin(connection).await?;
    let ours = calls::job(&mut work, target).await?;
    let name = ours["jobName"].as_str().map_or_else(|| job_name(target), str::to_owned);
    let is_wanted = !ours.is_null()
        && setup.schedule.as_ref().is_none_or(|schedule| ours["schedule"] == **schedule)
        && (!setup.batched || ours["command"].as_str().is_some_and(|command| command.starts_with("CALL")));
    let there = if ours.is_null() { named(&mut work, &name).await? } else { Some(ours) };
    work.commit().await?;
    if let Some(job) = &there {
        let text = |key: &str| printable(job[key].as_str().unwrap_or_default());
        let what = format!("{} at {}, {}", text("jobName"), text("schedule"), text("command"));
        if is_wanted || !setup.agrees(&format!("Change the existing job {what}?"), output)? {
            return Ok(Step::new("job", "kept", what));
        }
    }
    let schedule = setup.schedule.as_deref().unwrap_or(DEFAULT_SCHEDULE);
    let mut work = begin(connection).await?;
    calls::schedule(&mut work, schedule, setup.batched, target, &name).await?;
    work.commit().await?;
    Ok(Step::new("job", if there.is_some() { "changed" } else { "created" }, format!("{name} at {schedule}")))
}

/// A job of that name that runs something else, if this role can see it.
async fn named(connection: &mut PgConnection, name: &str) -> Result<Option<Value>> {
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
