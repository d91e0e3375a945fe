//! Dropping a policy: asked first, then done.

use std::sync::Arc;

use axum::Form;
use axum::extract::{Query, State};
use axum::response::Redirect;
use backlog_cleanup_report::Level;
use maud::{Markup, html};

use super::data::nouns;
use super::names::name;
use super::page::{self, Viewer};
use super::policies::Asked;
use super::simulate::back;
use crate::client::policies::{self, Policy};
use crate::serve::api::policies::remove;
use crate::serve::app::App;
use crate::serve::middleware::Caller;
use crate::serve::response::Problem;
use crate::words;

/// Asks whether a policy is to be dropped. Errors: 404 if there is none.
pub async fn ask(State(app): State<Arc<App>>, caller: Caller, Query(asked): Query<Asked>) -> Result<Markup, Problem> {
    let find = async {
        let policies = policies::list(&mut *caller.begin().await?, &asked.target).await?;
        let found = policies.into_iter().find(|policy| policy.names == asked.names());
        let words = asked.names().words(&nouns(&caller, &asked.target).await?.group_word);
        found.ok_or_else(|| Problem::not_found(format!("policy {words} does not exist")))
    };
    let policy = caller.with_level(Level::Admin, find).await?;
    Ok(page::document("Drop a policy", &Viewer::of(&app, &caller), question(&asked, &policy)))
}

/// Drops the policy, and shows those that are left. Errors: those of the admin API.
pub async fn drop(caller: Caller, Form(asked): Form<Asked>) -> Result<Redirect, Problem> {
    caller.with_level(Level::Admin, remove(&caller, &asked.target, &asked.names())).await?;
    Ok(Redirect::to(&(back(&asked.target) + "#policies")))
}

fn question(asked: &Asked, policy: &Policy) -> Markup {
    html! {
        section #confirm .card .danger aria-labelledby="confirm-title" {
            h1 #confirm-title tabindex="-1" { "Drop policy " (name(&policy.policy)) "?" }
            p { "Target " code { (name(&asked.target)) } ". Its rows have the next policy that matches them then, or the default policy." }
            dl .figures {
                div { dt { "state" } dd { (policy.state()) } }
                div { dt { "max age" } dd { (policy.max_age) } }
                div { dt { "keep" } dd { (words::number(policy.keep.into())) } }
                @if let Some(age) = &policy.max_keep_age { div { dt { "max keep age" } dd { (age) } } }
                @if let Some(rows) = policy.in_scope { div { dt { "in scope, last run" } dd { (words::number(rows)) } } }
                @if let Some(note) = &policy.note { div { dt { "note" } dd { bdi { (note) } } } }
            }
            form action="/drop" method="post" {
                (asked.hidden())
                div .buttons {
                    button .danger type="submit" { "Drop this policy" }
                    a .button href=(back(&asked.target)) { "Cancel" }
                }
            }
        }
    }
}
