/// The longest time between two runs of a schedule of pg_cron, in days, rounded up: 1 for `0 2 * * *` and for `30 seconds`,
/// 17 for `0 2 1,15 * *`. Minutes and hours only matter within a day. What is no schedule counts as a daily one.
pub fn longest_gap(schedule: &str) -> i32 {
    let Some(days) = Days::of(schedule) else { return 1 };
    let (mut longest, mut since, mut weekday) = (1, 0, SATURDAY);
    for year in YEARS {
        for (month, length) in (1..).zip(months(year)) {
            for day in 1..=length {
                since += 1;
                if days.has(month, day, day == length, weekday) {
                    longest = longest.max(since);
                    since = 0;
                }
                weekday = (weekday + 1) % 7;
            }
        }
    }
    longest.max(since)
}

/// The longest time between two runs of a schedule of pg_cron, in hours, rounded up: 1 of one in seconds, 23 of `0 8,9 * * *`, and where it
/// has not all days that of `longest_gap`. What is no schedule counts as a daily one.
pub fn period(schedule: &str) -> i32 {
    let days = longest_gap(schedule);
    if schedule.trim().ends_with("seconds") || schedule.trim().ends_with("second") {
        return 1;
    }
    let Some(times) = times_of_day(schedule).filter(|times| days == 1 && times.len() > 1) else { return 24 * days };
    let minutes = |time: &String| {
        time.split(':').filter_map(|part| part.parse::<i32>().ok()).fold(0, |sum, part| 60 * sum + part)
    };
    let times: Vec<i32> = times.iter().map(minutes).collect();
    let next = times.iter().skip(1).copied().chain(times.first().map(|first| first + 24 * 60));
    let longest = times.iter().zip(next).map(|(time, next)| next - time).max().unwrap_or_default();
    (longest + 59) / 60
}

/// Whether a schedule has no day, such as `0 2 30 2 *`.
pub fn never_fires(schedule: &str) -> bool {
    longest_gap(schedule) > 365 * YEARS.len() as i32
}

/// Whether pg_cron can read a schedule. Intervals of seconds came with its version 1.5, and `$` with 1.6.
pub fn is_schedule(schedule: &str, has_seconds: bool, has_last_day: bool) -> bool {
    if let Some(name) = schedule.trim_start().strip_prefix('@') {
        const NAMES: [&str; 8] = ["reboot", "yearly", "annually", "monthly", "weekly", "daily", "midnight", "hourly"];
        return NAMES.contains(&name.split_whitespace().next().unwrap_or_default());
    }
    let fields: Vec<&str> = schedule.split([' ', '\t']).filter(|field| !field.is_empty()).collect();
    if let [number, unit] = fields[..] {
        let is_unit = ["second", "seconds"].iter().any(|known| unit.eq_ignore_ascii_case(known));
        return has_seconds && is_unit && number.parse().is_ok_and(|seconds| (1..=59).contains(&seconds));
    }
    let [minute, hour, day, month, weekday, ..] = fields[..] else { return false };
    // What follows the last field is not read.
    let weekday = weekday.split(|c: char| !c.is_ascii_alphanumeric() && !"*,-/".contains(c)).next().unwrap_or_default();
    let expression = [minute, hour, day, month, weekday].join(" ");
    times_of_day(&expression).is_some() && Days::of(&expression).is_some() && (has_last_day || day != "$")
}

/// The times of the day at which a schedule of pg_cron fires, as `HH:MM`; `None` of one in seconds, of `@reboot` and of what is no schedule.
pub fn times_of_day(schedule: &str) -> Option<Vec<String>> {
    let schedule = match schedule.trim() {
        "@yearly" | "@annually" | "@monthly" | "@weekly" | "@daily" | "@midnight" => "0 0 * * *",
        "@hourly" => "0 * * * *",
        other => other,
    };
    let [minute, hour, _, _, _] = schedule.split_whitespace().collect::<Vec<_>>()[..] else { return None };
    let (minutes, hours) = (values(minute, 0..=59, "")?, values(hour, 0..=23, "")?);
    let of = |bits: u64| (0..64).filter(move |bit| bits >> bit & 1 == 1);
    Some(of(hours).flat_map(|hour| of(minutes).map(move |minute| format!("{hour:02}:{minute:02}"))).collect())
}

/// 28 years repeat leap days and weekdays; as many again hold every gap that begins in them. The first day is a Saturday.
const YEARS: std::ops::Range<u32> = 2000..2056;
const SATURDAY: u32 = 6;

fn months(year: u32) -> [u32; 12] {
    let february = if year.is_multiple_of(4) { 29 } else { 28 };
    [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]
}

/// The days on which a schedule fires; a bit for each value of a field.
struct Days {
    days: u64,
    /// pg_cron's `$`.
    last_day: bool,
    months: u64,
    weekdays: u64,
    /// Day and weekday are both restricted: then one of them is enough.
    either: bool,
}

impl Days {
    /// `None` for an interval of seconds, for `@daily` and `@hourly`, and for what is no schedule.
    fn of(schedule: &str) -> Option<Days> {
        let schedule = match schedule.trim() {
            "@yearly" | "@annually" => "0 0 1 1 *",
            "@monthly" => "0 0 1 * *",
            "@weekly" => "0 0 * * 0",
            other => other,
        };
        let [_, _, day, month, weekday] = schedule.split_whitespace().collect::<Vec<_>>()[..] else { return None };
        let weekdays = values(weekday, 0..=7, "sun mon tue wed thu fri sat")?;
        Some(Days {
            days: if day == "$" { 0 } else { values(day, 1..=31, "")? },
            last_day: day == "$",
            months: values(month, 1..=12, "jan feb mar apr may jun jul aug sep oct nov dec")?,
            // Sunday is 0 and 7.
            weekdays: weekdays | weekdays >> 7,
            either: !day.starts_with('*') && !weekday.starts_with('*'),
        })
    }

    fn has(&self, month: u32, day: u32, is_last: bool, weekday: u32) -> bool {
        let is_day = self.days >> day & 1 == 1 || self.last_day && is_last;
        let is_weekday = self.weekdays >> weekday & 1 == 1;
        self.months >> month & 1 == 1 && if self.either { is_day || is_weekday } else { is_day && is_weekday }
    }
}

/// The values of a field: numbers, names, ranges and steps, in a list.
fn values(field: &str, all: std::ops::RangeInclusive<u32>, names: &str) -> Option<u64> {
    let number = |word: &str| {
        let named = || names.split(' ').position(|name| !name.is_empty() && word.eq_ignore_ascii_case(name));
        let number = word.parse().ok().or_else(|| Some(named()? as u32 + all.start()))?;
        all.contains(&number).then_some(number)
    };
    let mut values = 0;
    for part in field.split(',') {
        let (range, step) = part.split_once('/').unwrap_or((part, "1"));
        let range = match range.split_once('-') {
            _ if range == "*" => all.clone(),
            Some((first, last)) => number(first)?..=number(last)?,
            // pg_cron reads a step of a range only.
            None if part.len() > range.len() => return None,
            None => number(range)?..=number(range)?,
        };
        let step = step.parse().ok().filter(|step| *step > 0)?;
        values |= range.step_by(step).fold(0, |bits, value| bits | 1 << value);
    }
    Some(values)
}

#[cfg(test)]
mod tests {
    use super::{is_schedule, longest_gap, never_fires, period, times_of_day};

    #[test]
    fn a_period_is_the_longest_time_between_two_runs_in_hours() {
        for (schedule, hours) in [
            ("0 2 * * *", 24),
            ("0 * * * *", 1),
            ("*/10 * * * *", 1),
            ("0 */6 * * *", 6),
            ("0 8,9 * * *", 23),
            ("30 8,20 * * *", 12),
            ("@hourly", 1),
            ("30 seconds", 1),
            ("0 2 * * 0", 168),
            ("0 * 1 * *", 24 * 31),
            ("nonsense", 24),
        ] {
            assert_eq!(period(schedule), hours, "{schedule}");
        }
    }

    #[test]
    fn a_schedule_is_schedule_where_pg_cron_reads_it() {
        for schedule in [
            "0 2 * * *",
            " 0  2\t* * * ",
            "@daily",
            " @hourly",
            "@reboot",
            "0 2 * * 7",
            "0 2 * * Mon,THU",
            "0 2 * jan *",
            "0,30 22-23 1 * *",
            "1-5/2 * * * *",
            "*/70 * * * *",
            "00 02 * * *",
            "0 2 31 2 *",
            "0 2 * * * foo",
            "0 2 * * *;",
            "0 2 * * 1-5 -- x",
            "0 2 * * 1#2",
        ] {
            assert!(is_schedule(schedule, false, false), "{schedule}");
        }
        for schedule in [
            "61 2 * * *",
            "0 24 * * *",
            "0 2 0 * *",
            "0 2 32 * *",
            "0 2 * 13 *",
            "0 2 * * 8",
            "0 2 * * monday",
            "0 2 ? * *",
            "0 2 L * *",
            "0 2 * *",
            "",
            "every night",
            "@DAILY",
            "@every 5m",
            "*/0 * * * *",
            "5/2 * * * *",
            "-5 2 * * *",
            "0, 2 * * *",
            "0\n2 * * *",
            "0 seconds",
            "60 seconds",
            "5 minutes",
        ] {
            assert!(!is_schedule(schedule, true, true), "{schedule}");
        }
        for schedule in ["30 seconds", "1 second", "0 2 $ * *"] {
            assert!(is_schedule(schedule, true, true) && !is_schedule(schedule, false, false), "{schedule}");
        }
    }

    #[test]
    fn a_schedule_has_the_times_of_its_minutes_and_hours() {
        let times = |schedule| times_of_day(schedule).map(|times| times.join(" "));
        assert_eq!(times("30 2 * * *").as_deref(), Some("02:30"));
        assert_eq!(times("0,30 22-23 1 * *").as_deref(), Some("22:00 22:30 23:00 23:30"));
        assert_eq!(times("@weekly").as_deref(), Some("00:00"));
        assert_eq!(times_of_day("@hourly").map(|times| times.len()), Some(24));
        assert_eq!(times_of_day("* * * * *").map(|times| times.len()), Some(1440));
        for other in ["30 seconds", "@reboot", "60 2 * * *", "every night"] {
            assert_eq!(times(other), None, "{other}");
        }
    }

    #[test]
    fn the_gap_is_the_longest_between_two_days_that_the_schedule_has() {
        for (schedule, days) in [
            ("0 2 * * *", 1),
            ("*/5 * * * *", 1),
            ("0 0,12 * * *", 1),
            ("30 seconds", 1),
            ("@hourly", 1),
            ("@daily", 1),
            ("@weekly", 7),
            ("@monthly", 31),
            ("@yearly", 366),
            ("0 2 * * 0", 7),
            ("0 2 * * 7", 7),
            ("0 2 * * 1-5", 3),
            ("0 2 * * Mon,THU", 4),
            ("0 2 1 * *", 31),
            ("0 2 $ * *", 31),
            ("0 2 31 * *", 61),
            ("0 2 1,15 * *", 17),
            ("0 2 */2 * *", 2),
            ("0 2 1-31/10 * *", 10),
            ("0 2 1 jan,jul *", 184),
            ("0 2 1 6 *", 366),
            ("0 2 29 2 *", 1461),
            // One of both is enough, unless one of them is a star with a step.
            ("0 2 1 * 0", 7),
            ("0 2 1,15 * 1-5", 3),
            ("0 2 */2 * 1", 21),
            ("every night", 1),
        ] {
            assert_eq!(longest_gap(schedule), days, "{schedule}");
        }
    }

    #[test]
    fn a_day_that_never_comes_is_far_away() {
        assert!(never_fires("0 2 30 2 *") && !never_fires("0 2 29 2 *") && !never_fires("30 seconds"));
        assert!(longest_gap("0 2 30 2 *") > 20_000);
    }
}
