//! Metrics for Prometheus: what is known, and how it is written. What the runs did is asked at each scrape; what has to be
//! counted in the tables is counted beside, and a scrape shows what was counted last. Knows no request.

mod encode;
mod figures;
mod history;

use std::collections::BTreeMap;
use std::sync::{Arc, RwLock};

use sqlx::postgres::PgPool;

pub use figures::{Counted, figures};
use history::History;

/// What the metrics show.
#[derive(Default)]
pub struct Metrics {
    /// Held while the database is asked, so that scrapes do not pile up behind one that has to wait.
    asking: tokio::sync::Mutex<()>,
    history: RwLock<Arc<History>>,
    counted: RwLock<Arc<BTreeMap<String, Counted>>>,
}

impl Metrics {
    /// Changes what was counted.
    pub fn update(&self, change: impl FnOnce(&mut BTreeMap<String, Counted>)) {
        let mut counted = self.counted.write().expect("nobody panics with it");
        change(Arc::make_mut(&mut counted));
    }

    /// The text of a scrape, with its content type.
    pub async fn scrape(&self, pool: &PgPool, openmetrics: bool) -> (&'static str, String) {
        if let Ok(_asking) = self.asking.try_lock() {
            let now = history::ask(pool).await;
            let mut history = self.history.write().expect("nobody panics with it");
            *history = Arc::new(now.unwrap_or_else(|error| {
                tracing::warn!(%error, "the history of runs could not be read");
                history.unreachable()
            }));
        }
        let history = Arc::clone(&self.history.read().expect("nobody panics with it"));
        let counted = Arc::clone(&self.counted.read().expect("nobody panics with it"));
        encode::encode(history, counted, openmetrics)
    }
}
