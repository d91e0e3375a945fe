//! Metrics for Prometheus. A scrape reads what the runs did, and shows the last count of the tables, which is made at an
//! interval. Knows no request.

mod encode;
mod figures;
mod history;

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::RwLock;

use crate::serve::access::Access;
use crate::serve::shared::light::Light;

pub use figures::{Counted, figures, light};
use history::History;

/// What the last scrape and the last count have read.
#[derive(Default)]
pub struct Metrics {
    /// Held by the scrape that reads, so that others do not queue behind it.
    asking: tokio::sync::Mutex<()>,
    history: RwLock<Arc<History>>,
    counted: RwLock<Arc<BTreeMap<String, Counted>>>,
}

impl Metrics {
    /// Changes the counts.
    pub fn update(&self, change: impl FnOnce(&mut BTreeMap<String, Counted>)) {
        let mut counted = self.counted.write();
        change(Arc::make_mut(&mut counted));
    }

    /// The lights of all targets as of the last count.
    pub fn lights(&self) -> BTreeMap<String, Light> {
        let counted = self.counted.read();
        counted.iter().filter_map(|(target, counted)| Some((target.clone(), counted.light?))).collect()
    }

    /// How many seconds the last count of a target took; `None` before the first.
    pub fn seconds(&self, target: &str) -> Option<f64> {
        Some(self.counted.read().get(target)?.figures.as_ref()?.seconds)
    }

    /// The text of a scrape, with its content type.
    pub async fn scrape(&self, access: &Access, openmetrics: bool) -> (&'static str, String) {
        if let Ok(_asking) = self.asking.try_lock() {
            let now = history::ask(access).await;
            let mut history = self.history.write();
            *history = Arc::new(now.unwrap_or_else(|error| {
                tracing::warn!(%error, "the history of runs could not be read");
                history.unreachable()
            }));
        }
        let history = Arc::clone(&self.history.read());
        let counted = Arc::clone(&self.counted.read());
        encode::encode(history, counted, openmetrics)
    }
}
