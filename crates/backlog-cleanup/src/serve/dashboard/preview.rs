use std::sync::Arc;

use axum::extract::{Query, State};
use backlog_cleanup_report::{EmergencyReport, Level, Mode, RegularReport};
use maud::Markup;

use super::actions::{self, Asked, Preview};
use super::data;
use super::page::{self, Viewer};
use crate::client::calls::Trial;
use crate::random;
use crate::serve::app::App;
use crate::serve::middleware::Caller;
use crate::serve::removal::trial;
use crate::serve::response::{Problem, read};

/// Shows what a run would remove, and asks for confirmation.
pub async fn preview(
    State(app): State<Arc<App>>,
    caller: Caller,
    Query(asked): Query<Asked>,
) -> Result<Markup, Problem> {
    let preview = caller.with_level(Level::Operator, look(&caller, asked)).await?;
    Ok(page::document("Preview", &Viewer::of(&app, &caller), actions::confirm(&preview)))
}

/// Makes a dry run.
async fn look(caller: &Caller, asked: Asked) -> Result<Preview, Problem> {
    let report = trial(asked.mode, Trial::DryRun, caller, &asked.selection(), None).await?;
    let report = report.get().as_bytes();
    let (nouns, count, total_failed, held, details) = match asked.mode {
        Mode::Regular => {
            let report: RegularReport = read(report)?;
            let (count, total) = (report.cleaned_up_generations, report.total_failed_generations);
            (report.nouns, count, total, report.held_count, report.cleanup_details)
        }
        Mode::Emergency => {
            let report: EmergencyReport = read(report)?;
            let (count, held) = (report.removed_count, report.held_count);
            (report.nouns, count, count + held, held, report.cleanup_details)
        }
    };
    let recipes = details.into_iter().filter(|recipe| recipe.cleaned_count > 0).collect();
    let confirming = data::confirming(caller, &asked.target).await?;
    let idempotency_key = format!("page-{}", random::name()?);
    Ok(Preview { asked, nouns, count, total_failed, held, recipes, confirming, idempotency_key })
}
