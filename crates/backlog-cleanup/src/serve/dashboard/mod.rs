//! The dashboard at `/`: a file for each section, each a pure function of [`Data`]. Knows nothing of the router around it.

mod actions;
mod assets;
mod chart;
mod data;
mod failures;
mod health;
mod login;
mod next;
mod page;
mod preview;
mod progress;
mod query;
mod recipes;
mod refusal;
mod removals;
mod run;
mod runs;
mod stop;
mod times;

use std::sync::Arc;

use axum::Router;
use axum::extract::{Query, State};
use axum::routing::{get, post};
use backlog_cleanup_report::Level;
use maud::Markup;

use crate::serve::app::App;
use crate::serve::middleware::Caller;
use crate::serve::response::Problem;
use data::Data;
use page::Viewer;
pub use refusal::as_page;

pub fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/", get(dashboard))
        .route("/preview", get(preview::preview))
        .route("/run", post(run::run))
        .route("/stop", post(stop::stop))
        .route("/login", get(login::form))
        .merge(assets::routes())
}

async fn dashboard(
    State(app): State<Arc<App>>,
    caller: Caller,
    Query(query): Query<query::Query>,
) -> Result<Markup, Problem> {
    let data = caller.with_level(Level::Monitor, Data::read(&app, &caller, query)).await?;
    Ok(page::dashboard(&data, &Viewer::of(&app, &caller)))
}
