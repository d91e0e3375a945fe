use std::sync::LazyLock;

use pgrx::JsonB;
use serde::Deserialize;

use crate::extension;
use crate::history::run::WHOLE_AND_DONE;
use crate::postgres::error::Result;
use crate::postgres::now::one_now;
use crate::run::{early, lock};
use crate::target::row::row;
use crate::tick::decision::Decision;

/// So many hours make a baseline.
const BASELINE: i64 = 5;
/// The database is busy when it has so many times its usual transactions.
const BUSY: f64 = 1.5;
/// After so many runs that have failed and removed nothing none is started early.
const GIVES_UP: i64 = 3;
/// A rate below one row a minute is none to stand out from, however quiet the hour usually is.
const QUIET: f64 = 1.0;
/// A run is slowed down to no fewer rows per second.
const SLOWEST: f64 = 100.0;

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
    transactions_per_second: Option<f64>,
    usual_transactions_per_second: Option<f64>,
    usual_transactions_of: i64,
    /// Since the last run began, or was decided on.
    seconds_since_run: Option<f64>,
    adaptive_min_rows: i64,
    adaptive_rate_factor: Option<f64>,
    adaptive_min_seconds: f64,
    /// What the last regular run of everything could not remove.
    kept_back: i64,
    /// Of the last `GIVES_UP` runs, those that have failed and removed nothing; and what the last one has met.
    refused: i64,
    error: Option<String>,
    /// The batched regular run that is at work.
    run: Option<Run>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Run {
    /// Since it started.
    rows_per_second: f64,
    slowed_to: Option<f64>,
}

/// The numbers of a target. What is usual is the median of the same hour of the day.
static NUMBERS: LazyLock<String> = LazyLock::new(|| {
    format!(
        "SELECT jsonb_build_object(
               'removable', now.removable, 'notCounted', coalesce(now.not_counted, CASE WHEN now.target IS NULL THEN 'no sample was taken' END),
               'perMinute', now.failed * 60 / nullif(now.failed_seconds, 0), 'usualPerMinute', usual.rate, 'usualOf', usual.hours,
               'transactionsPerSecond', now.transactions / nullif(now.seconds, 0),
               'usualTransactionsPerSecond', usual.transactions, 'usualTransactionsOf', usual.transactions_hours,
               'secondsSinceRun', extract(epoch FROM now() - greatest(
                   -- One of the future is of a clock that was ahead.
                   (SELECT max(started_at) FROM backlog_cleanup.run WHERE target = t.name AND started_at <= clock_timestamp()),
                   (SELECT max(decided_at) FROM backlog_cleanup.decision
                    WHERE target = t.name AND action = 'run' AND decided_at <= clock_timestamp()))),
               'keptBack', coalesce((SELECT r.kept_back FROM backlog_cleanup.run r
                                     WHERE target = t.name AND {WHOLE_AND_DONE} ORDER BY id DESC LIMIT 1), 0),
               'refused', (SELECT count(*) FROM (SELECT * FROM backlog_cleanup.run WHERE target = t.name ORDER BY id DESC LIMIT {GIVES_UP}) last
                           WHERE state = 'failed' AND removed = 0),
               'error', (SELECT left(error_message, 300) FROM backlog_cleanup.run WHERE target = t.name ORDER BY id DESC LIMIT 1),
               'adaptiveMinRows', t.adaptive_min_rows, 'adaptiveRateFactor', t.adaptive_rate_factor,
               'adaptiveMinSeconds', extract(epoch FROM t.adaptive_min_interval),
               'run', (SELECT jsonb_build_object(
                                  'id', r.id, 'rowsPerSecond', r.removed / greatest(extract(epoch FROM clock_timestamp() - r.started_at), 1),
                                  'slowedTo', slowed.rows)
                       FROM backlog_cleanup.run r CROSS JOIN backlog_cleanup.slowed_to(r.target, r.started_at) slowed (rows)
                       WHERE r.target = t.name AND r.state = 'running' AND r.mode = 'regular' AND r.batch_size IS NOT NULL
                       ORDER BY r.id DESC LIMIT 1))
    FROM backlog_cleanup.target t
    LEFT JOIN backlog_cleanup.sample now ON now.target = t.name AND now.grain = 'fine' AND now.sampled_at = now()
    CROSS JOIN LATERAL (
        SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY failed * 60 / failed_seconds) FILTER (WHERE failed_seconds > 0),
               count(failed * 60) FILTER (WHERE failed_seconds > 0),
               percentile_cont(0.5) WITHIN GROUP (ORDER BY transactions / seconds) FILTER (WHERE seconds BETWEEN 1800 AND 5400),
               count(transactions) FILTER (WHERE seconds BETWEEN 1800 AND 5400)
        FROM backlog_cleanup.sample
        WHERE target = t.name AND grain = 'hour' AND sampled_at >= now() - interval '28 days'
          AND extract(hour FROM timezone(t.time_zone, sampled_at)) = extract(hour FROM timezone(t.time_zone, now()))
    ) usual (rate, hours, transactions, transactions_hours)
    WHERE t.name = $1"
    )
});

/// Decides whether an adaptive target is cleaned up now, and whether a run of it that is at work goes slower. Records that with its
/// numbers, and starts the run.
pub fn decide(tick: Option<i64>, target: &str) -> Result<()> {
    let Some(JsonB(json)) = extension::as_owner(|| one_now::<JsonB>(&NUMBERS, &[target.into()]))? else {
        return Ok(());
    };
    let Ok(numbers) = Numbers::deserialize(&json) else { return Ok(()) };
    let decision = match lock::holder(target)? {
        Some(process) => pace(process, &numbers),
        None => start(target, &numbers)?,
    };
    let why_not = if decision.action == "run" { early::start(tick.unwrap_or_default())? } else { None };
    let decision = match why_not {
        Some(why) => Decision::of("none", format!("{}, but {why}", decision.reason)),
        None => decision,
    };
    decision.record(tick, target, json)
}

/// How a run goes on: half as fast while the database is busier than usual at this hour, and half as fast again at the next tick.
fn pace(process: i32, numbers: &Numbers) -> Decision {
    let at_work = format!("a run is at work, in process {process}");
    let usual = numbers.usual_transactions_per_second.filter(|_| numbers.usual_transactions_of >= BASELINE);
    let Some(((run, rate), usual)) = numbers.run.as_ref().zip(numbers.transactions_per_second).zip(usual) else {
        return Decision::of("none", at_work);
    };
    let said = format!("the database has {rate:.1} transactions per second, usually {usual:.1} at this hour");
    if rate > BUSY * usual {
        let rows = (run.slowed_to.unwrap_or(run.rows_per_second) / 2.0).clamp(SLOWEST, f64::from(i32::MAX)) as i32;
        let reason = format!("{at_work}, and {said}: it goes on with {rows} rows per second at most");
        return Decision { action: "slow", reason, rows_per_second: Some(rows) };
    }
    match run.slowed_to {
        Some(_) => Decision::of("resume", format!("{at_work}, and {said}")),
        None => Decision::of("none", format!("{at_work}; {said}")),
    }
}

/// Whether a run starts.
fn start(target: &str, numbers: &Numbers) -> Result<Decision> {
    let none = |reason: String| Ok(Decision::of("none", reason));
    if let Some(reason) = row(Some(target))?.outside_of_window()? {
        return none(reason);
    }
    let not_counted = numbers.not_counted.as_deref().unwrap_or_default();
    if numbers.removable.is_none() && numbers.per_minute.is_none() {
        return none(format!("the rows were not counted: {not_counted}"));
    }
    if let Some(seconds) = numbers.seconds_since_run.filter(|seconds| *seconds < numbers.adaptive_min_seconds) {
        let (ago, least) = (minutes(seconds), minutes(numbers.adaptive_min_seconds));
        return none(format!("the last run began {ago} minutes ago, and adaptive_min_interval is {least} minutes"));
    }
    if numbers.refused >= GIVES_UP {
        let error = numbers.error.as_deref().unwrap_or_default();
        return none(format!("the last {GIVES_UP} runs have failed, and a run has to succeed first: {error}"));
    }
    let least = numbers.adaptive_min_rows;
    let stay = numbers.removable.map_or(0, |removable| numbers.kept_back.min(removable));
    let removable = numbers.removable.map(|removable| removable - stay);
    let kept = match stay {
        0 => String::new(),
        stay => format!(" without the {stay} that the last run has kept back"),
    };
    let (is_enough, are_removable) = match removable {
        Some(removable) => (removable >= least, format!("{removable} rows are removable{kept}")),
        // The rate alone says whether to run.
        None => (false, not_counted.to_owned()),
    };
    if is_enough {
        return Ok(Decision::of("run", format!("{are_removable}, and adaptive_min_rows is {least}")));
    }
    let below = match removable {
        Some(_) => format!("{are_removable}, fewer than adaptive_min_rows = {least}"),
        None => are_removable.clone(),
    };
    let Some(factor) = numbers.adaptive_rate_factor else { return none(below) };
    let Some(usual) = numbers.usual_per_minute.filter(|_| numbers.usual_of >= BASELINE) else {
        let hours = numbers.usual_of;
        return none(format!(
            "{below}; there is no baseline yet: {hours} of {BASELINE} samples of this hour of the day"
        ));
    };
    let Some(rate) = numbers.per_minute else { return none(below) };
    let said = format!("{rate:.1} rows came into scope per minute, usually {usual:.1} at this hour");
    if rate >= factor * usual.max(QUIET) && removable.is_none_or(|removable| removable > 0) {
        let are_removable = removable.map_or(are_removable, |removable| format!("{removable} rows are removable"));
        let reason = format!("{said}, and adaptive_rate_factor is {factor}; {are_removable}");
        return Ok(Decision::of("run", reason));
    }
    none(format!("{below}; {said}, and adaptive_rate_factor is {factor}"))
}

fn minutes(seconds: f64) -> f64 {
    (seconds / 60.0).floor()
}
