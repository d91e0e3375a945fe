//! Whether a target is healthy: a traffic light with its reasons.

use backlog_cleanup_report::State;

use crate::client::calls::Finding;
use crate::client::history::Run;
use crate::words;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Light {
    Green,
    Amber,
    Red,
}

/// The light, and its reasons, worst first: the checks of the doctor that do not pass, and a last run that has failed or was
/// interrupted, if the doctor has not seen it yet. Nothing is worse than a run that does not come: that is red, whatever the
/// doctor calls it.
pub fn judge(findings: &[Finding], last_run: Option<&Run>, night: Night) -> (Light, Vec<Finding>) {
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
                None => format!(
                    "run {} was interrupted after {}",
                    run.id,
                    words::count(run.removed, &format!("removed {}", run.nouns.row_word))
                ),
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
pub struct Night {
    pub has_policy: bool,
    pub has_job: bool,
}

impl Night {
    /// Whether the next run does not come for this reason. Without pg_cron in this database, who runs the target is unknown.
    pub fn lacks(self, reason: &Finding, findings: &[Finding]) -> bool {
        let pg_cron_is_here = findings.iter().any(|finding| finding.check == "pg_cron" && finding.status == "ok");
        match reason.check.as_str() {
            // Of policies the doctor tells of the default one first.
            "policy" if !self.has_policy => {
                let first = findings.iter().find(|finding| finding.check == "policy");
                first.is_some_and(|first| first.detail == reason.detail)
            }
            "job" => !self.has_job && pg_cron_is_here,
            "scheduler" | "job_user" | "job_login" => reason.status == "fail",
            _ => false,
        }
    }
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
    fn where_the_default_policy_is_disabled_what_is_said_of_others_stays_a_warning() {
        let finding =
            |detail: &str| Finding { check: "policy".into(), status: "warn".into(), detail: detail.into(), fix: None };
        let findings = [finding("the default policy is disabled"), finding("no row"), finding("shadowed")];
        let (_, reasons) = judge(&findings, None, Night { has_policy: false, ..WHOLE });
        let statuses: Vec<&str> = reasons.iter().map(|reason| reason.status.as_str()).collect();
        assert_eq!(
            (statuses, reasons[0].detail.as_str()),
            (vec!["fail", "warn", "warn"], "the default policy is disabled")
        );
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
            (&[("books", "fail"), ("job_login", "fail")], WHOLE, Light::Red, "job_login"),
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
