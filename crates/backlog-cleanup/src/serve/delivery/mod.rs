//! Delivers alerts: a task for each channel, one that listens, one that looks whether the database is there, and one that
//! evaluates the rules where nothing ticks. Knows no request.

mod channel;
mod ear;
mod outage;
mod stand_in;
mod watch;

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::failure::Failure;
use crate::serve::access::PATIENCE;
use crate::serve::app::App;

/// How often to look for what was not heard of.
const POLL: Duration = Duration::from_secs(10);
/// How often a receiver that forgets is told of what is still open.
const REMINDER: Duration = Duration::from_secs(60);

/// Delivers to the channels of the settings until the server stops; to those of the changed file after it was read again.
pub async fn deliver(app: Arc<App>) {
    let mut reloaded = app.channels.subscribe();
    app.deliveries.spawn(watch::watch(Arc::clone(&app)));
    app.deliveries.spawn(stand_in::stand_in(Arc::clone(&app)));
    while !app.shutdown.is_cancelled() {
        let channels = Arc::clone(&reloaded.borrow_and_update());
        let ends = app.shutdown.child_token();
        if !channels.channels.is_empty() {
            let heard = ear::listen(&app, &ends);
            for channel in &channels.channels {
                app.deliveries.spawn(channel::serve(
                    Arc::clone(&app),
                    Arc::clone(channel),
                    heard.clone(),
                    ends.clone(),
                ));
            }
        }
        let without_channels = async {
            // With channels the turn comes with looking for something to deliver.
            while channels.channels.is_empty() {
                sleep(REMINDER).await;
                app.turn.notify_one();
            }
            std::future::pending::<()>().await;
        };
        let changed = async {
            tokio::select! {
                changed = reloaded.changed() => drop(changed),
                () = without_channels => (),
            }
        };
        until(&ends, changed).await;
        ends.cancel();
    }
}

/// Waits, but not longer than for the end; `None` then.
async fn until<T>(ends: &CancellationToken, wait: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        () = ends.cancelled() => None,
        waited = wait => Some(waited),
    }
}

/// Asks the database, which may have stalled with all that it has begun.
async fn in_time<T>(app: &App, asked: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let answered = timeout(2 * PATIENCE + app.settings.request_timeout, asked).await;
    answered.unwrap_or_else(|_| Err(Failure::error("the database does not answer in time")))
}
