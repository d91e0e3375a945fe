//! Metrics for Prometheus. What the runs did is asked at each scrape; what has to be counted in the tables is counted
//! beside, again and again, and a scrape shows what was counted last.

#[path = "figures.rs"]
mod count;
mod encode;
mod history;

use std::collections::BTreeMap;
use std::sync::{Arc, RwLock};

use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::openapi::Problems;
use super::{App, Caller};
use count::Counted;
use history::History;

pub use count::count;

const OPENMETRICS: &str = "application/openmetrics-text";

pub fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new().routes(routes!(metrics))
}

/// What the metrics show.
#[derive(Default)]
pub struct Metrics {
    /// Held while the database is asked, so that scrapes do not pile up behind one that has to wait.
    asking: tokio::sync::Mutex<()>,
    history: RwLock<Arc<History>>,
    counted: RwLock<Arc<BTreeMap<String, Counted>>>,
}

/// Rows, runs and books of every target: OpenMetrics for who accepts it, else Prometheus' text format.
#[utoipa::path(get, path = "/metrics", tag = "health", responses(
    (status = 200, content((String = "text/plain"), (String = "application/openmetrics-text"))), Problems))]
async fn metrics(_caller: Caller, State(app): State<Arc<App>>, headers: HeaderMap) -> Response {
    let Metrics { asking, history, counted } = &app.metrics;
    if let Ok(_asking) = asking.try_lock() {
        let now = history::ask(&app.lowest().pool).await;
        let mut history = history.write().expect("nobody panics with it");
        *history = Arc::new(now.unwrap_or_else(|error| {
            tracing::warn!(%error, "the history of runs could not be read");
            history.unreachable()
        }));
    }
    let history = Arc::clone(&history.read().expect("nobody panics with it"));
    let counted = Arc::clone(&counted.read().expect("nobody panics with it"));
    let accepts = headers.get_all(header::ACCEPT).iter().filter_map(|accept| accept.to_str().ok());
    let openmetrics = accepts.into_iter().any(|accept| accept.contains(OPENMETRICS));
    let (content_type, text) = encode::encode(history, counted, openmetrics);
    ([(header::CONTENT_TYPE, content_type), (header::VARY, "accept")], text).into_response()
}
