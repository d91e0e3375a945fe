//! Removing rows: preview, then confirm. The forms are plain HTML.

use backlog_cleanup_report::{CleanupDetail, Mode, Nouns, capitalized, plural};
use maud::{Markup, html};
use serde::Deserialize;

use super::data::Data;
use super::names;
use super::query::Query;
use crate::client::targets::Confirming;
use crate::serve::removal::Selection;
use crate::words;

/// The rows that a form asks for; an empty text is any.
#[derive(Clone, Deserialize)]
pub struct Asked {
    pub target: String,
    pub mode: Mode,
    #[serde(default)]
    pub recipe: String,
    #[serde(default)]
    pub failure_type: String,
    #[serde(default)]
    pub status: String,
    /// In an emergency, also what policies hold.
    #[serde(default)]
    pub include_held: bool,
}

impl Asked {
    pub fn selection(&self) -> Selection {
        let given = |text: &str| Some(text.to_owned()).filter(|text| !text.trim().is_empty());
        Selection {
            target: self.target.clone(),
            recipe_id: given(&self.recipe),
            failure_type: given(&self.failure_type),
            status: given(&self.status),
            include_held: self.include_held,
        }
    }
}

/// The result of a dry run, to be confirmed.
pub struct Preview {
    pub asked: Asked,
    pub nouns: Nouns,
    /// The rows that would be removed. The form sends it back, so that only what was seen is removed.
    pub count: i64,
    pub total_failed: i64,
    /// Rows that policies hold, and that stay.
    pub held: i64,
    /// Those of which rows would go, most first.
    pub recipes: Vec<CleanupDetail>,
    /// To be typed before an emergency run.
    pub confirming: Confirming,
    /// Makes a form that is sent twice remove once.
    pub idempotency_key: String,
}

/// The number of recipes that a preview lists.
const NAMED: usize = 8;

/// The form that leads to a preview; only for callers who may remove rows.
pub fn section(data: &Data, may_run: bool) -> Markup {
    let Nouns { group_word, row_word } = data.nouns();
    let rows = plural(row_word);
    html! {
        section #actions .card aria-labelledby="actions-title" {
            h2 #actions-title { "Clean up" }
            @if may_run {
                form action="/preview" method="get" {
                    input type="hidden" name="target" value=(data.target);
                    details #selection {
                        summary { "Only some " (rows) }
                        label for="recipe" { (capitalized(group_word)) ", by its id" }
                        input #recipe name="recipe" autocomplete="off" spellcheck="false";
                        label for="failure-type" { "Failure type" }
                        input #failure-type name="failure_type" list="failure-types" autocomplete="off" spellcheck="false";
                        datalist #failure-types { @for name in failure_types(data) { option value=(name) {} } }
                        @if data.about.statuses.len() > 1 {
                            label for="status" { "Status" }
                            select #status name="status" {
                                option value="" { "any" }
                                @for status in &data.about.statuses { option value=(status) { (status) } }
                            }
                        }
                        label { input type="checkbox" name="include_held" value="true"; " In an emergency, also what policies hold" }
                    }
                    div .buttons {
                        button .primary type="submit" name="mode" value="regular" { "Preview cleanup" }
                        button .danger type="submit" name="mode" value="emergency" { "Preview emergency…" }
                    }
                }
                p .note { "A preview removes nothing." }
            } @else {
                p .note { "Read only. To remove " (rows) ", sign in with a token of level operator or admin." }
            }
        }
    }
}

fn failure_types(data: &Data) -> Vec<&str> {
    let mut types: Vec<&str> = data.failures.iter().map(|failures| failures.failure_type.as_str()).collect();
    types.sort_unstable();
    types.dedup();
    // `(other)`, `(none)` and texts that were cut off are not failure types.
    types.retain(|name| !name.starts_with('(') && name.chars().count() < 100);
    types
}

/// Asks for confirmation of a preview.
pub fn confirm(preview: &Preview) -> Markup {
    let Preview { asked, nouns, count, total_failed, held, confirming, .. } = preview;
    let Nouns { group_word, row_word } = nouns;
    let in_scope = |rows: i64| words::in_scope(rows, row_word);
    let is_emergency = asked.mode == Mode::Emergency;
    html! {
        section #confirm .card .danger[is_emergency] aria-labelledby="confirm-title" {
            h1 #confirm-title tabindex="-1" {
                @if *count == 0 { "Nothing to remove" }
                @else if is_emergency && count == total_failed { "Emergency: remove all " (in_scope(*count)) "?" }
                @else if is_emergency { "Emergency: remove " (words::number(*count)) " of " (in_scope(*total_failed)) "?" }
                @else { "Remove " (words::count(*count, &format!("removable {row_word}"))) "?" }
            }
            p {
                @if is_emergency { "Removes " (plural(row_word)) " in scope of any age, including recent ones. " }
                @else { (words::number(total_failed - count)) " of " (in_scope(*total_failed)) " stay. " }
                @if is_emergency && asked.include_held { "What policies hold goes, too. " }
                @if *held > 0 { "Policies hold " (words::count(*held, row_word)) ", which stay. " }
                @if confirming.what == "account" { "Account " code { (names::name(&confirming.name)) } ", target " }
                @else { "Target " }
                code { (names::name(&asked.target)) }
                @if !asked.recipe.is_empty() { ", only " (group_word) " " code { (asked.recipe) } }
                @if !asked.failure_type.is_empty() { ", only failure type " code { (asked.failure_type) } }
                @if !asked.status.is_empty() { ", only status " code { (asked.status) } }
                "."
            }
            @if *count > 0 {
                (recipes(preview))
                (form(preview))
                p .note { "If the number has changed by more than one " (row_word) " and by more than a tenth, nothing is removed." }
            } @else {
                div .buttons { a .button href=(back(asked)) { "Back" } }
            }
        }
    }
}

/// The form that removes what was previewed.
fn form(preview: &Preview) -> Markup {
    let Preview { asked, nouns, count, confirming, .. } = preview;
    let is_emergency = asked.mode == Mode::Emergency;
    html! {
        form action="/run" method="post" autocomplete="off" {
            input type="hidden" name="target" value=(asked.target);
            input type="hidden" name="mode" value=(asked.mode.as_str());
            input type="hidden" name="recipe" value=(asked.recipe);
            input type="hidden" name="failure_type" value=(asked.failure_type);
            input type="hidden" name="status" value=(asked.status);
            input type="hidden" name="include_held" value=(asked.include_held);
            input type="hidden" name="expected_count" value=(count);
            input type="hidden" name="idempotency_key" value=(preview.idempotency_key);
            @if is_emergency {
                label for="account" { "To confirm, type the " (confirming.what) "’s name, " code { (confirming.name) } }
                input #account name="account" required spellcheck="false" autocapitalize="off" autocomplete="off";
            }
            div .buttons {
                button type="submit" class=(if is_emergency { "danger" } else { "primary" }) {
                    "Remove " (words::count(*count, &nouns.row_word))
                }
                a .button href=(back(asked)) { "Cancel" }
            }
        }
    }
}

fn back(asked: &Asked) -> String {
    Query { target: asked.target.clone(), ..Query::default() }.link(|_| ())
}

fn recipes(preview: &Preview) -> Markup {
    let Nouns { group_word, row_word } = &preview.nouns;
    let most = preview.recipes.first().map_or(1, |recipe| recipe.cleaned_count).max(1);
    html! {
        @if !preview.recipes.is_empty() {
            div .scroll tabindex="0" role="region" aria-label={ (plural(row_word)) " that would be removed, by " (group_word) } {
                table .recipes {
                    thead { tr { th scope="col" { (group_word) } th scope="col" .figure { "would remove" } th scope="col" .bars { span .hidden { "share" } } } }
                    tbody {
                        @for recipe in preview.recipes.iter().take(NAMED) {
                            tr {
                                th scope="row" { (names::recipe(&recipe.recipe_name, &recipe.recipe_id)) }
                                td .figure { (words::number(recipe.cleaned_count)) }
                                td .bars {
                                    svg width="100%" height="10" aria-hidden="true" {
                                        rect .removable width=(format!("{:.2}%", recipe.cleaned_count as f64 * 100.0 / most as f64)) height="10" rx="2" {}
                                    }
                                }
                            }
                        }
                    }
                }
            }
            @if preview.recipes.len() > NAMED {
                p .note { "and " (words::count((preview.recipes.len() - NAMED) as i64, &format!("more {group_word}"))) "." }
            }
        }
    }
}
