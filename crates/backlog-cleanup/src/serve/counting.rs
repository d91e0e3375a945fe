//! Counts the rows of every target for the metrics, again and again.

use std::sync::Arc;
use std::time::Instant;

use crate::serve::app::App;
use crate::serve::metrics::figures;

/// Of its time, the counting takes no more than one part in so many.
const REST: u32 = 10;

/// Counts every target's rows, one after the other, until the process ends.
pub async fn count(app: Arc<App>) {
    let pool = &app.lowest().pool;
    loop {
        let started = Instant::now();
        match app.lowest().targets().await {
            Err(error) => {
                tracing::warn!(%error, "the targets could not be read");
                app.metrics.update(|counted| counted.values_mut().for_each(|counted| counted.success = false));
            }
            Ok(targets) => {
                for target in &targets {
                    let figures = figures(pool, target).await;
                    app.metrics.update(|counted| counted.entry(target.clone()).or_default().renew(target, figures));
                }
                app.metrics.update(|counted| counted.retain(|target, _| targets.contains(target)));
            }
        }
        tokio::time::sleep(app.settings.count_interval.max(started.elapsed() * (REST - 1))).await;
    }
}
