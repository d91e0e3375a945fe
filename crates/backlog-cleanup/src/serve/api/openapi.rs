use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use axum::response::Response;
use utoipa::openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{ContentBuilder, Ref, RefOr, ResponseBuilder};
use utoipa::{IntoResponses, Modify, OpenApi};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::status::json;
use super::{App, Problem};

/// The document, as soon as the router is complete.
pub static DOCUMENT: OnceLock<String> = OnceLock::new();

#[derive(OpenApi)]
#[openapi(
    info(
        title = "backlog-cleanup",
        description = "Keeps a table of job attempts from filling up with failures: the admin API of the PostgreSQL extension backlog_cleanup."
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
            let session = ApiKey::Cookie(ApiKeyValue::new("backlog_cleanup_session"));
            components.add_security_scheme("session", SecurityScheme::ApiKey(session));
        }
    }
}

/// What any request may be answered instead.
pub struct Problems;

const PROBLEMS: [(&str, &str); 14] = [
    ("400", "Bad input"),
    ("401", "Neither a token nor a session"),
    ("403", "Not allowed at this level, or from another site's page"),
    ("404", "There is no such target or run"),
    ("405", "Another method"),
    ("408", "The body did not come in time"),
    ("409", "Another run is in progress, or what was confirmed is not what would go"),
    ("413", "The body is too long"),
    ("415", "The body is not JSON"),
    ("421", "Not one of this server's hosts"),
    ("422", "The breaker holds, or the Idempotency-Key is another request's"),
    ("429", "Too many requests"),
    ("503", "The database is away; it reconnects"),
    ("504", "It took longer than --request-timeout"),
];

impl IntoResponses for Problems {
    fn responses() -> BTreeMap<String, RefOr<utoipa::openapi::Response>> {
        let problem = || ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build();
        PROBLEMS
            .iter()
            .map(|(status, description)| {
                let response =
                    ResponseBuilder::new().description(*description).content("application/problem+json", problem());
                (status.to_string(), response.build().into())
            })
            .collect()
    }
}

pub fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new().routes(routes!(document))
}

/// This document.
#[utoipa::path(get, path = "/api/openapi.json", tag = "health", security(()),
    responses((status = 200, content_type = "application/json", body = Object), Problems))]
async fn document() -> Response {
    json(DOCUMENT.get().map(String::as_str).unwrap_or_default().into())
}
