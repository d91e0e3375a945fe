//! What no rule can say: that the database does not answer. And what the tick would do, while there is none.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::join_all;
use tokio::time::{sleep, timeout};

use super::channel::POLL;
use super::until;
use crate::channel::{Change, Channels, Message};
use crate::client::alerts::Alert;
use crate::client::deliveries;
use crate::failure::Failure;
use crate::serve::access::PATIENCE;
use crate::serve::app::App;

/// Three periods of the tick. After that the server evaluates the rules itself, so often.
const WITHOUT_TICK: f64 = 900.0;
const EVALUATION: Duration = Duration::from_secs(60);

/// Looks every few seconds whether the database answers, and evaluates the rules where no tick does.
pub async fn watch(app: Arc<App>) {
    let channels = app.channels.subscribe();
    let mut answered = Instant::now();
    let mut evaluated: Option<Instant> = None;
    let mut away: Option<Away> = None;
    while !app.shutdown.is_cancelled() {
        let channels = Arc::clone(&channels.borrow());
        if channels.channels.is_empty() {
            until(&app.shutdown, sleep(POLL)).await;
            answered = Instant::now();
            continue;
        }
        let is_due = evaluated.is_none_or(|at| at.elapsed() >= EVALUATION);
        match timeout(2 * PATIENCE + app.settings.request_timeout, look(&app, is_due)).await {
            Ok(Ok(has_evaluated)) => {
                answered = Instant::now();
                if has_evaluated {
                    evaluated = Some(answered);
                }
                if let Some(away) = &mut away {
                    away.alert.resolved_at.get_or_insert_with(chrono::Utc::now);
                }
            }
            failed => {
                if answered.elapsed() >= app.settings.unreachable_after && away.is_none() {
                    let why = match failed {
                        Ok(Err(failure)) => failure.message,
                        _ => "it does not answer in time".into(),
                    };
                    tracing::error!("the database is away: {why}");
                    away = Some(Away::new(&app.database(), &why));
                }
            }
        }
        if let Some(told) = &mut away {
            told.tell(&app, &channels).await;
            if told.is_over() {
                away = None;
            }
        }
        until(&app.shutdown, sleep(POLL.min(app.settings.unreachable_after / 2))).await;
    }
}

/// Asks the database when the last tick was, and evaluates the rules if that is long ago; whether it did.
async fn look(app: &App, is_due: bool) -> Result<bool, Failure> {
    let access = app.deliverer()?;
    let mut work = access.begin_reserved().await?;
    let since_tick = deliveries::since_tick(&mut work).await?;
    if !is_due || since_tick.is_some_and(|seconds| seconds < WITHOUT_TICK) {
        return Ok(false);
    }
    match deliveries::evaluate(&mut work).await {
        Ok(()) => work.commit().await?,
        // The database answers.
        Err(error) if error.as_database_error().is_some() => {
            tracing::warn!(%error, "the rules could not be evaluated");
        }
        Err(error) => Err(error)?,
    }
    Ok(true)
}

/// That the database is away, and which channels were told of it.
struct Away {
    id: String,
    alert: Alert,
    opened: BTreeSet<String>,
    resolved: BTreeSet<String>,
}

impl Away {
    fn new(database: &str, why: &str) -> Away {
        let alert = Alert::of_server("server unreachable", format!("{database} does not answer: {why}"));
        let id = format!("unreachable-{}", alert.opened_at.timestamp());
        Away { id, alert, opened: BTreeSet::new(), resolved: BTreeSet::new() }
    }

    /// Tells the channels that were not told yet. There is no lease: every server does, and says so with the same key.
    async fn tell(&mut self, app: &App, channels: &Channels) {
        let change = if self.alert.resolved_at.is_some() { Change::Resolved } else { Change::Opened };
        let told = match change {
            Change::Opened => &self.opened,
            Change::Resolved => &self.resolved,
        };
        // Who was never told that it began is not told that it is over; Alertmanager forgets, and is told again.
        let untold = channels.channels.iter().filter(|channel| match change {
            Change::Opened => channel.forgets() || !told.contains(&channel.name),
            Change::Resolved => self.opened.contains(&channel.name) && !told.contains(&channel.name),
        });
        let sent = join_all(untold.map(async |channel| {
            let id = format!("{}-{}", self.id, change.as_str());
            let message = Message::of_one(id, &app.database(), self.alert.clone(), change);
            match Arc::clone(channel).send(message).await {
                Ok(()) => Some(channel.name.clone()),
                Err(failed) => {
                    tracing::warn!(channel = channel.name, "not told that the database is away: {}", failed.why);
                    None
                }
            }
        }));
        let sent: Vec<String> = sent.await.into_iter().flatten().collect();
        match change {
            Change::Opened => self.opened.extend(sent),
            Change::Resolved => self.resolved.extend(sent),
        }
    }

    /// Whether everybody who was told of it knows that it is over.
    fn is_over(&self) -> bool {
        self.alert.resolved_at.is_some() && self.opened.is_subset(&self.resolved)
    }
}
