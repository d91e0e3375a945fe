//! What the last runs did: a table, and the details of the one whose address is open.

use backlog_cleanup_report::CleanupDetail;
use maud::{Markup, html};

use super::data::Data;
use super::{recipes, words};
use crate::client::history::Run;

/// Recipes that the details name.
const NAMED: usize = 10;

pub fn section(data: &Data) -> Markup {
    html! {
        section #runs .card aria-labelledby="runs-title" {
            h2 #runs-title { "Last runs" }
            @if data.runs.is_empty() {
                p .note { "There was no run yet." }
            } @else {
                div .scroll tabindex="0" role="region" aria-label="runs" { (table(data)) }
            }
        }
    }
}

/// What a run that was asked for here has done.
pub fn asked(data: &Data) -> Markup {
    let ended = |run: &&Run| Some(run.id) == data.query.asked && run.state != "running";
    let run = data.runs.iter().find(ended);
    html! {
        section #asked .card role="status" hidden[run.is_none()] {
            @if let Some(run) = run {
                p {
                    strong { "Run " (run.id) " " (run.state) ": " (words::count(run.removed, "row")) " removed" }
                    " in " (took(run)) ". " a href={ "#run-" (run.id) } { "Details" }
                }
            }
        }
    }
}

fn table(data: &Data) -> Markup {
    html! {
        table .runs {
            thead {
                tr {
                    th scope="col" { "run" }
                    th scope="col" { "outcome" }
                    th scope="col" { "mode" }
                    th scope="col" { "started" }
                    th scope="col" .figure { "took" }
                    th scope="col" .figure { "removed" }
                    th scope="col" { "by" }
                }
            }
            tbody {
                @for run in &data.runs {
                    @let open = data.query.open() == Some(run.id);
                    tr #{ "run-" (run.id) } {
                        th scope="row" {
                            a href=(data.query.link(|query| { query.run = Some(run.id).filter(|_| !open); query.asked = None }) + "#run-" + &run.id.to_string())
                                aria-expanded=(open) aria-label={ "run " (run.id) ", details" } { (run.id) }
                        }
                        td { span class={ "tag " (run.state) } { (run.state) } }
                        td { (run.mode) (selection(run)) }
                        td { (words::ago(run.started_at, data.now)) }
                        td .figure { (took(run)) }
                        td .figure { (words::number(run.removed)) }
                        td { (run.requested_by) }
                    }
                    @if open { tr .details { td colspan="7" { (details(run, &data.run_recipes)) } } }
                }
            }
        }
    }
}

fn selection(run: &Run) -> Markup {
    html! {
        @if let Some(recipe) = &run.recipe_id { ", recipe " (recipe) }
        @if let Some(failure_type) = &run.failure_type { ", " (failure_type) }
    }
}

fn took(run: &Run) -> String {
    run.duration_ms.map_or("–".into(), words::duration)
}

fn details(run: &Run, lost: &[CleanupDetail]) -> Markup {
    html! {
        dl .figures {
            div { dt { "started" } dd { (words::clock(run.started_at)) } }
            div { dt { "took" } dd { (took(run)) } }
            div { dt { "asked by" } dd { (run.requested_by) } }
            div { dt { "mode" } dd { (run.mode) (selection(run)) } }
            @if let Some(cutoff) = run.cutoff { div { dt { "removed what failed before" } dd { (words::clock(cutoff)) } } }
            div { dt { "failed before the run" } dd { (words::number(run.total_failed)) } }
            div { dt { "removed" } dd { (words::number(run.removed)) } }
            div { dt { "recipes" } dd { (words::number(run.recipes_affected)) } }
            div { dt { "batches" } dd { @if run.batches == 0 { "one transaction" } @else { (words::number(run.batches)) } } }
            @if run.skipped > 0 { div { dt { "locked by somebody" } dd { (words::number(run.skipped)) } } }
            @if run.kept_back > 0 { div { dt { "not let go" } dd { (words::number(run.kept_back)) } } }
        }
        @if lost.iter().any(|recipe| recipe.cleaned_count > 0) {
            table {
                caption { "Recipes that lost most" }
                thead {
                    tr { th scope="col" { "recipe" } th scope="col" .figure { "failed before" } th scope="col" .figure { "removed" } }
                }
                tbody {
                    @for recipe in lost.iter().filter(|recipe| recipe.cleaned_count > 0).take(NAMED) {
                        tr {
                            th scope="row" { bdi { (recipe.recipe_name) } " " span .muted { (recipes::id(&recipe.recipe_id)) } }
                            td .figure { (words::number(recipe.failed_count)) }
                            td .figure { (words::number(recipe.cleaned_count)) }
                        }
                    }
                }
            }
        }
    }
}
