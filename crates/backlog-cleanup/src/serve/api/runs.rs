use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, Query};
use backlog_cleanup_report::{CleanupDetail, Level, PolicyDetail, StatusDetail};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::client::calls;
use crate::client::history::{self, Night, Run};
use crate::client::targets;
use crate::serve::app::App;
use crate::serve::middleware::Caller;
use crate::serve::response::{Problem, Problems};

pub fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new().routes(routes!(runs)).routes(routes!(run)).routes(routes!(stop))
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Page {
    /// Only runs of this target
    target: Option<String>,
    /// Only runs before this one
    before: Option<i64>,
    /// Number of runs
    #[serde(default = "page")]
    #[param(required = false, minimum = 1, maximum = 1000, default = 50)]
    limit: i64,
}

fn page() -> i64 {
    50
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Runs {
    success: bool,
    /// Newest first
    runs: Vec<Run>,
    /// Nights between these runs that failed without one
    failed_nights: Vec<Night>,
}

#[derive(Serialize, ToSchema)]
struct OneRun {
    success: bool,
    #[serde(flatten)]
    run: Run,
    recipes: Vec<CleanupDetail>,
    /// Those that name most first; none while the run is running
    policies: Vec<PolicyDetail>,
    /// The statuses that runs of the target remove; none while the run is running
    statuses: Vec<StatusDetail>,
}

#[derive(Serialize, ToSchema)]
pub struct Stopping {
    success: bool,
    /// False if the run has ended
    stopping: bool,
}

/// The history of runs, newest first.
#[utoipa::path(get, path = "/api/admin/backlog-cleanup/runs", tag = "history", params(Page),
    responses((status = 200, description = "A page of the history", body = Runs), Problems))]
async fn runs(caller: Caller, Query(page): Query<Page>) -> Result<Json<Runs>, Problem> {
    if !(1..=1000).contains(&page.limit) {
        return Err(Problem::bad_request("limit must be from 1 to 1000"));
    }
    let runs = async {
        let (mut work, target) = (caller.begin().await?, page.target.as_deref());
        let runs = history::runs(&mut work, target, page.before, page.limit).await?;
        let failed_nights = history::nights(&mut work, target, page.before, &runs, page.limit).await?;
        if runs.is_empty() && failed_nights.is_empty() {
            targets::known(&mut work, target).await?;
        }
        Ok(Runs { success: true, runs, failed_nights })
    };
    Ok(Json(caller.with_level(Level::Monitor, runs).await?))
}

/// One run, what it removed of each recipe and status and under each policy, and its progress.
#[utoipa::path(get, path = "/api/admin/backlog-cleanup/runs/{id}", operation_id = "one_run", tag = "history", params(("id" = i64, Path)),
    responses((status = 200, description = "The run", body = OneRun), Problems))]
async fn run(caller: Caller, Path(id): Path<i64>) -> Result<Json<OneRun>, Problem> {
    let read = async {
        let mut work = caller.begin().await?;
        let Some(run) = history::run(&mut work, id).await? else {
            return Err(Problem::not_found(format!("run {id} does not exist")).hint("/api/admin/backlog-cleanup/runs"));
        };
        let recipes = calls::run_details(&mut work, id).await?;
        let policies = history::policies(&mut work, id).await?;
        let statuses = history::statuses(&mut work, id).await?;
        Ok(OneRun { success: true, run, recipes, policies, statuses })
    };
    caller.with_level(Level::Monitor, read).await.map(Json)
}

/// Asks a run to stop; its current batch ends early.
#[utoipa::path(post, path = "/api/admin/backlog-cleanup/runs/{id}/stop", tag = "cleanup", params(("id" = i64, Path)),
    responses((status = 200, description = "Whether it stops", body = Stopping), Problems))]
pub async fn stop(caller: Caller, Path(id): Path<i64>) -> Result<Json<Stopping>, Problem> {
    let stop = async {
        let mut work = caller.begin_reserved().await?;
        let stopping = history::stop(&mut work, id).await?;
        work.commit().await?;
        Ok(stopping)
    };
    let stopping = caller.with_level(Level::Operator, stop).await?;
    tracing::info!(who = caller.who(), from = %caller.peer, run = id, stopping, "run is asked to stop");
    Ok(Json(Stopping { success: true, stopping }))
}
