use pgrx::datum::Interval;
use pgrx::prelude::*;

use crate::history;
use crate::history::batches;
use crate::history::report::Report;
use crate::history::run::Run;
use crate::plan::cutoff;
use crate::plan::part;
use crate::postgres::error::{Result, error, required, spi};
use crate::postgres::owner::defer_nothing;
use crate::postgres::read::read_one;
use crate::rank::tally::Recipes;
use crate::rank::{Ranked, rank};
use crate::rules::breaker;
use crate::rules::policy::Policy;
use crate::rules::selection::Selection;
use crate::run::batch;
use crate::run::begin::{begin, caller};
use crate::run::lock::{self, Span};
use crate::run::worker;
use crate::target::leaf::{Reach, leaves};
use crate::target::state;
use crate::target::steady::steady;

/// Starts a batched run: holds its target, fixes the cutoffs and divides the work. Returns its id. The target is held
/// until `finish_run`, an error, or the session's end. Errors: those of a run, 54000 (the breaker,
/// unless `force`), 22004 and 22023 (arguments), 25001 (in a subtransaction).
#[allow(clippy::too_many_arguments)] // those of backlog_cleanup_run
#[pg_extern(sql = false)]
fn start_run(
    target: Option<&str>,
    mode: Option<&str>,
    batch_size: Option<i32>,
    pause: Option<Interval>,
    max_duration: Option<Interval>,
    max_rows: Option<i64>,
    workers: Option<i32>,
    recipe_id: Option<&str>,
    failure_type: Option<&str>,
    force: Option<bool>,
) -> Result<i64> {
    let mode = required(mode, "mode", "CALL backlog_cleanup_run(mode => 'regular')")?;
    let force = required(force, "force", "CALL backlog_cleanup_run(force => true)")?;
    let pause = required(pause, "pause", "CALL backlog_cleanup_run(pause => '0')")?;
    let workers = required(workers, "workers", "CALL backlog_cleanup_run(workers => 1)")?;
    let positive = "0 seconds or longer, and finite: CALL backlog_cleanup_run(pause => '100 ms')";
    check(seconds(Some(pause))?.is_some_and(|pause| (0.0..=86_400.0).contains(&pause)), "pause", positive)?;
    let longer = "longer than 0 seconds, and finite: CALL backlog_cleanup_run(max_duration => '1 hour')";
    check(
        seconds(max_duration)?.is_none_or(|duration| duration > 0.0 && duration.is_finite()),
        "max_duration",
        longer,
    )?;
    check(max_rows.is_none_or(|rows| rows > 0), "max_rows", "above 0: CALL backlog_cleanup_run(max_rows => 100000)")?;
    let size = "from 1 to 1000000: CALL backlog_cleanup_run(batch_size => 10000)";
    check(batch_size.is_none_or(|size| (1..=1_000_000).contains(&size)), "batch_size", size)?;
    check((1..=64).contains(&workers), "workers", "from 1 to 64: CALL backlog_cleanup_run(workers => 2)")?;
    let together = "1 where max_rows is given: CALL backlog_cleanup_run(max_rows => 100000, workers => 1)";
    check(workers == 1 || max_rows.is_none(), "workers", together)?;
    let modes = "'regular' or 'emergency': CALL backlog_cleanup_run(mode => 'regular')";
    check(matches!(mode, "regular" | "emergency"), "mode", modes)?;

    has_working_tables()?;
    // What is rolled back to a savepoint leaves the session, and what it holds, as it was.
    if unsafe { pg_sys::GetCurrentTransactionNestLevel() } > 1 {
        return Err(error(
            PgSqlErrorCode::ERRCODE_ACTIVE_SQL_TRANSACTION,
            "a batched run cannot start in a subtransaction".into(),
            "COMMIT; CALL backlog_cleanup_run()".into(),
        ));
    }
    let caller = caller()?;
    begin(target, Span::Session)?;
    steady(target, |target| {
        target.account_exists()?;
        let selection = Selection { recipe_id, failure_type };
        selection.check(target)?;
        let policy = if mode == "regular" { Some(Policy::of(target)?) } else { None };
        let leaves = leaves(target)?;
        if let Some(leaf) = leaves.iter().find(|leaf| max_rows.is_some() && leaf.reach == Reach::Key) {
            return Err(error(
                PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
                format!("max_rows cannot be kept on {}, whose rows go by ranges of keys", leaf.table.name),
                "CALL backlog_cleanup_run(max_duration => '1 hour')".into(),
            ));
        }
        let Ranked { recipes, positions, lsn } = match &policy {
            Some(policy) => {
                let ranked = rank(target, policy, &selection, &leaves)?;
                breaker::check(target, &ranked.recipes.list, force)?;
                ranked
            }
            None => Ranked { recipes: Recipes::of(&target.recipe), positions: None, lsn: 0 },
        };
        // A temporary table is seen by its own session only.
        let workers = if leaves.iter().any(|leaf| leaf.table.is_temporary) { 1 } else { workers };
        let batch_size = batch_size.map_or(target.batch_size, i64::from);
        let run_id = state(|| {
            Spi::get_one_with_args::<i64>(
                "INSERT INTO backlog_cleanup.run (target, mode, state, requested_by, recipe_id, failure_type, cutoff,
                                              total_failed, removed, recipes_affected, batch_size, pause, max_duration,
                                              max_rows, workers, started_at)
             VALUES ($1, $2, 'running', $3::pg_catalog.name, $4, $5, $6::pg_catalog.timestamptz, $7, 0, $8, $9, $10,
                     $11, $12, $13, pg_catalog.clock_timestamp())
             RETURNING id",
                &[
                    target.name.as_str().into(),
                    mode.into(),
                    caller.as_str().into(),
                    recipe_id.into(),
                    failure_type.into(),
                    policy.as_ref().map(|policy| policy.cutoff.as_str()).into(),
                    recipes.list.iter().map(|recipe| recipe.failed).sum::<i64>().into(),
                    (recipes.list.len() as i64).into(),
                    (batch_size as i32).into(),
                    pause.into(),
                    max_duration.into(),
                    max_rows.into(),
                    (if workers > 1 { workers } else { 0 }).into(),
                ],
            )
            .map_err(spi)
        })?
        .unwrap_or_default();
        cutoff::save(target, run_id, &recipes)?;
        let steps = if policy.is_some() { recipes.list.len() } else { 1 };
        let positions = positions.as_ref().map(|positions| (positions, lsn));
        part::save(run_id, &leaves, positions, steps, batch_size as usize, workers as u32)?;
        Ok(run_id)
    })
}

/// Works on a run of this session for one batch, in the caller's transaction. Returns the seconds to wait before the next
/// call, in no transaction; NULL where the run has nothing left to do.
#[pg_extern(sql = false)]
fn next_batch(run_id: Option<i64>) -> Result<Option<f64>> {
    let run = of_session(run_id)?;
    if run.workers > 1 && worker::are_to_start(run.id) {
        worker::start(&run)?;
    }
    match worker::wait(&run)? {
        Some(wait) => Ok(wait),
        None => batch::step(&run),
    }
}

/// Ends a run of this session: sums up its batches, and gives the target back. Returns its report.
#[pg_extern(sql = false)]
fn finish_run(run_id: Option<i64>) -> Result<Report> {
    let run = of_session(run_id)?;
    let report = steady(Some(&run.target), |target| {
        if run.batches == 0 {
            defer_nothing()?;
            history::ledger(target, &run.mode, run.id, None, 0)?;
        }
        batches::report(&run, target)
    })?;
    lock::hand_over();
    cutoff::forget();
    Ok(report)
}

/// The run that this session is at work on. Errors: those of `Run::load`, 55000 (it is over, or another session's).
fn of_session(run_id: Option<i64>) -> Result<Run> {
    let run = Run::load(run_id)?;
    if run.finished_at.is_none() && lock::is_held(&run.target)? {
        return Ok(run);
    }
    Err(error(
        PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
        format!("run {} is not one that this session is at work on", run.id),
        "CALL backlog_cleanup_run()".into(),
    ))
}

/// The tables that a batched run works in are those of this library's version. Errors: 55000.
fn has_working_tables() -> Result<()> {
    let version = read_one::<String>(
        "SELECT extversion FROM pg_catalog.pg_extension WHERE extname OPERATOR(pg_catalog.=) 'backlog_cleanup'",
        &[],
    )?;
    let library = env!("CARGO_PKG_VERSION");
    match version {
        Some(version) if version != library => Err(error(
            PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!(
                "this database has version {version} of \"backlog_cleanup\", and the server's library is {library}"
            ),
            "ALTER EXTENSION backlog_cleanup UPDATE".into(),
        )),
        _ => Ok(()),
    }
}

fn seconds(interval: Option<Interval>) -> Result<Option<f64>> {
    read_one::<f64>("SELECT EXTRACT(epoch FROM $1)::pg_catalog.float8", &[interval.into()])
}

fn check(is_valid: bool, argument: &str, valid: &str) -> Result<()> {
    if is_valid {
        return Ok(());
    }
    Err(error(
        PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
        format!("argument \"{argument}\" is out of range"),
        valid.into(),
    ))
}
