use std::sync::Arc;

use axum::extract::{Query, State};
use backlog_cleanup_report::{EmergencyReport, RegularReport};
use maud::Markup;

use super::actions::{self, Asked, Preview};
use super::page::{self, Viewer};
use super::{data, recipes};
use crate::serve::cleanup::{self, Mode};
use crate::serve::{App, Caller, Level, Problem};

/// Shows what a run would remove, and asks for it to be confirmed.
pub async fn preview(
    State(app): State<Arc<App>>,
    caller: Caller,
    Query(asked): Query<Asked>,
) -> Result<Markup, Problem> {
    let preview = look(&app, &caller, asked).await?;
    Ok(page::document("Preview", &Viewer::of(&app, &caller), actions::confirm(&preview)))
}

/// A dry run of what is asked for.
async fn look(app: &Arc<App>, caller: &Caller, asked: Asked) -> Result<Preview, Problem> {
    caller.at_least(Level::Operator)?;
    let report = cleanup::dry_run(asked.mode, caller, &asked.selection(), None).await?;
    let (count, total_failed, recipes) = match asked.mode {
        Mode::Regular => regular(&read(&report)?),
        Mode::Emergency => emergency(app, caller, &asked, &read(&report)?).await?,
    };
    let account = data::account(&caller.pool, &asked.target).await?;
    Ok(Preview { asked, count, total_failed, recipes, account, idempotency_key: key()? })
}

fn read<'a, Report: serde::Deserialize<'a>>(report: &'a str) -> Result<Report, Problem> {
    serde_json::from_str(report).map_err(|error| Problem::internal(format!("the report could not be read: {error}")))
}

/// Rows that would go, all failed ones, and the former by recipe.
type Found = (i64, i64, Vec<(String, i64)>);

fn regular(report: &RegularReport) -> Found {
    let going = report.cleanup_details.iter().filter(|recipe| recipe.cleaned_count > 0);
    let recipes = going.map(|recipe| (recipe.recipe_name.clone(), recipe.cleaned_count)).collect();
    (report.cleaned_up_generations, report.total_failed_generations, recipes)
}

/// The report of an emergency run does not tell recipes apart. All failed rows of each would go, which the status has,
/// unless a failure type is asked for.
async fn emergency(app: &Arc<App>, caller: &Caller, asked: &Asked, report: &EmergencyReport) -> Result<Found, Problem> {
    let status = data::status(app, caller, &asked.target).await?;
    let selection = asked.selection();
    let named = status.recipes_with_failed_generations.into_iter().filter(|recipe| {
        let is_asked_for = |asked: &String| *asked == recipes::id(&recipe.recipe_id);
        selection.failure_type.is_none() && selection.recipe_id.as_ref().is_none_or(is_asked_for)
    });
    let recipes = named.map(|recipe| (recipe.recipe_name, recipe.failed_count)).collect();
    Ok((report.removed_count, status.failed_generations, recipes))
}

fn key() -> Result<String, Problem> {
    let random = getrandom::u64().map_err(|error| Problem::internal(format!("no random bytes: {error}")))?;
    Ok(format!("page-{random:016x}"))
}
