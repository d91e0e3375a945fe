//! Numbers and times as people read them, the same in all sections.

use backlog_cleanup_report::age_in_words;
use chrono::{DateTime, SecondsFormat, Utc};
use maud::{Markup, html};

/// `8389` as `8,389`.
pub fn number(number: i64) -> String {
    let digits = number.unsigned_abs().to_string();
    let mut words = String::from(if number < 0 { "-" } else { "" });
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            words.push(',');
        }
        words.push(digit);
    }
    words
}

/// `1 row`, `2 rows`.
pub fn count(many: i64, noun: &str) -> String {
    format!("{} {noun}{}", number(many), if many == 1 { "" } else { "s" })
}

/// `32 ms`, `4.2 s`, `3 min 5 s`, `2 h 10 min`.
pub fn duration(milliseconds: i64) -> String {
    let seconds = milliseconds / 1000;
    match milliseconds {
        ..1000 => format!("{milliseconds} ms"),
        1000..60_000 => format!("{:.1} s", milliseconds as f64 / 1000.0),
        60_000..3_600_000 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
    }
}

/// How long ago, with the instant itself as the tool tip.
pub fn ago(instant: DateTime<Utc>, now: DateTime<Utc>) -> Markup {
    time(instant, &age_in_words((now - instant).num_seconds()))
}

/// `2026-11-24 02:00 UTC`.
pub fn clock(instant: DateTime<Utc>) -> Markup {
    time(instant, &utc(instant))
}

pub fn utc(instant: DateTime<Utc>) -> String {
    instant.format("%Y-%m-%d %H:%M UTC").to_string()
}

fn time(instant: DateTime<Utc>, words: &str) -> Markup {
    html! {
        time datetime=(instant.to_rfc3339_opts(SecondsFormat::Secs, true)) title=(utc(instant)) { (words) }
    }
}

#[cfg(test)]
mod tests {
    use super::{duration, number};

    #[test]
    fn numbers_and_durations_read_at_a_glance() {
        for (figure, words) in [(0, "0"), (999, "999"), (1_000, "1,000"), (-1_234_567, "-1,234,567")] {
            assert_eq!(number(figure), words);
        }
        for (milliseconds, words) in
            [(32, "32 ms"), (4_200, "4.2 s"), (185_000, "3 min 5 s"), (7_800_000, "2 h 10 min")]
        {
            assert_eq!(duration(milliseconds), words);
        }
    }
}
