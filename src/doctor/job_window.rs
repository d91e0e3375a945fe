use backlog_cleanup_report::times_of_day;
use pgrx::spi::quote_literal;

use crate::extension;
use crate::obstacles::problem::{Problem, Status};
use crate::postgres::error::Result;
use crate::postgres::read::read_one;
use crate::schedule::Job;
use crate::target::row::row;

/// Finds active jobs whose runs in batches never begin within `run_between`: they wait for it, and no other run begins meanwhile.
pub fn outside_of_window(target: &str, active: &[&Job]) -> Result<Vec<Problem>> {
    // Of today: it depends on daylight saving.
    const TIMES: &str = "
        SELECT array_agg(timezone($2, timezone($3, current_date + fires::time))::time::text)
        FROM unnest($1) AS fires";
    let target_row = row(Some(target))?;
    let (Some(window), zone) = (&target_row.run_between, target_row.time_zone.as_str()) else { return Ok(Vec::new()) };
    let mut found = Vec::new();
    for job in active.iter().filter(|job| job.works_on(target).any(|work| work.waits_for_window())) {
        let Some(times) = times_of_day(&job.schedule) else { continue };
        let job_zone = if job.time_zone.is_empty() { "GMT" } else { &job.time_zone };
        let arguments = [times.into(), zone.into(), job_zone.into()];
        let times = extension::as_owner(|| read_one::<Vec<String>>(TIMES, &arguments))?.unwrap_or_default();
        if times.iter().any(|time| window.has(time)) {
            continue;
        }
        let detail =
            format!("{} starts outside of run_between, {window} ({zone}): its run waits until then", job.describe());
        let days = job.schedule.split_whitespace().skip(2).collect::<Vec<_>>().join(" ");
        let schedule = quote_literal(format!("{} {days}", window.opens(zone, job_zone)?));
        let fix = (!days.is_empty()).then(|| format!("SELECT cron.alter_job({}, schedule => {schedule})", job.job_id));
        let decide = if fix.is_none() { ": decide when it is to start" } else { "" };
        let detail = format!("{detail}{decide}");
        found.push(Problem { status: Status::Warn, detail, fix });
    }
    Ok(found)
}
