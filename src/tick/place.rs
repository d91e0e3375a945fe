use serde_json::json;

use crate::postgres::error::Result;
use crate::schedule::auto::{self, AutoJob, Place};
use crate::schedule::database;
use crate::schedule::quiet_hours::hours;
use crate::target::TargetRow;
use crate::target::row::row;
use crate::tick::decision::Decision;

/// A job moves at most so often, in seconds, and so many hours at once.
const WEEK: f64 = 7.0 * 86_400.0;
const FURTHEST: i32 = 3;
/// Another hour is not quieter unless this one has so many times its transactions.
const QUIETER: f64 = 1.1;

/// Moves a job to the quietest hour, or as far as it may go, and follows the clock. Returns why it stays.
pub fn place(tick: Option<i64>, job: &AutoJob) -> Result<Option<String>> {
    let id = job.id;
    match (&job.current, &job.database) {
        (Some(_), Some(there)) if job.is_there && *there != database()? => {
            return Ok(Some(format!("job {id} runs in database \"{there}\"")));
        }
        (Some(current), _) if job.is_there && *current == job.schedule => {}
        (current, _) => {
            auto::forget(id)?;
            let why = match current {
                Some(_) if !job.is_there => format!("job {id} is another one now, or does something else"),
                Some(schedule) => format!("job {id} was given the schedule \"{schedule}\""),
                None => format!("job {id} does not exist any more"),
            };
            return Ok(Some(format!("{why}: it does not follow the quietest hour any more")));
        }
    }
    let target = row(Some(&job.target))?;
    let (hour, is_known, reason) = wanted(job, &target)?;
    let place = Place::of(hour, is_known, &target)?;
    if place.schedule == job.schedule && is_known == job.is_known {
        return Ok(Some(reason));
    }
    place.update(job)?;
    let (from, to, zone) = (job.hour, place.hour, &target.time_zone);
    let what = match from == to {
        true => format!("job {id} stays at {to:02}:00 ({zone}), which is \"{}\" for pg_cron", place.schedule),
        false => format!("job {id} moves from {from:02}:00 to {to:02}:00 ({zone}), \"{}\" for pg_cron", place.schedule),
    };
    let numbers = json!({ "jobId": id, "from": from, "to": to, "timeZone": zone, "schedule": place.schedule });
    Decision::of("move", format!("{what}: {reason}")).record(tick, &job.target, numbers)?;
    Ok(None)
}

/// The hour that a job is to have, whether the samples have told it, and why.
fn wanted(job: &AutoJob, target: &TargetRow) -> Result<(i32, bool, String)> {
    if let Some(window) = target.run_between.as_ref().filter(|_| !auto::has_hours(target)) {
        return Ok((job.hour, job.is_known, format!("no hour begins within run_between, {window}")));
    }
    let hours = hours(&target.name, &target.time_zone)?;
    let Some((quietest, rate)) = auto::quietest_of(&hours, target).and_then(|hour| Some((hour.hour, hour.rate?)))
    else {
        let days = hours.iter().map(|hour| hour.days).min().unwrap_or_default();
        let reason =
            format!("the quietest hour is not known yet: it takes each hour of three days, and there are {days}");
        return Ok((auto::waiting(job, target), job.is_known, reason));
    };
    let here = hours.iter().find(|hour| hour.hour == job.hour).and_then(|hour| hour.rate).unwrap_or_default();
    let of_window = if target.run_between.is_some() { " of run_between" } else { "" };
    let said = format!(
        "{quietest:02}:00 is the quietest hour{of_window}, with {rate:.1} transactions per second; {:02}:00 has {here:.1}",
        job.hour
    );
    if !job.is_known || !auto::is_in_window(job.hour, target) {
        return Ok((quietest, true, said));
    }
    if here <= QUIETER * rate {
        return Ok((job.hour, true, said));
    }
    if job.moved_seconds < WEEK {
        return Ok((job.hour, true, format!("{said}, and it moves once a week")));
    }
    Ok((auto::towards(quietest, job, FURTHEST, target), true, said))
}
