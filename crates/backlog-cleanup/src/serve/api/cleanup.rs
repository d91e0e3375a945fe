use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use backlog_cleanup_report::{Batched, EmergencyReport, RegularReport};
use serde::Deserialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::serve::access::Level;
use crate::serve::app::App;
use crate::serve::middleware::Caller;
use crate::serve::removal::{Accepted, Mode, Selection, confirmed, dry_run};
use crate::serve::response::{Problem, Problems};
use crate::serve::shared::idempotency;

pub fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new().routes(routes!(run)).routes(routes!(emergency))
}

/// What a person has confirmed.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Confirmation {
    /// How many rows were to go when it was confirmed: refused with 409 where it is another number by more than a tenth
    #[schema(minimum = 0)]
    expected_count: Option<i64>,
}

/// Removes the old failures beyond the newest of each recipe.
#[utoipa::path(post, path = "/api/admin/backlog-cleanup/run", tag = "cleanup",
    params(Selection,
           ("Idempotency-Key" = Option<String>, Header, min_length = 1, max_length = 255,
            description = "The same request again is answered as the first was"),
           ("Prefer" = Option<String>, Header, description = "respond-async: 202 as soon as the run has begun")),
    request_body(content = Option<Confirmation>, content_type = "application/json"),
    responses((status = 200, body = Batched<RegularReport>), (status = 202, body = Accepted), Problems))]
async fn run(
    State(app): State<Arc<App>>,
    caller: Caller,
    headers: HeaderMap,
    Query(selection): Query<Selection>,
    body: Bytes,
) -> Result<Response, Problem> {
    remove(Mode::Regular, app, caller, headers, selection, body).await
}

/// Removes every failed row of the account, whatever its age.
#[utoipa::path(post, path = "/api/admin/backlog-cleanup/emergency", tag = "cleanup",
    params(Selection,
           ("Idempotency-Key" = Option<String>, Header, min_length = 1, max_length = 255,
            description = "The same request again is answered as the first was"),
           ("Prefer" = Option<String>, Header, description = "respond-async: 202 as soon as the run has begun")),
    request_body(content = Option<Confirmation>, content_type = "application/json"),
    responses((status = 200, body = Batched<EmergencyReport>), (status = 202, body = Accepted), Problems))]
async fn emergency(
    State(app): State<Arc<App>>,
    caller: Caller,
    headers: HeaderMap,
    Query(selection): Query<Selection>,
    body: Bytes,
) -> Result<Response, Problem> {
    remove(Mode::Emergency, app, caller, headers, selection, body).await
}

async fn remove(
    mode: Mode,
    app: Arc<App>,
    caller: Caller,
    headers: HeaderMap,
    selection: Selection,
    body: Bytes,
) -> Result<Response, Problem> {
    let Confirmation { expected_count } = confirmation(&headers, &body)?;
    if selection.dry_run {
        caller.at_least(Level::Operator)?;
        let report = dry_run(mode, &caller, &selection, expected_count).await?;
        return Ok(([(header::CONTENT_TYPE, "application/json")], report).into_response());
    }
    let at_once = headers.get_all("prefer").iter().any(|it| it.to_str().is_ok_and(|it| it.contains("respond-async")));
    let patience = if at_once { Duration::ZERO } else { app.settings.request_timeout };
    let key = idempotency::key(&headers)?;
    Ok(confirmed(mode, app, caller, selection, expected_count, key, patience).await?.into_response())
}

fn confirmation(headers: &HeaderMap, body: &[u8]) -> Result<Confirmation, Problem> {
    if body.trim_ascii().is_empty() {
        return Ok(Confirmation::default());
    }
    let is_json = headers
        .get(header::CONTENT_TYPE)
        .and_then(|it| it.to_str().ok())
        .is_some_and(|it| it.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("application/json"));
    if !is_json {
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "the body is not application/json"));
    }
    let confirmation: Confirmation = serde_json::from_slice::<Option<Confirmation>>(body)
        .map_err(|error| {
            Problem::bad_request(format!("the body is not what is expected: {error}")).hint(r#"{"expectedCount": 100}"#)
        })?
        .unwrap_or_default();
    match confirmation.expected_count {
        Some(..0) => Err(Problem::bad_request("expectedCount is below 0")),
        _ => Ok(confirmation),
    }
}
