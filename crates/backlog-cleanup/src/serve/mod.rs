//! The HTTP server: puts routes and layers together. Nothing in this folder imports this file.

mod access;
mod api;
mod app;
mod counting;
mod dashboard;
mod delivery;
mod listen;
mod metrics;
mod middleware;
mod removal;
mod response;
mod settings;
mod shared;

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::StatusCode;
use axum::middleware::{from_fn, from_fn_with_state, map_response, map_response_with_state};
use axum::response::IntoResponse;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::timeout::TimeoutLayer;

use crate::client::connect::Server;
use crate::client::history;
use crate::failure::Result;
use crate::serve::access::PATIENCE;
use crate::serve::app::App;
use crate::serve::middleware::{guard, headers, limit, log};
use crate::serve::response::{Problem, as_problem};

pub use settings::Settings;

/// All routes, and the layers around them; a request passes the last one first.
fn router(app: &Arc<App>) -> Router {
    let (routes, document) = api::routes().split_for_parts();
    api::openapi::DOCUMENT.get_or_init(|| document.to_json().expect("a document is JSON"));
    routes
        .merge(dashboard::routes())
        .fallback(|| async { Problem::not_found("this address does not exist") })
        // Long enough for a shared query that waits for the one before it. A run continues after its request has timed out.
        .layer(TimeoutLayer::with_status_code(
            StatusCode::GATEWAY_TIMEOUT,
            2 * app.settings.request_timeout + 5 * PATIENCE,
        ))
        .layer(from_fn_with_state(Arc::clone(app), limit::limit))
        .layer(DefaultBodyLimit::max(limit::BODY))
        .layer(from_fn_with_state(Arc::clone(app), guard::guard))
        .layer(map_response(as_problem))
        .layer(from_fn(dashboard::as_page))
        .layer(map_response_with_state(Arc::clone(app), headers::headers))
        .layer(from_fn(log::log))
        .layer(CatchPanicLayer::custom(|_| Problem::internal("the server panicked").into_response()))
        .with_state(Arc::clone(app))
}

/// Serves until a signal stops the process, and finishes running requests. Errors: the settings; the address; a database
/// that answers, and lacks what is needed.
pub async fn serve(settings: Settings, server: &Server) -> Result<()> {
    log::start(settings.log_json);
    let app = Arc::new(App::new(settings, server)?);
    let keyring = app.keyring();
    keyring.check().await?;
    if app.settings.insecure_no_auth {
        let role = keyring.lowest().who();
        tracing::warn!(role, "without tokens everybody on this machine can remove rows and change the schedule");
    }
    let running = async { history::running(&mut *keyring.lowest().begin_reserved().await?).await };
    for run in running.await.unwrap_or_default() {
        tracing::info!(run = run.id, target_name = run.target, mode = run.mode.as_str(), "run is in progress");
    }
    tokio::spawn(counting::count(Arc::clone(&app)));
    tokio::spawn(delivery::deliver(Arc::clone(&app)));
    listen::listen(&app, router(&app)).await
}
