use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::http::HeaderMap;
use backlog_cleanup_report::Level;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::body::read_body;
use crate::client::alerts::{self, Alert, Rule, RuleValues};
use crate::client::{calls, deliveries, targets};
use crate::serve::app::App;
use crate::serve::middleware::Caller;
use crate::serve::response::{Problem, Problems, refused};

pub fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(acknowledge))
        .routes(routes!(snooze))
        .routes(routes!(rules))
        .routes(routes!(set_rule, drop_rule))
        .routes(routes!(channels))
        .routes(routes!(test))
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Which {
    /// Only alerts of this target, and of none
    target: Option<String>,
    /// Also those that have resolved
    #[serde(default)]
    #[param(required = false)]
    all: bool,
}

#[derive(Serialize, ToSchema)]
struct Alerts {
    success: bool,
    /// Newest first, at most 1000
    alerts: Vec<Alert>,
}

/// The alerts that are open.
#[utoipa::path(get, path = "/api/admin/backlog-cleanup/alerts", operation_id = "alerts", tag = "alerts", params(Which),
    responses((status = 200, description = "The alerts", body = Alerts), Problems))]
async fn list(caller: Caller, Query(which): Query<Which>) -> Result<Json<Alerts>, Problem> {
    let list = async {
        let mut work = caller.begin().await?;
        targets::known(&mut work, which.target.as_deref()).await?;
        Ok(alerts::list(&mut work, which.target.as_deref(), which.all).await?)
    };
    let alerts = caller.with_level(Level::Monitor, list).await?;
    Ok(Json(Alerts { success: true, alerts }))
}

#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Note {
    /// For people
    note: Option<String>,
}

#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Snooze {
    /// For how long, as PostgreSQL reads an interval: an hour by default
    interval: Option<String>,
    /// For people
    note: Option<String>,
}

#[derive(Serialize, ToSchema)]
struct Done {
    success: bool,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Snoozed {
    success: bool,
    snoozed_until: DateTime<Utc>,
}

/// Records that the caller has taken an alert on. An alert that has resolved is bad input.
#[utoipa::path(post, path = "/api/admin/backlog-cleanup/alerts/{id}/acknowledge", operation_id = "acknowledge_alert", tag = "alerts",
    params(("id" = i64, Path)), request_body(content = Option<Note>, content_type = "application/json"),
    responses((status = 200, description = "Recorded", body = Done), Problems))]
async fn acknowledge(
    caller: Caller,
    Path(id): Path<i64>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Json<Done>, Problem> {
    let Note { note } = read_body(&headers, &body, r#"{"note": "I look at it"}"#)?;
    take_on(&caller, id, note.as_deref()).await?;
    Ok(Json(Done { success: true }))
}

/// Takes an alert on, and says so in the log.
pub async fn take_on(caller: &Caller, id: i64, note: Option<&str>) -> Result<(), Problem> {
    let take_on = async {
        let mut work = caller.begin().await?;
        calls::acknowledge(&mut work, id, note).await.map_err(refused)?;
        Ok(work.commit().await?)
    };
    caller.with_level(Level::Operator, take_on).await?;
    tracing::info!(who = caller.who(), from = %caller.peer, alert = id, "alert is acknowledged");
    Ok(())
}

/// Keeps an alert from being told of for a while.
#[utoipa::path(post, path = "/api/admin/backlog-cleanup/alerts/{id}/snooze", operation_id = "snooze_alert", tag = "alerts",
    params(("id" = i64, Path)), request_body(content = Option<Snooze>, content_type = "application/json"),
    responses((status = 200, description = "Until when", body = Snoozed), Problems))]
async fn snooze(
    caller: Caller,
    Path(id): Path<i64>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Json<Snoozed>, Problem> {
    let Snooze { interval, note } = read_body(&headers, &body, r#"{"interval": "2 hours"}"#)?;
    let snoozed_until = put_off(&caller, id, interval.as_deref().unwrap_or("1 hour"), note.as_deref()).await?;
    Ok(Json(Snoozed { success: true, snoozed_until }))
}

/// Snoozes an alert, and says so in the log; returns until when.
pub async fn put_off(caller: &Caller, id: i64, interval: &str, note: Option<&str>) -> Result<DateTime<Utc>, Problem> {
    let put_off = async {
        let mut work = caller.begin().await?;
        let until = calls::snooze(&mut work, id, interval, note).await.map_err(refused)?;
        work.commit().await?;
        Ok(until)
    };
    let until = caller.with_level(Level::Operator, put_off).await?;
    tracing::info!(who = caller.who(), from = %caller.peer, alert = id, %until, "alert is snoozed");
    Ok(until)
}

#[derive(Serialize, ToSchema)]
struct Rules {
    success: bool,
    rules: Vec<Rule>,
}

#[derive(Serialize, ToSchema)]
struct OneRule {
    success: bool,
    #[serde(flatten)]
    rule: Rule,
}

#[derive(Serialize, ToSchema)]
struct DroppedRule {
    success: bool,
    /// False if there was none
    dropped: bool,
}

/// The rules by which alerts open and resolve.
#[utoipa::path(get, path = "/api/admin/backlog-cleanup/alert-rules", operation_id = "alert_rules", tag = "alerts",
    responses((status = 200, description = "The rules", body = Rules), Problems))]
async fn rules(caller: Caller) -> Result<Json<Rules>, Problem> {
    let rules = async { Ok(alerts::rules(&mut *caller.begin().await?).await?) };
    let rules = caller.with_level(Level::Monitor, rules).await?;
    Ok(Json(Rules { success: true, rules }))
}

/// Writes a rule; what the body does not have stays as it is. A new one takes kind and threshold.
#[utoipa::path(put, path = "/api/admin/backlog-cleanup/alert-rules/{name}", operation_id = "set_alert_rule", tag = "alerts",
    params(("name" = String, Path)), request_body(content = Option<RuleValues>, content_type = "application/json"),
    responses((status = 200, description = "The rule", body = OneRule), Problems))]
async fn set_rule(
    caller: Caller,
    Path(name): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Json<OneRule>, Problem> {
    let values: RuleValues = read_body(&headers, &body, r#"{"kind": "rows_in_scope", "threshold": 100000}"#)?;
    let set = async {
        let mut work = caller.begin().await?;
        let rule = alerts::set_rule(&mut work, &name, &values).await.map_err(refused)?;
        work.commit().await?;
        Ok(rule)
    };
    let rule = caller.with_level(Level::Admin, set).await?;
    tracing::info!(who = caller.who(), from = %caller.peer, rule = rule.name, "rule is written");
    Ok(Json(OneRule { success: true, rule }))
}

/// Removes a rule; its open alerts resolve with the next tick.
#[utoipa::path(delete, path = "/api/admin/backlog-cleanup/alert-rules/{name}", operation_id = "drop_alert_rule", tag = "alerts",
    params(("name" = String, Path)),
    responses((status = 200, description = "Whether there was one", body = DroppedRule), Problems))]
async fn drop_rule(caller: Caller, Path(name): Path<String>) -> Result<Json<DroppedRule>, Problem> {
    let drop = async {
        let mut work = caller.begin().await?;
        let dropped = alerts::drop_rule(&mut work, &name).await.map_err(refused)?;
        work.commit().await?;
        Ok(dropped)
    };
    let dropped = caller.with_level(Level::Admin, drop).await?;
    tracing::info!(who = caller.who(), from = %caller.peer, rule = name, dropped, "rule is dropped");
    Ok(Json(DroppedRule { success: true, dropped }))
}

#[derive(Serialize, ToSchema)]
struct Channels {
    success: bool,
    /// Those that servers have had
    channels: Vec<deliveries::State>,
    /// The names of those of this server
    here: Vec<String>,
}

/// The channels of alerts, and how the deliveries to them go. Their addresses are in the server's file only.
#[utoipa::path(get, path = "/api/admin/backlog-cleanup/channels", operation_id = "alert_channels", tag = "alerts",
    responses((status = 200, description = "The channels", body = Channels), Problems))]
async fn channels(State(app): State<Arc<App>>, caller: Caller) -> Result<Json<Channels>, Problem> {
    let states = async { Ok(deliveries::states(&mut *caller.begin().await?).await?) };
    let channels = caller.with_level(Level::Monitor, states).await?;
    let here = app.channels.borrow().channels.iter().map(|channel| channel.name.clone()).collect();
    Ok(Json(Channels { success: true, channels, here }))
}

#[derive(Serialize, ToSchema)]
struct Tested {
    success: bool,
    delivered: bool,
    /// Why not
    error: Option<String>,
}

/// Sends an alert that is none to a channel of this server, and its resolution.
#[utoipa::path(post, path = "/api/admin/backlog-cleanup/channels/{name}/test", operation_id = "test_alert_channel", tag = "alerts",
    params(("name" = String, Path)),
    responses((status = 200, description = "Whether it took the test", body = Tested), Problems))]
async fn test(State(app): State<Arc<App>>, caller: Caller, Path(name): Path<String>) -> Result<Json<Tested>, Problem> {
    let test = async {
        if caller.level < Level::Admin {
            return Err(Problem::forbidden("testing a channel takes a token of level admin"));
        }
        let channel = app.channels.borrow().find(&name)?;
        let sent = channel.test(&app.database()).await;
        Ok(sent.err().map(|failed| failed.why))
    };
    let error = caller.with_level(Level::Admin, test).await?;
    tracing::info!(who = caller.who(), from = %caller.peer, channel = name, delivered = error.is_none(), "channel is tested");
    Ok(Json(Tested { success: true, delivered: error.is_none(), error }))
}
