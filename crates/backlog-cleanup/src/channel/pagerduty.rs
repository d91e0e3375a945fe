use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::http::{PrivateAddress, post_json};
use super::message::{Change, Content, Message, Told};
use super::secret::Secret;
use super::{Delivered, STEP, Undelivered};

const URL: &str = "https://events.pagerduty.com/v2/enqueue";

/// The longest summary that it takes.
const SUMMARY: usize = 1024;

/// No event is begun later, so that the last one ends before the message's time does.
const LATEST: Duration = STEP;

/// PagerDuty, by version 2 of its events: an incident per alert.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pagerduty {
    routing_key: Secret,
    #[serde(default)]
    severity: Severity,
    /// Another region's.
    url: Option<PrivateAddress>,
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

impl Pagerduty {
    /// Sends the events one by one. One that is not taken keeps back only later ones of the same incident, until it is or never will be:
    /// in another order, the end of an alert would end the incident of the next one.
    pub fn send(&self, message: &Message) -> Delivered {
        let Content::Alerts(told) = &message.content else { return Ok(()) };
        let url = self.url.as_ref().map_or(URL, |url| url.as_str());
        let began = Instant::now();
        let mut taken = Vec::new();
        let mut kept_back = BTreeSet::new();
        let mut failed: Option<Undelivered> = None;
        for told in told {
            let key = key(told, &message.database);
            if kept_back.contains(&key) {
                continue;
            }
            let sent = match began.elapsed() < LATEST {
                true => post_json(url, &[], &self.event(told, &key, &message.database)),
                false => Err(Undelivered::later("it is too slow")),
            };
            let Err(why) = sent else {
                taken.push(told.alert.id);
                continue;
            };
            if !why.is_final {
                kept_back.insert(key);
            }
            // It is not final as long as anything may be taken later.
            if failed.as_ref().is_none_or(|known| known.is_final && !why.is_final) {
                failed = Some(why);
            }
        }
        failed.map_or(Ok(()), |failed| Err(Undelivered { taken, ..failed }))
    }

    fn event(&self, Told { change, alert }: &Told, key: &str, database: &str) -> Value {
        let mut event =
            json!({ "routing_key": self.routing_key.as_str(), "dedup_key": key, "client": "backlog-cleanup" });
        match change {
            Change::Resolved => event["event_action"] = json!("resolve"),
            Change::Acknowledged => event["event_action"] = json!("acknowledge"),
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

    pub fn secrets(&self) -> Vec<String> {
        let url = self.url.iter().flat_map(|url| url.secrets());
        url.chain([self.routing_key.as_str().to_owned()]).collect()
    }
}

/// By what PagerDuty knows an incident again: one for each rule, target and recipe.
fn key(Told { alert, .. }: &Told, database: &str) -> String {
    let identity = json!([database, alert.rule, alert.target, alert.subject]).to_string();
    format!("backlog-cleanup/{}", hex::encode(Sha256::digest(identity)))
}
