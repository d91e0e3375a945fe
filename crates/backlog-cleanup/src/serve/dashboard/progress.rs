//! The progress of a batched run. The script updates it by server-sent events; without the script the page reloads.

use backlog_cleanup_report::plural;
use maud::{Markup, html};

use super::data::Data;
use crate::words;

pub fn section(data: &Data, may_run: bool) -> Markup {
    let (run, target) = (data.running(), &data.target);
    html! {
        section #progress .card data-target=(target) aria-labelledby="progress-title" hidden[run.is_none()] {
            h2 #progress-title { "Running" }
            p {
                "Run " span #progress-run { (run.map_or(0, |run| run.id)) } ", "
                span #progress-mode { (run.map_or("", |run| run.mode.as_str())) } ": "
                strong #progress-removed { (words::number(run.map_or(0, |run| run.removed))) } " " (plural(&data.nouns().row_word)) " removed, "
                span #progress-rate { (words::number(run.and_then(|run| run.rows_per_second).unwrap_or_default() as i64)) }
                " a second, " span #progress-left { (left(run.and_then(|run| run.seconds_left))) } "."
            }
            p #progress-waiting .reason { @if let Some(reason) = run.and_then(|run| run.waiting_for.as_ref()) { "Waiting: " (reason) } }
            progress #progress-bar max="1" value=(run.and_then(|run| run.share_done).unwrap_or_default()) aria-labelledby="progress-title" {}
            @if may_run {
                form action="/stop" method="post" {
                    input type="hidden" name="target" value=(target);
                    input #progress-stop type="hidden" name="run" value=(run.map_or(0, |run| run.id));
                    div .buttons { button type="submit" { "Stop the run" } }
                }
            }
        }
    }
}

fn left(seconds: Option<f64>) -> String {
    match seconds {
        Some(seconds) => format!("{} left", words::duration((seconds * 1000.0) as i64)),
        None => "time left unknown".into(),
    }
}
