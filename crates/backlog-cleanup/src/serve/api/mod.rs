//! The HTTP API: one file a resource, each route beside its handler. Knows no page.

pub mod alerts;
mod analytics;
mod body;
mod cleanup;
pub mod doctor;
mod explain;
mod health;
mod login;
mod metrics;
pub mod openapi;
pub mod policies;
mod progress;
pub mod runs;
pub mod status;
pub mod target;
pub mod targets;

use std::sync::Arc;

use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;

use crate::serve::app::App;

/// The routes that `/api/openapi.json` describes.
pub fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::with_openapi(openapi::Base::openapi())
        .merge(status::routes())
        .merge(cleanup::routes())
        .merge(runs::routes())
        .merge(progress::routes())
        .merge(doctor::routes())
        .merge(targets::routes())
        .merge(policies::routes())
        .merge(explain::routes())
        .merge(alerts::routes())
        .merge(analytics::routes())
        .merge(login::routes())
        .merge(metrics::routes())
        .merge(health::routes())
        .merge(openapi::routes())
}
