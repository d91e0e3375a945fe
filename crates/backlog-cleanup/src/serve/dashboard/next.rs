//! When is the next run: the job's schedule, and when pg_cron reads it next.

use chrono::{DateTime, Utc};
use croner::Cron;
use maud::{Markup, html};
use serde_json::Value;

use super::data::Data;
use super::words;

pub fn section(data: &Data) -> Markup {
    let job = &data.status.schedule;
    html! {
        section #next .card aria-labelledby="next-title" {
            h2 #next-title { "Next run" }
            @match (job["schedule"].as_str(), job["active"].as_bool()) {
                (None, _) => p .reason { "No job runs this target. Doctor has the statement that registers one." },
                (Some(schedule), Some(false)) => p .reason { "The job is paused; its schedule is " code { (schedule) } "." },
                (Some(schedule), _) => {
                    p .big {
                        @match run(job, data.now) {
                            Some(at) => (words::clock(at)),
                            None => code { (schedule) },
                        }
                    }
                    p .note {
                        "Job " (job["jobName"].as_str().unwrap_or_default()) ", " code { (schedule) } ", as " (job["username"].as_str().unwrap_or_default()) "."
                    }
                }
            }
        }
    }
}

/// When the job runs next. `None` where only pg_cron can tell: intervals of seconds, another time zone than UTC.
pub fn run(job: &Value, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
    let is_utc = matches!(job["timeZone"].as_str().unwrap_or_default(), "" | "GMT" | "UTC");
    // pg_cron writes the last day of a month `$`.
    let schedule = job["schedule"].as_str().filter(|_| is_utc)?.replace('$', "L");
    schedule.parse::<Cron>().ok()?.find_next_occurrence(&now, false).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::run;

    #[test]
    fn the_next_run_is_as_pg_cron_has_it() {
        let now = "2026-11-24T21:30:00Z".parse().unwrap();
        for (schedule, time_zone, at) in [
            ("0 2 * * *", "GMT", Some("2026-11-25T02:00:00Z")),
            ("*/5 * * * *", "GMT", Some("2026-11-24T21:35:00Z")),
            ("0 3 * * 0", "", Some("2026-11-29T03:00:00Z")),
            ("0 3 $ * *", "GMT", Some("2026-11-30T03:00:00Z")),
            ("30 seconds", "GMT", None),
            ("0 2 * * *", "Europe/Berlin", None),
        ] {
            let job = json!({ "schedule": schedule, "timeZone": time_zone });
            assert_eq!(run(&job, now), at.map(|at| at.parse().unwrap()), "{schedule}");
        }
    }
}
