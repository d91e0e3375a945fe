use pgrx::JsonB;
use pgrx::prelude::*;
use serde::Deserialize;
use serde_json::Value;

use crate::extension;
use crate::postgres::error::{Result, spi};
use crate::postgres::now::one_now;
use crate::run::{early, lock};

/// So many hours make a baseline.
const BASELINE: i64 = 5;

/// What a decision is made by; the names are those of `backlog_cleanup.decision.numbers`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Numbers {
    removable: Option<i64>,
    not_counted: Option<String>,
    per_minute: Option<f64>,
    usual_per_minute: Option<f64>,
    /// How many samples that is the median of.
    usual_of: i64,
    /// Since the last run began, or was decided on.
    seconds_since_run: Option<f64>,
    adaptive_min_rows: i64,
    adaptive_rate_factor: Option<f64>,
    adaptive_min_seconds: f64,
}

/// The numbers of a target. The usual rate is the median of the same hour of the day.
const NUMBERS: &str = "
    SELECT jsonb_build_object(
               'removable', now.removable, 'notCounted', coalesce(now.not_counted, CASE WHEN now.target IS NULL THEN 'no sample was taken' END),
               'perMinute', now.failed * 60 / nullif(now.failed_seconds, 0), 'usualPerMinute', usual.rate, 'usualOf', usual.hours,
               'secondsSinceRun', extract(epoch FROM now() - greatest(
                   (SELECT max(started_at) FROM backlog_cleanup.run WHERE target = t.name),
                   (SELECT max(decided_at) FROM backlog_cleanup.decision WHERE target = t.name AND action = 'run'))),
               'adaptiveMinRows', t.adaptive_min_rows, 'adaptiveRateFactor', t.adaptive_rate_factor,
               'adaptiveMinSeconds', extract(epoch FROM t.adaptive_min_interval))
    FROM backlog_cleanup.target t
    LEFT JOIN backlog_cleanup.sample now ON now.target = t.name AND now.grain = 'fine' AND now.sampled_at = now()
    CROSS JOIN LATERAL (
        SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY failed * 60 / failed_seconds), count(*)
        FROM backlog_cleanup.sample
        WHERE target = t.name AND grain = 'hour' AND sampled_at >= now() - interval '28 days' AND failed_seconds > 0
          AND extract(hour FROM timezone(t.time_zone, sampled_at)) = extract(hour FROM timezone(t.time_zone, now()))
    ) usual (rate, hours)
    WHERE t.name = $1";

/// Decides whether an adaptive target is cleaned up now, records that with its numbers, and starts the run.
pub fn decide(tick: Option<i64>, target: &str) -> Result<()> {
    let Some(JsonB(json)) = extension::as_owner(|| one_now::<JsonB>(NUMBERS, &[target.into()]))? else { return Ok(()) };
    let Ok(numbers) = Numbers::deserialize(&json) else { return Ok(()) };
    let (action, reason) = match reason(target, &numbers)? {
        Ok(reason) if early::start(target)? => ("run", reason),
        Ok(reason) => {
            ("none", format!("{reason}, but the server has no background worker left: SHOW max_worker_processes"))
        }
        Err(reason) => ("none", reason),
    };
    record(tick, target, action, &reason, json)
}

/// Why a run is to start, or why not.
fn reason(target: &str, numbers: &Numbers) -> Result<std::result::Result<String, String>> {
    let Some(removable) = numbers.removable else {
        return Ok(Err(format!("the rows were not counted: {}", numbers.not_counted.as_deref().unwrap_or_default())));
    };
    if let Some(process) = lock::holder(target)? {
        return Ok(Err(format!("a run is at work, in process {process}")));
    }
    if let Some(seconds) = numbers.seconds_since_run.filter(|seconds| *seconds < numbers.adaptive_min_seconds) {
        let (ago, least) = (minutes(seconds), minutes(numbers.adaptive_min_seconds));
        return Ok(Err(format!("the last run began {ago} minutes ago, and adaptive_min_interval is {least} minutes")));
    }
    if removable >= numbers.adaptive_min_rows {
        let least = numbers.adaptive_min_rows;
        return Ok(Ok(format!("{removable} rows are removable, and adaptive_min_rows is {least}")));
    }
    let below = format!("{removable} rows are removable, fewer than adaptive_min_rows = {}", numbers.adaptive_min_rows);
    let Some(factor) = numbers.adaptive_rate_factor else { return Ok(Err(below)) };
    let Some(usual) = numbers.usual_per_minute.filter(|_| numbers.usual_of >= BASELINE) else {
        let hours = numbers.usual_of;
        return Ok(Err(format!(
            "{below}; there is no baseline yet: {hours} of {BASELINE} samples of this hour of the day"
        )));
    };
    let Some(rate) = numbers.per_minute else { return Ok(Err(below)) };
    let said = format!("{rate:.1} rows failed per minute, usually {usual:.1} at this hour");
    if rate >= factor * usual && usual > 0.0 && removable > 0 {
        return Ok(Ok(format!("{said}, and adaptive_rate_factor is {factor}; {removable} rows are removable")));
    }
    Ok(Err(format!("{below}; {said}, and adaptive_rate_factor is {factor}")))
}

fn minutes(seconds: f64) -> f64 {
    (seconds / 60.0).floor()
}

fn record(tick: Option<i64>, target: &str, action: &str, reason: &str, numbers: Value) -> Result<()> {
    const RECORD: &str = "
        INSERT INTO backlog_cleanup.decision (tick, target, decided_at, action, reason, numbers)
        VALUES ($1, $2, now(), $3, $4, $5)";
    let values = [tick.into(), target.into(), action.into(), reason.into(), JsonB(numbers).into()];
    extension::as_owner(|| Spi::run_with_args(RECORD, &values).map_err(spi))
}
