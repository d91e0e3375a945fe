use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::Utc;
use futures::future::join_all;

use super::REMINDER;
use crate::channel::{Change, Channel, Channels, Message, Told, id};
use crate::client::alerts::Alert;
use crate::serve::app::App;

/// What no rule can say: that the database does not answer, or takes nothing that deliveries write.
pub const UNREACHABLE: &str = "server unreachable";
pub const REFUSED: &str = "deliveries refused";

/// The ends of the outages that a server may have told of which has stopped meanwhile.
pub fn ends_of_others() -> impl Iterator<Item = Told> {
    [UNREACHABLE, REFUSED].into_iter().map(|rule| {
        let alert = Alert::of_server(rule, "the database answers".into());
        Told { change: Change::Resolved, alert: Alert { resolved_at: Some(alert.opened_at), ..alert } }
    })
}

/// That the database is away, or takes no deliveries, and which channels know.
pub struct Outage {
    alert: Alert,
    began: Instant,
    /// When each channel was told last that it began; not those that were told that it is over.
    told: BTreeMap<String, Instant>,
}

impl Outage {
    pub fn new(rule: &str, sentence: String) -> Outage {
        let alert = Alert::of_server(rule, sentence);
        Outage { alert, began: Instant::now(), told: BTreeMap::new() }
    }

    pub fn end(&mut self) {
        self.alert.resolved_at.get_or_insert_with(Utc::now);
    }

    pub fn is_over(&self) -> bool {
        self.alert.resolved_at.is_some()
    }

    /// Whether nobody has to be told any more.
    pub fn is_told(&self) -> bool {
        self.is_over() && self.told.is_empty()
    }

    /// Tells the channels that do not know. There is no lease: every server does.
    pub async fn tell(&mut self, app: &App, channels: &Channels) {
        self.told.retain(|name, _| channels.channels.iter().any(|channel| channel.name == *name));
        let reminder = 30 * app.settings.unreachable_after;
        let change = if self.is_over() { Change::Resolved } else { Change::Opened };
        // A reminder is another message.
        let number = self.began.elapsed().as_secs() / reminder.as_secs();
        let database = app.database();
        let untold = channels.channels.iter().filter(|channel| self.is_due(channel, reminder));
        let sent = join_all(untold.map(async |channel| {
            let id = id("unreachable", &database, &channel.name, self.alert.opened_at);
            let id = format!("{id}-{}-{number}", change.as_str());
            let message = Message::of_one(id, &database, self.alert.clone(), change);
            match Arc::clone(channel).send(Arc::new(message)).await {
                Ok(()) => Some(channel.name.clone()),
                Err(failed) => {
                    tracing::warn!(channel = channel.name, "not told of the database's outage: {}", failed.why);
                    // Some of its readers were.
                    failed.taken.contains(&self.alert.id).then(|| channel.name.clone())
                }
            }
        }));
        for name in sent.await.into_iter().flatten() {
            match self.is_over() {
                false => self.told.insert(name, Instant::now()),
                true => self.told.remove(&name),
            };
        }
    }

    /// Whether a channel is to be told. Who was never told that it began is not told that it is over.
    fn is_due(&self, channel: &Channel, reminder: Duration) -> bool {
        // Another server that starts ends an incident, too.
        let reminder = if channel.forgets() || channel.has_incidents() { REMINDER } else { reminder };
        match self.told.get(&channel.name) {
            None => !self.is_over(),
            Some(at) => self.is_over() || at.elapsed() >= reminder,
        }
    }
}
