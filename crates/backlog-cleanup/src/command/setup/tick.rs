use backlog_cleanup_report::TICK_JOB;
use sqlx::postgres::PgConnection;

use super::{Setup, Step};
use crate::client::analytics::{self, TickJob};
use crate::client::connect::begin;
use crate::client::deliveries;
use crate::client::statement::query_scalar;
use crate::failure::{Failure, Result};
use crate::terminal::output::Output;

/// Registers the job of the tick, if none ticks, and the caller agrees. Where jobs cannot be seen, a tick of late tells that there is one.
pub async fn set_up(setup: &Setup, connection: &mut PgConnection, output: &Output) -> Result<Step> {
    let mut work = begin(connection).await?;
    let jobs = analytics::tick_jobs(&mut work).await?;
    let has_jobs: bool = query_scalar("SELECT to_regclass('cron.job') IS NOT NULL").fetch_one(&mut *work).await?;
    let is_ticking = !has_jobs && deliveries::is_ticking(&mut work).await?;
    work.commit().await?;
    if let Some(job) = jobs.first() {
        return Ok(there(job));
    }
    if is_ticking {
        let minutes = deliveries::WITHOUT_TICK.as_secs() / 60;
        return Ok(Step::new("tick", "kept", format!("there was a tick in the last {minutes} minutes")));
    }
    let question = "Register job backlog-cleanup-tick? Every five minutes it takes samples and looks for what to alert; it removes no row.";
    if !setup.agrees(setup.tick || setup.yes, "--tick", question, output)? {
        return Ok(Step::new(
            "tick",
            "left out",
            "nothing takes samples and looks for what to alert: backlog-cleanup setup --tick",
        ));
    }
    let mut work = begin(connection).await?;
    match analytics::schedule_tick(&mut work).await.map_err(Failure::from) {
        Ok(_) => {
            work.commit().await?;
            Ok(Step::new("tick", "created", format!("{TICK_JOB}, every five minutes")))
        }
        Err(failure) if failure.sqlstate.is_some() => {
            Ok(Step::to_do("tick", &failure, failure.hint.clone().into_iter().collect()))
        }
        Err(failure) => Err(failure),
    }
}

/// A job that ticks already, or would if it were not paused.
fn there(job: &TickJob) -> Step {
    let name = job.job_name.clone().unwrap_or_else(|| format!("job {}", job.job_id));
    if job.active {
        return Step::new("tick", "kept", format!("{name} ticks"));
    }
    let activate = format!("SELECT cron.alter_job({}, active => true)", job.job_id);
    Step { statements: vec![activate], ..Step::new("tick", "to do", format!("{name} is paused")) }
}
