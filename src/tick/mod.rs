//! What looks after itself, every five minutes: samples, decisions, housekeeping. Each step stands alone.

mod decide;
mod decision;
mod place;
mod sample;

use std::time::Instant;

use pgrx::pg_sys::panic::CaughtError;
use pgrx::prelude::*;
use serde::Serialize;

use crate::extension;
use crate::history::{batches, housekeeping, samples};
use crate::postgres::error::{Result, error, spi};
use crate::postgres::json::Json;
use crate::postgres::nodes::refuse_on_worker_node;
use crate::postgres::now::{one_now, rows_now};
use crate::postgres::read::refuse_read_only;
use crate::postgres::settings::{set_local, with_settings};
use crate::postgres::snapshot::with_new_snapshot;
use crate::postgres::subtransaction::{attempt, is_cancel, said, sqlstate};
use crate::postgres::timeout::within;
use crate::remove::left::MESSAGE;
use crate::run::lock::{Span, acquire};
use crate::run::prepare::cannot_be_prepared;
use crate::run::ticks::{self, Kind, Lock};
use crate::schedule::auto;
use crate::status::alerts::{self, Unknown};

/// How long a step waits for a lock.
const PATIENCE: &str = "10ms";

/// How long a step may take, in milliseconds: it can run code of a table's owner.
const LONGEST: i64 = 5_000;

/// A tick counts no target any more once it has counted so many rows.
const ROWS: i64 = 500_000;

/// A step of a tick.
#[derive(Serialize)]
struct Step {
    step: String,
    target: Option<String>,
    milliseconds: f64,
    /// Why it has done nothing, or not all.
    skipped: Option<String>,
    /// Why it has failed.
    error: Option<String>,
    /// Whether it took too long.
    #[serde(skip)]
    is_over: bool,
}

/// What a tick has done.
#[derive(Serialize)]
struct Tick {
    /// `None` if it did nothing.
    tick: Option<i64>,
    milliseconds: f64,
    skipped: Option<String>,
    steps: Vec<Step>,
}

/// Takes a sample of each target, decides about adaptive ones, makes hours and days of the samples, opens and resolves alerts, and prunes what is
/// older than `backlog_cleanup.retention` says. Returns
/// what each step took. Waits for no lock; a step that fails or takes too long stops no other. Does nothing on a standby, or while another tick is at work,
/// and says so. Errors: 25006, 42501 (within code of a table), 55000.
#[pg_extern]
fn backlog_cleanup_tick() -> Result<Json> {
    let nothing =
        |why: String| Json::of(&Tick { tick: None, milliseconds: 0.0, skipped: Some(why), steps: Vec::new() });
    // SAFETY: only reads what the server is.
    if unsafe { pg_sys::RecoveryInProgress() } {
        return nothing("this server is a standby".into());
    }
    // SAFETY: only reads what this session is in.
    if unsafe { pg_sys::InSecurityRestrictedOperation() } {
        return Err(error(
            PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
            "code of a table cannot tick".into(),
            "SELECT backlog_cleanup_tick()".into(),
        ));
    }
    refuse_on_worker_node("tick")?;
    refuse_read_only("tick")?;
    extension::is_of_this_version()?;
    // Whoever has it already is in a tick: code of a table may call one.
    if ticks::try_acquire(Kind::Tick)? != Lock::Taken {
        let by = ticks::holder(Kind::Tick)?.map_or(String::new(), |process| format!(": process {process}"));
        return nothing(format!("another tick is at work{by}"));
    }
    cannot_be_prepared();
    // What the tick before has written may be newer than the statement.
    let tick = with_new_snapshot(|| {
        with_settings(|| {
            set_local("lock_timeout", PATIENCE);
            tick()
        })
    })?;
    Json::of(&tick)
}

fn tick() -> Result<Tick> {
    const IS_LATE: &str = "
        SELECT started_at > now() AND started_at <= clock_timestamp() FROM backlog_cleanup.tick ORDER BY id DESC LIMIT 1";
    const WRITE: &str = "
        INSERT INTO backlog_cleanup.tick (id, started_at, milliseconds, steps) OVERRIDING SYSTEM VALUE VALUES ($1, now(), $2, $3)";
    let started = Instant::now();
    let mut is_late = false;
    let clock = step("look at the clock", None, || {
        is_late = extension::as_owner(|| one_now::<bool>(IS_LATE, &[]))? == Some(true);
        if is_late { Ok(None) } else { samples::of_the_future() }
    });
    if is_late {
        let why = Some("another tick has begun later than this transaction".into());
        return Ok(Tick { tick: None, milliseconds: 0.0, skipped: why, steps: Vec::new() });
    }
    let tick =
        extension::as_owner(|| Spi::get_one::<i64>("SELECT nextval('backlog_cleanup.tick_id_seq')").map_err(spi))?;
    let mut steps = steps(tick);
    steps.insert(0, clock);
    let milliseconds = since(started);
    let json = pgrx::JsonB(serde_json::to_value(&steps).unwrap_or_default());
    let written = step("write", None, || {
        let values = [tick.into(), milliseconds.into(), json.into()];
        extension::as_owner(|| Spi::run_with_args(WRITE, &values).map_err(spi)).map(|()| None)
    });
    let skipped = written.skipped.or(written.error).map(|why| format!("the tick has no row: {why}"));
    Ok(Tick { tick, milliseconds, skipped, steps })
}

fn steps(tick: Option<i64>) -> Vec<Step> {
    // Those that were counted longest ago come first.
    const TARGETS: &str = "
        SELECT name, adaptive FROM backlog_cleanup.target t
        ORDER BY (SELECT sampled_at FROM backlog_cleanup.sample
                  WHERE target = t.name AND grain = 'fine' AND in_scope IS NOT NULL ORDER BY sampled_at DESC LIMIT 1) NULLS FIRST, name";
    let (mut targets, mut jobs, mut rows) = (Vec::new(), Vec::new(), 0);
    let mut steps = vec![step("look for targets", None, || {
        targets = extension::as_owner(|| {
            rows_now(TARGETS, &[], |row| {
                Ok((row.get::<String>(1)?.unwrap_or_default(), row.get::<bool>(2)? == Some(true)))
            })
        })?;
        jobs = auto::all()?;
        Ok(None)
    })];
    for (target, _) in &targets {
        let turn = if rows < ROWS { Ok(()) } else { Err(format!("this tick has counted {rows} rows of others")) };
        let mut done = step("sample", Some(target), || sample::sample(target, turn, &mut rows));
        if done.is_over {
            let why = done.skipped.unwrap_or_default();
            done = step("sample", Some(target), || sample::sample(target, Err(why), &mut 0));
            done.milliseconds += LONGEST as f64;
        }
        steps.push(done);
    }
    for (target, _) in targets.iter().filter(|(_, is_adaptive)| *is_adaptive) {
        steps.push(step("decide", Some(target), || decide::decide(tick, target).map(|()| None)));
    }
    for job in &jobs {
        steps.push(step("place", Some(&job.target), || place::place(tick, job)));
    }
    steps.push(step("roll up", None, || samples::roll_up().map(|()| None)));
    let mut failed = None;
    // They see the samples that this tick has taken. Each rule has a limit of its own.
    let alerts = timed("alerts", None, || {
        attempt(|| {
            let unknown;
            (unknown, failed) = with_new_snapshot(alerts)?;
            Ok(Some(unknown))
        })
    });
    steps.push(Step { error: alerts.error.or(failed), ..alerts });
    for what in housekeeping::WHAT {
        steps.push(step(&format!("prune {what}"), None, || housekeeping::prune(what)));
    }
    let mut left_over = Vec::new();
    steps.push(step("look for interrupted runs", None, || {
        left_over = housekeeping::left_over()?;
        Ok(None)
    }));
    for target in &left_over {
        steps.push(step("sum up", Some(target), || sum_up(target).map(|()| None)));
    }
    steps
}

/// Opens and resolves alerts; returns what cannot be known now, and which rules have failed.
fn alerts() -> Result<(Option<String>, Option<String>)> {
    let (failed, unknown): (Vec<Unknown>, Vec<Unknown>) =
        alerts::evaluate()?.into_iter().partition(|unknown| unknown.has_failed);
    let said = |unknown: Vec<Unknown>| {
        let said = unknown.into_iter().map(|Unknown { rule, target, why, .. }| {
            let target = target.map_or(String::new(), |target| format!(" of target \"{target}\""));
            format!("rule \"{rule}\"{target}: {}", why.chars().take(MESSAGE).collect::<String>())
        });
        Some(said.collect::<Vec<_>>().join("; ")).filter(|said| !said.is_empty())
    };
    Ok((said(unknown), said(failed)))
}

/// Sums up the interrupted runs of a target. Errors: 55P03 (a run is at work).
fn sum_up(target: &str) -> Result<()> {
    acquire(target, Span::Transaction)?;
    batches::interrupt(target)
}

/// Does a step in a subtransaction, which it ends after `LONGEST`; `work` returns why it has not done all.
fn step(name: &str, target: Option<&str>, work: impl FnOnce() -> Result<Option<String>>) -> Step {
    timed(name, target, || within(LONGEST, work))
}

/// Does a step in a subtransaction; `work` returns `None` if a limit has ended it.
fn timed(
    name: &str,
    target: Option<&str>,
    work: impl FnOnce() -> std::result::Result<Option<Option<String>>, CaughtError>,
) -> Step {
    let (started, mut is_over) = (Instant::now(), false);
    let (skipped, error) = match work() {
        Ok(Some(skipped)) => (skipped, None),
        Ok(None) => {
            is_over = true;
            (Some(format!("it was ended after {} s", LONGEST / 1000)), None)
        }
        Err(failure) if is_cancel(&failure) => failure.rethrow(),
        Err(failure) => {
            let message = Some(said(&failure));
            match sqlstate(&failure) {
                PgSqlErrorCode::ERRCODE_LOCK_NOT_AVAILABLE => (message, None),
                _ => (None, message),
            }
        }
    };
    let target = target.map(str::to_owned);
    Step { step: name.to_owned(), target, milliseconds: since(started), skipped, error, is_over }
}

fn since(started: Instant) -> f64 {
    (started.elapsed().as_secs_f64() * 1e6).round() / 1e3
}
