use std::sync::Arc;
use std::time::Duration;

use axum::Form;
use axum::extract::State;
use axum::response::Redirect;
use serde::Deserialize;

use super::actions::Asked;
use super::data;
use super::query::Query;
use crate::serve::app::App;
use crate::serve::middleware::Caller;
use crate::serve::removal::{Mode, confirmed};
use crate::serve::response::Problem;

/// How long it waits for the end of a run; of a longer one the page shows the progress.
const PATIENCE: Duration = Duration::from_secs(1);

/// What the form of a preview sends.
#[derive(Deserialize)]
pub struct Confirmation {
    target: String,
    mode: Mode,
    recipe: String,
    failure_type: String,
    expected_count: i64,
    idempotency_key: String,
    /// What was typed before an emergency run.
    #[serde(default)]
    account: String,
}

/// The report of a run that has ended, or what is said of one that goes on.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Begun {
    run_id: i64,
}

/// Removes what was previewed, and shows the run. Errors: those of the admin API; 400 where the account's name is wrong.
pub async fn run(
    State(app): State<Arc<App>>,
    caller: Caller,
    Form(confirmation): Form<Confirmation>,
) -> Result<Redirect, Problem> {
    let Confirmation { target, mode, recipe, failure_type, expected_count, idempotency_key, account } = confirmation;
    if mode == Mode::Emergency {
        let (typed, account) = (account.trim(), data::account(&caller.pool, &target).await?);
        if typed != account {
            let detail = format!("\"{typed}\" is not the account’s name; nothing was removed");
            return Err(Problem::bad_request(detail).hint(account));
        }
    }
    let selection = Asked { target: target.clone(), mode, recipe, failure_type }.selection();
    let answer =
        confirmed(mode, app, caller, selection, Some(expected_count), Some(&idempotency_key), PATIENCE).await?;
    let begun: Begun = serde_json::from_slice(&answer.body)
        .map_err(|error| Problem::internal(format!("the answer could not be read: {error}")))?;
    Ok(Redirect::to(&Query { target, asked: Some(begun.run_id), ..Query::default() }.link(|_| ())))
}
