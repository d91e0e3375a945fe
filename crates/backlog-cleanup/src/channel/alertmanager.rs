use std::collections::BTreeMap;

use serde::de::Error;
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};

use super::Delivered;
use super::http::{Address, post_json};
use super::message::{Change, Content, Message, Told};
use super::secret::Secret;

/// Prometheus' Alertmanager, by version 2 of its API.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Alertmanager {
    /// Without `/api/v2/alerts`.
    pub url: Address,
    /// The value of the header Authorization.
    pub authorization: Option<Secret>,
    /// More labels of every alert, such as severity.
    #[serde(default, deserialize_with = "labels")]
    labels: BTreeMap<String, String>,
}

/// Reads labels. Errors: a name that some version of Alertmanager does not take: it refuses all of a message then.
fn labels<'de, D: Deserializer<'de>>(from: D) -> Result<BTreeMap<String, String>, D::Error> {
    let labels = BTreeMap::<String, String>::deserialize(from)?;
    let is_valid = |name: &&String| {
        name.chars().all(|char| char.is_ascii_alphanumeric() || char == '_')
            && name.starts_with(|char: char| !char.is_ascii_digit())
    };
    match labels.keys().find(|name| !is_valid(name)) {
        Some(name) => {
            Err(D::Error::custom(format!("\"{name}\" is no name of a label: it takes letters, digits and _")))
        }
        None => Ok(labels),
    }
}

impl Alertmanager {
    pub fn send(&self, message: &Message) -> Delivered {
        let Content::Alerts(told) = &message.content else { return Ok(()) };
        let alerts: Vec<Value> = told.iter().map(|told| self.alert(told, &message.database)).collect();
        let headers: Vec<(&str, &str)> =
            self.authorization.iter().map(|value| ("authorization", value.as_str())).collect();
        post_json(&self.url.below("/api/v2/alerts"), &headers, &alerts)
    }

    /// While an alert is open it has no end: Alertmanager's `resolve_timeout` sets one, and each message moves it.
    fn alert(&self, Told { change, alert }: &Told, database: &str) -> Value {
        let mut labels = self.labels.clone();
        labels.extend([
            ("alertname".to_owned(), alert.rule.clone()),
            ("database".into(), database.into()),
            ("job".into(), "backlog-cleanup".into()),
        ]);
        labels.extend(alert.target.clone().map(|target| ("target".into(), target)));
        labels.extend(alert.subject.clone().map(|subject| ("subject".into(), subject)));
        let mut annotations = BTreeMap::from([("summary", alert.sentence.clone())]);
        annotations.extend(alert.fix.clone().map(|fix| ("fix", fix)));
        let mut told = json!({ "labels": labels, "annotations": annotations, "startsAt": alert.opened_at });
        if *change == Change::Resolved {
            told["endsAt"] = json!(alert.resolved_at);
        }
        told
    }

    pub fn secrets(&self) -> Vec<String> {
        self.url.secrets().into_iter().chain(self.authorization.iter().flat_map(Secret::credentials)).collect()
    }
}
