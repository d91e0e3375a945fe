//! The last runs: a table, with the details of one run.

use backlog_cleanup_report::{CleanupDetail, Nouns, State, capitalized, plural, policy_name};
use maud::{Markup, html};

use super::data::Data;
use super::names;
use super::times;
use crate::client::history::{Night, Run};
use crate::words;

/// The number of recipes, of policies and of statuses in the details.
const NAMED: usize = 10;

pub fn section(data: &Data) -> Markup {
    html! {
        section #runs .card aria-labelledby="runs-title" {
            h2 #runs-title { "Last runs" }
            @if data.runs.is_empty() && data.nights.is_empty() {
                p .note { "No run yet." }
            } @else {
                div .scroll tabindex="0" role="region" aria-label="runs" { (table(data)) }
            }
        }
    }
}

/// The outcome of a run that was started on this page.
pub fn asked(data: &Data) -> Markup {
    let ended = |run: &&Run| Some(run.id) == data.query.asked && run.state != State::Running;
    let run = data.runs.iter().find(ended);
    html! {
        section #asked .card role="status" hidden[run.is_none()] {
            @if let Some(run) = run {
                p {
                    strong { "Run " (run.id) " " (run.state) ": " (words::count(run.removed, &run.nouns.row_word)) " removed" }
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
                @let mut nights = data.nights.iter().peekable();
                @for run in &data.runs {
                    @while let Some(night) = nights.next_if(|night| night.started_at > run.started_at) { (failed(night, data)) }
                    @let open = data.query.open() == Some(run.id);
                    tr #{ "run-" (run.id) } {
                        th scope="row" {
                            a href=(data.query.link(|query| { query.run = Some(run.id).filter(|_| !open); query.asked = None }) + "#run-" + &run.id.to_string())
                                aria-expanded=(open) aria-label={ "run " (run.id) ", details" } { (run.id) }
                        }
                        td { span class={ "tag " (run.state) } { (run.state) } }
                        td { (run.mode) (selection(run)) }
                        td { (times::ago(run.started_at, data.now)) }
                        td .figure { (took(run)) }
                        td .figure { (words::number(run.removed)) }
                        td { (names::name(&run.requested_by)) }
                    }
                    @if open { tr .details { td colspan="7" { (details(run, data)) } } }
                }
                @for night in nights { (failed(night, data)) }
            }
        }
    }
}

/// A night that failed without a run.
fn failed(night: &Night, data: &Data) -> Markup {
    html! {
        tr {
            th scope="row" { "job " (night.job_id) }
            td { span class={ "tag " (night.state) } { (night.state) } }
            td { (night.mode) }
            td { (times::ago(night.started_at, data.now)) }
            td .figure { "–" }
            td .error { bdi { (night.error()) } }
            td { (names::name(&night.requested_by)) }
        }
    }
}

fn selection(run: &Run) -> Markup {
    html! {
        @if let Some(recipe) = &run.recipe_id { ", " (run.nouns.group_word) " " (names::name(recipe)) }
        @if let Some(failure_type) = &run.failure_type { ", " (names::name(failure_type)) }
        @if let Some(status) = &run.status { ", status " (names::name(status)) }
    }
}

fn took(run: &Run) -> String {
    run.duration_ms.map_or("–".into(), words::duration)
}

fn details(run: &Run, data: &Data) -> Markup {
    let group = &run.nouns.group_word;
    let policies = data.run_policies.iter().map(|it| {
        let name = policy_name(group, it.recipe_id.as_deref(), it.failure_type.as_deref(), it.status.as_deref());
        (name, [it.in_scope, it.removed, it.kept, it.kept_back])
    });
    let policies: Vec<Part> = policies.collect();
    let statuses = data
        .run_statuses
        .iter()
        .map(|it| (it.status.clone().unwrap_or_default(), [it.in_scope, it.removed, it.kept, it.kept_back]));
    let statuses: Vec<Part> = statuses.collect();
    html! {
        dl .figures {
            div { dt { "started" } dd { (times::clock(run.started_at)) } }
            div { dt { "took" } dd { (took(run)) } }
            div { dt { "requested by" } dd { (run.requested_by) } }
            @if let Some(role) = &run.stop_requested_by { div { dt { "stop requested by" } dd { (role) } } }
            div { dt { "mode" } dd { (run.mode) (selection(run)) } }
            @if let Some(cutoff) = run.cutoff { div { dt { "cutoff" } dd { (times::clock(cutoff)) } } }
            @if let Some(failed) = run.total_failed {
                div { dt { "in scope before the run" } dd { (words::number(failed)) } }
            }
            div { dt { "removed" } dd { (words::number(run.removed)) } }
            div { dt { (plural(&run.nouns.group_word)) " in scope" } dd { (words::number(run.recipes_affected)) } }
            div { dt { "batches" } dd { @if run.batches == 0 { "one transaction" } @else { (words::number(run.batches)) } } }
            @if let Some(error) = run.error() { div { dt { "error" } dd { bdi { (error) } } } }
            @if run.skipped > 0 { div { dt { "skipped, locked" } dd { (words::number(run.skipped)) } } }
            @if run.kept_back > 0 { div { dt { "kept back" } dd { (words::number(run.kept_back)) } } }
            @if run.unreadable > 0 { div { dt { "of these, unreadable" } dd { (words::number(run.unreadable)) } } }
            @if let Some(reason) = run.kept_back_reason() { div { dt { "the first of them" } dd { bdi { (reason) } } } }
            @if let Some(wal) = run.wal() { div { dt { "WAL" } dd { (wal) } } }
            @if run.held > 0 { div { dt { "held by policies" } dd { (words::number(run.held)) } } }
        }
        (recipes(&run.nouns, &data.run_recipes))
        (parts(run.id, "status", &statuses))
        (parts(run.id, "policy", &policies))
    }
}

fn recipes(Nouns { group_word, row_word }: &Nouns, recipes: &[CleanupDetail]) -> Markup {
    html! {
        @if recipes.iter().any(|recipe| recipe.cleaned_count > 0) {
            table {
                caption { (capitalized(&plural(group_word))) " with most removed " (plural(row_word)) }
                thead {
                    tr { th scope="col" { (group_word) } th scope="col" .figure { "in scope before" } th scope="col" .figure { "removed" } }
                }
                tbody {
                    @for recipe in recipes.iter().filter(|recipe| recipe.cleaned_count > 0).take(NAMED) {
                        tr {
                            th scope="row" { (names::recipe(&recipe.recipe_name, &recipe.recipe_id)) }
                            td .figure { (words::number(recipe.failed_count)) }
                            td .figure { (words::number(recipe.cleaned_count)) }
                        }
                    }
                }
            }
        }
    }
}

/// A part of a run with its name: the rows in scope, removed, kept, kept back.
type Part = (String, [i64; 4]);

/// What went and stayed under each policy or of each status, where there are several.
fn parts(run: i64, what: &str, parts: &[Part]) -> Markup {
    html! {
        @if parts.len() > 1 {
            table .parts {
                caption { (capitalized(&plural(what))) " of the run" }
                thead {
                    tr {
                        th scope="col" { (what) }
                        @for figure in ["in scope", "removed", "kept", "kept back"] { th scope="col" .figure { (figure) } }
                    }
                }
                tbody {
                    @for (name, figures) in parts.iter().take(NAMED) {
                        tr {
                            th scope="row" { (names::name(name)) }
                            @for figure in figures { td .figure { (words::number(*figure)) } }
                        }
                    }
                }
            }
            @if parts.len() > NAMED {
                p .note { "and " (words::number((parts.len() - NAMED) as i64)) " more; the command " code { "backlog-cleanup runs " (run) } " has all." }
            }
        }
    }
}
