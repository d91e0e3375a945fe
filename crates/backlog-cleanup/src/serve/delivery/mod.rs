//! Delivers alerts: a task for each channel, one that listens, and one that looks whether the database is there. Knows no
//! request.

mod channel;
mod ear;
mod watch;

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::serve::app::App;

/// Delivers to the channels of the settings until the server stops; to those of the changed file after it was read again.
pub async fn deliver(app: Arc<App>) {
    let mut reloaded = app.channels.subscribe();
    app.deliveries.spawn(watch::watch(Arc::clone(&app)));
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
        until(&ends, reloaded.changed()).await;
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
