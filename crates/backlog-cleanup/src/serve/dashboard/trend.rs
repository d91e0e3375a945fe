//! The rows in scope over a week, from the samples of the tick, and the hours in which the database is quiet.

use backlog_cleanup_report::plural;
use maud::{Markup, html};

use super::chart::{Bar, bars};
use super::data::Data;
use super::times;
use crate::words;

pub fn section(data: &Data) -> Markup {
    let rows = plural(&data.nouns().row_word);
    let counted: Vec<i64> = data.samples.iter().filter_map(|sample| sample.in_scope).collect();
    let drawn: Vec<Bar> = data
        .samples
        .iter()
        .map(|sample| Bar {
            title: match sample.in_scope {
                Some(many) => format!("{}: {}", times::utc(sample.sampled_at), words::number(many)),
                None => format!("{}: not counted", times::utc(sample.sampled_at)),
            },
            parts: vec![("failed".to_owned(), sample.in_scope.unwrap_or(0))],
            mark: None,
        })
        .collect();
    let (first, last) = (counted.first().copied().unwrap_or(0), counted.last().copied().unwrap_or(0));
    let describe = format!("{rows} in scope by hour, from {} to {}", words::number(first), words::number(last));
    let start = data.samples.first().map_or(String::new(), |sample| times::utc(sample.sampled_at));
    let quiet: Vec<String> =
        data.quiet_hours.iter().filter_map(|hour| Some(format!("{}, {}", hour.hour, hour.note.as_ref()?))).collect();
    html! {
        section #trend .card aria-labelledby="trend-title" {
            div .title {
                h2 #trend-title { "Course of the week" }
                a href={ "/report?" (serde_urlencoded::to_string([("target", &data.target)]).unwrap_or_default()) } { "Report" }
            }
            @if counted.len() < 2 {
                p .note { "Not known yet: it takes samples, which the tick makes, of two hours." }
            } @else {
                p { (words::number(last)) " " (rows) " in scope, " (words::number(first)) " at the start." }
                (bars("trend-chart", &describe, &drawn, [&start, "", "now"]))
            }
            @if !quiet.is_empty() { p .note { "Hours of the database: " (quiet.join("; ")) "." } }
        }
    }
}
