use std::cell::Cell;
use std::time::{Duration, Instant};

use backlog_cleanup_report::State;
use pgrx::prelude::*;

use crate::history::batches;
use crate::history::error::At;
use crate::history::run::Run;
use crate::plan::cutoff::{self, Cutoffs};
use crate::plan::part::{self, Part, Task};
use crate::postgres::error::{Result, error};
use crate::postgres::owner::defer_nothing;
use crate::postgres::subtransaction::{attempt, sqlstate};
use crate::postgres::table::{Table, family};
use crate::rank::removable::Removable;
use crate::remove::by_position::remove_around;
use crate::remove::find::{Place, find};
use crate::remove::heap::{follow, unchanged_since};
use crate::remove::keys;
use crate::remove::left::{Left, Patience};
use crate::rules::Rules;
use crate::run::{failure, governor, ground};
use crate::target::leaf::Leaf;
use crate::target::steady::steady;
use crate::target::{Target, foreign_keys};

/// How often a batch is retried after a deadlock, a serialization failure or a locked table has rolled it back.
const ATTEMPTS: i32 = 5;
/// Seconds between two looks while a run waits: whether it is to stop, what the governor says.
const PATIENCE: f64 = 1.0;

thread_local! {
    /// The run of this process, and when its pause ends.
    static PAUSE: Cell<Option<(i64, Instant)>> = const { Cell::new(None) };
}

/// Does one step of a run: stops the run if it has reached `max_duration` or `max_rows`, waits if the governor says so, and
/// otherwise removes a batch. Returns the seconds to wait before the next step; `None` if there is none.
pub fn step(run: &Run) -> Result<Option<f64>> {
    if run.state != State::Running || run.is_over() {
        // Not if an error has ended it.
        batches::stop(run.id)?;
        return Ok(None);
    }
    if let Some(left) = pause_left(run) {
        return Ok(Some(run.in_time(left.min(PATIENCE))));
    }
    steady(Some(&run.target), |target| {
        if let Some(reason) = governor::reason(target)? {
            batches::waiting(run.id, &reason)?;
            return Ok(Some(run.in_time(PATIENCE)));
        }
        governor::batch_starts();
        work(run, target)
    })
}

/// Removes a batch and records it, all in the caller's transaction. Returns as `step` does.
fn work(run: &Run, target: &Target) -> Result<Option<f64>> {
    ground::is_that_of_the_snapshot(target)?;
    foreign_keys::are_on(target)?;
    is_read_as_before(run, target, run.reading.as_ref().map_or(Ok(false), |reading| reading.still_holds(target))?)?;
    let Some(part) = Part::take(run.id)? else { return Ok(None) };
    defer_nothing()?;
    failure::works_on(At {
        words: format!(
            "table {}, after {} batches",
            Table::of(part.leaf)?.map_or("(dropped)".into(), |leaf| leaf.name),
            run.batches
        ),
        tables: target.tables().into_iter().chain([part.leaf]).collect(),
    });
    let started = Instant::now();
    let done = attempt(|| {
        // With this lock no session can detach or rewrite the leaf until the batch is committed.
        // SAFETY: the lock is released with the transaction.
        unsafe { pg_sys::LockRelationOid(part.leaf, pg_sys::RowExclusiveLock as i32) };
        let Some(leaf) = Leaf::still_of(part.leaf, target)? else {
            part.advance(part.steps, 0, 0)?;
            return Ok(Some(()));
        };
        is_read_as_before(run, target, part.columns == leaf.numbers)?;
        cutoff::with(target, run.id, |cutoffs| {
            if part.restart_if_rewritten()? {
                return Ok(Some(()));
            }
            let (next, mut left) = remove_next(run, target, &leaf, &part, cutoffs)?;
            part.advance(next.0, next.1, cutoffs.tally.removed())?;
            let by_key = if left.given_up > 0 { 0 } else { left.kept_back };
            part.try_again(std::mem::take(&mut left.again), by_key)?;
            left.kept_back -= part.counted_before(next.0);
            batches::write(run, target, cutoffs, part.pass, &left, started.elapsed())?;
            Ok(Some(()))
        })
    });
    if let Err(failure) = done {
        let again = matches!(
            sqlstate(&failure),
            PgSqlErrorCode::ERRCODE_T_R_DEADLOCK_DETECTED
                | PgSqlErrorCode::ERRCODE_T_R_SERIALIZATION_FAILURE
                | PgSqlErrorCode::ERRCODE_LOCK_NOT_AVAILABLE
        );
        if !again || part.attempts == ATTEMPTS {
            failure.rethrow();
        }
        part.failed_once_more()?;
        return Ok(Some(0.1 * f64::from(part.attempts + 1)));
    }
    if !part::are_left(run.id)? {
        return Ok(None);
    }
    PAUSE.set(Some((run.id, Instant::now() + Duration::from_secs_f64(run.pause))));
    Ok(Some(run.in_time(run.pause.min(PATIENCE))))
}

/// Seconds of the pause after this process's last batch that are left, if it is not over. A pause is slept in pieces, so that
/// a stop is heard in it.
fn pause_left(run: &Run) -> Option<f64> {
    let (_, end) = PAUSE.get().filter(|(of, _)| *of == run.id)?;
    let left = end.saturating_duration_since(Instant::now()).as_secs_f64();
    (left > 0.0).then_some(left)
}

/// Errors: 55000 (the run's cutoffs no longer fit the target).
fn is_read_as_before(run: &Run, target: &Target, is_the_same: bool) -> Result<()> {
    if is_the_same {
        return Ok(());
    }
    Err(error(
        PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
        format!(
            "target \"{}\": its account, its status, its columns or its time zone have changed since run {} started",
            target.name, run.id
        ),
        "CALL backlog_cleanup_run()".into(),
    ))
}

/// Removes up to a batch of rows. Returns where to continue (the steps done, the offset in the next block), and the rows
/// that are left.
fn remove_next(
    run: &Run,
    target: &Target,
    leaf: &Leaf,
    part: &Part,
    cutoffs: &mut Cutoffs,
) -> Result<((i64, u16), Left)> {
    let rules = run.rules(target);
    let limit = run.rows_left().unwrap_or(run.batch_size).min(run.batch_size) as usize;
    let tables = family(target.table.oid)?;
    let mut left = Left { patience: Patience::of(run.removed, run.kept_back), ..Left::default() };
    let next = leaf.as_owner(target, || match &part.task {
        Task::Keys => {
            let next = if rules.cutoff.is_some() {
                let recipes = part.steps_done as usize..part.steps as usize;
                keys::remove(&rules, leaf, recipes, limit, &mut cutoffs.tally, &mut left)? as i64
            } else {
                keys::remove_all(&rules, leaf, part.kept_back, &mut cutoffs.tally, &mut left)?;
                part.steps
            };
            Ok((next, 0))
        }
        Task::Positions { rows, lsn } => {
            let rows = &rows[part.steps_done as usize..];
            let rows = &rows[..rows.len().min(limit)];
            remove_known(&rules, leaf, &tables, rows, *lsn, cutoffs, &mut left)?;
            Ok((part.steps_done + rows.len() as i64, 0))
        }
        Task::Blocks { first, next_offset } => {
            let next = first + part.steps_done;
            let end = (next + part::blocks_at_once() as i64).min(first + part.steps);
            let place = Place::Blocks { after: (next as u32, *next_offset), end: end as u32 };
            let rows = find(&rules, leaf, place, limit, &mut cutoffs.tally)?;
            remove_around(&rules, leaf, &tables, &rows, &mut cutoffs.tally, &mut left)?;
            Ok(match rows.last() {
                Some(last) if rows.len() == limit => (i64::from(last.block()) - first, last.offset()),
                _ => (end - first, 0),
            })
        }
    })?;
    Ok((next, left))
}

/// Removes rows that were removable when the WAL was at `lsn`. Rechecks those whose pages have changed since.
fn remove_known(
    rules: &Rules,
    leaf: &Leaf,
    tables: &[pg_sys::Oid],
    rows: &[Removable],
    lsn: u64,
    cutoffs: &mut Cutoffs,
    left: &mut Left,
) -> Result<()> {
    let (mut known, others) = unchanged_since(leaf, lsn, rows);
    known.retain(|row| row.recipe().is_none_or(|recipe| cutoffs.tally.list[recipe].take()));
    if !others.is_empty() {
        let others: Vec<_> = follow(leaf, &others).iter().map(Removable::tid).collect();
        known.extend(find(rules, leaf, Place::Positions(&others), usize::MAX, &mut cutoffs.tally)?);
        known.sort_unstable();
    }
    remove_around(rules, leaf, tables, &known, &mut cutoffs.tally, left)
}
