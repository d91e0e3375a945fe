use axum::Form;
use axum::extract::Path;
use axum::response::Redirect;
use serde::Deserialize;

use super::query::Query;
use crate::serve::api::runs;
use crate::serve::middleware::Caller;
use crate::serve::response::Problem;

#[derive(Deserialize)]
pub struct Stop {
    target: String,
    run: i64,
}

/// Asks a run to stop, whose current batch ends early, and shows it. Errors: those of the admin API.
pub async fn stop(caller: Caller, Form(Stop { target, run }): Form<Stop>) -> Result<Redirect, Problem> {
    runs::stop(caller, Path(run)).await.map(drop)?;
    Ok(Redirect::to(&Query { target, asked: Some(run), ..Query::default() }.link(|_| ())))
}
