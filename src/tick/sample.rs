use std::collections::HashMap;
use std::ops::Range;
use std::time::Instant;

use backlog_cleanup_report::recipe_id;
use pgrx::prelude::*;
use pgrx::spi::quote_literal;
use serde_json::{Value, json};

use crate::extension;
use crate::history::samples::{self, Before, Counted, Counters, NAMED, Sample};
use crate::postgres::datum::instant_as_text;
use crate::postgres::error::Result;
use crate::postgres::owner::reading_as_owner_of;
use crate::postgres::read::read_one;
use crate::postgres::stream::stream;
use crate::rank::count::{InScope, count};
use crate::rank::index;
use crate::rules::Rules;
use crate::target::Target;
use crate::target::leaf::{Leaf, oids};
use crate::target::steady::glance_leaves;

/// After a count no other is made for so many times what it took.
const REST: f64 = 100.0;

/// So many rows are counted with every other tick only, in seconds, unless a run has removed some of them.
const MANY: i64 = 100_000;
const SELDOM: f64 = 570.0;

/// A larger table is counted only through the partial index, in bytes.
const LARGEST: u64 = 1 << 30;

/// Takes a sample of a target. Returns why its rows were not counted, if they were not: that it is not its `turn`, or another reason.
/// Adds the rows that it has counted to `rows`. Errors: those of `Target::load`, 55P03.
pub fn sample(name: &str, turn: std::result::Result<(), String>, rows: &mut i64) -> Result<Option<String>> {
    let before = samples::before(name)?;
    let started = Instant::now();
    let mut sample = glance_leaves(Some(name), |target, leaves| {
        let (size, counters) = samples::figures(name, &oids(leaves))?;
        let may_count = match &turn {
            Ok(()) => reason_not_to_count(target, leaves, &before, &counters)?,
            Err(reason) => Err(reason.clone()),
        };
        let (counted, not_counted) = match may_count {
            Ok(way) => counted(target, leaves, way, &before).map(|(counted, why)| (Some(counted), why))?,
            Err(reason) => (None, Some(reason)),
        };
        Ok(Sample { counted, not_counted, milliseconds: 0.0, size, counters })
    })?;
    *rows += sample.counted.as_ref().map_or(0, |counted| counted.in_scope);
    sample.milliseconds = started.elapsed().as_secs_f64() * 1000.0;
    samples::write(name, &before, &sample)?;
    Ok(sample.not_counted)
}

/// How rows are counted.
#[derive(Clone, Copy, PartialEq)]
enum Way {
    Index,
    Table,
    /// Through the index, which does not have what policies name: not those that a run would remove.
    InScope,
}

/// How the rows are counted, or else the reason not to count them.
fn reason_not_to_count(
    target: &Target,
    leaves: &[Leaf],
    before: &Before,
    now: &Counters,
) -> Result<std::result::Result<Way, String>> {
    let through_index = index::serves(&Rules::of_all(target)?, leaves)?;
    let bytes = leaves.iter().map(|leaf| u64::from(leaf.pages)).sum::<u64>() * u64::from(pg_sys::BLCKSZ);
    let way = match through_index {
        true => Way::Index,
        false if bytes <= LARGEST => Way::Table,
        false if index::serves(&Rules::of_all(target)?.without_failure_types(), leaves)? => Way::InScope,
        false => {
            let gigabytes = bytes as f64 / LARGEST as f64;
            let fix = format!("SELECT backlog_cleanup_index_sql({})", quote_literal(&target.name));
            return Ok(Err(format!(
                "the table of {gigabytes:.1} GB would have to be read, since it has no partial index: {fix}"
            )));
        }
    };
    if let (Some(seconds), Some(milliseconds)) = (before.counted_seconds, before.counted_milliseconds) {
        let rest = REST * milliseconds / 1000.0 - seconds;
        let many = before.counted_rows.filter(|rows| *rows > MANY && !before.is_outdated_by_a_run(now));
        if let Some(rows) = many.filter(|_| rest.max(0.0) < SELDOM - seconds) {
            let rest = SELDOM - seconds;
            return Ok(Err(format!("the last count had {rows} rows: the next is made in {rest:.0} s or later")));
        }
        if rest > 0.0 {
            let took = milliseconds / 1000.0;
            let index = if way == Way::Table { ", without the partial index" } else { "" };
            return Ok(Err(format!(
                "the last count took {took:.1} s{index}: the next is made in {rest:.0} s or later"
            )));
        }
    }
    Ok(Ok(way))
}

/// Counts the rows; returns also why those that came in are not known.
fn counted(target: &Target, leaves: &[Leaf], way: Way, before: &Before) -> Result<(Counted, Option<String>)> {
    let (span, why) = match before.counted_at.as_deref().map(|since| span(target, since)).transpose()? {
        Some(Ok(span)) => (Some(span), None),
        Some(Err(why)) => (None, Some(why)),
        None => (None, None),
    };
    let rules = Rules::of_all(target)?;
    let (rules, is_ranked) = if way == Way::InScope { (rules.without_failure_types(), false) } else { (rules, true) };
    let in_scope = count(&rules, leaves, way != Way::Table, span.clone().unwrap_or(0..0))?;
    let failed: i64 = in_scope.recipes.iter().map(|recipe| recipe.failed).sum();
    let failure_types = match &span {
        Some(span) if failed > 0 => Some(failure_types(target, leaves, span)?),
        span => span.as_ref().map(|_| json!([])),
    };
    let not_ranked =
        "what a run would remove is not counted: a policy names a failure type, which the partial index does not have";
    let why = why.or((!is_ranked).then(|| not_ranked.to_owned()));
    let why = why.or(target.unreadable(leaves)?.map(|unreadable| unreadable.said(target)));
    let statuses = target.names_of_statuses.iter().cloned().zip(in_scope.of_status.iter().copied());
    let counted = Counted {
        in_scope: in_scope.recipes.iter().map(|recipe| recipe.in_scope).sum(),
        statuses: target.status.as_ref().map(|_| statuses.collect()),
        removable: is_ranked.then_some(in_scope.removable),
        oldest_at: in_scope.oldest.map(|at| instant(target, at)).transpose()?.flatten(),
        failed: span.as_ref().map(|_| failed),
        failed_seconds: before.counted_seconds.filter(|_| span.is_some()),
        recipes: span.map(|_| recipes(target, in_scope)),
        failure_types,
    };
    Ok((counted, why))
}

/// The failed-ats from an instant to now, or why they do not tell which rows failed since.
fn span(target: &Target, since: &str) -> Result<std::result::Result<Range<i64>, String>> {
    const OF_A_DATE: &str = "
        SELECT attname::text FROM backlog_cleanup.target t JOIN pg_attribute ON attname = t.failed_at_column
        WHERE t.name = $1 AND attrelid = $2 AND atttypid = 'date'::regtype";
    let arguments = [target.name.as_str().into(), target.table.oid.into()];
    if let Some(name) = extension::as_owner(|| read_one::<String>(OF_A_DATE, &arguments))? {
        return Ok(Err(format!("{name} says only the day on which a row failed")));
    }
    let now =
        r#"SELECT pg_catalog.to_char(pg_catalog.timezone('UTC', pg_catalog.now()), 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')"#;
    let now = read_one::<String>(now, &[])?.unwrap_or_default();
    if target.failed_at.type_oid == pg_sys::TIMESTAMPOID {
        let twice = format!("SELECT {} OR {}", target.comes_twice(since), target.comes_twice(&now));
        if read_one::<bool>(&twice, &[])? == Some(true) {
            return Ok(Err(format!("clocks go back: this hour comes twice in {}", target.time_zone)));
        }
    }
    let values = format!("VALUES (({})), (({}))", target.as_failed_at(since), target.as_failed_at(&now));
    let mut ends = Vec::new();
    reading_as_owner_of(&target.table, || stream(&values, |row| ends.extend(row.number(0))))?;
    Ok(match ends[..] {
        [from, to] => Ok(from..to),
        _ => Ok(0..0),
    })
}

/// A failed-at as a `timestamptz`, as text.
fn instant(target: &Target, at: i64) -> Result<Option<String>> {
    let at =
        format!("{}::{}", quote_literal(instant_as_text(at, target.failed_at.type_oid)), target.failed_at.sql_type);
    let instant = format!("SELECT ({})::pg_catalog.timestamptz::pg_catalog.text", target.instant(&at));
    reading_as_owner_of(&target.table, || read_one::<String>(&instant, &[]))
}

/// The recipes with most failures.
fn recipes(target: &Target, in_scope: InScope) -> Value {
    let mut recipes = in_scope.recipes;
    recipes.retain(|recipe| recipe.failed > 0);
    recipes.sort_by(|a, b| (b.failed, b.in_scope, &a.recipe_id).cmp(&(a.failed, a.in_scope, &b.recipe_id)));
    let named = recipes.iter().take(NAMED).map(|recipe| {
        let id = recipe_id(recipe.recipe_id.as_deref(), target.recipe.is_number());
        json!({ "recipeId": id, "inScope": recipe.in_scope, "change": recipe.failed })
    });
    named.collect()
}

/// The failure types with most failures in a span.
fn failure_types(target: &Target, leaves: &[Leaf], span: &Range<i64>) -> Result<Value> {
    let failed_at = target.failed_at.of_row();
    let end = |at: i64| {
        format!("{}::{}", quote_literal(instant_as_text(at, target.failed_at.type_oid)), target.failed_at.sql_type)
    };
    let mut rows: HashMap<String, i64> = HashMap::new();
    for leaf in leaves {
        let statement = format!(
            "SELECT COALESCE({}, '(none)')::pg_catalog.text, pg_catalog.count(*) FROM {} g
             WHERE {} AND {failed_at} OPERATOR(pg_catalog.>=) {} AND {failed_at} OPERATOR(pg_catalog.<) {}
             GROUP BY 1",
            target.failure_type_there(leaf),
            leaf.rows(),
            target.is_failed(),
            end(span.start),
            end(span.end),
        );
        leaf.reading_as_owner(target, || {
            stream(&statement, |row| {
                // SAFETY: the first column of the statement is a text.
                let failure_type = unsafe { row.text(0) }.unwrap_or_default();
                *rows.entry(target.failure_type_here(leaf, failure_type)).or_default() +=
                    row.number(1).unwrap_or_default();
            })
        })?;
    }
    let mut most: Vec<(String, i64)> = rows.into_iter().collect();
    most.sort_by(|a, b| (b.1, &a.0).cmp(&(a.1, &b.0)));
    let named = most.iter().take(NAMED).map(|(name, failed)| json!({ "failureType": name, "change": failed }));
    Ok(named.collect())
}
