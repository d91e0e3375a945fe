use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{Query, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use backlog_cleanup_report::{Batched, EmergencyReport, Level, Mode, RegularReport};
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::body::read_body;
use super::target::meant;
use crate::client::calls::Trial;
use crate::serve::app::App;
use crate::serve::middleware::Caller;
use crate::serve::removal::{Accepted, Selection, remove_once, trial};
use crate::serve::response::{Problem, Problems, bytes, json};
use crate::serve::shared::idempotency;

pub fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new().routes(routes!(run)).routes(routes!(emergency))
}

/// What was confirmed.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Confirmation {
    /// The confirmed number of rows; 409 if the run would remove a number that differs by more than one row and by more than a tenth
    #[schema(minimum = 0)]
    expected_count: Option<i64>,
}

/// The rows to remove. Unknown parameters are refused: one could be a mistyped `dryRun`.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
struct Asked {
    /// Name of the target, a row of backlog_cleanup.target: by default generations, or the only one with a table
    target: Option<String>,
    /// Only rows of this recipe
    recipe_id: Option<String>,
    /// Only rows of this failure type
    failure_type: Option<String>,
    /// Only rows of this status
    status: Option<String>,
    /// Count the rows, remove nothing
    #[serde(default)]
    #[param(required = false)]
    dry_run: bool,
    /// Remove the rows and roll it back: tells what would be kept back, how long it takes and how much WAL it writes
    #[serde(default)]
    #[param(required = false)]
    rehearse: bool,
    /// Of an emergency run: remove also what policies hold
    #[serde(default)]
    #[param(required = false)]
    include_held: bool,
}

/// The headers of a request that removes.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[allow(dead_code)] // only described; the handlers read the headers themselves
struct Headers {
    /// The same request again is answered as the first was
    #[param(rename = "Idempotency-Key", min_length = 1, max_length = 255)]
    idempotency_key: Option<String>,
    /// respond-async: 202 as soon as the run has begun
    #[param(rename = "Prefer")]
    prefer: Option<String>,
}

/// Removes the removable rows: those in scope from before the cutoff, except the newest of each recipe.
#[utoipa::path(post, path = "/api/admin/backlog-cleanup/run", tag = "cleanup", params(Asked, Headers),
    request_body(content = Option<Confirmation>, content_type = "application/json"),
    responses((status = 200, description = "The report", body = Batched<RegularReport>),
              (status = 202, description = "The run continues", body = Accepted), Problems))]
async fn run(app: State<Arc<App>>, caller: Caller, headers: HeaderMap, asked: Query<Asked>, body: Bytes) -> Answered {
    remove(Mode::Regular, app, caller, headers, asked, body).await
}

/// Removes all rows in scope, including recent ones.
#[utoipa::path(post, path = "/api/admin/backlog-cleanup/emergency", tag = "cleanup", params(Asked, Headers),
    request_body(content = Option<Confirmation>, content_type = "application/json"),
    responses((status = 200, description = "The report", body = Batched<EmergencyReport>),
              (status = 202, description = "The run continues", body = Accepted), Problems))]
async fn emergency(
    app: State<Arc<App>>,
    caller: Caller,
    headers: HeaderMap,
    asked: Query<Asked>,
    body: Bytes,
) -> Answered {
    remove(Mode::Emergency, app, caller, headers, asked, body).await
}

type Answered = Result<Response, Problem>;

async fn remove(
    mode: Mode,
    State(app): State<Arc<App>>,
    caller: Caller,
    headers: HeaderMap,
    Query(asked): Query<Asked>,
    body: Bytes,
) -> Answered {
    let Confirmation { expected_count } = confirmation(&headers, &body)?;
    if asked.include_held && mode != Mode::Emergency {
        return Err(Problem::bad_request("only an emergency run removes what policies hold")
            .hint("POST /api/admin/backlog-cleanup/emergency?includeHeld=true"));
    }
    let tries = match (asked.dry_run, asked.rehearse) {
        (true, true) => return Err(Problem::bad_request("dryRun and rehearse exclude each other").hint("?dryRun=true")),
        (true, false) => Some(Trial::DryRun),
        (false, true) => Some(Trial::Rehearsal),
        (false, false) => None,
    };
    let at_once = headers.get_all("prefer").iter().any(|it| it.to_str().is_ok_and(|it| it.contains("respond-async")));
    let patience = if at_once { Duration::ZERO } else { app.settings.request_timeout };
    let key = idempotency::key(&headers)?;
    let work = async {
        let target = meant(&app, &caller, asked.target).await?;
        let Asked { recipe_id, failure_type, status, include_held, .. } = asked;
        let selection = Selection { target, recipe_id, failure_type, status, include_held };
        match tries {
            Some(tries) => Ok(json(bytes(trial(mode, tries, &caller, &selection, expected_count).await?))),
            None => {
                let caller = caller.clone();
                Ok(remove_once(mode, app, caller, selection, expected_count, key, patience).await?.into_response())
            }
        }
    };
    caller.with_level(Level::Operator, work).await
}

fn confirmation(headers: &HeaderMap, body: &[u8]) -> Result<Confirmation, Problem> {
    let confirmation: Confirmation = read_body(headers, body, r#"{"expectedCount": 100}"#)?;
    match confirmation.expected_count {
        Some(..0) => Err(Problem::bad_request("expectedCount must not be negative")),
        _ => Ok(confirmation),
    }
}
