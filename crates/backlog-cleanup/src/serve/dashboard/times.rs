//! Times as elements of the page, the same in all sections.

use backlog_cleanup_report::age_in_words;
use chrono::{DateTime, SecondsFormat, Utc};
use maud::{Markup, html};

/// How long ago, with the instant as the tool tip.
pub fn ago(instant: DateTime<Utc>, now: DateTime<Utc>) -> Markup {
    time(instant, &age_in_words((now - instant).num_seconds()))
}

/// `2026-11-24 02:00 UTC`.
pub fn clock(instant: DateTime<Utc>) -> Markup {
    time(instant, &utc(instant))
}

/// `2026-11-24 02:00`, below a heading that says UTC.
pub fn hour(instant: DateTime<Utc>) -> Markup {
    time(instant, &instant.format("%Y-%m-%d %H:%M").to_string())
}

pub fn utc(instant: DateTime<Utc>) -> String {
    instant.format("%Y-%m-%d %H:%M UTC").to_string()
}

fn time(instant: DateTime<Utc>, words: &str) -> Markup {
    html! {
        time datetime=(instant.to_rfc3339_opts(SecondsFormat::Secs, true)) title=(utc(instant)) { (words) }
    }
}
