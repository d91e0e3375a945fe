//! What may be done: preview, then confirm. The forms are plain HTML.

use maud::{Markup, html};
use serde::Deserialize;

use super::data::Data;
use super::query::Query;
use super::words;
use crate::serve::removal::{Mode, Selection};

/// What a form asks for; empty is any.
#[derive(Clone, Deserialize)]
pub struct Asked {
    pub target: String,
    pub mode: Mode,
    #[serde(default)]
    pub recipe: String,
    #[serde(default)]
    pub failure_type: String,
}

impl Asked {
    pub fn selection(&self) -> Selection {
        let given = |text: &str| Some(text.to_owned()).filter(|text| !text.trim().is_empty());
        Selection {
            target: self.target.clone(),
            recipe_id: given(&self.recipe),
            failure_type: given(&self.failure_type),
            dry_run: false,
        }
    }
}

/// What a dry run of it has found, to be confirmed.
pub struct Preview {
    pub asked: Asked,
    /// Rows that would go: sent along, so that what was seen is what happens.
    pub count: i64,
    pub total_failed: i64,
    /// Per recipe what would go, most first; only the first ones are named.
    pub recipes: Vec<(String, i64)>,
    /// Whose rows they are; to be typed before an emergency run.
    pub account: String,
    /// A form that is sent twice removes once.
    pub idempotency_key: String,
}

/// Recipes that a preview names.
const NAMED: usize = 8;

/// The way to a preview; `may_run` is whether who looks may do more than look.
pub fn section(data: &Data, may_run: bool) -> Markup {
    html! {
        section #actions .card aria-labelledby="actions-title" {
            h2 #actions-title { "Clean up" }
            @if may_run {
                form action="/preview" method="get" {
                    input type="hidden" name="target" value=(data.query.target);
                    details #selection {
                        summary { "Only a part of it" }
                        label for="recipe" { "Recipe, by its id" }
                        input #recipe name="recipe" autocomplete="off" spellcheck="false";
                        label for="failure-type" { "Failure type" }
                        input #failure-type name="failure_type" list="failure-types" autocomplete="off" spellcheck="false";
                        datalist #failure-types { @for name in failure_types(data) { option value=(name) {} } }
                    }
                    div .buttons {
                        button .primary type="submit" name="mode" value="regular" { "Preview cleanup" }
                        button .danger type="submit" name="mode" value="emergency" { "Preview emergency…" }
                    }
                }
                p .note { "A preview removes nothing." }
            } @else {
                p .note { "You may look. To run, sign in with a token of the level operator or admin." }
            }
        }
    }
}

fn failure_types(data: &Data) -> Vec<&str> {
    let mut types: Vec<&str> = data.failures.iter().map(|failures| failures.failure_type.as_str()).collect();
    types.sort_unstable();
    types.dedup();
    // Those in brackets and those that were cut off are no failure type's own text.
    types.retain(|name| !name.starts_with('(') && name.chars().count() < 100);
    types
}

/// Asks whether what a preview has found is to be removed.
pub fn confirm(preview: &Preview) -> Markup {
    let Preview { asked, count, total_failed, account, .. } = preview;
    let is_emergency = asked.mode == Mode::Emergency;
    html! {
        section #confirm .card .danger[is_emergency] aria-labelledby="confirm-title" {
            h1 #confirm-title tabindex="-1" {
                @if *count == 0 { "Nothing to remove" }
                @else if is_emergency { "Emergency: remove all " (words::count(*count, "failed row")) "?" }
                @else { "Remove " (words::count(*count, "old failed row")) "?" }
            }
            p {
                @if is_emergency { "Whatever their age, nothing is kept for debugging. " }
                @else { "Of " (words::number(*total_failed)) " failed rows " (words::number(total_failed - count)) " stay. " }
                "Account " code { (account) } ", target " code { (asked.target) }
                @if !asked.recipe.is_empty() { ", only recipe " code { (asked.recipe) } }
                @if !asked.failure_type.is_empty() { ", only failure type " code { (asked.failure_type) } }
                "."
            }
            @if *count > 0 {
                (recipes(preview))
                form action="/run" method="post" autocomplete="off" {
                    input type="hidden" name="target" value=(asked.target);
                    input type="hidden" name="mode" value=(asked.mode.name());
                    input type="hidden" name="recipe" value=(asked.recipe);
                    input type="hidden" name="failure_type" value=(asked.failure_type);
                    input type="hidden" name="expected_count" value=(count);
                    input type="hidden" name="idempotency_key" value=(preview.idempotency_key);
                    @if is_emergency {
                        label for="account" { "To go on, type the account’s name, " code { (account) } }
                        input #account name="account" required spellcheck="false" autocapitalize="off" autocomplete="off";
                    }
                    div .buttons {
                        button type="submit" class=(if is_emergency { "danger" } else { "primary" }) {
                            "Remove " (words::count(*count, "row"))
                        }
                        a .button href=(back(asked)) { "Cancel" }
                    }
                }
                p .note { "Refused if the number has moved by more than a tenth until then." }
            } @else {
                div .buttons { a .button href=(back(asked)) { "Back" } }
            }
        }
    }
}

fn back(asked: &Asked) -> String {
    Query { target: asked.target.clone(), ..Query::default() }.link(|_| ())
}

fn recipes(preview: &Preview) -> Markup {
    let most = preview.recipes.first().map_or(1, |(_, count)| *count).max(1);
    html! {
        @if !preview.recipes.is_empty() {
            div .scroll tabindex="0" role="region" aria-label="what would go, by recipe" {
                table .recipes {
                    thead { tr { th scope="col" { "recipe" } th scope="col" .figure { "would go" } th scope="col" .bars { span .hidden { "share" } } } }
                    tbody {
                        @for (name, count) in preview.recipes.iter().take(NAMED) {
                            tr {
                                th scope="row" { bdi { (name) } }
                                td .figure { (words::number(*count)) }
                                td .bars {
                                    svg width="100%" height="10" aria-hidden="true" {
                                        rect .removable width=(format!("{:.2}%", *count as f64 * 100.0 / most as f64)) height="10" rx="2" {}
                                    }
                                }
                            }
                        }
                    }
                }
            }
            @if preview.recipes.len() > NAMED {
                p .note { "and " (words::count((preview.recipes.len() - NAMED) as i64, "more recipe")) "." }
            }
        }
    }
}
