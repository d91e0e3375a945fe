//! The rows that the last runs removed, as bars.

use backlog_cleanup_report::{Mode, plural};
use maud::{Markup, html};

use super::chart::{Bar, bars};
use super::data::Data;
use super::times;
use crate::words;

const SHOWN: usize = 30;

pub fn section(data: &Data) -> Markup {
    let mut drawn: Vec<Bar> = data
        .runs
        .iter()
        .take(SHOWN)
        .rev()
        .map(|run| Bar {
            title: format!(
                "run {}, {}, {}: removed {}",
                run.id,
                run.mode,
                times::utc(run.started_at),
                words::number(run.removed)
            ),
            parts: vec![(run.mode.to_string(), run.removed)],
            mark: None,
        })
        .collect();
    let (oldest, newest) = (drawn.len(), data.runs.first());
    while drawn.len() < SHOWN {
        drawn.insert(0, Bar { title: String::new(), parts: Vec::new(), mark: None });
    }
    let total: i64 = data.runs.iter().take(SHOWN).map(|run| run.removed).sum();
    let row_word = &data.nouns().row_word;
    let describe = format!(
        "{} removed by each of the last {}, {} in all; the table of runs has the figures",
        plural(row_word),
        words::count(oldest as i64, "run"),
        words::number(total)
    );
    html! {
        section #removals .card aria-labelledby="removals-title" {
            h2 #removals-title { "Removed by run" }
            @match newest {
                None => p .note { "No run yet." },
                Some(run) => {
                    p { (words::count(total, row_word)) " in the last " (words::count(oldest as i64, "run")) "." }
                    (bars("removals-chart", &describe, &drawn, ["", "", &format!("run {}", run.id)]))
                    ul .legend aria-label="modes" {
                        @for mode in Mode::ALL {
                            li { svg width="12" height="12" aria-hidden="true" { rect class=(mode.as_str()) width="12" height="12" rx="2" {} } (mode.as_str()) }
                        }
                    }
                }
            }
        }
    }
}
