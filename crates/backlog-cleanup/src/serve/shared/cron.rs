//! pg_cron's schedules.

use chrono::{DateTime, Days, NaiveTime, Utc};
use croner::Cron;
use croner::parser::CronParser;

/// A schedule as pg_cron reads it: `$` is the last day of a month, and day and weekday must both match if one of them is a
/// star, also with a step. `None` for intervals of seconds and for what is no schedule.
fn parse(schedule: &str) -> Option<Cron> {
    let fields: Vec<_> = schedule.split_whitespace().collect();
    let is_star = |field: usize| fields.get(field).is_some_and(|field| field.starts_with('*'));
    let parser = CronParser::builder().dom_and_dow(is_star(2) || is_star(4)).build();
    parser.parse(&schedule.replace('$', "L")).ok()
}

/// When a schedule in UTC fires next.
pub fn next(schedule: &str, after: DateTime<Utc>) -> Option<DateTime<Utc>> {
    parse(schedule)?.find_next_occurrence(&after, false).ok()
}

/// The longest time between two runs of a schedule, in days, rounded up; 1 for an interval of seconds.
pub fn longest_gap(schedule: &str) -> i64 {
    let Some(cron) = parse(schedule) else { return 1 };
    // Eight years have two leap days. Whether a day has one run or many makes no difference.
    let mut day = DateTime::<Utc>::UNIX_EPOCH;
    let end = day + Days::new(8 * 366);
    let mut longest = 1;
    while let Some(run) = cron.find_next_occurrence(&(day + Days::new(1)), true).ok().filter(|run| *run < end) {
        let next = run.date_naive().and_time(NaiveTime::MIN).and_utc();
        longest = longest.max((next - day).num_days());
        day = next;
    }
    longest.max((end - day).num_days())
}

#[cfg(test)]
mod tests {
    use super::{longest_gap, next};

    #[test]
    fn the_next_run_is_when_pg_cron_starts_it() {
        let now = "2026-11-24T21:30:00Z".parse().unwrap();
        for (schedule, at) in [
            ("0 2 * * *", Some("2026-11-25T02:00:00Z")),
            ("*/5 * * * *", Some("2026-11-24T21:35:00Z")),
            ("0 3 * * 0", Some("2026-11-29T03:00:00Z")),
            ("0 3 $ * *", Some("2026-11-30T03:00:00Z")),
            ("0 3 1 * 0", Some("2026-11-29T03:00:00Z")),
            ("0 3 */2 * 1", Some("2026-12-07T03:00:00Z")),
            ("30 seconds", None),
        ] {
            assert_eq!(next(schedule, now), at.map(|at| at.parse().unwrap()), "{schedule}");
        }
    }

    /// The extension, which does not have croner, has code of its own.
    #[test]
    fn the_extension_has_the_same_gaps() {
        for schedule in [
            "* * * * *",
            "*/5 * * * *",
            "0 2 * * *",
            "30 2 * * *",
            "0 0,12 * * *",
            "0 8-18/2 * * *",
            "0 2 * * 0",
            "0 2 * * 7",
            "0 2 * * sun",
            "0 2 * * 1-5",
            "0 2 * * MON-FRI",
            "0 2 * * 0,6",
            "0 2 * * 1,4",
            "0 2 * * */2",
            "0 2 1 * *",
            "0 2 15 * *",
            "0 2 29 * *",
            "0 2 30 * *",
            "0 2 31 * *",
            "0 2 $ * *",
            "0 2 1,15 * *",
            "0 2 1,11,21 * *",
            "0 2 1-7 * *",
            "0 2 */2 * *",
            "0 2 */10 * *",
            "0 2 1-31/10 * *",
            "0 2 1 1 *",
            "0 2 1 1,7 *",
            "0 2 1 jan,apr,jul,oct *",
            "0 2 1 */3 *",
            "0 2 29 2 *",
            "0 2 * 6 *",
            "0 2 * 6-8 1",
            "0 2 1 * 0",
            "0 2 1,15 * 1-5",
            "0 2 13 * 5",
            "0 2 */2 * 1",
            "0 2 1-7 * */7",
            "@daily",
            "@weekly",
            "@monthly",
            "@yearly",
            "30 seconds",
        ] {
            assert_eq!(longest_gap(schedule), i64::from(backlog_cleanup_report::longest_gap(schedule)), "{schedule}");
        }
    }
}
