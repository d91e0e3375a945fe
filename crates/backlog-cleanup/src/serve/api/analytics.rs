use std::sync::Arc;

use axum::Json;
use axum::extract::{Query, State};
use backlog_cleanup_report::Level;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::target::{Target, meant};
use crate::client::analytics::{self, Grain, Hour, Sample, Tick};
use crate::client::{calls, targets};
use crate::serve::app::App;
use crate::serve::middleware::Caller;
use crate::serve::response::{Problem, Problems};

pub fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new()
        .routes(routes!(samples))
        .routes(routes!(report))
        .routes(routes!(quiet_hours))
        .routes(routes!(ticks))
        .routes(routes!(tick))
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Series {
    /// Name of the target, a row of backlog_cleanup.target: by default generations, or the only one with a table
    target: Option<String>,
    /// fine (a tick, two days), hour (90 days) or day (three years), UTC
    #[serde(default)]
    #[param(required = false, inline)]
    grain: Grain,
    /// Number of samples
    #[serde(default = "many")]
    #[param(required = false, minimum = 1, maximum = 3000, default = 168)]
    limit: i64,
}

fn many() -> i64 {
    168
}

#[derive(Serialize, ToSchema)]
struct Samples {
    success: bool,
    /// Oldest first
    samples: Vec<Sample>,
}

/// How a target was over time, for charts.
#[utoipa::path(get, path = "/api/admin/backlog-cleanup/samples", tag = "analytics", params(Series),
    responses((status = 200, description = "The series", body = Samples), Problems))]
async fn samples(
    State(app): State<Arc<App>>,
    caller: Caller,
    Query(Series { target, grain, limit }): Query<Series>,
) -> Result<Json<Samples>, Problem> {
    if !(1..=3000).contains(&limit) {
        return Err(Problem::bad_request("limit must be from 1 to 3000"));
    }
    let read = async {
        let target = meant(&app, &caller, target).await?;
        let mut work = caller.begin().await?;
        targets::known(&mut work, Some(&target)).await?;
        Ok(analytics::samples(&mut work, &target, grain, limit).await?)
    };
    let samples = caller.with_level(Level::Monitor, read).await?;
    Ok(Json(Samples { success: true, samples }))
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Page {
    /// Name of the target, a row of backlog_cleanup.target: by default generations, or the only one with a table
    target: Option<String>,
    /// How far back, as PostgreSQL reads an interval, from 1 hour to 3 years
    #[serde(default = "week")]
    #[param(required = false, default = "7 days")]
    since: String,
    /// text or markdown
    #[serde(default = "text")]
    #[param(required = false, default = "text")]
    format: String,
}

fn week() -> String {
    calls::WEEK.into()
}

fn text() -> String {
    "text".into()
}

#[derive(Serialize, ToSchema)]
struct Report {
    success: bool,
    report: String,
}

/// What has happened to a target, on one page.
#[utoipa::path(get, path = "/api/admin/backlog-cleanup/report", tag = "analytics", params(Page),
    responses((status = 200, description = "The report", body = Report), Problems))]
async fn report(
    State(app): State<Arc<App>>,
    caller: Caller,
    Query(Page { target, since, format }): Query<Page>,
) -> Result<Json<Report>, Problem> {
    let read = async {
        let target = meant(&app, &caller, target).await?;
        Ok(calls::report(&mut *caller.begin().await?, &since, &target, &format).await?)
    };
    let report = caller.with_level(Level::Monitor, read).await?;
    Ok(Json(Report { success: true, report }))
}

#[derive(Serialize, ToSchema)]
struct QuietHours {
    success: bool,
    hours: Vec<Hour>,
}

/// How busy the database is at each hour of the day and of the week.
#[utoipa::path(get, path = "/api/admin/backlog-cleanup/quiet-hours", tag = "analytics", params(Target),
    responses((status = 200, description = "The hours", body = QuietHours), Problems))]
async fn quiet_hours(
    State(app): State<Arc<App>>,
    caller: Caller,
    Query(Target { target }): Query<Target>,
) -> Result<Json<QuietHours>, Problem> {
    let read = async {
        let target = meant(&app, &caller, target).await?;
        Ok(analytics::quiet_hours(&mut *caller.begin().await?, &target).await?)
    };
    let hours = caller.with_level(Level::Monitor, read).await?;
    Ok(Json(QuietHours { success: true, hours }))
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Last {
    /// Number of ticks
    #[serde(default = "last")]
    #[param(required = false, minimum = 1, maximum = 1000, default = 12)]
    limit: i64,
}

fn last() -> i64 {
    12
}

#[derive(Serialize, ToSchema)]
struct Ticks {
    success: bool,
    /// Newest first
    ticks: Vec<Tick>,
}

/// The last ticks.
#[utoipa::path(get, path = "/api/admin/backlog-cleanup/ticks", tag = "analytics", params(Last),
    responses((status = 200, description = "The ticks", body = Ticks), Problems))]
async fn ticks(caller: Caller, Query(Last { limit }): Query<Last>) -> Result<Json<Ticks>, Problem> {
    if !(1..=1000).contains(&limit) {
        return Err(Problem::bad_request("limit must be from 1 to 1000"));
    }
    let read = async { Ok(analytics::ticks(&mut *caller.begin().await?, limit).await?) };
    let ticks = caller.with_level(Level::Monitor, read).await?;
    Ok(Json(Ticks { success: true, ticks }))
}

#[derive(Serialize, ToSchema)]
struct Ticked {
    success: bool,
    /// What the tick did: tick, milliseconds, skipped, steps
    #[schema(value_type = Object)]
    tick: Value,
}

/// Ticks once, as the job does every five minutes.
#[utoipa::path(post, path = "/api/admin/backlog-cleanup/tick", tag = "analytics",
    responses((status = 200, description = "What it did", body = Ticked), Problems))]
async fn tick(caller: Caller) -> Result<Json<Ticked>, Problem> {
    let tick = async {
        let mut work = caller.begin().await?;
        let tick = analytics::tick(&mut work).await?;
        work.commit().await?;
        Ok(tick)
    };
    let tick = caller.with_level(Level::Operator, tick).await?;
    Ok(Json(Ticked { success: true, tick }))
}
