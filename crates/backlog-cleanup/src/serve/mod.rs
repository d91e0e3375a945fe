//! The HTTP server: one file a concept, each route beside its handler in a `routes()` of its file.

mod auth;
mod cleanup;
mod dashboard;
mod doctor;
mod flight;
mod guard;
mod headers;
mod health;
mod idempotency;
mod job;
mod limit;
mod listen;
mod log;
mod metrics;
mod openapi;
mod problem;
mod progress;
mod runs;
mod session;
mod settings;
mod state;
mod status;
mod tokens;

use std::sync::Arc;

use axum::Router;
use axum::http::StatusCode;
use axum::middleware::{from_fn, from_fn_with_state, map_response};
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::timeout::TimeoutLayer;
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;

use crate::connect::Server;
use crate::failure::Result;

pub use auth::{Caller, Level};
pub use problem::Problem;
pub use settings::Settings;
pub use state::App;

/// What `/api/openapi.json` describes.
fn api() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::with_openapi(openapi::Base::openapi())
        .merge(status::routes())
        .merge(cleanup::routes())
        .merge(runs::routes())
        .merge(progress::routes())
        .merge(doctor::routes())
        .merge(session::routes())
        .merge(metrics::routes())
        .merge(health::routes())
        .merge(openapi::routes())
}

/// All routes, and around them what each request passes; the last is the first that it meets.
fn router(app: &Arc<App>) -> Router {
    let (routes, document) = api().split_for_parts();
    openapi::DOCUMENT.get_or_init(|| document.to_json().expect("a document is JSON"));
    routes
        .merge(dashboard::routes())
        .fallback(|| async { Problem::not_found("there is nothing at this address") })
        // Whoever shares a query may have waited for the one before it; a run that is not known by then goes on.
        .layer(TimeoutLayer::with_status_code(
            StatusCode::GATEWAY_TIMEOUT,
            2 * app.settings.request_timeout + 5 * state::PATIENCE,
        ))
        .layer(from_fn_with_state(Arc::clone(app), limit::limit))
        .layer(from_fn_with_state(Arc::clone(app), guard::guard))
        .layer(CatchPanicLayer::custom(|_| {
            axum::response::IntoResponse::into_response(Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "a panic"))
        }))
        .layer(map_response(problem::as_problem))
        .layer(from_fn(dashboard::as_page))
        .layer(map_response(headers::headers))
        .layer(from_fn(log::log))
        .with_state(Arc::clone(app))
}

/// Serves until the process is told to stop, and has finished what it was at. Errors: settings, the address, and a
/// database that is there and has not what is needed.
pub async fn serve(settings: Settings, server: &Server) -> Result<()> {
    log::start(settings.log_json);
    let app = Arc::new(App::new(settings, server)?);
    for access in &app.accesses {
        match access.check().await {
            // It comes back.
            Err(failure) if failure.sqlstate.as_deref() == Some("08006") => {
                tracing::warn!(role = access.role, "the database is away: {}", failure.message);
            }
            checked => checked?,
        }
    }
    tokio::spawn(metrics::count(Arc::clone(&app)));
    listen::listen(&app, router(&app)).await
}
