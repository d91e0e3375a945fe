//! The HTTP server: one file a concept, each route beside its handler in a `routes()` of its file.

#[path = "middleware/caller.rs"]
mod auth;
#[path = "api/cleanup.rs"]
mod cleanup;
mod dashboard;
#[path = "api/doctor.rs"]
mod doctor;
#[path = "shared/flights.rs"]
mod flight;
#[path = "middleware/guard.rs"]
mod guard;
#[path = "middleware/headers.rs"]
mod headers;
#[path = "api/health.rs"]
mod health;
#[path = "shared/idempotency.rs"]
mod idempotency;
#[path = "removal/job.rs"]
mod job;
#[path = "shared/limits.rs"]
mod limit;
mod listen;
#[path = "middleware/log.rs"]
mod log;
mod metrics;
#[path = "api/openapi.rs"]
mod openapi;
#[path = "response/problem.rs"]
mod problem;
#[path = "api/progress.rs"]
mod progress;
#[path = "api/runs.rs"]
mod runs;
#[path = "api/login.rs"]
mod session;
mod settings;
#[path = "app.rs"]
mod state;
#[path = "api/status.rs"]
mod status;
#[path = "access/tokens.rs"]
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
