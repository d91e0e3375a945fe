//! A message as people read it.

use super::message::{Change, Content, Message};
use crate::printable::one_line;
use crate::words::count;

/// The most alerts that a text tells in full: a flood is one message that can be read.
const MOST: usize = 20;
/// The most characters of a sentence.
const LONGEST: usize = 500;

/// What has happened, in a line: "app on localhost:5432: 2 alerts opened, 1 alert resolved".
pub fn headline(message: &Message) -> String {
    let what = match &message.content {
        Content::Report { .. } => "report".to_owned(),
        Content::Alerts(told) => {
            let of = |change| told.iter().filter(|told| told.change == change).count() as i64;
            let parts =
                [Change::Opened, Change::Acknowledged, Change::Resolved].map(|change| (of(change), change.as_str()));
            let parts = parts.iter().filter(|(many, _)| *many > 0);
            parts.map(|(many, change)| format!("{} {change}", count(*many, "alert"))).collect::<Vec<_>>().join(", ")
        }
    };
    one_line(&format!("{}: {what}", message.database))
}

/// A paragraph for each alert, and what mends it.
pub fn paragraphs(message: &Message) -> Vec<String> {
    let Content::Alerts(told) = &message.content else { return Vec::new() };
    let mut paragraphs: Vec<String> = told
        .iter()
        .take(MOST)
        .map(|told| {
            let at = match told.change {
                Change::Opened => None,
                Change::Acknowledged => told.alert.acknowledged_at,
                Change::Resolved => told.alert.resolved_at,
            };
            let at = at.unwrap_or(told.alert.opened_at);
            let sentence: String = one_line(&told.alert.sentence).chars().take(LONGEST).collect();
            let fix = told.alert.fix.as_ref().filter(|_| told.change == Change::Opened);
            let fix = fix.map_or(String::new(), |fix| format!("\nfix: {}", one_line(fix)));
            format!("{} {} UTC: {sentence}{fix}", told.change.as_str(), at.format("%m-%d %H:%M"))
        })
        .collect();
    if told.len() > MOST {
        paragraphs.push(format!("and {} more: backlog-cleanup alerts list", told.len() - MOST));
    }
    paragraphs
}
