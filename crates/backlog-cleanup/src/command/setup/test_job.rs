use std::time::{Duration, Instant};

use sqlx::postgres::PgConnection;
use tokio::signal::ctrl_c;
use tokio::time::sleep;

use super::{Setup, Step};
use crate::client::connect::begin;
use crate::client::statement::{query_as, query_scalar};
use crate::failure::Result;
use crate::terminal::output::Output;

/// pg_cron starts jobs once a minute.
const LIMIT: Duration = Duration::from_secs(120);

/// Offers to fire a job that removes nothing, in this database of pg_cron's or for another one; `None` if that is declined.
pub async fn offer(
    setup: &Setup,
    output: &Output,
    home: &mut PgConnection,
    command: &str,
    database: Option<&str>,
) -> Result<Option<Step>> {
    let question = "Fire a test job that removes nothing? It takes up to two minutes.";
    if !setup.test_job && (setup.yes || setup.arm || !setup.agrees(false, "--test-job", question, output)?) {
        return Ok(None);
    }
    let schedule = match database {
        None => "SELECT cron.schedule('backlog-cleanup-test-' || pg_backend_pid(), '* * * * *', $1)",
        Some(_) => "SELECT cron.schedule_in_database('backlog-cleanup-test-' || pg_backend_pid(), '* * * * *', $1, $2)",
    };
    let schedule = query_scalar(schedule).bind(command);
    let schedule = if database.is_some() { schedule.bind(database) } else { schedule };
    let mut work = begin(home).await?;
    let job: i64 = schedule.fetch_one(&mut *work).await?;
    work.commit().await?;
    let started = Instant::now();
    let ended = tokio::select! {
        ended = end(home, job) => ended,
        _ = ctrl_c() => Ok(None),
    };
    let mut work = begin(home).await?;
    query_scalar::<bool>("SELECT cron.unschedule($1)").bind(job).fetch_one(&mut *work).await?;
    work.commit().await?;
    let seconds = started.elapsed().as_secs();
    let failed = |why: String| Step::new("test job", "failed", why);
    Ok(Some(match ended? {
        Some((status, _)) if status == "succeeded" => {
            Step::new("test job", "ran", format!("after {seconds} s, and removed nothing: {command}"))
        }
        Some((_, message)) => failed(format!("{}{}", message.unwrap_or_default().trim(), advice(home).await?)),
        None => failed(format!("did not run in {seconds} s{}", advice(home).await?)),
    }))
}

/// How the first run of a job ended; `None` if it has not in time.
async fn end(home: &mut PgConnection, job: i64) -> Result<Option<(String, Option<String>)>> {
    let until = Instant::now() + LIMIT;
    while Instant::now() < until {
        let run = "SELECT status, return_message FROM cron.job_run_details
                   WHERE jobid = $1 AND status IN ('succeeded', 'failed') ORDER BY runid LIMIT 1";
        let mut work = begin(home).await?;
        let run = query_as(run).bind(job).fetch_optional(&mut *work).await?;
        work.commit().await?;
        if run.is_some() {
            return Ok(run);
        }
        sleep(Duration::from_millis(500)).await;
    }
    Ok(None)
}

/// What to try if a job cannot connect.
async fn advice(home: &mut PgConnection) -> Result<&'static str> {
    let is_off = "SELECT current_setting('cron.use_background_workers', true) = 'off'";
    let mut work = begin(home).await?;
    let is_off: Option<bool> = query_scalar(is_off).fetch_one(&mut *work).await?;
    work.commit().await?;
    Ok(if is_off == Some(true) {
        ". ALTER SYSTEM SET cron.use_background_workers = on; -- and restart the server"
    } else {
        ""
    })
}
