//! What people ask: how many rows, which failures, what ran last.

pub mod counts;
mod explain;
pub mod failures;
pub mod last_run;
mod simulate;

use backlog_cleanup_report::{RecipeFailures, StatusCount, StatusCounts, StatusReport, Warning, recipe_id};
use pgrx::prelude::*;
use pgrx::spi::quote_literal;

use crate::doctor;
use crate::history::report::LISTED;
use crate::postgres::error::Result;
use crate::postgres::json::Json;
use crate::schedule;
use crate::status::counts::{RecipeStatus, counts};
use crate::status::last_run::last_run;
use crate::target::Target;
use crate::target::leaf::Leaf;
use crate::target::steady::glance_leaves;

/// Returns the account's rows by recipe and status, most failures first. Reads only: works on a standby.
#[allow(clippy::type_complexity)] // pgrx reads the columns from the signature itself
#[pg_extern(stable)]
fn backlog_cleanup_status(
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
        ),
    >,
> {
    let rows = glance_leaves(target, counts)?.into_iter().map(|recipe| {
        let [failed, completed, pending, processing] = recipe.of_status;
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
        )
    });
    Ok(TableIterator::new(rows))
}

/// Returns the same as one `StatusReport`, with the job that runs the target and its last run.
#[pg_extern(stable)]
fn backlog_cleanup_status_json(target: default!(Option<&str>, "'generations'")) -> Result<Json> {
    glance_leaves(target, report)
}

fn report(target: &Target, leaves: &[Leaf]) -> Result<Json> {
    let counts = counts(target, leaves)?;
    let sum = |count: fn(&RecipeStatus) -> i64| counts.iter().map(count).sum();
    let statuses = target.lists().into_iter().enumerate().map(|(place, (name, ..))| StatusCount {
        name: name.to_owned(),
        count: counts.iter().map(|recipe| recipe.of_status[place]).sum(),
    });
    let statuses = StatusCounts(statuses.collect());
    let failed = counts.iter().filter(|recipe| recipe.of_status[0] > 0).count();
    let unlisted = (failed > LISTED).then(|| Warning {
        message: format!("this report has {LISTED} of {failed} recipes"),
        hint: format!("SELECT * FROM backlog_cleanup_status({})", quote_literal(&target.name)),
    });
    Json::of(&StatusReport {
        success: true,
        total_generations: sum(|recipe| recipe.total),
        statuses,
        removable_generations: sum(|recipe| recipe.removable),
        recipes_with_failed_generations: counts
            .into_iter()
            .filter(|recipe| recipe.of_status[0] > 0)
            .take(LISTED)
            .map(|recipe| RecipeFailures {
                recipe_id: recipe_id(recipe.id.as_deref(), target.recipe.is_number()),
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
