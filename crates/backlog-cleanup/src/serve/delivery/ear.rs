use std::sync::Arc;

use sqlx::postgres::PgListener;
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::{channel::POLL, until};
use crate::serve::app::App;

/// Listens for changed alerts. What is not heard, since the connection is lost or a pooler hears nothing, a poll finds.
pub fn listen(app: &Arc<App>, ends: &CancellationToken) -> watch::Receiver<()> {
    let (heard, receiver) = watch::channel(());
    let (app, ends) = (Arc::clone(app), ends.clone());
    tokio::spawn(async move {
        let hear = async {
            loop {
                if let Some(access) = app.keyring().deliverer()
                    && let Ok(mut listener) = PgListener::connect_with(&access.listening).await
                    && listener.listen("backlog_cleanup").await.is_ok()
                {
                    heard.send_replace(());
                    while listener.recv().await.is_ok() {
                        heard.send_replace(());
                    }
                }
                sleep(POLL).await;
            }
        };
        until::<()>(&ends, hear).await;
    });
    receiver
}
