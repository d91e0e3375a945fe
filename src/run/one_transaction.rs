use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::time::Instant;

use backlog_cleanup_report::{Foreseen, Mode};
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use pgrx::spi::quote_literal;

use crate::history::report::{Done, KeptBack, listed_first, report, said};
use crate::history::run::record;
use crate::obstacles::foresee;
use crate::plan::statuses;
use crate::postgres::error::{Result, error, required};
use crate::postgres::json::Json;
use crate::postgres::owner::defer_nothing;
use crate::postgres::subtransaction::look;
use crate::postgres::wal::Wal;
use crate::rank::held::held;
use crate::rank::tally::Tally;
use crate::remove::emergency::emergency;
use crate::remove::left::Left;
use crate::remove::regular::regular;
use crate::rules::matching::Policies;
use crate::rules::selection::Selection;
use crate::rules::{Rules, breaker};
use crate::run::arguments::call;
use crate::run::begin::{begin, caller};
use crate::run::lock::Span;
use crate::run::smaller::or_smaller;
use crate::run::{ground, refused};
use crate::target::Target;
use crate::target::guard::without_unreadable_rows;
use crate::target::leaf::Leaf;
use crate::target::steady::{Lock, glance_leaves, steady_leaves};

/// Removes the expired failed rows of each recipe but the newest. Returns a `RegularReport`. Errors: those of `begin` and
/// `Policies::of`, 22023 (`dry_run` and `rehearse`), 22P02 (selection), 54000 (the breaker, unless `force`), 55P03.
#[pg_extern(name = "backlog_cleanup_failed_generations")]
fn regular_run(
    target: default!(Option<&str>, "'generations'"),
    recipe_id: default!(Option<&str>, "NULL"),
    failure_type: default!(Option<&str>, "NULL"),
    dry_run: default!(Option<bool>, "false"),
    force: default!(Option<bool>, "false"),
    rehearse: default!(Option<bool>, "false"),
    status: default!(Option<&str>, "NULL"),
) -> Result<Json> {
    let function = "SELECT backlog_cleanup_failed_generations";
    let force = required(force, "force", &call(function, target, "force => false"))?;
    let how = How::of(dry_run, rehearse, function, target)?;
    run(target, Selection { recipe_id, failure_type, status }, how, |target, leaves, selection| {
        let policies = Rc::new(Policies::of(target, Mode::Regular)?);
        let rules = Rules { target, selection, mode: Mode::Regular, policies, include_held: false };
        let is_dry = how == How::Dry;
        let (tally, left) = regular(&rules, leaves, is_dry, force)?;
        let refused = breaker::reason(target, tally.removed(), tally.failed()).filter(|_| is_dry && !force);
        Ok((rules, tally, left, refused))
    })
}

/// Removes every row in scope, whatever its age, but those that are held, unless `include_held`. Returns an `EmergencyReport`.
#[pg_extern(name = "backlog_cleanup_emergency")]
fn emergency_run(
    target: default!(Option<&str>, "'generations'"),
    recipe_id: default!(Option<&str>, "NULL"),
    failure_type: default!(Option<&str>, "NULL"),
    dry_run: default!(Option<bool>, "false"),
    rehearse: default!(Option<bool>, "false"),
    include_held: default!(Option<bool>, "false"),
    status: default!(Option<&str>, "NULL"),
) -> Result<Json> {
    let function = "SELECT backlog_cleanup_emergency";
    let how = How::of(dry_run, rehearse, function, target)?;
    let include_held = required(include_held, "include_held", &call(function, target, "dry_run => true"))?;
    run(target, Selection { recipe_id, failure_type, status }, how, |target, leaves, selection| {
        let policies = Rc::new(Policies::of(target, Mode::Emergency)?);
        let rules = Rules { target, selection, mode: Mode::Emergency, policies, include_held };
        let (tally, left) = emergency(&rules, leaves, how == How::Dry)?;
        Ok((rules, tally, left, None))
    })
}

/// The same for the SQL of a version before 0.3.0, which has no `rehearse`.
#[pg_extern(sql = false)]
fn backlog_cleanup_failed_generations(
    target: Option<&str>,
    recipe_id: Option<&str>,
    failure_type: Option<&str>,
    dry_run: Option<bool>,
    force: Option<bool>,
) -> Result<Json> {
    regular_run(target, recipe_id, failure_type, dry_run, force, Some(false), None)
}

/// The same.
#[pg_extern(sql = false)]
fn backlog_cleanup_emergency(
    target: Option<&str>,
    recipe_id: Option<&str>,
    failure_type: Option<&str>,
    dry_run: Option<bool>,
) -> Result<Json> {
    emergency_run(target, recipe_id, failure_type, dry_run, Some(false), Some(false), None)
}

/// Whether rows go.
#[derive(Clone, Copy, PartialEq)]
enum How {
    Really,
    /// Counts them.
    Dry,
    /// Removes them and rolls it back.
    Rehearsed,
}

impl How {
    /// Errors: 22004, 22023 (both).
    fn of(dry_run: Option<bool>, rehearse: Option<bool>, function: &str, target: Option<&str>) -> Result<How> {
        let dry = call(function, target, "dry_run => true");
        match (
            required(dry_run, "dry_run", &dry)?,
            required(rehearse, "rehearse", &call(function, target, "rehearse => true"))?,
        ) {
            (false, false) => Ok(How::Really),
            (true, false) => Ok(How::Dry),
            (false, true) => Ok(How::Rehearsed),
            (true, true) => Err(error(
                PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
                "arguments \"dry_run\" and \"rehearse\" exclude each other".into(),
                dry,
            )),
        }
    }
}

/// What a run does with its target: its rules, counts, the rows left, and why a dry run would be refused if it were real.
type Work<'t> = (Rules<'t>, Tally, Left, Option<String>);

/// Does the `work` of a run, and reports it. Rolls a rehearsal back, with its locks.
fn run(
    target: Option<&str>,
    selection: Selection,
    how: How,
    work: impl for<'t> Fn(&'t Target, &[Leaf], Selection<'t>) -> Result<Work<'t>>,
) -> Result<Json> {
    match how {
        How::Rehearsed => look(|| once(target, selection, how, &work)),
        _ => once(target, selection, how, &work),
    }
}

fn once(
    target: Option<&str>,
    selection: Selection,
    how: How,
    work: &impl for<'t> Fn(&'t Target, &[Leaf], Selection<'t>) -> Result<Work<'t>>,
) -> Result<Json> {
    let (started, before) = (Instant::now(), Wal::written());
    if how != How::Dry {
        begin(target, Span::Transaction)?;
    }
    let reported = |target: &Target, leaves: &[Leaf]| {
        let caller = caller()?;
        target.account_exists()?;
        let selected = selection.written(target)?;
        target.removed_are_no_other_statuses()?;
        target.keys_are_trusted()?;
        if how != How::Dry {
            refused::check(target)?;
            ground::is_that_of_the_snapshot(target)?;
            defer_nothing()?;
            tell_of_limits(target)?;
        }
        let (rules, mut tally, mut left, too_many) = work(target, leaves, Selection::of(&selected))?;
        tally.keep_back(&left.again, left.kept_back);
        let unreadable = target.unreadable(leaves)?;
        left.keep_unreadable(unreadable.as_ref());
        let held = held(&rules, leaves, &mut tally)?;
        let wal = Some(Wal::since(before)).filter(|_| how != How::Dry);
        let mut recipes = tally.by_recipe();
        let run_id = wal.map(|wal| record(&rules, &tally, &recipes, &left, held, wal, &caller)).transpose()?;
        listed_first(&mut recipes);
        let mut foreseen = Foreseen::default();
        if how == How::Dry && !rules.is_disabled() {
            foreseen = foresee(&rules, leaves, tally.removed())?;
            foreseen.would_keep_back.extend(unreadable.iter().map(|unreadable| unreadable.said(target)));
            let reasons = refused::reasons(target)?.into_iter().map(|reason| reason.message().to_owned());
            foreseen.would_fail = too_many.into_iter().chain(reasons).chain(foreseen.would_fail).collect();
        }
        let kept_back = KeptBack::of(&left, held);
        let message = match (how, foreseen.would_fail.join("; "), foreseen.would_keep_back.join("; ")) {
            (_, reasons, _) if !reasons.is_empty() => {
                format!("Dry run: nothing was removed, and a real run would be refused: {reasons}")
            }
            (_, _, rows) if !rows.is_empty() => format!("Dry run: nothing was removed. {rows}"),
            _ if rules.is_disabled() => said(&rules, &kept_back),
            (How::Dry, ..) => "Dry run: nothing was removed".into(),
            (How::Rehearsed, ..) => format!("{REHEARSED}{}", kept_back.said(&rules.target.nouns)),
            (How::Really, ..) => said(&rules, &kept_back),
        };
        let lasts = run_id.filter(|_| how == How::Really);
        let done = Done {
            message,
            of_policies: tally.by_policy(),
            of_statuses: statuses::names(target).zip(tally.by_status()).collect(),
            recipes,
            kept_back,
            wal,
            duration_ms: started.elapsed().as_millis() as i64,
        };
        let report = report(&rules, lasts, done)?;
        Json::of(&report.foretelling(foreseen))
    };
    if how == How::Dry {
        return glance_leaves(target, reported);
    }
    let removing = || without_unreadable_rows(|| steady_leaves(target, Lock::Remove, reported));
    PgTryBuilder::new(AssertUnwindSafe(removing))
        .catch_when(PgSqlErrorCode::ERRCODE_OUT_OF_MEMORY, |failure| {
            Err(or_smaller(failure, target.unwrap_or_default(), BATCH_SIZE))
        })
        .execute()
}

/// Raises a NOTICE if the target has limits that only batched runs obey.
fn tell_of_limits(target: &Target) -> Result<()> {
    let limits = target.limits_of_batches()?;
    if !limits.is_empty() {
        let message =
            format!("a run in one transaction passes over {} of target \"{}\"", limits.join(", "), target.name);
        ErrorReport::new(PgSqlErrorCode::ERRCODE_SUCCESSFUL_COMPLETION, message, "backlog_cleanup")
            .set_hint(format!("CALL backlog_cleanup_run({})", quote_literal(&target.name)))
            .report(PgLogLevel::NOTICE);
    }
    Ok(())
}

/// Rows of a batch that needs little memory whatever it meets.
const BATCH_SIZE: i64 = 1_000;

const REHEARSED: &str = "Rehearsal: everything was rolled back and nothing was removed; triggers ran, and what no rollback undoes, \
                         such as a sequence's values, stays";
