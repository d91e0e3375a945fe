//! Why a row stays or goes.

use std::sync::Arc;

use axum::extract::{Query, State};
use backlog_cleanup_report::{Level, Nouns, capitalized};
use maud::{Markup, html};
use serde::Deserialize;

use super::names::name;
use super::page::{self, Viewer};
use super::policies::explain_form;
use super::simulate::back;
use super::times;
use crate::client::policies::{self, Verdict};
use crate::client::targets;
use crate::serve::app::App;
use crate::serve::middleware::Caller;
use crate::serve::response::Problem;
use crate::words;

#[derive(Deserialize)]
pub struct Row {
    target: String,
    id: String,
}

/// Shows the verdict on a row. Errors: those of the admin API.
pub async fn explain(
    State(app): State<Arc<App>>,
    caller: Caller,
    Query(Row { target, id }): Query<Row>,
) -> Result<Markup, Problem> {
    let id = id.trim();
    let look = async {
        let mut work = caller.begin().await?;
        Ok((policies::explain(&mut work, &target, id).await?, targets::nouns(&mut work, &target).await?))
    };
    let (verdict, nouns) = caller.with_level(Level::Monitor, look).await?;
    Ok(page::document("Explanation", &Viewer::of(&app, &caller), shown(&target, id, &verdict, &nouns)))
}

fn shown(target: &str, id: &str, verdict: &Verdict, nouns: &Nouns) -> Markup {
    let row_word = &nouns.row_word;
    html! {
        section #confirm .card aria-labelledby="confirm-title" {
            h1 #confirm-title tabindex="-1" { (capitalized(row_word)) " " (name(id)) ": " (verdict.verdict) }
            p .reason { bdi { (verdict.reason) } }
            dl .figures {
                div { dt { "target" } dd { (name(target)) } }
                @if let Some(policy) = &verdict.policy { div { dt { "policy" } dd { (name(policy)) } } }
                @if let Some(keep) = verdict.keep { div { dt { "keep" } dd { (words::number(keep.into())) } } }
                @if let Some(rank) = verdict.rank { div { dt { "rank" } dd { (words::number(rank)) } } }
                @if let Some(at) = verdict.expires_at { div { dt { "expires" } dd { (times::clock(at)) } } }
                @if let Some(at) = verdict.removable_at { div { dt { "removable" } dd { (times::clock(at)) } } }
            }
            div .buttons { a .button href=(back(target)) { "Back" } }
        }
        section #again .card aria-labelledby="again-title" {
            h2 #again-title { "Explain another " (row_word) }
            (explain_form(target, id, nouns))
        }
    }
}
