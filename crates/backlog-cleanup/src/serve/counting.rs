//! Counts the rows of all targets for the metrics, and looks at their health, at an interval.

use std::sync::Arc;
use std::time::Instant;

use crate::client::targets;
use crate::serve::access::Access;
use crate::serve::app::App;
use crate::serve::metrics::{figures, light};

/// Counting takes at most one part in so many of the time.
const REST: u32 = 10;

/// Counts one target after the other, until the process ends.
pub async fn count(app: Arc<App>) {
    loop {
        let keyring = app.keyring();
        let access = keyring.lowest();
        let started = Instant::now();
        match names(access).await {
            Err(error) => {
                tracing::warn!(%error, "the targets could not be read");
                app.metrics.update(|counted| {
                    counted.values_mut().for_each(|counted| {
                        counted.success = false;
                        counted.light = None;
                    });
                });
            }
            Ok(names) => {
                for target in &names {
                    let figures = figures(access, target).await;
                    let light = light(access, target).await.ok();
                    app.metrics.update(|counted| {
                        let counted = counted.entry(target.clone()).or_default();
                        counted.renew(target, figures);
                        counted.light = light;
                    });
                }
                app.metrics.update(|counted| counted.retain(|target, _| names.contains(target)));
            }
        }
        tokio::time::sleep(app.settings.count_interval.max(started.elapsed() * (REST - 1))).await;
    }
}

async fn names(access: &Access) -> sqlx::Result<Vec<String>> {
    targets::names(&mut *access.begin().await?).await
}
