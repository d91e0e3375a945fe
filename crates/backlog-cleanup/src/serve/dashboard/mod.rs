//! The dashboard at `/`: a file for each section, each a pure function of [`Data`]. Knows nothing of the router around it.

mod actions;
mod alerts;
mod assets;
mod chart;
mod data;
mod drop;
mod explain;
mod failures;
mod glance;
mod health;
mod login;
mod names;
mod next;
mod page;
mod policies;
mod preview;
mod progress;
mod query;
mod recipes;
mod refusal;
mod removals;
mod report;
mod run;
mod runs;
mod simulate;
mod stop;
mod target_form;
mod targets;
mod times;
mod trend;

use std::sync::Arc;

use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Router};
use backlog_cleanup_report::Level;

use crate::serve::app::App;
use crate::serve::middleware::Caller;
use data::{Data, Tabs};
use glance::Glance;
use page::Viewer;
use refusal::Around;
pub use refusal::as_page;

pub fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/", get(dashboard))
        .route("/preview", get(preview::preview))
        .route("/run", post(run::run))
        .route("/simulate", get(simulate::simulate))
        .route("/policy", post(simulate::set))
        .route("/drop", get(drop::ask).post(drop::drop))
        .route("/explain", get(explain::explain))
        .route("/targets", get(targets::list))
        .route("/target", get(targets::show).post(target_form::write))
        .route("/target/form", get(target_form::form))
        .route("/target/drop", get(target_form::ask).post(target_form::drop))
        .route("/stop", post(stop::stop))
        .route("/alert", post(alerts::act))
        .route("/report", get(report::report))
        .route("/login", get(login::form))
        .merge(assets::routes())
}

async fn dashboard(State(app): State<Arc<App>>, caller: Caller, Query(query): Query<query::Query>) -> Response {
    let viewer = Viewer::of(&app, &caller);
    let target = query.target.clone();
    if query.is_first()
        && let Ok(Some(glance)) = caller.with_level(Level::Monitor, Glance::read(&app, &caller, &query)).await
    {
        return glance.page(&viewer).into_response();
    }
    match caller.with_level(Level::Monitor, Data::read(&app, &caller, query)).await {
        Ok(data) => page::dashboard(&data, &viewer).into_response(),
        Err(problem) => {
            // A target that cannot be read is no reason not to find the others.
            let tabs = Tabs::read(&app, &caller).await.unwrap_or_default();
            (Extension(Around { viewer, tabs, target }), problem).into_response()
        }
    }
}
