use std::sync::Arc;
use std::time::Instant;

use tokio::time::sleep;

use super::outage::{Outage, REFUSED, UNREACHABLE};
use super::{POLL, in_time, until};
use crate::serve::app::App;

/// Looks every few seconds whether the database answers and deliveries go on, and tells the channels of each time that they do not.
pub async fn watch(app: Arc<App>) {
    let channels = app.channels.subscribe();
    let patience = app.settings.unreachable_after;
    let mut answered = Instant::now();
    let mut outage: Option<Outage> = None;
    while !app.shutdown.is_cancelled() {
        let channels = Arc::clone(&channels.borrow());
        if channels.channels.is_empty() {
            answered = Instant::now();
        } else {
            // The reserved connection: that requests have all the others is no outage.
            let answer = in_time(&app, async { Ok(app.deliverer()?.begin_reserved().await.map(drop)?) }).await;
            let wrong = match answer {
                Ok(()) => app.refusal.lock().clone().map(|why| (REFUSED, "takes no deliveries", why)),
                Err(failure) => Some((UNREACHABLE, "does not answer", failure.message)),
            };
            match wrong {
                None => {
                    answered = Instant::now();
                    if let Some(outage) = &mut outage {
                        outage.end();
                    }
                }
                Some((rule, what, why))
                    if answered.elapsed() >= patience && outage.as_ref().is_none_or(Outage::is_over) =>
                {
                    tracing::error!("the database {what}: {why}");
                    outage = Some(Outage::new(rule, format!("{} {what}: {why}", app.database())));
                }
                Some(_) => (),
            }
            if let Some(outage) = &mut outage {
                outage.tell(&app, &channels).await;
            }
            outage.take_if(|outage| outage.is_told());
        }
        until(&app.shutdown, sleep(POLL.min(patience / 2))).await;
    }
}
