use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, Query, State};
use backlog_cleanup_report::Level;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::target::{Target, meant};
use crate::client::policies::{self, Verdict};
use crate::serve::app::App;
use crate::serve::middleware::Caller;
use crate::serve::response::{Problem, Problems};

pub fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new().routes(routes!(explain))
}

#[derive(Serialize, ToSchema)]
struct Explanation {
    success: bool,
    #[serde(flatten)]
    verdict: Verdict,
}

/// Why a row stays or goes, of a run that starts now; an id that no row has is a verdict, too.
#[utoipa::path(get, path = "/api/admin/backlog-cleanup/explain/{id}", tag = "policies",
    params(("id" = String, Path, description = "The row's id, as text"), Target),
    responses((status = 200, description = "The verdict", body = Explanation), Problems))]
async fn explain(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(id): Path<String>,
    Query(Target { target }): Query<Target>,
) -> Result<Json<Explanation>, Problem> {
    let explain = async {
        let target = meant(&app, &caller, target).await?;
        Ok(policies::explain(&mut *caller.begin().await?, &target, &id).await?)
    };
    let verdict = caller.with_level(Level::Monitor, explain).await?;
    Ok(Json(Explanation { success: true, verdict }))
}
