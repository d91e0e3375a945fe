use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::serve::app::App;
use crate::serve::middleware::Caller;
use crate::serve::response::Problems;

const OPENMETRICS: &str = "application/openmetrics-text";

pub fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new().routes(routes!(metrics))
}

/// Rows, runs and books of every target, in OpenMetrics if the client accepts it, else in Prometheus' text format.
#[utoipa::path(get, path = "/metrics", tag = "health", responses(
    (status = 200, description = "All metrics", content((String = "text/plain"), (String = "application/openmetrics-text"))), Problems))]
async fn metrics(_caller: Caller, State(app): State<Arc<App>>, headers: HeaderMap) -> Response {
    let accepts = headers.get_all(header::ACCEPT).iter().filter_map(|accept| accept.to_str().ok());
    let openmetrics = accepts.into_iter().any(|accept| accept.contains(OPENMETRICS));
    let (content_type, text) = app.metrics.scrape(app.keyring().lowest(), openmetrics).await;
    ([(header::CONTENT_TYPE, content_type), (header::VARY, "accept")], text).into_response()
}
