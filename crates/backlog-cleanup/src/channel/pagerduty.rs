use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::Delivered;
use super::http::{Address, post_json};
use super::message::{Change, Content, Message, Told};
use super::secret::Secret;

/// The longest summary that it takes.
const SUMMARY: usize = 1024;

/// PagerDuty, by version 2 of its events: an incident per alert.
#[derive(Deserialize)]
#[serde(try_from = "Written")]
pub struct Pagerduty {
    routing_key: Secret,
    severity: Severity,
    url: Address,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    routing_key: Secret,
    #[serde(default)]
    severity: Severity,
    /// Another region's.
    url: Option<Address>,
}

#[derive(Clone, Copy, Default, Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
enum Severity {
    Critical,
    #[default]
    Error,
    Warning,
    Info,
}

impl TryFrom<Written> for Pagerduty {
    type Error = &'static str;

    fn try_from(Written { routing_key, severity, url }: Written) -> Result<Pagerduty, &'static str> {
        let url = url.unwrap_or_else(|| Address::of("https://events.pagerduty.com/v2/enqueue"));
        if url.is_private() { Ok(Pagerduty { routing_key, severity, url }) } else { Err("url must be https://") }
    }
}

impl Pagerduty {
    /// Sends the events one by one. After a failure all of them are sent again: with the same key they change nothing.
    pub fn send(&self, message: &Message) -> Delivered {
        let Content::Alerts(told) = &message.content else { return Ok(()) };
        told.iter().try_for_each(|told| post_json(self.url.as_str(), &[], &self.event(told, &message.database)))
    }

    fn event(&self, Told { change, alert }: &Told, database: &str) -> Value {
        let identity = json!([database, alert.rule, alert.target, alert.subject]).to_string();
        let key = format!("backlog-cleanup/{}", hex::encode(Sha256::digest(identity)));
        let mut event =
            json!({ "routing_key": self.routing_key.as_str(), "dedup_key": key, "client": "backlog-cleanup" });
        match change {
            Change::Resolved => event["event_action"] = json!("resolve"),
            Change::Opened => {
                event["event_action"] = json!("trigger");
                event["payload"] = json!({
                    "summary": alert.sentence.chars().take(SUMMARY).collect::<String>(),
                    "source": database,
                    "severity": self.severity,
                    "timestamp": alert.opened_at,
                    "component": alert.target,
                    "class": alert.rule,
                    "custom_details": alert,
                });
            }
        }
        event
    }

    pub fn secrets(&self) -> Vec<&str> {
        vec![self.routing_key.as_str()]
    }
}
