//! Where alerts go: the file of channels, and how each kind of them is told. Knows no database and no request.

mod alertmanager;
mod each;
mod file;
mod http;
mod mail;
mod message;
mod pagerduty;
mod redacted;
mod secret;
mod slack;
mod text;
mod webhook;

use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

pub use file::{Channels, Report};
pub use message::{Change, Content, Message, Told, id};
use redacted::redacted;

/// Longest time for a message, however slow the receiver is.
pub const LONGEST: Duration = Duration::from_secs(60);
/// Longest time for one of its steps.
const STEP: Duration = Duration::from_secs(20);
/// The most characters of why a message was not delivered.
const LONGEST_REASON: usize = 500;

/// Somebody who is told of alerts.
pub struct Channel {
    pub name: String,
    /// Whose alerts; none are those of all.
    pub targets: Vec<String>,
    pub report: Option<Report>,
    /// The word for it in the file and in the database.
    pub kind: String,
    settings: Kind,
    /// What nobody is shown.
    secrets: Vec<String>,
}

/// The kinds, by their words in the file.
#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Webhook(webhook::Webhook),
    Slack(slack::Slack),
    Alertmanager(alertmanager::Alertmanager),
    Pagerduty(pagerduty::Pagerduty),
    Mail(Box<mail::Mail>),
}

/// Why a message was not delivered, or not all of it.
#[derive(Debug)]
pub struct Undelivered {
    pub why: String,
    /// Whether the receiver will not take the rest later either.
    pub is_final: bool,
    /// The alerts of it that the receiver has taken: all of them if only some of its readers have not.
    pub taken: Vec<i64>,
}

impl Undelivered {
    fn later(why: impl Into<String>) -> Undelivered {
        Undelivered { why: why.into(), is_final: false, taken: Vec::new() }
    }
}

type Delivered = Result<(), Undelivered>;

impl Channel {
    /// Whether the receiver takes an alert as resolved if it does not hear of it for some minutes.
    pub fn forgets(&self) -> bool {
        matches!(self.settings, Kind::Alertmanager(_))
    }

    /// Whether the receiver has incidents, which are open until it hears that they are over, and in which it goes on calling others until it
    /// hears that somebody has taken them on.
    pub fn has_incidents(&self) -> bool {
        matches!(self.settings, Kind::Pagerduty(_))
    }

    /// The most changes in a message.
    pub fn most(&self) -> i64 {
        if matches!(self.settings, Kind::Pagerduty(_)) { 25 } else { 100 }
    }

    /// Sends a message. What it says of a failure has no secret of the channel.
    pub async fn send(self: Arc<Channel>, message: Arc<Message>) -> Delivered {
        let channel = Arc::clone(&self);
        let sent = timeout(LONGEST, spawn_blocking(move || channel.send_now(&message))).await;
        let sent = match sent {
            Ok(Ok(sent)) => sent,
            Ok(Err(panic)) => Err(Undelivered::later(panic.to_string())),
            Err(_) => Err(Undelivered::later(format!("it took longer than {} seconds", LONGEST.as_secs()))),
        };
        sent.map_err(|failed| Undelivered {
            why: redacted(&failed.why, &self.secrets).chars().take(LONGEST_REASON).collect(),
            ..failed
        })
    }

    /// Sends an alert that is none, as opened and as resolved.
    pub async fn test(self: Arc<Channel>, database: &str) -> Delivered {
        let alert = message::test(&self.name);
        let id = message::id("test", database, &self.name, alert.opened_at);
        for change in [Change::Opened, Change::Resolved] {
            let message = Message::of_one(format!("{id}-{}", change.as_str()), database, alert.clone(), change);
            Arc::clone(&self).send(Arc::new(message)).await?;
        }
        Ok(())
    }

    fn send_now(&self, message: &Message) -> Delivered {
        match &self.settings {
            Kind::Webhook(webhook) => webhook.send(message),
            Kind::Slack(slack) => slack.send(message),
            Kind::Alertmanager(alertmanager) => alertmanager.send(message),
            Kind::Pagerduty(pagerduty) => pagerduty.send(message),
            Kind::Mail(mail) => mail.send(message),
        }
    }
}

impl Kind {
    fn secrets(&self) -> Vec<String> {
        match self {
            Kind::Webhook(webhook) => webhook.secrets(),
            Kind::Slack(slack) => slack.secrets(),
            Kind::Alertmanager(alertmanager) => alertmanager.secrets(),
            Kind::Pagerduty(pagerduty) => pagerduty.secrets(),
            Kind::Mail(mail) => mail.secrets(),
        }
    }
}
