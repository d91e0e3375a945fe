use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use backlog_cleanup_report::{Batched, EmergencyReport, RegularReport};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};
use tokio_util::sync::CancellationToken;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::idempotency::{self, Answer, Begun};
use super::job::{Done, Job};
use super::openapi::Problems;
use super::status::generations;
use super::{App, Caller, Level, Problem};

pub fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new().routes(routes!(run)).routes(routes!(emergency))
}

/// What is to be removed. A parameter that is not known is refused: it could be a mistyped `dryRun`.
#[derive(Clone, Deserialize, Serialize, IntoParams)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
pub struct Selection {
    /// A row of backlog_cleanup.target
    #[serde(default = "generations")]
    #[param(required = false)]
    pub target: String,
    /// Only rows of this recipe
    pub recipe_id: Option<String>,
    /// Only rows of this failure type
    pub failure_type: Option<String>,
    /// Count, and remove nothing
    #[serde(default)]
    #[param(required = false)]
    pub dry_run: bool,
}

/// What a person has confirmed.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Confirmation {
    /// How many rows were to go when it was confirmed: refused with 409 where it is another number by more than a tenth
    #[schema(minimum = 0)]
    expected_count: Option<i64>,
}

/// A run that goes on in batches.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Accepted {
    success: bool,
    message: &'static str,
    run_id: i64,
    /// Where to look how it goes
    location: String,
}

#[derive(Clone, Copy, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    #[default]
    Regular,
    Emergency,
}

impl Mode {
    pub fn name(self) -> &'static str {
        match self {
            Mode::Regular => "regular",
            Mode::Emergency => "emergency",
        }
    }

    fn dry_run(self) -> &'static str {
        match self {
            Mode::Regular => {
                "SELECT backlog_cleanup_failed_generations($1::text, $2::text, $3::text, dry_run => true)::text"
            }
            Mode::Emergency => "SELECT backlog_cleanup_emergency($1::text, $2::text, $3::text, dry_run => true)::text",
        }
    }

    /// The number of a report that a person confirms.
    fn count(self) -> &'static str {
        match self {
            Mode::Regular => "cleanedUpGenerations",
            Mode::Emergency => "removedCount",
        }
    }
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

/// Removes what is asked for, once per key, if what would go is what was expected; waits for the end no longer than
/// `patience`. Errors: 403, 409, and what the database refuses.
pub async fn confirmed(
    mode: Mode,
    app: Arc<App>,
    caller: Caller,
    selection: Selection,
    expected_count: Option<i64>,
    key: Option<&str>,
    patience: Duration,
) -> Result<Answer, Problem> {
    caller.at_least(Level::Operator)?;
    let first = match key {
        Some(key) => match app.keys.begin(&caller.role, key, fingerprint(mode, &selection, expected_count))? {
            Begun::Again(answer) => return Ok(answer),
            Begun::First(first) => Some(first),
        },
        None => None,
    };
    let nobody_waits = CancellationToken::new();
    let _waits = nobody_waits.clone().drop_guard();
    // It goes on when the client has gone, and a client that comes back with its key learns what happened.
    let work = tokio::spawn(async move {
        if expected_count.is_some() {
            dry_run(mode, &caller, &selection, expected_count).await?;
        }
        let answer = match (Job { app, caller, mode, selection, nobody_waits }).run(patience).await? {
            Done::Report(report) => Answer { status: StatusCode::OK, location: None, body: report.into() },
            Done::GoesOn(run_id) => accepted(run_id),
        };
        if let Some(first) = first {
            first.keep(&answer);
        }
        Ok::<_, Problem>(answer)
    });
    work.await.map_err(|_| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the run was lost"))?
}

/// What would go. Errors: 409 where it is not what was confirmed.
pub async fn dry_run(
    mode: Mode,
    caller: &Caller,
    selection: &Selection,
    expected_count: Option<i64>,
) -> Result<String, Problem> {
    let report: String = sqlx::query_scalar(mode.dry_run())
        .bind(&selection.target)
        .bind(&selection.recipe_id)
        .bind(&selection.failure_type)
        .fetch_one(&caller.pool)
        .await?;
    if let Some(expected) = expected_count {
        let count = serde_json::from_str::<Value>(&report).ok().and_then(|report| report[mode.count()].as_i64());
        let count = count.unwrap_or_default();
        if count.abs_diff(expected) > expected.unsigned_abs() / 10 {
            let detail = format!("{expected} rows were confirmed, and {count} would go now");
            return Err(Problem::new(StatusCode::CONFLICT, detail)
                .hint("?dryRun=true shows what would go now")
                .with("expectedCount", expected)
                .with("actualCount", count));
        }
    }
    Ok(report)
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

fn fingerprint(mode: Mode, selection: &Selection, expected_count: Option<i64>) -> [u8; 32] {
    let request = serde_json::to_vec(&(mode.name(), selection, expected_count)).expect("texts are JSON");
    Sha256::digest(request).into()
}

fn accepted(run_id: i64) -> Answer {
    let location = format!("/api/admin/backlog-cleanup/runs/{run_id}");
    let message = "The run goes on in batches";
    let accepted = Accepted { success: true, message, run_id, location: location.clone() };
    let body = serde_json::to_vec(&accepted).expect("texts are JSON").into();
    Answer { status: StatusCode::ACCEPTED, location: Some(location), body }
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        let mut response = (self.status, [(header::CONTENT_TYPE, "application/json")], self.body).into_response();
        if let Some(location) = self.location.and_then(|it| HeaderValue::try_from(it).ok()) {
            response.headers_mut().insert(header::LOCATION, location);
        }
        response
    }
}
