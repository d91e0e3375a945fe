//! What people ask: how many rows, which failures, what ran last.

pub mod alerts;
pub mod counts;
mod explain;
mod explain_tick;
pub mod failures;
pub mod last_run;
mod others;
mod report;
mod simulate;

use std::collections::BTreeMap;

use backlog_cleanup_report::{
    RecipeFailures, StatusCount, StatusCounts, StatusReport, StatusRows, Warning, counted, recipe_id,
};
use pgrx::JsonB;
use pgrx::prelude::*;
use pgrx::spi::quote_literal;

use crate::doctor;
use crate::history::report::LISTED;
use crate::postgres::error::Result;
use crate::postgres::json::Json;
use crate::schedule;
use crate::status::counts::{Counts, RecipeStatus, counts, totals};
use crate::status::last_run::last_run;
use crate::target::Target;
use crate::target::leaf::Leaf;
use crate::target::steady::glance_leaves;

/// Returns the account's rows by recipe and status, most failures first. Reads only: works on a standby.
#[allow(clippy::type_complexity)] // pgrx reads the columns from the signature itself
#[pg_extern(stable, name = "backlog_cleanup_status")]
fn status_by_recipe(
    target: default!(Option<&str>, "'generations'"),
) -> Result<
    TableIterator<
        'static,
        (
            name!(recipe_id, Option<String>),
            name!(recipe_name, String),
            name!(total_count, i64),
            name!(completed_count, i64),
            name!(failed_count, i64),
            name!(pending_count, i64),
            name!(processing_count, i64),
            name!(removable_count, i64),
            name!(oldest_failed_at, Option<TimestampWithTimeZone>),
            name!(oldest_failed_age, Option<String>),
            name!(in_scope_count, i64),
            name!(statuses, JsonB),
        ),
    >,
> {
    let Counts { recipes, names } = glance_leaves(target, counts)?;
    let rows = recipes.into_iter().map(move |recipe| {
        let [failed, completed, pending, processing] = recipe.of_status;
        let statuses = serde_json::to_value(by_name(&names, &recipe.of_each)).unwrap_or_default();
        (
            recipe.id,
            recipe.name,
            recipe.total,
            completed,
            failed,
            pending,
            processing,
            recipe.removable,
            recipe.oldest_failed_at,
            recipe.oldest_failed_age,
            failed,
            JsonB(statuses),
        )
    });
    Ok(TableIterator::new(rows))
}

/// The rows of every status that is there.
fn by_name<'a>(names: &'a [String], of_each: &[i64]) -> BTreeMap<&'a str, i64> {
    let mut rows = BTreeMap::new();
    for (name, count) in names.iter().zip(of_each).filter(|(_, count)| **count > 0) {
        *rows.entry(name.as_str()).or_default() += count;
    }
    rows
}

/// The same for the SQL of a version before 0.3.0.
#[allow(clippy::type_complexity)]
#[pg_extern(sql = false)]
fn backlog_cleanup_status(
    target: Option<&str>,
) -> Result<
    TableIterator<
        'static,
        (
            name!(recipe_id, Option<String>),
            name!(recipe_name, String),
            name!(total_count, i64),
            name!(completed_count, i64),
            name!(failed_count, i64),
            name!(pending_count, i64),
            name!(processing_count, i64),
            name!(removable_count, i64),
            name!(oldest_failed_at, Option<TimestampWithTimeZone>),
            name!(oldest_failed_age, Option<String>),
        ),
    >,
> {
    let rows = status_by_recipe(target)?.map(|(a, b, c, d, e, f, g, h, i, j, ..)| (a, b, c, d, e, f, g, h, i, j));
    Ok(TableIterator::new(rows))
}

/// Returns the same as one `StatusReport`, with the job that runs the target and its last run.
#[pg_extern(stable)]
fn backlog_cleanup_status_json(target: default!(Option<&str>, "'generations'")) -> Result<Json> {
    glance_leaves(target, status_report)
}

fn status_report(target: &Target, leaves: &[Leaf]) -> Result<Json> {
    let Counts { recipes: counts, names } = totals(target, leaves)?;
    let mut of_each = vec![0; names.len()];
    for recipe in &counts {
        of_each.iter_mut().zip(&recipe.of_each).for_each(|(sum, count)| *sum += count);
    }
    let mut every_status: Vec<StatusRows> = by_name(&names, &of_each)
        .into_iter()
        .map(|(status, count)| StatusRows { status: status.to_owned(), count })
        .collect();
    every_status.sort_by_key(|status| -status.count);
    let sum = |count: fn(&RecipeStatus) -> i64| counts.iter().map(count).sum();
    let statuses = target.lists().into_iter().enumerate().map(|(place, (name, ..))| StatusCount {
        name: name.to_owned(),
        count: counts.iter().map(|recipe| recipe.of_status[place]).sum(),
    });
    let statuses = StatusCounts(statuses.collect());
    let failed = counts.iter().filter(|recipe| recipe.of_status[0] > 0).count();
    let unlisted = (failed > LISTED).then(|| Warning {
        message: format!("this report has {LISTED} of {}", counted(failed as i64, &target.nouns.group_word)),
        hint: format!("SELECT * FROM backlog_cleanup_status({})", quote_literal(&target.name)),
    });
    Json::of(&StatusReport {
        success: true,
        nouns: target.nouns.clone(),
        total_generations: sum(|recipe| recipe.total),
        in_scope: sum(|recipe| recipe.of_status[0]),
        every_status,
        statuses,
        removable_generations: sum(|recipe| recipe.removable),
        recipes_with_failed_generations: counts
            .into_iter()
            .filter(|recipe| recipe.of_status[0] > 0)
            .take(LISTED)
            .map(|recipe| RecipeFailures {
                recipe_id: recipe_id(recipe.id.as_deref(), target.has_json_recipes()),
                recipe_name: recipe.name,
                failed_count: recipe.of_status[0],
                removable_count: recipe.removable,
                oldest_failed_at: recipe.oldest_failed_iso,
                oldest_failed_age: recipe.oldest_failed_age,
            })
            .collect(),
        schedule: schedule::job_of(&target.name)?,
        last_run: last_run(&target.name)?,
        warnings: doctor::references(target)?
            .into_iter()
            .map(|problem| Warning { message: problem.detail, hint: problem.fix.unwrap_or_default() })
            .chain(unlisted)
            .collect(),
    })
}
