use backlog_cleanup_report::TICK_JOB;
use sqlx::postgres::PgConnection;

use super::job::named;
use super::{Setup, Step};
use crate::client::connect::begin;
use crate::client::{analytics, deliveries};
use crate::failure::{Failure, Result};
use crate::terminal::output::Output;

/// Registers the job of the tick, if it is not known to tick, and the caller agrees.
pub async fn set_up(setup: &Setup, connection: &mut PgConnection, output: &Output) -> Result<Step> {
    let mut work = begin(connection).await?;
    let is_ticking = deliveries::is_ticking(&mut work).await? && !analytics::ticks_by_hand(&mut work).await?;
    work.commit().await?;
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
    let is_there = named(&mut work, TICK_JOB).await?.is_some();
    match analytics::schedule_tick(&mut work).await.map_err(Failure::from) {
        Ok(job) => {
            let activate = analytics::to_activate(&mut work, job).await?;
            work.commit().await?;
            let (outcome, paused) = match (is_there, &activate) {
                (_, Some(_)) => ("to do", ", is paused"),
                (true, None) => ("changed", ""),
                (false, None) => ("created", ""),
            };
            let detail = format!("{TICK_JOB}, every five minutes{paused}");
            Ok(Step { statements: activate.into_iter().collect(), ..Step::new("tick", outcome, detail) })
        }
        Err(failure) if failure.sqlstate.is_some() => {
            Ok(Step::to_do("tick", &failure, failure.hint.clone().into_iter().collect()))
        }
        Err(failure) => Err(failure),
    }
}
