use std::rc::Rc;

use backlog_cleanup_report::{Mode, State};
use pgrx::prelude::*;
use pgrx::spi::quote_literal;

use crate::extension;
use crate::history::run::{self, Run};
use crate::history::{ledger, report};
use crate::plan::{cutoff, divide, part, policies, statuses};
use crate::postgres::error::{Result, error};
use crate::postgres::json::Json;
use crate::postgres::owner::defer_nothing;
use crate::postgres::wal;
use crate::rank::held::held;
use crate::rank::one_pass::{Ranked, rank};
use crate::remove::emergency::{emergency, positions};
use crate::remove::order::{have_an_order, in_order};
use crate::rules::matching::Policies;
use crate::rules::selection::Selection;
use crate::rules::{Rules, breaker};
use crate::run::arguments::Arguments;
use crate::run::batch;
use crate::run::begin::{begin, caller};
use crate::run::lock::{self, Span};
use crate::run::prepare::cannot_be_prepared;
use crate::run::worker::{self, Leader};
use crate::run::{cancel, failure, ground, refused, workers};
use crate::target::Target;
use crate::target::guard::without_unreadable_rows;
use crate::target::leaf::Leaf;
use crate::target::pace::Pace;
use crate::target::steady::{Lock, steady, steady_leaves};

/// Refuses a call from the SQL of a version before 0.3.0, whose arguments this library does not read. Errors: 55000.
#[pg_extern(sql = false)]
fn start_run() -> Result<i64> {
    extension::is_of_this_version().map(|()| 0)
}

/// Starts a batched run: locks its target, fixes the cutoffs and divides the work. Returns its id. The lock is held until
/// `finish_run`, an error, or the session's end. Errors: those of a run and of `Arguments::read`, 54000 (the breaker,
/// unless `force`), 25001 (in a subtransaction), 42501 (in
/// code of a table).
/// Its argument is a `json`, which PostgreSQL stores as a text.
#[pg_extern(sql = false)]
pub fn start_batched_run(arguments: Option<&str>) -> Result<i64> {
    let arguments = Arguments::read(arguments)?;
    extension::is_of_this_version()?;
    is_not_in_code_of_a_table()?;
    // ROLLBACK TO SAVEPOINT would undo the run, but not release the session's lock.
    if is_in_subtransaction() {
        return Err(error(
            PgSqlErrorCode::ERRCODE_ACTIVE_SQL_TRANSACTION,
            "a batched run cannot start in a subtransaction".into(),
            format!("COMMIT; {}", arguments.call("")),
        ));
    }
    let caller = caller()?;
    wal::start_counting();
    begin(arguments.target.as_deref(), Span::Session)?;
    cancel::listen();
    let start = |target: &Target, leaves: &[Leaf]| {
        ground::is_that_of_the_snapshot(target)?;
        target.account_exists()?;
        target.removed_are_no_other_statuses()?;
        target.keys_are_trusted()?;
        refused::check(target)?;
        let selected = arguments.selection().written(target)?;
        let selection = Selection::of(&selected);
        let mut pace = arguments.pace.clone().or(&target.pace);
        may_limit_rows(&arguments, &pace)?;
        let mode = if arguments.is_regular() { Mode::Regular } else { Mode::Emergency };
        let (policies, include_held) = (Rc::new(Policies::of(target, mode)?), arguments.includes_held());
        let rules = Rules { target, selection, mode, policies, include_held };
        let ranked = if arguments.is_regular() {
            let ranked = rank(&rules, leaves)?;
            breaker::check(target, ranked.tally.removed(), ranked.tally.failed(), arguments.is_forced())?;
            ranked
        } else {
            unranked(&rules, leaves)?
        };
        let Ranked { mut tally, positions, lsn } = ranked;
        let batch_size = pace.batch_size.unwrap_or(1);
        // A temporary table is seen by its own session only.
        let workers = pace.workers.filter(|_| leaves.iter().all(|leaf| !leaf.table.is_temporary)).unwrap_or(1);
        pace.workers = Some(if workers > 1 { workers } else { 0 });
        // Under a rate, a part is what a worker removes in a second, so that none has the rest alone.
        let in_a_second = pace.max_rows_per_second.map(|rows| (rows / i64::from(workers)).max(1));
        let rows = in_a_second.map_or(batch_size, |rows| rows.min(batch_size)) as usize;
        let positions = positions.map(|positions| in_order(leaves, positions, rows)).transpose()?;
        let positions = positions.map(|rows| (rows, lsn));
        let referenced = positions.iter().flat_map(|(rows, _)| &rows.held).map(|(_, rows)| rows.len() as i64).sum();
        let recipes = tally.list.len();
        let held = held(&rules, leaves, &mut tally)?;
        let run_id = run::start(&rules, leaves, &tally, (referenced, held), &pace, &caller)?;
        policies::save(run_id, &rules.policies, &tally, false)?;
        statuses::save(run_id, target, &tally, false)?;
        cutoff::save(&rules, run_id, &tally, recipes)?;
        divide::save(run_id, target.table.oid, leaves, positions, recipes, rows, workers as u32)?;
        target.unreadable(leaves)?.map_or(Ok(()), |unreadable| run::keep_unreadable(run_id, &unreadable))?;
        Ok(run_id)
    };
    let run_id = without_unreadable_rows(|| steady_leaves(arguments.target.as_deref(), Lock::Read, start))?;
    failure::run_starts(run_id);
    Ok(run_id)
}

/// Divides what is left of a run anew: rows of several leaves are not where they were planned. Each recipe has the cutoff that it has.
fn plan_anew(run: &Run) -> Result<()> {
    steady_leaves(Some(&run.target), Lock::Read, |target, leaves| {
        ground::is_that_of_the_snapshot(target)?;
        let reading = run.reading.as_ref();
        ground::is_read_as_before(run, target, reading.map_or(Ok(false), |reading| reading.still_holds(target))?)?;
        let horizon = reading.map(|reading| reading.horizon).unwrap_or_default();
        // SAFETY: only reads the WAL position.
        let lsn = unsafe { pg_sys::GetXLogInsertRecPtr() };
        let (rows, recipes) = cutoff::with(target, run.id, horizon, |cutoffs| {
            let rules = run.rules(target, &cutoffs.policies);
            if rules.is_regular() {
                cutoffs.rank_anew(&rules)?;
            }
            Ok((positions(&rules, leaves, &mut cutoffs.tally)?, cutoffs.tally.list.len()))
        })?;
        let size = run.rows_at_once() as usize;
        let rows = rows.map(|rows| in_order(leaves, rows, size)).transpose()?;
        let held = rows.iter().flat_map(|rows| &rows.held).map(|(_, rows)| rows.len() as i64).sum();
        part::forget(run.id, held)?;
        divide::save(
            run.id,
            target.table.oid,
            leaves,
            rows.map(|rows| (rows, lsn)),
            recipes,
            size,
            run.workers.max(1) as u32,
        )
    })
}

/// What an emergency run removes: every row in scope, counted. Their order matters, and so do their positions, only if rows hold each
/// other.
fn unranked(rules: &Rules, leaves: &[Leaf]) -> Result<Ranked> {
    // SAFETY: only reads the WAL position.
    let lsn = unsafe { pg_sys::GetXLogInsertRecPtr() };
    let (mut tally, _) = emergency(rules, leaves, true)?;
    let positions = if have_an_order(leaves)? { positions(rules, leaves, &mut tally)? } else { None };
    Ok(Ranked { tally, positions, lsn })
}

/// Errors: 22023 (`max_rows` with workers).
fn may_limit_rows(arguments: &Arguments, pace: &Pace) -> Result<()> {
    if let (Some(max_rows), Some(workers @ 2..)) = (pace.max_rows, pace.workers) {
        return Err(error(
            PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
            format!("max_rows needs one worker, and this run would have {workers}"),
            arguments.call(&format!("max_rows => {max_rows}, workers => 1")),
        ));
    }
    Ok(())
}

/// Removes a batch of a run of this session, in the caller's transaction. Returns the seconds to wait, outside of a
/// transaction, before the next call; NULL if the run has nothing left to do. An error ends the run; `commit_and_wait` raises
/// it when the run's row says so.
#[pg_extern(sql = false)]
pub fn next_batch(run_id: Option<i64>) -> Result<Option<f64>> {
    is_not_in_code_of_a_table()?;
    // What the session remembers of the run would outlive ROLLBACK TO SAVEPOINT.
    if is_in_subtransaction() {
        cutoff::forget();
    }
    let next = failure::or_record(run_id, || {
        let mut run = of_session(run_id)?;
        if run.workers > 1 && workers::are_to_start(run.id) {
            workers::start(&run)?;
        }
        let next = match worker::leader(&run)? {
            Leader::Works => batch::step(&mut run)?,
            Leader::Waits(seconds) => Some(seconds),
            Leader::Done => None,
        };
        match next {
            None if run.state == State::Running && part::are_lost(run.id)? => plan_anew(&run).map(|()| Some(0.0)),
            next => Ok(next),
        }
    })?;
    if is_in_subtransaction() {
        cutoff::forget();
    }
    // After the last batch, `finish_run` is in the same transaction.
    if failure::is_driven() && next.flatten().is_some() {
        batch::commit_soon();
    }
    Ok(next.unwrap_or(Some(0.0)))
}

/// Ends a run of this session: sums up its batches, and releases the target. Returns its report; NULL if that fails, and
/// `commit_and_wait` is to raise the error.
#[pg_extern(sql = false)]
pub fn finish_run(run_id: Option<i64>) -> Result<Option<Json>> {
    is_not_in_code_of_a_table()?;
    let report = failure::or_record(run_id, || {
        let run = of_session(run_id)?;
        steady(Some(&run.target), Lock::Read, |target| {
            if run.batches == 0 {
                defer_nothing()?;
                target.keys_are_trusted()?;
                ledger::write(target, run.mode, run.id, None, 0)?;
            }
            report::finish(&run, target)
        })
    })?;
    if report.is_some() {
        lock::hand_over();
        failure::run_ends();
    }
    Ok(report)
}

fn is_in_subtransaction() -> bool {
    // SAFETY: only reads the state of the transaction.
    unsafe { pg_sys::GetCurrentTransactionNestLevel() > 1 }
}

/// A batched run belongs to the session, and not to code that one of its statements runs. Errors: 42501.
fn is_not_in_code_of_a_table() -> Result<()> {
    // SAFETY: only reads what the session does.
    if !unsafe { pg_sys::InSecurityRestrictedOperation() } {
        return Ok(());
    }
    Err(error(
        PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
        "code of a table cannot start, continue or finish a batched run, which belongs to the caller's session".into(),
        "SELECT * FROM backlog_cleanup.progress".into(),
    ))
}

/// Loads a run of this session. Errors: those of `Run::load`, 55000 (it is over, or another session's).
fn of_session(run_id: Option<i64>) -> Result<Run> {
    cannot_be_prepared();
    let run = Run::load(run_id)?;
    if (run.finished_at.is_none() || workers::are_of(run.id)) && lock::is_held(&run.target)? {
        return Ok(run);
    }
    Err(error(
        PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
        format!("run {} is not in progress in this session", run.id),
        format!("CALL backlog_cleanup_run({})", quote_literal(&run.target)),
    ))
}
