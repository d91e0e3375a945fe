use std::time::Instant;

use backlog_cleanup_report::{EmergencyReport, RegularReport};
use pgrx::prelude::*;

use crate::history;
use crate::history::report::{Report, as_json, details};
use crate::postgres::error::{Result, required};
use crate::postgres::owner::defer_nothing;
use crate::rank::tally::Swept;
use crate::remove::emergency::emergency;
use crate::remove::regular;
use crate::rules::breaker;
use crate::rules::policy::Policy;
use crate::rules::selection::Selection;
use crate::run::begin::{begin, caller};
use crate::run::lock::Span;
use crate::target::Target;
use crate::target::steady::steady;

/// Removes the expired failed rows beyond the newest of each recipe. Returns a `RegularReport`. Errors: those of
/// `run::begin` and `Policy::of`, 22P02 (selection), 54000 (the breaker, unless `force`), 55P03.
#[pg_extern]
fn backlog_cleanup_failed_generations(
    target: default!(Option<&str>, "'generations'"),
    recipe_id: default!(Option<&str>, "NULL"),
    failure_type: default!(Option<&str>, "NULL"),
    dry_run: default!(Option<bool>, "false"),
    force: default!(Option<bool>, "false"),
) -> Result<Report> {
    let started = Instant::now();
    let dry_run = required(dry_run, "dry_run", "SELECT backlog_cleanup_failed_generations(dry_run => true)")?;
    let force = required(force, "force", "SELECT backlog_cleanup_failed_generations(force => true)")?;
    let selection = Selection { recipe_id, failure_type };
    if !dry_run {
        begin(target, Span::Transaction)?;
    }
    steady(target, |target| {
        let policy = Policy::of(target)?;
        let (run_id, swept) = sweep(target, Some(&policy), &selection, dry_run, force)?;
        as_json(&RegularReport {
            success: true,
            message: match breaker::reason(target, &swept).filter(|_| dry_run && !force) {
                Some(reason) => format!("Dry run: nothing was removed, and a real run would be refused: {reason}"),
                None if policy.is_enabled() => message("Backlog cleanup completed successfully", dry_run),
                None => format!("The policy of target \"{}\" is disabled: nothing was removed", target.name),
            },
            run_id,
            mode: "regular".into(),
            dry_run,
            cutoff: policy.is_enabled().then_some(policy.cutoff),
            total_failed_generations: swept.iter().map(|recipe| recipe.failed).sum(),
            cleaned_up_generations: swept.iter().map(|recipe| recipe.removed).sum(),
            recipes_affected: swept.len() as i64,
            cleanup_details: details(target, &swept)?,
            duration_ms: started.elapsed().as_millis() as i64,
            target: target.name.clone(),
        })
    })
}

/// Removes every failed row of the account, whatever its age. Returns an `EmergencyReport`.
#[pg_extern]
fn backlog_cleanup_emergency(
    target: default!(Option<&str>, "'generations'"),
    recipe_id: default!(Option<&str>, "NULL"),
    failure_type: default!(Option<&str>, "NULL"),
    dry_run: default!(Option<bool>, "false"),
) -> Result<Report> {
    let started = Instant::now();
    let dry_run = required(dry_run, "dry_run", "SELECT backlog_cleanup_emergency(dry_run => true)")?;
    let selection = Selection { recipe_id, failure_type };
    if !dry_run {
        begin(target, Span::Transaction)?;
    }
    steady(target, |target| {
        let (run_id, swept) = sweep(target, None, &selection, dry_run, true)?;
        as_json(&EmergencyReport {
            success: true,
            message: message("Emergency backlog cleanup completed successfully", dry_run),
            run_id,
            target: target.name.clone(),
            mode: "emergency".into(),
            dry_run,
            removed_count: swept.iter().map(|recipe| recipe.removed).sum(),
            recipes_affected: swept.iter().filter(|recipe| recipe.removed > 0).count() as i64,
            cleanup_details: details(target, &swept)?,
            duration_ms: started.elapsed().as_millis() as i64,
        })
    })
}

/// A regular run by a policy, or an emergency run; the id is that in the books, where a dry run has no place.
fn sweep(
    target: &Target,
    policy: Option<&Policy>,
    selection: &Selection,
    dry_run: bool,
    force: bool,
) -> Result<(Option<i64>, Vec<Swept>)> {
    let caller = caller()?;
    target.account_exists()?;
    selection.check(target)?;
    if !dry_run {
        defer_nothing()?;
    }
    let swept = match policy {
        Some(policy) => regular::regular(target, policy, selection, dry_run, force)?,
        None => emergency(target, selection, dry_run)?,
    };
    let run_id = if dry_run { None } else { history::write(target, policy, selection, &swept, &caller)? };
    Ok((run_id, swept))
}

fn message(done: &str, dry_run: bool) -> String {
    if dry_run { "Dry run: nothing was removed".into() } else { done.into() }
}
