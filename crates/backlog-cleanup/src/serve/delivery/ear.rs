use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::PgListener;
use sqlx::{Executor, Row};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::{POLL, in_time, until};
use crate::failure::Failure;
use crate::serve::app::App;

/// A connection that is silent for so long is asked whether it is still there.
const SILENCE: Duration = Duration::from_secs(60);

/// Whether the settings of the connection's start are in effect, which no pooler passes on.
const IS_DIRECT: &str = "SELECT source = 'client' FROM pg_catalog.pg_settings WHERE name = 'statement_timeout'";

/// Listens for changed alerts. What is not heard, since the connection is lost or a pooler is in between, a poll finds.
pub fn listen(app: &Arc<App>, ends: &CancellationToken) -> watch::Receiver<()> {
    let (heard, receiver) = watch::channel(());
    let (app, ends) = (Arc::clone(app), ends.clone());
    tokio::spawn(async move {
        let hear = async {
            loop {
                if let Err(failure) = hear(&app, &heard).await {
                    // Whoever watches the database says that it is away.
                    tracing::debug!("nothing is heard of alerts: {}", failure.message);
                }
                sleep(POLL).await;
            }
        };
        until::<()>(&ends, hear).await;
    });
    receiver
}

/// Hears of alerts with a connection of its own, until that fails. Behind a pooler it does not try: the connection that listens would go on
/// for other clients.
async fn hear(app: &App, heard: &watch::Sender<()>) -> Result<(), Failure> {
    let listening = app.deliverer()?.listening();
    let mut listener = in_time(app, async { Ok(PgListener::connect_with(&listening).await?) }).await?;
    listener.eager_reconnect(false);
    let is_direct = in_time(app, async { Ok(listener.fetch_one(IS_DIRECT).await?.try_get::<bool, _>(0)?) });
    if !is_direct.await? {
        return Err(Failure::error("a pooler is in between"));
    }
    loop {
        in_time(app, async { Ok(listener.execute("LISTEN backlog_cleanup").await?) }).await?;
        heard.send_replace(());
        // Until the connection is another one, or silent.
        while let Ok(notification) = timeout(SILENCE, listener.try_recv()).await
            && notification?.is_some()
        {
            heard.send_replace(());
        }
    }
}
