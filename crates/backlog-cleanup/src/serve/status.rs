use std::sync::Arc;

use axum::extract::Query;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{App, Caller, Problem};

pub fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new().routes(routes!(status))
}

/// The table that is meant, in every request.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct Target {
    /// A row of backlog_cleanup.target
    #[serde(default = "generations")]
    pub target: String,
}

pub fn generations() -> String {
    "generations".into()
}

/// How many rows there are by status, and which recipes have failures.
#[utoipa::path(get, path = "/api/admin/backlog-cleanup/status", params(Target))]
async fn status(caller: Caller, Query(Target { target }): Query<Target>) -> Result<Response, Problem> {
    let report: String = sqlx::query_scalar("SELECT backlog_cleanup_status_json($1::text)::text")
        .bind(&target)
        .fetch_one(&caller.pool)
        .await?;
    Ok(([(header::CONTENT_TYPE, "application/json")], report).into_response())
}
