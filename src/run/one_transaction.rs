use std::time::Instant;

use pgrx::prelude::*;

use crate::history::report::{KeptBack, done, report};
use crate::history::run::record;
use crate::obstacles::refusals;
use crate::postgres::error::{Result, required};
use crate::postgres::json::Json;
use crate::postgres::owner::defer_nothing;
use crate::rank::tally::Tally;
use crate::remove::emergency::emergency;
use crate::remove::left::Left;
use crate::remove::regular::regular;
use crate::rules::policy::{self, Policy};
use crate::rules::selection::Selection;
use crate::rules::{Rules, breaker};
use crate::run::begin::{begin, caller};
use crate::run::ground;
use crate::run::lock::Span;
use crate::target::leaf::Leaf;
use crate::target::steady::{Lock, glance_leaves, steady_leaves};
use crate::target::{Target, foreign_keys};

/// Removes the expired failed rows of each recipe but the newest. Returns a `RegularReport`. Errors: those of `begin` and
/// `Policy::of`, 22P02 (selection), 54000 (the breaker, unless `force`), 55P03.
#[pg_extern]
fn backlog_cleanup_failed_generations(
    target: default!(Option<&str>, "'generations'"),
    recipe_id: default!(Option<&str>, "NULL"),
    failure_type: default!(Option<&str>, "NULL"),
    dry_run: default!(Option<bool>, "false"),
    force: default!(Option<bool>, "false"),
) -> Result<Json> {
    let dry_run = required(dry_run, "dry_run", "SELECT backlog_cleanup_failed_generations(dry_run => true)")?;
    let force = required(force, "force", "SELECT backlog_cleanup_failed_generations(force => true)")?;
    run(target, Selection { recipe_id, failure_type }, dry_run, |target, leaves, selection| {
        policy::warn_of_ignored(target)?;
        let Policy { cutoff, keep } = Policy::of(target)?;
        let rules = Rules { target, selection, cutoff: Some(cutoff) };
        let (tally, left) = regular(&rules, leaves, keep, dry_run, force)?;
        let refused = breaker::reason(target, tally.removed(), tally.failed()).filter(|_| dry_run && !force);
        Ok((rules, tally, left, refused))
    })
}

/// Removes every failed row of the account, whatever its age. Returns an `EmergencyReport`.
#[pg_extern]
fn backlog_cleanup_emergency(
    target: default!(Option<&str>, "'generations'"),
    recipe_id: default!(Option<&str>, "NULL"),
    failure_type: default!(Option<&str>, "NULL"),
    dry_run: default!(Option<bool>, "false"),
) -> Result<Json> {
    let dry_run = required(dry_run, "dry_run", "SELECT backlog_cleanup_emergency(dry_run => true)")?;
    run(target, Selection { recipe_id, failure_type }, dry_run, |target, leaves, selection| {
        let rules = Rules { target, selection, cutoff: None };
        let (tally, left) = emergency(&rules, leaves, dry_run)?;
        Ok((rules, tally, left, None))
    })
}

/// Does the `work` of a run, and records and reports it. `work` returns why a dry run would be refused if it were real.
fn run(
    target: Option<&str>,
    selection: Selection,
    dry_run: bool,
    work: impl for<'t> FnOnce(&'t Target, &[Leaf], Selection<'t>) -> Result<(Rules<'t>, Tally, Left, Option<String>)>,
) -> Result<Json> {
    let started = Instant::now();
    if !dry_run {
        begin(target, Span::Transaction)?;
    }
    let reported = |target: &Target, leaves: &[Leaf]| {
        let caller = caller()?;
        target.account_exists()?;
        selection.check(target)?;
        target.failed_is_no_other_status()?;
        if !dry_run {
            foreign_keys::are_on(target)?;
            ground::is_that_of_the_snapshot(target)?;
            defer_nothing()?;
        }
        let (rules, tally, left, refused) = work(target, leaves, selection)?;
        let run_id = if dry_run { None } else { Some(record(&rules, &tally, &left, &caller)?) };
        let mut would_fail: Vec<String> = refused.into_iter().collect();
        if dry_run && !rules.is_disabled() {
            would_fail.extend(foreign_keys::is_off(target)?.map(|off| off.message().to_owned()));
            would_fail.extend(refusals(target, rules.mode(), tally.removed())?);
        }
        let kept_back = KeptBack::of(&left);
        let message = match would_fail.join("; ") {
            reasons if !reasons.is_empty() => {
                format!("Dry run: nothing was removed, and a real run would be refused: {reasons}")
            }
            _ if dry_run && !rules.is_disabled() => "Dry run: nothing was removed".into(),
            _ => done(&rules, &kept_back),
        };
        let milliseconds = started.elapsed().as_millis() as i64;
        let report = report(&rules, run_id, message, &tally.into_sorted(), kept_back, milliseconds)?;
        Json::of(&report.foretelling(would_fail))
    };
    if dry_run { glance_leaves(target, reported) } else { steady_leaves(target, Lock::Remove, reported) }
}
