//! Runs that requests start: once per idempotency key, and only if what would be removed is what was confirmed. Knows no
//! route and no page.

mod job;
mod selection;

use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use backlog_cleanup_report::{Mode, Nouns, counted};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio_util::sync::CancellationToken;
use utoipa::ToSchema;

use crate::client::calls::{self, Raw, Trial};
use crate::serve::app::App;
use crate::serve::middleware::Caller;
use crate::serve::response::{Problem, bytes, read};
use crate::serve::shared::idempotency::{Answer, Begun, Fingerprint};
use job::{Done, Job};

pub use selection::Selection;

/// A run that continues in batches.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Accepted {
    success: bool,
    message: &'static str,
    run_id: i64,
    /// The address of the run
    location: String,
}

/// Removes the selected rows, once per key, if their number is what was expected. Waits for the end of the run no longer
/// than `patience`. Errors: 409, and those of the database.
pub async fn remove_once(
    mode: Mode,
    app: Arc<App>,
    caller: Caller,
    selection: Selection,
    expected_count: Option<i64>,
    key: Option<&str>,
    patience: Duration,
) -> Result<Answer, Problem> {
    let first = match key {
        Some(key) => match app.keys.begin(&caller.role, key, fingerprint(mode, &selection, expected_count))? {
            Begun::Again(answer) => return Ok(answer),
            Begun::First(first) => Some(first),
        },
        None => None,
    };
    let nobody_waits = CancellationToken::new();
    let _waits = nobody_waits.clone().drop_guard();
    // The run continues without its client; a client that repeats its key gets the answer.
    let work = tokio::spawn(async move {
        if expected_count.is_some() {
            trial(mode, Trial::DryRun, &caller, &selection, expected_count).await?;
        }
        let answer = match (Job { app, caller, mode, selection, nobody_waits }).run(patience).await? {
            Done::Report(report) => Answer { status: StatusCode::OK, location: None, body: bytes(report) },
            Done::Continues(run_id) => accepted(run_id),
        };
        if let Some(first) = first {
            first.keep(&answer);
        }
        Ok::<_, Problem>(answer)
    });
    work.await.map_err(|_| Problem::internal("the run's task panicked"))?
}

/// The rows that a dry run would remove, of a report of either mode.
#[derive(Deserialize)]
struct WouldRemove {
    #[serde(alias = "cleanedUpGenerations", alias = "removedCount")]
    rows: i64,
    #[serde(flatten)]
    nouns: Nouns,
}

/// Counts what a run would remove, or rehearses it; returns the report as the database wrote it. Errors: 409 if the number
/// differs from the expected one.
pub async fn trial(
    mode: Mode,
    trial: Trial,
    caller: &Caller,
    selection: &Selection,
    expected_count: Option<i64>,
) -> Result<Raw, Problem> {
    let _permit = caller.dry_run()?;
    let mut work = caller.begin().await?;
    let removal = match mode {
        Mode::Regular => calls::cleanup(&mut work, selection.as_call(), trial, false).await?,
        Mode::Emergency => calls::emergency(&mut work, selection.as_call(), trial, selection.include_held).await?,
    };
    let report: Raw = removal.report(&mut work).await?;
    drop(work);
    if let Some(expected) = expected_count {
        let WouldRemove { rows, nouns } = read(report.get().as_bytes())?;
        if differs(expected, rows) {
            let detail =
                format!("{} were confirmed, but {rows} would be removed now", counted(expected, &nouns.row_word));
            return Err(Problem::new(StatusCode::CONFLICT, detail)
                .hint("?dryRun=true shows what would be removed now")
                .with("expectedCount", expected)
                .with("actualCount", rows));
        }
    }
    Ok(report)
}

/// Whether a number of rows differs from the expected one by more than one row and by more than a tenth. From none, any differs.
fn differs(expected: i64, rows: i64) -> bool {
    let tolerated = (expected.unsigned_abs() / 10).max(1).min(expected.unsigned_abs());
    rows.abs_diff(expected) > tolerated
}

fn fingerprint(mode: Mode, selection: &Selection, expected_count: Option<i64>) -> Fingerprint {
    let request = serde_json::to_vec(&(mode, selection, expected_count)).expect("texts are JSON");
    Sha256::digest(request).into()
}

fn accepted(run_id: i64) -> Answer {
    let location = format!("/api/admin/backlog-cleanup/runs/{run_id}");
    let message = "The run continues in batches";
    let accepted = Accepted { success: true, message, run_id, location: location.clone() };
    let body = serde_json::to_vec(&accepted).expect("texts are JSON").into();
    Answer { status: StatusCode::ACCEPTED, location: Some(location), body }
}

#[cfg(test)]
mod tests {
    use super::differs;

    #[test]
    fn a_row_more_or_less_is_no_other_number() {
        for (expected, rows, is_other) in [
            (0, 0, false),
            (0, 1, true),
            (1, 2, false),
            (1, 0, false),
            (5, 6, false),
            (5, 4, false),
            (5, 7, true),
            (19, 21, true),
            (20, 22, false),
            (20, 23, true),
            (i64::MAX, 1, true),
        ] {
            assert_eq!(differs(expected, rows), is_other, "{expected} {rows}");
        }
    }
}
