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

/// What the planner's cost of all leaves may be: some 80 MB that are read in order. A rule is not worth more.
const DEAREST: f64 = 20_000.0;
/// And what it may be at every tick.
const DEAR: f64 = 500.0;
/// What a leaf costs besides: to plan.
const LEAF: f64 = 10.0;

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
        let unknown = |what: &str| {
            let table = &target.table.name;
            Ok(Measured::Unknown(format!("to find the attempts of an hour in {table} is {what}")))
        };
        let rests = |cost: f64| Ok(cost > DEAR && !rule.is_due("15 minutes")?);
        let mut dear = LEAF * leaves.len() as f64;
        // To plan so many may be dear enough.
        if rests(dear)? {
            return unknown("dear, and done every 15 minutes");
        }
        let statements = leaves.iter().map(|leaf| (leaf, statement(target, leaf, &completed, &since)));
        let statements: Vec<(&Leaf, String)> = statements.collect();
        for (leaf, statement) in &statements {
            dear += leaf.reading_as_owner(target, || cost(statement))?;
        }
        if dear > DEAREST {
            return unknown(&format!("too dear: it takes an index on {}", target.failed_at.name));
        }
        if rests(dear)? {
            return unknown("dear, and done every 15 minutes");
        }
        for (leaf, statement) in &statements {
            leaf.reading_as_owner(target, || count(statement, &mut attempts))?;
        }
        let has_completed = attempts.values().any(|[failed, all]| failed < all);
        if !has_completed && !attempts.is_empty() && !times_are_known(target, leaves, &completed)? {
            let what = target.failed_at.what();
            return Ok(Measured::Unknown(format!(
                "rows that completed have no time in {what}: its attempts are not known, unless failed_at_column is an expression of both times"
            )));
        }
        if dear > DEAR {
            rule.was_measured(false)?;
        }
        attempts.retain(|_, [failed, all]| *failed > 0 && (*all >= LEAST || rule.has_open));
        let names = RecipeNames::of(target, attempts.keys().map(Option::as_deref))?;
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
            opens: all >= LEAST,
        };
        Ok(Measured::Known(attempts.into_iter().map(value).collect()))
    })
}

/// A recipe's id, with its name if it has another one.
fn called(names: &RecipeNames, recipe: Option<&str>) -> String {
    let name = names.name(recipe);
    match recipe {
        Some("") => "(empty)".into(),
        Some(id) if name != id => format!("{id} ({name})"),
        Some(id) => id.to_owned(),
        None => "(none)".into(),
    }
}

/// The condition on a row `g` that it has completed; `None` if the target does not say which have.
fn completed(target: &Target) -> Result<Option<String>> {
    let Some(status) = &target.status else { return Ok(None) };
    let had = target.counted(status, &target.table)?.into_iter().filter(|counted| counted.list == "completed_status");
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

/// Whether rows that completed have a time: of the first hundred of them any. Where there is none, or where it is dear to find one, they are taken to have.
fn times_are_known(target: &Target, leaves: &[Leaf], completed: &str) -> Result<bool> {
    let mut is_known = None;
    for leaf in leaves {
        let first = format!(
            "SELECT pg_catalog.bool_or(has_time)::pg_catalog.int4::bigint
             FROM (SELECT {} IS NOT NULL AS has_time FROM {} g WHERE {} AND {completed} LIMIT 100) first",
            target.failed_at.of_row(),
            leaf.rows(),
            target.is_of_account()
        );
        let found = leaf.reading_as_owner(target, || {
            if cost(&first)? > DEAREST { Ok(Some(1)) } else { read_one::<i64>(&first, &[]) }
        })?;
        is_known = is_known.max(found);
        if is_known == Some(1) {
            break;
        }
    }
    Ok(is_known != Some(0))
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
