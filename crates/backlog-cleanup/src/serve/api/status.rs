use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{Query, State};
use axum::response::Response;
use backlog_cleanup_report::StatusReport;
use serde::Deserialize;
use tower_http::compression::CompressionLayer;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::client::calls;
use crate::serve::app::App;
use crate::serve::middleware::Caller;
use crate::serve::removal::default_target;
use crate::serve::response::{Problem, Problems, bytes, json};

pub fn routes() -> OpenApiRouter<Arc<App>> {
    // Thousands of recipes are megabytes. A page with secrets must not be compressed; this has none.
    OpenApiRouter::new().routes(routes!(status)).layer(CompressionLayer::new())
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Target {
    /// Name of the target: a row of backlog_cleanup.target
    #[serde(default = "default_target")]
    #[param(required = false)]
    pub target: String,
}

/// The rows by status, and the recipes with failures.
#[utoipa::path(get, path = "/api/admin/backlog-cleanup/status", tag = "status", params(Target),
    responses((status = 200, description = "The report", body = StatusReport), Problems))]
async fn status(
    State(app): State<Arc<App>>,
    caller: Caller,
    Query(Target { target }): Query<Target>,
) -> Result<Response, Problem> {
    Ok(json(report(&app, &caller, target).await?))
}

/// The status report as the database wrote it; concurrent requests share a query.
pub async fn report(app: &Arc<App>, caller: &Caller, target: String) -> Result<Bytes, Problem> {
    let access = Arc::clone(caller);
    let question = (caller.role.clone(), "status", target.clone());
    app.flights
        .join(question, async move { Ok(bytes(calls::status(&mut *access.begin().await?, &target).await?)) })
        .await
}
