use chrono::Utc;
use serde::Serialize;

use crate::client::alerts::Alert;

/// What a channel is told at once.
pub struct Message {
    /// The same in each attempt, so that the receiver can tell that it has had it.
    pub id: String,
    /// Which database.
    pub database: String,
    pub content: Content,
}

pub enum Content {
    Alerts(Vec<Told>),
    /// The report, as text and as Markdown.
    Report {
        text: String,
        markdown: String,
    },
}

/// What is told of an alert.
#[derive(Clone, Serialize)]
pub struct Told {
    pub change: Change,
    #[serde(flatten)]
    pub alert: Alert,
}

#[derive(Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Change {
    Opened,
    Resolved,
}

impl Change {
    pub fn as_str(self) -> &'static str {
        match self {
            Change::Opened => "opened",
            Change::Resolved => "resolved",
        }
    }
}

impl Message {
    /// A message about one alert.
    pub fn of_one(id: String, database: &str, alert: Alert, change: Change) -> Message {
        Message { id, database: database.to_owned(), content: Content::Alerts(vec![Told { change, alert }]) }
    }
}

/// The alert of a test.
pub fn test(channel: &str) -> Alert {
    let sentence = format!("this is a test of channel \"{channel}\": nothing is wrong");
    Alert { resolved_at: Some(Utc::now()), ..Alert::of_server("test", sentence) }
}
