use std::sync::Arc;

use axum::Form;
use axum::extract::{Path, State};
use axum::response::Redirect;
use serde::Deserialize;

use super::query::Query;
use crate::serve::api::runs;
use crate::serve::app::App;
use crate::serve::middleware::Caller;
use crate::serve::response::Problem;

/// Which run is to stop.
#[derive(Deserialize)]
pub struct Stop {
    target: String,
    run: i64,
}

/// Asks a run to stop between two batches, and shows it. Errors: those of the admin API.
pub async fn stop(
    app: State<Arc<App>>,
    caller: Caller,
    Form(Stop { target, run }): Form<Stop>,
) -> Result<Redirect, Problem> {
    runs::stop(app, caller, Path(run)).await.map(drop)?;
    Ok(Redirect::to(&Query { target, asked: Some(run), ..Query::default() }.link(|_| ())))
}
