use std::collections::HashMap;

use pgrx::prelude::*;
use serde_json::Value;

use crate::extension;
use crate::postgres::error::{Result, spi};
use crate::postgres::read::read_one;
use crate::postgres::stream::stream_writing;
use crate::status::alerts::measured::{self, Measured};
use crate::status::alerts::rule::Rule;
use crate::target::Target;
use crate::target::leaf::Leaf;
use crate::target::recipes::{RecipeNames, bounded};
use crate::target::steady::glance_leaves;

/// Fewer attempts say nothing of a recipe.
const LEAST: i64 = 20;

/// What the planner's cost of a leaf may be: some 80 MB that are read in order. A rule is not worth more.
const DEAREST: f64 = 20_000.0;
/// And what it may be at every tick.
const DEAR: f64 = 500.0;

/// Whether this is the first tick of a quarter of an hour.
const IS_DUE: &str = "
    SELECT NOT EXISTS (SELECT FROM backlog_cleanup.tick
                       WHERE started_at >= date_bin('15 minutes', now(), '2000-01-01 00:00:00+00') AND started_at < now())";

/// The percentage of failures among the attempts of each recipe that have ended in the window.
pub fn recipe_failures(rule: &Rule) -> Result<Measured> {
    glance_leaves(rule.target.as_deref(), |target, leaves| {
        let Some(completed) = completed(target)? else {
            let why = "the target has no status_column, or no completed_status: its attempts are not known";
            return Ok(Measured::Unknown(why.into()));
        };
        let since = "SELECT (now() - make_interval(secs => $1))::text";
        let since = extension::as_owner(|| read_one::<String>(since, &[rule.within.into()]))?.unwrap_or_default();
        let mut attempts: HashMap<Option<String>, [i64; 2]> = HashMap::new();
        for leaf in leaves {
            let statement = statement(target, leaf, &completed, &since);
            let cost = leaf.reading_as_owner(target, || cost(&statement))?;
            let attempts_of = || format!("to find the attempts of an hour in {}", leaf.table.name);
            if cost > DEAREST {
                let why = format!("{} is too dear: it takes an index on {}", attempts_of(), target.failed_at.name);
                return Ok(Measured::Unknown(why));
            }
            if cost > DEAR && extension::as_owner(|| read_one::<bool>(IS_DUE, &[]))? != Some(true) {
                return Ok(Measured::Unknown(format!("{} is dear, and done every 15 minutes", attempts_of())));
            }
            leaf.reading_as_owner(target, || count(&statement, &mut attempts))?;
        }
        attempts.retain(|_, [failed, all]| *all >= LEAST && *failed > 0);
        let names = RecipeNames::of(target)?;
        let value = |(recipe, [failed, all]): (Option<String>, [i64; 2])| measured::Value {
            value: 100.0 * failed as f64 / all as f64,
            sentence: format!(
                "{failed} of {all} attempts of {} {} have failed in the last {} minutes (the limit is {} %)",
                rule.recipe(),
                called(&names, recipe.as_deref()),
                (rule.within / 60.0).round(),
                rule.threshold
            ),
            subject: recipe,
            fix: None,
        };
        Ok(Measured::Known(attempts.into_iter().map(value).collect()))
    })
}

/// A recipe's id, with its name if it has another one.
fn called(names: &RecipeNames, recipe: Option<&str>) -> String {
    let name = names.name(recipe);
    match recipe {
        Some(id) if name != id => format!("{id} ({name})"),
        Some(id) => id.to_owned(),
        None => "(none)".into(),
    }
}

/// The condition on a row `g` that it has completed; `None` if the target does not say which have.
fn completed(target: &Target) -> Result<Option<String>> {
    let Some(status) = &target.status else { return Ok(None) };
    let had = target.counted(status)?.into_iter().filter(|counted| counted.list == "completed_status");
    let values: Vec<String> = had.map(|counted| counted.value.to_owned()).collect();
    Ok((!values.is_empty()).then(|| status.is_one_of(&status.of_row(), &values)))
}

/// Failed rows and attempts of a leaf by recipe.
fn statement(target: &Target, leaf: &Leaf, completed: &str, since: &str) -> String {
    format!(
        "SELECT ({recipe})::pg_catalog.text, pg_catalog.count(*) FILTER (WHERE {failed}), pg_catalog.count(*)
         FROM {leaf} g
         WHERE {account} AND {failed_at} OPERATOR(pg_catalog.>=) ({since}) AND ({failed} OR {completed})
         GROUP BY 1",
        recipe = leaf.group_key(&target.recipe),
        failed = target.is_failed(),
        leaf = leaf.rows(),
        account = target.is_of_account(),
        failed_at = target.failed_at.of_row(),
        since = target.as_failed_at(since),
    )
}

/// What the planner expects a statement to cost.
fn cost(statement: &str) -> Result<f64> {
    let mut plan = Value::Null;
    stream_writing(&format!("EXPLAIN (FORMAT JSON) {statement}"), None, |row| {
        // SAFETY: a json is stored as a text.
        plan = serde_json::from_str(unsafe { row.text(0) }.unwrap_or_default()).unwrap_or_default();
    })?;
    Ok(plan[0]["Plan"]["Total Cost"].as_f64().unwrap_or_default())
}

fn count(statement: &str, attempts: &mut HashMap<Option<String>, [i64; 2]>) -> Result<()> {
    Spi::connect(|client| {
        client.select(statement, None, &[])?.try_for_each(|row| {
            let recipe = row.get::<&str>(1)?.map(|id| bounded(id).into_owned());
            let [failed, all] = attempts.entry(recipe).or_default();
            *failed += row.get::<i64>(2)?.unwrap_or_default();
            *all += row.get::<i64>(3)?.unwrap_or_default();
            Ok(())
        })
    })
    .map_err(spi)
}
