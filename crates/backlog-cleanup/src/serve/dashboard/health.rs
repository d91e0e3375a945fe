//! Whether the target is healthy: its light, the reasons, and what happens next.

use backlog_cleanup_report::{Nouns, plural};
use maud::{Markup, html};

use super::data::Data;
use super::names::name;
use super::next;
use super::query::target_page;
use super::times;
use crate::client::calls::Finding;
use crate::serve::shared::light::{Light, Night, judge};
use crate::words;

/// The light of a page, and its reasons.
pub fn of(data: &Data) -> (Light, Vec<Finding>) {
    judge(&data.findings, data.runs.first(), night(data))
}

fn night(data: &Data) -> Night {
    Night { has_policy: data.about.max_age.is_some(), has_job: data.status.schedule["active"] == true }
}

pub fn section(data: &Data) -> Markup {
    let (light, reasons) = of(data);
    let failing = reasons.iter().filter(|reason| reason.status == "fail").count() as i64;
    let headline = match light {
        Light::Green => "Healthy".to_owned(),
        Light::Amber => format!("Works, with {}", words::count(reasons.len() as i64, "warning")),
        Light::Red => words::count(failing, "problem"),
    };
    html! {
        section #health class={ "card light-" (light.name()) } aria-labelledby="health-title" {
            div .headline {
                (sign(light, 48))
                div {
                    h2 #health-title { (headline) }
                    p .reason {
                        @match reasons.first() {
                            Some(reason) => (reason.detail),
                            None => { "All " (data.findings.len()) " checks of the doctor pass." },
                        }
                    }
                }
            }
            (next_run(data, &reasons))
            (figures(data))
            @if data.status.has_other_statuses() {
                p #statuses .note {
                    @for (place, rows) in data.status.every_status.iter().enumerate() {
                        @if place > 0 { ", " }
                        (name(&rows.status)) " " (words::number(rows.count))
                    }
                    "."
                }
            }
            @if !reasons.is_empty() {
                details #reasons {
                    summary { "What is wrong, and how to fix it" }
                    ul .reasons { @for reason in &reasons { (item(reason)) } }
                }
            }
        }
    }
}

/// What happens next, to what, and when.
fn next_run(data: &Data, reasons: &[Finding]) -> Markup {
    let about = &data.about;
    let Nouns { group_word, row_word } = data.nouns();
    let rows = plural(row_word);
    let comes = !reasons.iter().any(|reason| night(data).lacks(reason, &data.findings));
    html! {
        p #next-run {
            "Database " strong { (about.database) } ", target " a href=(target_page(&data.target)) { strong { (name(&data.target)) } } ", table " code { (about.table) }
            @if let Some(account) = &about.account { ", account " code { (name(account)) } }
            ". "
            @match (about.max_age, about.keep) {
                (Some(max_age), Some(keep)) => {
                    "Removable are " (rows) " in scope from more than " (age(max_age)) " ago, but the " (words::number(keep.into())) " newest of them in each " (group_word) " stay. "
                },
                _ => "The default policy is disabled. ",
            }
            @match data.policies.len() as i64 - 1 {
                ..1 => {},
                1 => { a href="#policies" { "Another policy" } " is for some " (rows) ". " },
                others => { a href="#policies" { (words::number(others)) " other policies" } " are for some " (rows) ". " },
            }
            @match next::run(&data.status.schedule, data.now).filter(|_| comes) {
                Some(at) => {
                    "The next run is at " (times::clock(at)) "; now it would remove " (words::count(data.status.removable_generations, row_word)) "."
                },
                None if comes && data.status.schedule["schedule"].is_string() => {
                    "The next run is at " code { (data.status.schedule["schedule"].as_str().unwrap_or_default()) } "."
                },
                None if comes => "Whether a job of another database runs it is not known here.",
                None => strong { "No run will come." },
            }
        }
    }
}

/// `24 hours`, `30 days`.
fn age(seconds: i64) -> String {
    match seconds {
        86_401.. if seconds % 86_400 == 0 => words::count(seconds / 86_400, "day"),
        3600.. if seconds % 3600 == 0 => words::count(seconds / 3600, "hour"),
        _ => words::duration(seconds.saturating_mul(1000)),
    }
}

/// A check that does not pass, with the statement that mends it.
pub fn item(reason: &Finding) -> Markup {
    html! {
        li {
            span class={ "tag " (reason.status) } { (reason.status) }
            " " strong { (reason.check.replace('_', " ")) } ": " (reason.detail)
            @if let Some(fix) = &reason.fix {
                div .fix {
                    pre { code { (fix) } }
                    button .copy type="button" { "Copy" }
                }
            }
        }
    }
}

/// A sign with a shape of its own for each colour, for people who do not see colours.
pub fn sign(light: Light, size: u32) -> Markup {
    html! {
        svg .sign .(light.name()) viewBox="0 0 48 48" width=(size) height=(size) role="img" aria-label={ "traffic light: " (light.name()) } {
            @match light {
                Light::Green => {
                    circle .fill cx="24" cy="24" r="22" {}
                    path .mark d="M13 25l8 8 15-17" {}
                }
                Light::Amber => {
                    path .fill d="M24 3L46 43H2z" stroke-linejoin="round" {}
                    path .mark d="M24 17v13M24 36v1" {}
                }
                Light::Red => {
                    path .fill d="M15 2h18l13 13v18L33 46H15L2 33V15z" {}
                    path .mark d="M16 16l16 16M32 16L16 32" {}
                }
            }
        }
    }
}

fn figures(data: &Data) -> Markup {
    let oldest = data.status.recipes_with_failed_generations.iter().filter_map(|recipe| {
        let at: chrono::DateTime<chrono::Utc> = recipe.oldest_failed_at.as_ref()?.parse().ok()?;
        Some(at)
    });
    html! {
        dl .figures {
            div { dt { "in scope" } dd #in-scope { (words::number(data.status.statuses.of("failed"))) } }
            div { dt { "removable now" } dd #removable { (words::number(data.status.removable_generations)) } }
            div {
                dt { "oldest in scope" }
                dd { @match oldest.min() { Some(at) => (times::ago(at, data.now)), None => "none" } }
            }
            div {
                dt { "last run" }
                dd { @match data.runs.first() { Some(run) => (times::ago(run.started_at, data.now)), None => "none" } }
            }
            div {
                dt { "next run" }
                dd { @match next::run(&data.status.schedule, data.now) {
                    Some(at) => { "in " (words::duration((at - data.now).num_milliseconds())) },
                    None => "–",
                } }
            }
        }
    }
}
