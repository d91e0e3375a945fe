//! Alerts: what rules measure, and which alerts are open. One file per theme of kinds; `keep.rs` opens and resolves.

mod hand;
mod keep;
mod ledger;
mod measured;
mod recipes;
mod rule;
mod runs;
mod sizes;
mod volume;

use std::time::{Duration, Instant};

use pgrx::prelude::*;

use crate::extension;
use crate::postgres::error::Result;
use crate::postgres::read::refuse_read_only;
use crate::postgres::settings::{set_local, with_settings};
use crate::postgres::subtransaction::{attempt, is_cancel, said, sqlstate};
use crate::postgres::timeout::within;
use crate::status::alerts::measured::Measured;
use crate::status::alerts::rule::Rule;

/// How long a rule waits for a lock: short, since the tick waits for nobody.
const PATIENCE: &str = "10ms";

/// How long a rule may take, in milliseconds: it can read a ledger, and run code of a table's owner.
const LONGEST: i64 = 3_000;
/// After so long no other rule is measured.
const ALL: Duration = Duration::from_secs(5);

/// A kind of rules: its name, and what it measures.
type Kind = (&'static str, fn(&Rule) -> Result<Measured>);

const KINDS: [Kind; 12] = [
    ("rows_in_scope", volume::rows_in_scope),
    ("failure_rate", volume::failure_rate),
    ("failure_rate_factor", volume::failure_rate_factor),
    ("recipe_failures", recipes::recipe_failures),
    ("no_successful_run", runs::no_successful_run),
    ("failed_runs", runs::failed_runs),
    ("nothing_removed", runs::nothing_removed),
    ("kept_back", runs::kept_back),
    ("books", ledger::books),
    ("history_size", sizes::history_size),
    ("dead_rows", sizes::dead_rows),
    ("table_size", sizes::table_size),
];

/// A rule whose value is not known now. Its alerts stay as they are.
pub struct Unknown {
    pub rule: String,
    pub target: Option<String>,
    pub why: String,
    /// Whether it has failed: not if another session has held a lock.
    pub has_failed: bool,
}

/// Opens and resolves alerts by the rules as they are now. A rule that fails, takes too long or is not known stops no other. Waits for no lock
/// longer than `PATIENCE`. Errors: 25006.
pub fn evaluate() -> Result<Vec<Unknown>> {
    refuse_read_only("evaluate alerts")?;
    extension::is_of_this_version()?;
    with_settings(|| {
        set_local("lock_timeout", PATIENCE);
        let rules = Rule::in_effect()?;
        let (mut unknown, began) = (Vec::new(), Instant::now());
        for rule in &rules {
            let is_reached = began.elapsed() < ALL;
            let started = Instant::now();
            let measured = match is_reached {
                _ if rule.rests => {
                    Ok(Some(Some(format!("it took longer than {} s, and rests for an hour", LONGEST / 1000))))
                }
                true => within(LONGEST, || evaluated(rule)),
                false => Ok(Some(Some(format!("other rules have taken {} s", ALL.as_secs())))),
            };
            remember(|| rule.was_reached(is_reached || rule.rests));
            // Code may have caught what was to end it.
            let is_over = started.elapsed() > Duration::from_millis(LONGEST as u64);
            let (why, has_failed) = match measured {
                Ok(Some(why)) if !is_over => (why, false),
                Ok(_) => {
                    remember(|| rule.was_measured(true));
                    (Some(format!("it was ended after {} s", LONGEST / 1000)), true)
                }
                Err(failure) if is_cancel(&failure) => failure.rethrow(),
                Err(failure) => {
                    let is_locked = sqlstate(&failure) == PgSqlErrorCode::ERRCODE_LOCK_NOT_AVAILABLE;
                    (Some(said(&failure)), !is_locked)
                }
            };
            let of_rule = |why| Unknown { rule: rule.name.clone(), target: rule.target.clone(), why, has_failed };
            unknown.extend(why.map(of_rule));
        }
        remember(|| Rule::forget_others(&rules));
        keep::resolve_without_rule(&rules)?;
        Ok(unknown)
    })
}

/// Records what the next tick is to know; where that is locked, it does not.
fn remember(work: impl FnOnce() -> Result<()>) {
    if let Err(failure) = attempt(|| work().map(Some))
        && is_cancel(&failure)
    {
        failure.rethrow();
    }
}

/// Evaluates one rule; returns why its value is not known.
fn evaluated(rule: &Rule) -> Result<Option<String>> {
    let Some((_, measure)) = KINDS.iter().find(|(kind, _)| *kind == rule.kind) else { return Ok(None) };
    match measure(rule)? {
        Measured::Known(values) => keep::keep(rule, &values).map(|()| None),
        Measured::Unknown(why) => Ok(Some(why)),
    }
}

#[allow(clippy::type_complexity)] // pgrx reads the columns from the signature itself
#[pg_extern(sql = false)]
fn evaluate_alerts()
-> Result<TableIterator<'static, (name!(rule, String), name!(target, Option<String>), name!(unknown, String))>> {
    Ok(TableIterator::new(evaluate()?.into_iter().map(|unknown| (unknown.rule, unknown.target, unknown.why))))
}
