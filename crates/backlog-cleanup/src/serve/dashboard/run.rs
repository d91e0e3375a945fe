use std::sync::Arc;
use std::time::Duration;

use axum::Form;
use axum::extract::State;
use axum::response::Redirect;
use backlog_cleanup_report::{Level, Mode};
use serde::Deserialize;

use super::actions::Asked;
use super::data;
use super::query::Query;
use crate::client::targets::Confirming;
use crate::serve::app::App;
use crate::serve::middleware::Caller;
use crate::serve::removal::remove_once;
use crate::serve::response::{Problem, read};
use crate::serve::shared::idempotency;

/// The longest wait for the end of a run; the page shows the progress of a longer one.
const PATIENCE: Duration = Duration::from_secs(1);

/// The form of a preview.
#[derive(Deserialize)]
pub struct Confirmation {
    target: String,
    mode: Mode,
    recipe: String,
    failure_type: String,
    status: String,
    #[serde(default)]
    include_held: bool,
    expected_count: i64,
    idempotency_key: String,
    /// Typed before an emergency run.
    #[serde(default)]
    account: String,
}

/// The report of a run, or the answer for one that continues.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Begun {
    run_id: i64,
}

/// Removes what was previewed, and shows the run. Errors: those of the admin API; 400 for another name than the one that confirms it.
pub async fn run(
    State(app): State<Arc<App>>,
    caller: Caller,
    Form(confirmation): Form<Confirmation>,
) -> Result<Redirect, Problem> {
    let Confirmation { target, mode, recipe, failure_type, status, include_held, expected_count, .. } = confirmation;
    let Confirmation { idempotency_key, account, .. } = confirmation;
    let key = idempotency::valid(&idempotency_key)?;
    if mode == Mode::Emergency {
        let (typed, Confirming { what, name }) = (account.trim(), data::confirming(&caller, &target).await?);
        if typed != name {
            let detail = format!("\"{typed}\" is not the {what}’s name; nothing was removed");
            return Err(Problem::bad_request(detail).hint(name));
        }
    }
    let asked = Asked { target: target.clone(), mode, recipe, failure_type, status, include_held };
    let work = remove_once(mode, app, caller.clone(), asked.selection(), Some(expected_count), Some(key), PATIENCE);
    let answer = caller.with_level(Level::Operator, work).await?;
    let begun: Begun = read(&answer.body)?;
    Ok(Redirect::to(&Query { target, asked: Some(begun.run_id), ..Query::default() }.link(|_| ())))
}
