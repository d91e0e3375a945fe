//! What another policy would do, beside what goes and stays now; who may write policies can write it then.

use std::collections::HashSet;
use std::sync::Arc;

use axum::Form;
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Redirect, Response};
use backlog_cleanup_report::{Level, Nouns, plural};
use maud::{Markup, html};

use super::data::nouns;
use super::names::name;
use super::page::{self, Viewer};
use super::policies::{Asked, form};
use super::query;
use crate::client::policies::Simulated;
use crate::serve::api::policies::{simulation, write};
use crate::serve::app::App;
use crate::serve::middleware::Caller;
use crate::serve::response::Problem;
use crate::words;

/// The number of recipes that the page lists.
const LISTED: usize = 15;

/// Shows a simulation; nothing changes. Errors: those of the admin API.
pub async fn simulate(
    State(app): State<Arc<App>>,
    caller: Caller,
    Query(asked): Query<Asked>,
) -> Result<Markup, Problem> {
    let look = async {
        let groups = simulation(&caller, &asked.target, &asked.names(), &asked.values()?).await?;
        Ok((groups, nouns(&caller, &asked.target).await?))
    };
    let (groups, nouns) = caller.with_level(Level::Monitor, look).await?;
    let body = shown(&asked, &groups, &nouns, caller.level >= Level::Admin);
    Ok(page::document("Simulation", &Viewer::of(&app, &caller), body))
}

/// Writes the policy that was simulated, and shows the policies, or what the database warned of. Errors: those of the admin API.
pub async fn set(State(app): State<Arc<App>>, caller: Caller, Form(asked): Form<Asked>) -> Result<Response, Problem> {
    let write = async { write(&caller, &asked.target, &asked.names(), &asked.values()?).await };
    let (policy, warnings) = caller.with_level(Level::Admin, write).await?;
    if warnings.is_empty() {
        return Ok(Redirect::to(&(back(&asked.target) + "#policies")).into_response());
    }
    let body = warned(&asked.target, &policy.policy, &warnings);
    Ok(page::document("Policy written", &Viewer::of(&app, &caller), body).into_response())
}

/// The address of the dashboard of a target.
pub fn back(target: &str) -> String {
    query::Query { target: target.into(), ..query::Query::default() }.link(|_| ())
}

fn warned(target: &str, policy: &str, warnings: &[String]) -> Markup {
    html! {
        section #confirm .card .light-amber aria-labelledby="confirm-title" {
            h1 #confirm-title tabindex="-1" { "Policy " (name(policy)) " is written, with a warning" }
            @for warning in warnings { p .reason { bdi { (warning) } } }
            div .buttons { a .button href=(back(target) + "#policies") { "To the policies" } }
        }
    }
}

fn shown(asked: &Asked, groups: &[Simulated], nouns: &Nouns, may_write: bool) -> Markup {
    let Nouns { group_word, row_word } = nouns;
    let sum = |of: fn(&Simulated) -> i64| groups.iter().map(of).sum::<i64>();
    let (now, then) = (sum(|group| group.removable_now), sum(|group| group.removable_then));
    let all = now + sum(|group| group.kept_now);
    let changed: Vec<&Simulated> = groups.iter().filter(|group| group.changes()).collect();
    // A recipe has a group for each of its policies.
    let recipes: HashSet<&Option<String>> = groups.iter().map(|group| &group.recipe_id).collect();
    let changing: HashSet<&Option<String>> = changed.iter().map(|group| &group.recipe_id).collect();
    html! {
        section #confirm .card aria-labelledby="confirm-title" {
            h1 #confirm-title tabindex="-1" { "Simulation of policy " (name(&asked.names().words(group_word))) }
            p {
                "Target " code { (name(&asked.target)) } ". Removable are " strong { (words::number(now)) } " of "
                (words::count(all, row_word)) " in scope now, and " strong { (words::number(then)) } " with this policy."
            }
            @if !changed.is_empty() {
                div .scroll tabindex="0" role="region" aria-label={ (plural(row_word)) " that would go or stay, by policy and " (group_word) } { (table(&changed, group_word)) }
            }
            @if changed.len() > LISTED {
                p .note { "and " (words::number((changed.len() - LISTED) as i64)) " more. " }
            }
            p .note { (words::count((recipes.len() - changing.len()) as i64, group_word)) " as now." }
            @if may_write {
                form action="/policy" method="post" {
                    (asked.hidden())
                    div .buttons {
                        button .primary type="submit" { "Write this policy" }
                        a .button href=(back(&asked.target)) { "Cancel" }
                    }
                }
            } @else {
                p .note { "Nothing has changed. To write it, sign in with a token of level admin." }
                div .buttons { a .button href=(back(&asked.target)) { "Back" } }
            }
        }
        section #again .card aria-labelledby="again-title" {
            h2 #again-title { "Try another" }
            (form(asked, nouns))
        }
    }
}

/// The recipes for which something changes.
fn table(groups: &[&Simulated], group_word: &str) -> Markup {
    html! {
        table .simulated {
            thead {
                tr {
                    th scope="col" { "policy" }
                    th scope="col" { (group_word) }
                    th scope="col" .figure { "removable now" }
                    th scope="col" .figure { span .hidden { "removable " } "then" }
                    th scope="col" .figure { "kept now" }
                    th scope="col" .figure { span .hidden { "kept " } "then" }
                }
            }
            tbody {
                @for group in groups.iter().take(LISTED) {
                    tr {
                        th scope="row" { (name(&group.policy)) }
                        td { (name(&group.recipe_name)) }
                        td .figure { (words::number(group.removable_now)) }
                        td .figure { (words::number(group.removable_then)) }
                        td .figure { (words::number(group.kept_now)) }
                        td .figure { (words::number(group.kept_then)) }
                    }
                }
            }
        }
    }
}
