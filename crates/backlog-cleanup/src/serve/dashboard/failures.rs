//! The rows that came into scope by hour, stacked by failure type, and their trend.

use std::collections::HashMap;

use backlog_cleanup_report::{capitalized, plural};
use chrono::{DateTime, DurationRound, TimeDelta, Utc};
use maud::{Markup, html};

use super::chart::{Bar, bars};
use super::data::Data;
use super::names;
use super::query::Span;
use super::times;
use crate::words;

/// The rows of each hour of the chart by failure type, the most frequent type first.
struct Hours {
    types: Vec<String>,
    hours: Vec<(DateTime<Utc>, Vec<i64>)>,
}

impl Hours {
    fn of(data: &Data) -> Hours {
        let mut totals: HashMap<&str, i64> = HashMap::new();
        for failures in &data.failures {
            *totals.entry(&failures.failure_type).or_default() += failures.failed_count;
        }
        let mut types: Vec<(&str, i64)> = totals.into_iter().collect();
        types.sort_by(|a, b| (a.0 == "(other)").cmp(&(b.0 == "(other)")).then((b.1, a.0).cmp(&(a.1, b.0))));
        let types: Vec<String> = types.into_iter().map(|(name, _)| name.to_owned()).collect();
        let this_hour = data.now.duration_trunc(TimeDelta::hours(1)).unwrap_or(data.now);
        let hours = i64::from(data.query.span.hours());
        let mut hours: Vec<(DateTime<Utc>, Vec<i64>)> =
            (0..hours).map(|hour| (this_hour - TimeDelta::hours(hours - 1 - hour), vec![0; types.len()])).collect();
        let first = hours.first().map_or(this_hour, |hour| hour.0);
        for failures in &data.failures {
            let place = usize::try_from((failures.hour - first).num_hours()).ok();
            let kind = types.iter().position(|name| *name == failures.failure_type);
            if let (Some((_, counts)), Some(kind)) = (place.and_then(|place| hours.get_mut(place)), kind) {
                counts[kind] += failures.failed_count;
            }
        }
        Hours { types, hours }
    }

    fn total(&self, back: usize) -> i64 {
        self.hours.iter().rev().nth(back).map_or(0, |(_, counts)| counts.iter().sum())
    }

    /// Compares the last full hour with the mean of the 23 hours before.
    fn trend(&self) -> (i64, f64, &'static str) {
        let last = self.total(1);
        let mean = (2..25).map(|back| self.total(back)).sum::<i64>() as f64 / 23.0;
        let word = match last as f64 {
            last if last > mean * 1.5 && last >= mean + 3.0 => "rising",
            last if last < mean / 1.5 && last <= mean - 3.0 => "falling",
            _ => "steady",
        };
        (last, mean, word)
    }
}

pub fn section(data: &Data) -> Markup {
    let hours = Hours::of(data);
    let (last, mean, trend) = hours.trend();
    let rows = plural(&data.nouns().row_word);
    let shown: i64 = hours.hours.iter().flat_map(|(_, counts)| counts).sum();
    let describe = format!(
        "{rows} new in scope by hour in the last {}, {} in all, {} in the last full hour",
        data.query.span.words(),
        words::number(shown),
        words::number(last)
    );
    html! {
        section #failures .card aria-labelledby="failures-title" {
            div .title {
                h2 #failures-title { "New in scope by hour" }
                nav .choice aria-label="how far back" {
                    @for span in Span::ALL {
                        a href=(data.query.link(|query| query.span = span)) aria-current=[(span == data.query.span).then_some("true")] {
                            (span.words())
                        }
                    }
                }
            }
            p {
                strong class={ "trend " (trend) } { (arrow(trend)) " " (trend) }
                ": " (words::number(last)) " in the last full hour, "
                (words::number(mean.round() as i64)) " an hour in the day before."
            }
            (bars("failures-chart", &describe, &drawn(&hours, data), ends(&hours)))
            (legend(&hours))
            p .note { (capitalized(&rows)) " by failure type, (none) without one: those that are there, and that runs have removed. Dashed lines are runs." }
            details #failures-table { summary { "The same as a table" } (table(&hours)) }
        }
    }
}

fn arrow(trend: &str) -> &'static str {
    match trend {
        "rising" => "▲",
        "falling" => "▼",
        _ => "→",
    }
}

fn drawn(hours: &Hours, data: &Data) -> Vec<Bar> {
    let run_in = |hour: DateTime<Utc>| {
        data.runs
            .iter()
            .find(|run| run.started_at >= hour && run.started_at < hour + TimeDelta::hours(1) && run.removed > 0)
    };
    hours
        .hours
        .iter()
        .map(|(hour, counts)| {
            let parts = hours.types.iter().zip(counts).filter(|(_, count)| **count > 0);
            let listed: Vec<String> = parts.map(|(name, count)| format!("{name} {}", words::number(*count))).collect();
            Bar {
                title: format!("{}: {}\n{}", times::utc(*hour), words::number(counts.iter().sum()), listed.join("\n")),
                parts: counts.iter().enumerate().map(|(kind, count)| (format!("series-{kind}"), *count)).collect(),
                mark: run_in(*hour).map(|run| format!("run {} removed {}", run.id, words::number(run.removed))),
            }
        })
        .collect()
}

fn ends(hours: &Hours) -> [&'static str; 3] {
    match hours.hours.len() {
        24 => ["24 h ago", "12 h ago", "now"],
        48 => ["48 h ago", "24 h ago", "now"],
        _ => ["7 days ago", "3½ days ago", "now"],
    }
}

fn legend(hours: &Hours) -> Markup {
    html! {
        ul .legend aria-label="failure types" {
            @for (kind, name) in hours.types.iter().enumerate() {
                li {
                    svg width="12" height="12" aria-hidden="true" { rect class={ "series-" (kind) } width="12" height="12" rx="2" {} }
                    (names::name(name)) " "
                    span .muted { (words::number(hours.hours.iter().map(|(_, counts)| counts[kind]).sum())) }
                }
            }
        }
    }
}

fn table(hours: &Hours) -> Markup {
    html! {
        div .scroll tabindex="0" role="region" aria-label="new in scope by hour, the table" {
            table {
                thead {
                    tr {
                        th scope="col" { "hour, UTC" }
                        th scope="col" .figure { "all" }
                        @for name in &hours.types { th scope="col" .figure { (names::cut(name)) } }
                    }
                }
                tbody {
                    @for (hour, counts) in hours.hours.iter().rev().filter(|(_, counts)| counts.iter().any(|count| *count > 0)) {
                        tr {
                            th scope="row" { (times::hour(*hour)) }
                            td .figure { (words::number(counts.iter().sum())) }
                            @for count in counts { td .figure { (words::number(*count)) } }
                        }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_full_hour_is_compared_with_the_day_before_it() {
        let trend = |last: i64, before: i64| {
            let hour = |back: i64| (Utc::now() - TimeDelta::hours(back), vec![if back == 1 { last } else { before }]);
            let hours = (0..48).rev().map(hour).collect();
            Hours { types: vec!["timeout".into()], hours }.trend()
        };
        for (last, before, word) in [(16, 10, "rising"), (15, 10, "steady"), (6, 10, "falling"), (7, 10, "steady")] {
            assert_eq!(trend(last, before), (last, before as f64, word));
        }
        assert_eq!(trend(2, 0).2, "steady", "few rows say nothing");
    }
}
