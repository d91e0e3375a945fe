pub mod counts;
pub mod failures;

use backlog_cleanup_report::{RecipeFailures, StatusReport, Warning};
use pgrx::prelude::*;

use crate::doctor;
use crate::history;
use crate::history::report::{Report, as_json};
use crate::postgres::error::Result;
use crate::schedule;
use crate::status::counts::{RecipeStatus, counts};
use crate::target::Target;
use crate::target::steady::steady;

/// The account's rows by recipe and status, most failures first. Reads only: works on a standby.
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
    let rows = steady(target, counts)?.into_iter().map(|recipe| {
        (
            recipe.id,
            recipe.name,
            recipe.total,
            recipe.completed,
            recipe.failed,
            recipe.pending,
            recipe.processing,
            recipe.removable,
            recipe.oldest_failed_at,
            recipe.oldest_failed_age,
        )
    });
    Ok(TableIterator::new(rows))
}

/// The same as one `StatusReport`, with the job that runs the target and its last run.
#[pg_extern(stable)]
fn backlog_cleanup_status_json(target: default!(Option<&str>, "'generations'")) -> Result<Report> {
    steady(target, report)
}

fn report(target: &Target) -> Result<Report> {
    let counts = counts(target)?;
    let sum = |count: fn(&RecipeStatus) -> i64| counts.iter().map(count).sum();
    as_json(&StatusReport {
        success: true,
        total_generations: sum(|recipe| recipe.total),
        completed_generations: sum(|recipe| recipe.completed),
        failed_generations: sum(|recipe| recipe.failed),
        pending_generations: sum(|recipe| recipe.pending),
        processing_generations: sum(|recipe| recipe.processing),
        removable_generations: sum(|recipe| recipe.removable),
        recipes_with_failed_generations: counts
            .into_iter()
            .filter(|recipe| recipe.failed > 0)
            .map(|recipe| RecipeFailures {
                recipe_id: target.json_recipe_id(recipe.id.as_deref()),
                recipe_name: recipe.name,
                failed_count: recipe.failed,
                removable_count: recipe.removable,
                oldest_failed_at: recipe.oldest_failed_iso,
                oldest_failed_age: recipe.oldest_failed_age,
            })
            .collect(),
        schedule: schedule::job_of(&target.name)?,
        last_run: history::last_run(&target.name)?,
        warnings: doctor::references(target)?
            .into_iter()
            .map(|problem| Warning { message: problem.detail, hint: problem.fix.unwrap_or_default() })
            .collect(),
    })
}
