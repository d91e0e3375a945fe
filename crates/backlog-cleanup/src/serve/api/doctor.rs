use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{Query, State};
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::status::Target;
use crate::serve::app::App;
use crate::serve::middleware::Caller;
use crate::serve::response::{Problem, Problems, json};

pub fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new().routes(routes!(doctor))
}

#[derive(Clone, Deserialize, Serialize, sqlx::FromRow, ToSchema)]
pub struct Check {
    pub check: String,
    /// ok, warn, fail
    pub status: String,
    pub detail: String,
    /// The statement that mends it
    pub fix: Option<String>,
}

#[derive(Deserialize, Serialize, ToSchema)]
pub struct Doctor {
    success: bool,
    /// No check warns or fails
    healthy: bool,
    pub checks: Vec<Check>,
}

/// What is wrong with a target, its table, its job and its server, each with the statement that mends it.
#[utoipa::path(get, path = "/api/admin/backlog-cleanup/doctor", tag = "status", params(Target),
    responses((status = 200, body = Doctor), Problems))]
async fn doctor(
    State(app): State<Arc<App>>,
    caller: Caller,
    Query(Target { target }): Query<Target>,
) -> Result<Response, Problem> {
    Ok(json(report(&app, &caller, target).await?))
}

/// What doctor finds, as JSON; all who ask at a time share one query.
pub async fn report(app: &Arc<App>, caller: &Caller, target: String) -> Result<Bytes, Problem> {
    let pool = caller.pool.clone();
    let question = (caller.role.clone(), "doctor", target.clone());
    let answer = app.flights.join(question, async move {
        let checks: Vec<Check> = sqlx::query_as(
            r#"SELECT check_name AS "check", status, detail, fix FROM backlog_cleanup_doctor($1::text)"#,
        )
        .bind(target)
        .fetch_all(&pool)
        .await?;
        let healthy = checks.iter().all(|check| check.status == "ok");
        Ok(serde_json::to_vec(&Doctor { success: true, healthy, checks }).expect("texts are JSON").into())
    });
    answer.await
}
