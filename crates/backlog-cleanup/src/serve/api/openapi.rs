use std::sync::{Arc, OnceLock};

use axum::response::Response;
use utoipa::openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::serve::access::sessions::cookie;
use crate::serve::app::App;
use crate::serve::response::{Problem, Problems, json};

/// The document, set once the router is complete.
pub static DOCUMENT: OnceLock<String> = OnceLock::new();

#[derive(OpenApi)]
#[openapi(
    info(
        title = "backlog-cleanup",
        description = "The admin API of the PostgreSQL extension backlog_cleanup, which removes old rows from a table of jobs."
    ),
    components(schemas(Problem)),
    modifiers(&Credentials),
    security(("token" = []), ("session" = []))
)]
pub struct Base;

struct Credentials;

impl Modify for Credentials {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        if let Some(components) = &mut document.components {
            let token = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build();
            components.add_security_scheme("token", SecurityScheme::Http(token));
            let session = ApiKey::Cookie(ApiKeyValue::new(cookie(false)));
            components.add_security_scheme("session", SecurityScheme::ApiKey(session));
        }
    }
}

pub fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new().routes(routes!(document))
}

/// This document.
#[utoipa::path(get, path = "/api/openapi.json", tag = "health", security(()),
    responses((status = 200, description = "The document", content_type = "application/json", body = Object), Problems))]
async fn document() -> Response {
    json(DOCUMENT.get().map(String::as_str).unwrap_or_default().into())
}
