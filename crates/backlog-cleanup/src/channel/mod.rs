//! Where alerts go: the file of channels, and how each kind of them is told. Knows no database and no request.

mod alertmanager;
mod file;
mod http;
mod mail;
mod message;
mod pagerduty;
mod secret;
mod slack;
mod text;
mod webhook;

use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::timeout;

pub use file::{Channels, Report};
pub use message::{Change, Content, Message, Told};

/// Longest time for a message, however slow the receiver is.
pub const LONGEST: Duration = Duration::from_secs(60);
/// Longest time for one of its steps.
const STEP: Duration = Duration::from_secs(20);

/// Somebody who is told of alerts.
pub struct Channel {
    pub name: String,
    /// Whose alerts; none are those of all.
    pub targets: Vec<String>,
    pub report: Option<Report>,
    kind: Kind,
}

enum Kind {
    Webhook(webhook::Webhook),
    Slack(slack::Slack),
    Alertmanager(alertmanager::Alertmanager),
    Pagerduty(pagerduty::Pagerduty),
    Mail(Box<mail::Mail>),
}

/// Why a message was not delivered.
#[derive(Debug)]
pub struct Undelivered {
    pub why: String,
    /// Whether the receiver will not take it later either.
    pub is_final: bool,
}

impl Undelivered {
    fn later(why: impl Into<String>) -> Undelivered {
        Undelivered { why: why.into(), is_final: false }
    }
}

type Delivered = Result<(), Undelivered>;

impl Channel {
    /// The word for it in the file and in the database.
    pub fn kind(&self) -> &'static str {
        match &self.kind {
            Kind::Webhook(_) => "webhook",
            Kind::Slack(_) => "slack",
            Kind::Alertmanager(_) => "alertmanager",
            Kind::Pagerduty(_) => "pagerduty",
            Kind::Mail(_) => "mail",
        }
    }

    /// Whether the receiver takes an alert as resolved if it does not hear of it for some minutes.
    pub fn forgets(&self) -> bool {
        matches!(self.kind, Kind::Alertmanager(_))
    }

    /// Sends a message. What it says of a failure has no secret of the channel.
    pub async fn send(self: std::sync::Arc<Channel>, message: Message) -> Delivered {
        let channel = std::sync::Arc::clone(&self);
        let sent = timeout(LONGEST, spawn_blocking(move || channel.send_now(&message))).await;
        let sent = match sent {
            Ok(Ok(sent)) => sent,
            Ok(Err(panic)) => Err(Undelivered::later(panic.to_string())),
            Err(_) => Err(Undelivered::later(format!("it took longer than {} seconds", LONGEST.as_secs()))),
        };
        sent.map_err(|failed| Undelivered { why: self.without_secrets(&failed.why), ..failed })
    }

    /// Sends an alert that is none, as opened and as resolved.
    pub async fn test(self: std::sync::Arc<Channel>, id: &str, database: &str) -> Delivered {
        let alert = message::test(&self.name);
        for change in [Change::Opened, Change::Resolved] {
            let message = Message::of_one(format!("{id}-{}", change.as_str()), database, alert.clone(), change);
            std::sync::Arc::clone(&self).send(message).await?;
        }
        Ok(())
    }

    fn send_now(&self, message: &Message) -> Delivered {
        match &self.kind {
            Kind::Webhook(webhook) => webhook.send(message),
            Kind::Slack(slack) => slack.send(message),
            Kind::Alertmanager(alertmanager) => alertmanager.send(message),
            Kind::Pagerduty(pagerduty) => pagerduty.send(message),
            Kind::Mail(mail) => mail.send(message),
        }
    }

    fn without_secrets(&self, text: &str) -> String {
        let secrets = match &self.kind {
            Kind::Webhook(webhook) => webhook.secrets(),
            Kind::Slack(slack) => slack.secrets(),
            Kind::Alertmanager(alertmanager) => alertmanager.secrets(),
            Kind::Pagerduty(pagerduty) => pagerduty.secrets(),
            Kind::Mail(mail) => mail.secrets(),
        };
        let text = secrets
            .iter()
            .filter(|secret| !secret.is_empty())
            .fold(text.to_owned(), |text, secret| text.replace(*secret, "***"));
        text.chars().take(500).collect()
    }
}
