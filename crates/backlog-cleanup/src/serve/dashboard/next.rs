//! The next run, by the schedule of the job.

use chrono::{DateTime, Utc};
use maud::{Markup, html};
use serde_json::Value;

use super::data::Data;
use super::times;
use crate::serve::shared::cron;

pub fn section(data: &Data) -> Markup {
    let job = &data.status.schedule;
    html! {
        section #next .card aria-labelledby="next-title" {
            h2 #next-title { "Next run" }
            @match (job["schedule"].as_str(), job["active"].as_bool()) {
                (None, _) if job["known"] == false => p .reason {
                    "The job is not known here: pg_cron is in another database. There, " code { (job["check"].as_str().unwrap_or_default()) } " shows it."
                },
                (None, _) => p .reason { "No job runs this target. The doctor has the statement that registers one." },
                (Some(schedule), Some(false)) => p .reason { "The job is paused; its schedule is " code { (schedule) } "." },
                (Some(schedule), _) => {
                    p .big {
                        @match run(job, data.now) {
                            Some(at) => (times::clock(at)),
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

/// When the job runs next. `None` if only pg_cron knows: for an interval of seconds or a time zone other than UTC.
pub fn run(job: &Value, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
    let is_utc = matches!(job["timeZone"].as_str().unwrap_or_default(), "" | "GMT" | "UTC");
    cron::next(job["schedule"].as_str().filter(|_| is_utc)?, now)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::run;

    #[test]
    fn the_next_run_is_known_in_utc_only() {
        let now = "2026-11-24T21:30:00Z".parse().unwrap();
        for (time_zone, at) in [("GMT", Some("2026-11-25T02:00:00Z")), ("Europe/Berlin", None)] {
            let job = json!({ "schedule": "0 2 * * *", "timeZone": time_zone });
            assert_eq!(run(&job, now), at.map(|at| at.parse().unwrap()), "{time_zone}");
        }
    }
}
