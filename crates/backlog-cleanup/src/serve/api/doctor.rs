use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{Query, State};
use axum::response::Response;
use backlog_cleanup_report::Level;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::target::{Target, meant};
use crate::client::calls::{self, Finding};
use crate::serve::app::App;
use crate::serve::middleware::Caller;
use crate::serve::response::{Problem, Problems, json};

pub fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new().routes(routes!(doctor))
}

#[derive(Deserialize, Serialize, ToSchema)]
pub struct Doctor {
    success: bool,
    /// True if no check warns or fails
    healthy: bool,
    pub checks: Vec<Finding>,
}

/// Checks a target, its table, its job and its server; has the statements that fix what is wrong.
#[utoipa::path(get, path = "/api/admin/backlog-cleanup/doctor", tag = "status", params(Target),
    responses((status = 200, description = "All checks", body = Doctor), Problems))]
async fn doctor(
    State(app): State<Arc<App>>,
    caller: Caller,
    Query(Target { target }): Query<Target>,
) -> Result<Response, Problem> {
    let report = async {
        let target = meant(&app, &caller, target).await?;
        report(&app, &caller, target).await
    };
    Ok(json(caller.with_level(Level::Monitor, report).await?))
}

/// The checks as JSON; concurrent requests share a query.
pub async fn report(app: &Arc<App>, caller: &Caller, target: String) -> Result<Bytes, Problem> {
    let access = Arc::clone(caller);
    let question = (caller.role.clone(), "doctor", target.clone());
    let checks = async move {
        let checks = calls::doctor(&mut *access.begin().await?, &target).await?;
        let healthy = checks.iter().all(|check| check.status == "ok");
        Ok(serde_json::to_vec(&Doctor { success: true, healthy, checks }).expect("texts are JSON").into())
    };
    app.flights.join(question, checks).await
}
