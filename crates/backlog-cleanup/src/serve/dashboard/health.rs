//! Whether the target is healthy: a traffic light with its reasons.

use backlog_cleanup_report::State;
use maud::{Markup, html};

use super::data::Data;
use super::next;
use super::times;
use crate::client::calls::Finding;
use crate::client::history::Run;
use crate::words;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Light {
    Green,
    Amber,
    Red,
}

/// The light, and its reasons, worst first: the checks of the doctor that do not pass, and a last run that has failed or was
/// interrupted, if the doctor has not seen it yet. Nothing is worse than a run that does not come: that is red, whatever the
/// doctor calls it.
fn judge(findings: &[Finding], last_run: Option<&Run>, night: Night) -> (Light, Vec<Finding>) {
    let mut reasons: Vec<Finding> = findings.iter().filter(|finding| finding.status != "ok").cloned().collect();
    for reason in &mut reasons {
        if night.lacks(reason, findings) {
            reason.status = "fail".into();
        }
    }
    let has_ended_early = |run: &&Run| matches!(run.state, State::Interrupted | State::Failed);
    let is_known = reasons.iter().any(|reason| reason.check == "last_run");
    if let Some(run) = last_run.filter(has_ended_early).filter(|_| !is_known) {
        reasons.push(Finding {
            check: "last_run".into(),
            status: "fail".into(),
            detail: match run.error() {
                Some(error) => format!(
                    "run {} has {}: {error}",
                    run.id,
                    if run.state == State::Failed { "failed" } else { "been interrupted" }
                ),
                None => format!("run {} was interrupted after {}", run.id, words::count(run.removed, "removed row")),
            },
            fix: None,
        });
    }
    reasons.sort_by_key(|reason| (!night.lacks(reason, findings), reason.status != "fail"));
    let light = match reasons.first().map(|reason| reason.status.as_str()) {
        None => Light::Green,
        Some("warn") => Light::Amber,
        Some(_) => Light::Red,
    };
    (light, reasons)
}

/// What the next run needs.
#[derive(Clone, Copy)]
struct Night {
    has_policy: bool,
    has_job: bool,
}

impl Night {
    /// Whether the next run does not come for this reason. Without pg_cron in this database, who runs the target is unknown.
    fn lacks(self, reason: &Finding, findings: &[Finding]) -> bool {
        let pg_cron_is_here = findings.iter().any(|finding| finding.check == "pg_cron" && finding.status == "ok");
        match reason.check.as_str() {
            "policy" => !self.has_policy,
            "job" => !self.has_job && pg_cron_is_here,
            "scheduler" => reason.status == "fail",
            _ => false,
        }
    }
}

/// The light of a page, and its reasons.
pub fn of(data: &Data) -> (Light, Vec<Finding>) {
    judge(&data.findings, data.runs.first(), night(data))
}

fn night(data: &Data) -> Night {
    Night { has_policy: data.about.max_age.is_some(), has_job: data.status.schedule["active"] == true }
}

impl Light {
    pub fn name(self) -> &'static str {
        match self {
            Light::Green => "green",
            Light::Amber => "amber",
            Light::Red => "red",
        }
    }
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
                (sign(light))
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
    let comes = !reasons.iter().any(|reason| night(data).lacks(reason, &data.findings));
    html! {
        p #next-run {
            "Database " strong { (about.database) } ", target " strong { bdi { (data.target) } } ", table " code { (about.table) }
            @if let Some(account) = &about.account { ", account " code { (account) } }
            ". "
            @match (about.max_age, about.keep) {
                (Some(max_age), Some(keep)) => {
                    "Failures older than " (age(max_age)) " go, but the " (words::number(keep.into())) " newest of these in each recipe. "
                },
                _ => "The default policy is disabled. ",
            }
            @match next::run(&data.status.schedule, data.now).filter(|_| comes) {
                Some(at) => {
                    "The next run is at " (times::clock(at)) "; now it would remove " (words::count(data.status.removable_generations, "row")) "."
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

fn item(reason: &Finding) -> Markup {
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
fn sign(light: Light) -> Markup {
    html! {
        svg .sign viewBox="0 0 48 48" width="48" height="48" role="img" aria-label={ "traffic light: " (light.name()) } {
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
            div { dt { "failed" } dd #failed { (words::number(data.status.statuses.of("failed"))) } }
            div { dt { "removable now" } dd #removable { (words::number(data.status.removable_generations)) } }
            div {
                dt { "oldest failure" }
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

#[cfg(test)]
mod tests {
    use super::{Finding, Light, Night, judge};

    const WHOLE: Night = Night { has_policy: true, has_job: true };

    #[test]
    fn the_light_is_that_of_the_worst_finding_which_comes_first() {
        let findings = |statuses: &[&str]| -> Vec<Finding> {
            let finding = |status: &&str| Finding {
                check: (*status).into(),
                status: (*status).into(),
                detail: String::new(),
                fix: None,
            };
            statuses.iter().map(finding).collect()
        };
        for (statuses, expected, first) in [
            (&["ok", "ok"][..], Light::Green, None),
            (&["ok", "warn"], Light::Amber, Some("warn")),
            (&["warn", "fail", "ok"], Light::Red, Some("fail")),
        ] {
            let (light, reasons) = judge(&findings(statuses), None, WHOLE);
            assert!(light == expected, "{statuses:?}");
            assert_eq!(reasons.first().map(|reason| reason.check.as_str()), first);
        }
    }

    #[test]
    fn the_light_is_red_where_no_run_will_come() {
        let finding = |(check, status): &(&str, &str)| Finding {
            check: (*check).into(),
            status: (*status).into(),
            detail: String::new(),
            fix: None,
        };
        let (no_job, no_policy) = (Night { has_job: false, ..WHOLE }, Night { has_policy: false, ..WHOLE });
        for (checks, night, expected, first) in [
            (&[("index", "warn"), ("pg_cron", "ok"), ("job", "warn")][..], no_job, Light::Red, "job"),
            (&[("books", "fail"), ("policy", "warn")], no_policy, Light::Red, "policy"),
            // Two jobs.
            (&[("pg_cron", "ok"), ("job", "warn")], WHOLE, Light::Amber, "job"),
            // Another database's pg_cron may run it.
            (&[("pg_cron", "warn"), ("job", "warn")], no_job, Light::Amber, "pg_cron"),
        ] {
            let (light, reasons) = judge(&checks.iter().map(finding).collect::<Vec<_>>(), None, night);
            assert!(light == expected && reasons[0].check == first, "{checks:?}");
        }
    }
}
