use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Query, State};
use axum::http::HeaderMap;
use backlog_cleanup_report::Level;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::body::read_body;
use super::target::{Target, meant};
use crate::client::columns;
use crate::client::policies::{self, Names, Policy, Simulated, Values};
use crate::client::warnings::heard;
use crate::serve::app::App;
use crate::serve::middleware::Caller;
use crate::serve::response::{Problem, Problems, refused};

pub fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new().routes(routes!(list, set, drop)).routes(routes!(simulate))
}

/// What a policy is for; without all of the three it is the default policy.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
struct Which {
    /// Name of the target, a row of backlog_cleanup.target: by default generations, or the only one with a table
    target: Option<String>,
    /// For rows of this recipe
    recipe_id: Option<String>,
    /// For rows of this failure type
    failure_type: Option<String>,
    /// For rows of this status
    status: Option<String>,
}

/// A policy to try.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
struct Tried {
    /// Name of the target, a row of backlog_cleanup.target: by default generations, or the only one with a table
    target: Option<String>,
    /// For rows of this recipe
    recipe_id: Option<String>,
    /// For rows of this failure type
    failure_type: Option<String>,
    /// For rows of this status
    status: Option<String>,
    /// A row older than this is expired: an interval as PostgreSQL reads it, such as '30 days'
    max_age: Option<String>,
    /// Number of the newest expired rows of a recipe that stay
    #[param(minimum = 0)]
    keep: Option<i32>,
    /// Rows older than this go even if they are among those newest
    max_keep_age: Option<String>,
    /// Without maxKeepAge
    #[serde(default)]
    no_max_keep_age: bool,
    /// False makes it a hold
    enabled: Option<bool>,
}

#[derive(Serialize, ToSchema)]
struct Policies {
    success: bool,
    /// Those that name most first
    policies: Vec<Policy>,
}

#[derive(Serialize, ToSchema)]
struct Written {
    success: bool,
    #[serde(flatten)]
    policy: Policy,
    /// What the database warned of
    warnings: Vec<String>,
}

#[derive(Serialize, ToSchema)]
struct Dropped {
    success: bool,
    /// What the policy was for, in words
    policy: String,
    /// False if there was none
    dropped: bool,
}

#[derive(Serialize, ToSchema)]
struct Simulation {
    success: bool,
    /// Per policy and recipe, most removable then first
    groups: Vec<Simulated>,
}

/// The policies of a target, with their rows in the last regular run.
#[utoipa::path(get, path = "/api/admin/backlog-cleanup/policies", operation_id = "policies", tag = "policies", params(Target),
    responses((status = 200, description = "The policies", body = Policies), Problems))]
async fn list(
    State(app): State<Arc<App>>,
    caller: Caller,
    Query(Target { target }): Query<Target>,
) -> Result<Json<Policies>, Problem> {
    let list = async {
        let target = meant(&app, &caller, target).await?;
        let policies = policies::list(&mut *caller.begin().await?, &target).await?;
        if policies.is_empty() {
            return Err(columns::missing(&target).into());
        }
        Ok(policies)
    };
    let policies = caller.with_level(Level::Monitor, list).await?;
    Ok(Json(Policies { success: true, policies }))
}

/// Writes a policy; what the body does not have stays as it is, or has its default.
#[utoipa::path(put, path = "/api/admin/backlog-cleanup/policies", operation_id = "set_policy", tag = "policies", params(Which),
    request_body(content = Option<Values>, content_type = "application/json"),
    responses((status = 200, description = "The policy", body = Written), Problems))]
async fn set(
    State(app): State<Arc<App>>,
    caller: Caller,
    headers: HeaderMap,
    Query(Which { target, recipe_id, failure_type, status }): Query<Which>,
    body: Bytes,
) -> Result<Json<Written>, Problem> {
    let values: Values = read_body(&headers, &body, r#"{"maxAge": "30 days", "keep": 10}"#)?;
    let set = async {
        let target = meant(&app, &caller, target).await?;
        write(&caller, &target, &Names { recipe_id, failure_type, status }, &values).await
    };
    let (policy, warnings) = caller.with_level(Level::Admin, set).await?;
    Ok(Json(Written { success: true, policy, warnings }))
}

/// Writes a policy, and says so in the log. Returns it, and what the database warned of.
pub async fn write(
    caller: &Caller,
    target: &str,
    names: &Names,
    values: &Values,
) -> Result<(Policy, Vec<String>), Problem> {
    let mut work = caller.begin().await?;
    let (policy, warnings) = heard(policies::set(&mut work, target, names, values)).await;
    let policy = policy.map_err(refused)?;
    work.commit().await?;
    tracing::info!(who = caller.who(), from = %caller.peer, target_name = target, policy = policy.policy, "policy is written");
    Ok((policy, warnings))
}

/// Removes a policy; its rows have the next one then.
#[utoipa::path(delete, path = "/api/admin/backlog-cleanup/policies", operation_id = "drop_policy", tag = "policies", params(Which),
    responses((status = 200, description = "Whether there was one", body = Dropped), Problems))]
async fn drop(
    State(app): State<Arc<App>>,
    caller: Caller,
    Query(Which { target, recipe_id, failure_type, status }): Query<Which>,
) -> Result<Json<Dropped>, Problem> {
    let drop = async {
        let target = meant(&app, &caller, target).await?;
        remove(&caller, &target, &Names { recipe_id, failure_type, status }).await
    };
    let (policy, dropped) = caller.with_level(Level::Admin, drop).await?;
    Ok(Json(Dropped { success: true, policy, dropped }))
}

/// Removes a policy, and says so in the log. Returns what it was for in words, and false if there was none.
pub async fn remove(caller: &Caller, target: &str, names: &Names) -> Result<(String, bool), Problem> {
    let mut work = caller.begin().await?;
    let (policy, dropped) = policies::drop(&mut work, target, names).await?;
    work.commit().await?;
    tracing::info!(who = caller.who(), from = %caller.peer, target_name = target, policy, dropped, "policy is dropped");
    Ok((policy, dropped))
}

/// What would go and stay if a policy were written so, beside what goes and stays now; nothing changes.
#[utoipa::path(get, path = "/api/admin/backlog-cleanup/policies/simulate", operation_id = "simulate_policy", tag = "policies", params(Tried),
    responses((status = 200, description = "Per policy and recipe", body = Simulation), Problems))]
async fn simulate(
    State(app): State<Arc<App>>,
    caller: Caller,
    Query(tried): Query<Tried>,
) -> Result<Json<Simulation>, Problem> {
    let Tried { target, recipe_id, failure_type, status, max_age, keep, max_keep_age, no_max_keep_age, enabled } =
        tried;
    let simulate = async {
        let target = meant(&app, &caller, target).await?;
        let names = Names { recipe_id, failure_type, status };
        simulation(
            &caller,
            &target,
            &names,
            &Values { max_age, keep, max_keep_age, no_max_keep_age, enabled, note: None },
        )
        .await
    };
    let groups = caller.with_level(Level::Monitor, simulate).await?;
    Ok(Json(Simulation { success: true, groups }))
}

/// Simulates a policy; it reads the table as a dry run does. Errors: 503 if too many do.
pub async fn simulation(
    caller: &Caller,
    target: &str,
    names: &Names,
    values: &Values,
) -> Result<Vec<Simulated>, Problem> {
    let _permit = caller.dry_run()?;
    Ok(policies::simulate(&mut *caller.begin().await?, target, names, values).await?)
}
