use std::cell::Cell;
use std::time::{Duration, Instant};

use backlog_cleanup_report::{Mode, State};
use pgrx::prelude::*;

use crate::history::batches;
use crate::history::run::{PIECE, Run};
use crate::plan::cutoff;
use crate::plan::part::{self, Part};
use crate::postgres::citus::is_deadlock;
use crate::postgres::error::Result;
use crate::postgres::owner::defer_nothing;
use crate::postgres::settings::set_until_commit;
use crate::postgres::snapshot::with_new_snapshot;
use crate::postgres::subtransaction::{attempt, sqlstate};
use crate::remove::left::{Left, Patience};
use crate::remove::watch::Watch;
use crate::run::parts::remove_parts;
use crate::run::smaller::or_smaller;
use crate::run::{cancel, governor, ground, refused, tempo};
use crate::target::row::row;
use crate::target::steady::{Lock, steady};
use crate::target::{Target, guard};

/// How often a batch is retried after a deadlock, a serialization failure or a locked table has rolled it back.
const ATTEMPTS: i32 = 5;
/// Seconds between two looks while a run waits: whether it is to stop, what the governor says.
const PATIENCE: f64 = 1.0;

thread_local! {
    /// The run of this process, and when its next batch may start.
    static PAUSE: Cell<Option<(i64, Instant)>> = const { Cell::new(None) };
    /// Whether the last step has removed a batch, and nothing on another server.
    static IS_HERE: Cell<bool> = const { Cell::new(false) };
}

/// Does one step of a run: stops the run if it has reached `max_duration` or `max_rows`, waits outside of `run_between` or if the governor
/// says so, and otherwise removes a batch. Returns the seconds to wait before the next step; `None` if there is none.
pub fn step(run: &mut Run) -> Result<Option<f64>> {
    IS_HERE.set(false);
    if run.state != State::Running || run.is_over() {
        // Not if an error has ended it.
        batches::stop(run.id)?;
        return Ok(None);
    }
    if let Some(left) = pause_left(run) {
        return Ok(Some(run.in_time(left.min(PATIENCE))));
    }
    // Whoever waits for long takes no lock on a table.
    if run.mode == Mode::Regular
        && let Some(reason) = row(Some(&run.target))?.outside_of_window()?
    {
        batches::waiting(run.id, &reason)?;
        return Ok(Some(run.in_time(PATIENCE)));
    }
    tempo::before_batch(run);
    let run = &*run;
    let mut is_here = false;
    let batch = |target: &Target| {
        if let Some(reason) = governor::reason(target)? {
            batches::waiting(run.id, &reason)?;
            return Ok(Some(run.in_time(PATIENCE)));
        }
        governor::batch_starts();
        work(run, target, &mut is_here)
    };
    let done = cancel::unless_stopped(|| guard::in_a_batch(run.id, || steady(Some(&run.target), Lock::Remove, batch)))?;
    IS_HERE.set(is_here);
    // The next step ends the run. If whoever asked it to stop has taken that back, it goes on.
    Ok(done.unwrap_or_else(|| {
        cutoff::forget();
        Some(0.0)
    }))
}

/// Lets the commit of a batch not wait for the disk, if all of it is on this server. A crash loses the last batches with their books:
/// `finish_run` commits with the caller's own setting, and with it all that are before. Called outside of all subtransactions.
pub fn commit_soon() {
    if IS_HERE.take() {
        set_until_commit("synchronous_commit", "off");
    }
}

/// Removes a batch and records it, all in the caller's transaction. Returns as `step` does, and whether all of it is on this server.
fn work(run: &Run, target: &Target, is_here: &mut bool) -> Result<Option<f64>> {
    ground::is_that_of_the_snapshot(target)?;
    target.keys_are_trusted()?;
    refused::check(target)?;
    let reading = run.reading.as_ref();
    ground::is_read_as_before(run, target, reading.map_or(Ok(false), |reading| reading.still_holds(target))?)?;
    let horizon = reading.map(|reading| reading.horizon).unwrap_or_default();
    let Some(mut part) = Part::take(run.id, None)? else { return Ok(None) };
    defer_nothing()?;
    let (mut is_over, mut removed) = (false, 0);
    let started = Instant::now();
    let mut batch = || {
        cutoff::with(target, run.id, horizon, |cutoffs| {
            let mut left = left_of(run, part.pass);
            let is_by_position = remove_parts(run, target, &mut part, cutoffs, &mut left)?;
            *is_here = is_by_position && target.ledger.as_ref().is_none_or(|ledger| ledger.table.is_plain());
            is_over = left.is_over()?;
            removed = cutoffs.tally.removed();
            batches::write(run, target, cutoffs, part.pass, &left, started.elapsed())?;
            Ok(Some(()))
        })
    };
    // It shows what other workers have committed of the pass before.
    let done = attempt(|| with_new_snapshot(&mut batch));
    if let Err(failure) = done {
        let again = matches!(
            sqlstate(&failure),
            PgSqlErrorCode::ERRCODE_T_R_DEADLOCK_DETECTED
                | PgSqlErrorCode::ERRCODE_T_R_SERIALIZATION_FAILURE
                | PgSqlErrorCode::ERRCODE_LOCK_NOT_AVAILABLE
        );
        let again = again || is_deadlock(&failure) || target.has_failed_to_read(&failure)?;
        if !again || part.attempts == ATTEMPTS {
            return Err(or_smaller(failure, &target.name, run.batch_size / 10));
        }
        part.failed_once_more()?;
        return Ok(Some(0.1 * f64::from(part.attempts + 1)));
    }
    if is_over {
        return Ok(Some(0.0));
    }
    if !part::are_left(run.id)? {
        return Ok(None);
    }
    let end = Instant::now() + tempo::after_batch(run, started);
    PAUSE.set(Some((run.id, rate_allows(run, started, removed).map_or(end, |next| next.max(end)))));
    Ok(Some(run.in_time(pause_left(run).unwrap_or_default().min(PATIENCE))))
}

/// When the rate of a run allows its next batch in this process, behind one that started so and has removed so many rows. A batch
/// that came late is made up for, up to one piece of a second.
fn rate_allows(run: &Run, started: Instant, removed: i64) -> Option<Instant> {
    let seconds = removed as f64 / run.rows_per_second()?;
    let allowed = PAUSE.get().filter(|(of, _)| *of == run.id).map_or(started, |(_, end)| end);
    let late = started.saturating_duration_since(allowed).min(Duration::from_secs_f64(PIECE));
    Some(started - late + Duration::from_secs_f64(seconds))
}

/// Nothing yet, of a batch that ends early when its run is to end: somebody has asked it to stop, or it has failed elsewhere.
fn left_of(run: &Run, pass: i32) -> Left {
    let run_id = run.id;
    let is_to_end = move || batches::is_to_end(run_id);
    let (patience, watch) = (Patience::of(pass, run.removed, run.kept_back), Some(Watch::new(is_to_end)));
    Left { patience, watch, ..Left::default() }
}

/// Seconds of the pause after this process's last batch that are left, if it is not over. A pause is slept in pieces, so that
/// a stop is heard in it.
fn pause_left(run: &Run) -> Option<f64> {
    let (_, end) = PAUSE.get().filter(|(of, _)| *of == run.id)?;
    let left = end.saturating_duration_since(Instant::now()).as_secs_f64();
    (left > 0.0).then_some(left)
}
