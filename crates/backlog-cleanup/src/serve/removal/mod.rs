//! A run that a request asks for: once per key, only what was confirmed, to its end. Knows no route and no page.

mod job;
mod selection;

use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use serde::Serialize;
use serde_json::Value;
use sha2::{Digest, Sha256};
use tokio_util::sync::CancellationToken;
use utoipa::ToSchema;

use crate::serve::access::Level;
use crate::serve::app::App;
use crate::serve::middleware::Caller;
use crate::serve::response::Problem;
use crate::serve::shared::idempotency::{Answer, Begun, Fingerprint};
use job::{Done, Job};

pub use job::ask_to_stop;
pub use selection::{Mode, Selection, default_target};

/// A run that goes on in batches.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Accepted {
    success: bool,
    message: &'static str,
    run_id: i64,
    /// Where to look how it goes
    location: String,
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

fn fingerprint(mode: Mode, selection: &Selection, expected_count: Option<i64>) -> Fingerprint {
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
