use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::json;
use sha2::{Digest, Sha256};

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
    /// Somebody has taken it on: for receivers that go on calling others.
    Acknowledged,
    Resolved,
}

impl Change {
    /// By its word in the database.
    pub fn of(word: &str) -> Change {
        [Change::Opened, Change::Acknowledged].into_iter().find(|it| it.as_str() == word).unwrap_or(Change::Resolved)
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Change::Opened => "opened",
            Change::Acknowledged => "acknowledged",
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

/// The id of a message that the database has none for: another one for each database and channel, since the receiver may get
/// messages of several, and fit for a header, whatever the names are.
pub fn id(what: &str, database: &str, channel: &str, at: DateTime<Utc>) -> String {
    let digest = hex::encode(Sha256::digest(json!([database, channel, at]).to_string()));
    format!("{what}-{}", &digest[..32])
}

/// The alert of a test.
pub fn test(channel: &str) -> Alert {
    let sentence = format!("this is a test of channel \"{channel}\": nothing is wrong");
    Alert { resolved_at: Some(Utc::now()), ..Alert::of_server("test", sentence) }
}
