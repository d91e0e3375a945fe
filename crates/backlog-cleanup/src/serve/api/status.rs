use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{Query, State};
use axum::response::Response;
use backlog_cleanup_report::{Level, StatusReport};
use serde::{Deserialize, Serialize};
use tower_http::compression::CompressionLayer;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::target::meant;
use crate::client::calls;
use crate::serve::app::App;
use crate::serve::middleware::Caller;
use crate::serve::response::{Problem, Problems, bytes, json, read};

pub fn routes() -> OpenApiRouter<Arc<App>> {
    // Thousands of recipes are megabytes. A page with secrets must not be compressed; this has none.
    OpenApiRouter::new().routes(routes!(status)).layer(CompressionLayer::new())
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Asked {
    /// Name of the target, a row of backlog_cleanup.target: by default generations, or the only one with a table
    target: Option<String>,
    /// Number of recipes, those with most rows in scope; all by default
    #[param(minimum = 0)]
    limit: Option<usize>,
}

/// A status report with some of the recipes.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Status {
    #[serde(flatten)]
    report: StatusReport,
    /// With `limit`, the number of all recipes that have rows in scope
    #[schema(value_type = i64, required = false)]
    #[serde(skip_serializing_if = "Option::is_none")]
    recipes_affected: Option<usize>,
}

/// The rows by status, and the recipes that have rows in scope, those with most first.
#[utoipa::path(get, path = "/api/admin/backlog-cleanup/status", tag = "status", params(Asked),
    responses((status = 200, description = "The report", body = Status), Problems))]
async fn status(
    State(app): State<Arc<App>>,
    caller: Caller,
    Query(Asked { target, limit }): Query<Asked>,
) -> Result<Response, Problem> {
    let report = async {
        let target = meant(&app, &caller, target).await?;
        let report = report(&app, &caller, target).await?;
        if let Some(limit) = limit { first(&report, limit) } else { Ok(report) }
    };
    Ok(json(caller.with_level(Level::Monitor, report).await?))
}

/// The status report as the database wrote it; concurrent requests share a query.
async fn report(app: &Arc<App>, caller: &Caller, target: String) -> Result<Bytes, Problem> {
    let access = Arc::clone(caller);
    let question = (caller.role.clone(), "status", target.clone());
    app.flights
        .join(question, async move { Ok(bytes(calls::status(&mut *access.begin().await?, &target).await?)) })
        .await
}

/// A report without the recipes behind the first ones.
fn first(report: &[u8], limit: usize) -> Result<Bytes, Problem> {
    let mut status: Status = read(report)?;
    let recipes = &mut status.report.recipes_with_failed_generations;
    status.recipes_affected = Some(recipes.len());
    recipes.truncate(limit);
    Ok(serde_json::to_vec(&status).expect("a report is JSON").into())
}
