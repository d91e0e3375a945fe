use std::time::Instant;

use pgrx::prelude::*;

use crate::history;
use crate::history::batches;
use crate::history::run::Run;
use crate::plan::cutoff;
use crate::plan::part;
use crate::plan::part::{Part, Task};
use crate::postgres::error::Result;
use crate::postgres::owner::{as_owner_of, defer_nothing};
use crate::postgres::prepared;
use crate::postgres::subtransaction::{attempt, sqlstate};
use crate::rank::removable::Removable;
use crate::rank::tally::Recipes;
use crate::remove::emergency::remove_failed;
use crate::remove::find::{Place, condition, find};
use crate::remove::keys;
use crate::remove::{Left, remove_around};
use crate::rules::policy::Policy;
use crate::rules::selection::Selection;
use crate::run::governor;
use crate::target::leaf;
use crate::target::leaf::{Leaf, Reach};
use crate::target::steady::steady;
use crate::target::{Target, state};

/// How often a batch is tried again that a deadlock, a serialization failure or a locked table has rolled back.
const ATTEMPTS: i32 = 5;
/// How long a run waits that the governor has stopped, in seconds, before it asks again.
const PATIENCE: f64 = 1.0;

/// One step of whoever works on a run: stops it where it has had its time or its rows, waits where the governor says so,
/// and else removes a batch.
pub fn step(run: &Run) -> Result<Option<f64>> {
    if run.state != "running" || run.is_over() {
        batches::stop(run.id)?;
        return Ok(None);
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

/// Works on a run for one batch, all in the caller's transaction: removes, counts, and writes the books. Returns the
/// seconds to wait before the next; `None` where there is nothing left to take.
fn work(run: &Run, target: &Target) -> Result<Option<f64>> {
    let Some(part) = Part::take(run.id)? else { return Ok(None) };
    defer_nothing()?;
    let Some(table) = leaf::table(part.leaf, target)? else {
        // The leaf was dropped, and its rows with it.
        part.advance(part.steps, 0)?;
        return Ok(Some(0.0));
    };
    let reach = if matches!(part.task, Task::Keys) { Reach::Key } else { Reach::Position };
    let leaf = Leaf { table, reach, pages: 0, is_stale: false };
    let started = Instant::now();
    let done = attempt(|| {
        // Whoever takes it out of the target, or rewrites it, has done so by now, or waits until the batch is committed.
        unsafe { pg_sys::LockRelationOid(part.leaf, pg_sys::RowExclusiveLock as i32) };
        if !leaf::belongs(part.leaf, target)? {
            part.advance(part.steps, 0)?;
            return Ok(Some(()));
        }
        cutoff::with(target, run.id, |recipes| {
            if part.restart_if_rewritten()? {
                return Ok(Some(()));
            }
            let (next, left) = remove_next(run, target, &leaf, &part, recipes)?;
            part.advance(next.0, next.1)?;
            write(run, target, recipes, left, started)?;
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
    Ok(if part::are_left(run.id)? { Some(run.in_time(run.pause)) } else { None })
}

/// Removes up to a batch of rows, and says where to go on: the steps done, and the offset in the next block.
fn remove_next(
    run: &Run,
    target: &Target,
    leaf: &Leaf,
    part: &Part,
    recipes: &mut Recipes,
) -> Result<((i64, u16), Left)> {
    let policy = run.policy();
    let selection = Selection { recipe_id: run.recipe_id.as_deref(), failure_type: run.failure_type.as_deref() };
    let limit = run.rows_left().unwrap_or(run.batch_size).min(run.batch_size) as usize;
    as_owner_of(&leaf.table, || match &part.task {
        Task::Keys => remove_keys(target, leaf, policy.as_ref(), &selection, part, limit, recipes),
        Task::Positions { rows, lsn } => {
            let rows = &rows[part.steps_done as usize..];
            let rows = &rows[..rows.len().min(limit)];
            let left = remove_known(target, leaf, policy.as_ref(), &selection, (rows, *lsn), recipes)?;
            Ok(((part.steps_done + rows.len() as i64, 0), left))
        }
        Task::Blocks { first, next_offset } => {
            let next = first + part.steps_done;
            let end = (next + part::blocks_at_once() as i64).min(first + part.steps);
            let place = Place::Blocks { after: (next as u32, *next_offset), end: end as u32 };
            let rows = find(target, leaf, policy.as_ref(), &selection, place, limit, recipes)?;
            let condition = condition(target, policy.as_ref(), &selection);
            let left = remove_around(target, leaf, &condition, &rows, recipes)?;
            let next = match rows.last() {
                Some(last) if rows.len() == limit => (i64::from(last.block()) - first, last.offset()),
                _ => (end - first, 0),
            };
            Ok((next, left))
        }
    })
}

/// Removes rows that were removable when the write-ahead log was at `lsn`, and looks at those again whose pages have changed.
fn remove_known(
    target: &Target,
    leaf: &Leaf,
    policy: Option<&Policy>,
    selection: &Selection,
    (rows, lsn): (&[Removable], u64),
    recipes: &mut Recipes,
) -> Result<Left> {
    let (mut known, others) = leaf.unchanged_since(lsn, rows);
    if !others.is_empty() {
        let others: Vec<_> = leaf.follow(&others).iter().map(Removable::tid).collect();
        known.extend(find(target, leaf, policy, selection, Place::Positions(&others), usize::MAX, recipes)?);
        known.sort_unstable();
    }
    remove_around(target, leaf, &condition(target, policy, selection), &known, recipes)
}

fn remove_keys(
    target: &Target,
    leaf: &Leaf,
    policy: Option<&Policy>,
    selection: &Selection,
    part: &Part,
    limit: usize,
    recipes: &mut Recipes,
) -> Result<((i64, u16), Left)> {
    let next = match policy {
        Some(policy) => {
            let places = part.steps_done as usize..part.steps as usize;
            keys::remove(target, leaf, policy, selection, places, limit, recipes)? as i64
        }
        None => remove_failed(target, leaf, selection, recipes).map(|()| part.steps)?,
    };
    Ok(((next, 0), Left::default()))
}

/// Writes what a batch has removed into the run, the ledger and the list of batches.
fn write(run: &Run, target: &Target, recipes: &Recipes, left: Left, started: Instant) -> Result<()> {
    let removed = recipes.removed();
    let batch = state(|| {
        prepared::get_one::<i64>(
            "UPDATE backlog_cleanup.run
             SET removed = removed OPERATOR(pg_catalog.+) $2,
                 skipped = skipped OPERATOR(pg_catalog.+) $3,
                 kept_back = kept_back OPERATOR(pg_catalog.+) $4,
                 batches = batches OPERATOR(pg_catalog.+) CASE WHEN $2 OPERATOR(pg_catalog.>) 0 THEN 1 ELSE 0 END,
                 waiting_for = NULL
             WHERE id OPERATOR(pg_catalog.=) $1
             RETURNING batches",
            &[run.id.into(), removed.into(), left.skipped.into(), left.kept_back.into()],
        )
    })?;
    if removed == 0 {
        return Ok(());
    }
    let lost: Vec<_> = recipes.list.iter().filter(|recipe| recipe.removed > 0).collect();
    let recipe_ids: Vec<Option<String>> = lost.iter().map(|recipe| recipe.recipe_id.clone()).collect();
    let counts: Vec<i64> = lost.iter().map(|recipe| recipe.removed).collect();
    history::ledger(target, &run.mode, run.id, batch, removed)?;
    state(|| {
        prepared::run(
            "INSERT INTO backlog_cleanup.run_batch (run_id, batch, recipe_ids, removed, milliseconds, finished_at)
             VALUES ($1, $2, $3, $4, $5, pg_catalog.clock_timestamp())",
            &[
                run.id.into(),
                batch.into(),
                recipe_ids.into(),
                counts.into(),
                (started.elapsed().as_secs_f64() * 1000.0).into(),
            ],
        )
    })
}
