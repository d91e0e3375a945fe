use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::failure::Failure;
use crate::serve::app::App;
use crate::serve::response::Problem;

pub fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new().routes(routes!(healthz)).routes(routes!(readyz))
}

/// The process answers.
#[utoipa::path(get, path = "/healthz", tag = "health", security(()),
    responses((status = 200, description = "It answers", content_type = "text/plain", body = String),
              (status = "4XX", description = "Bad input", content_type = "application/problem+json", body = Problem)))]
async fn healthz() -> &'static str {
    "ok\n"
}

/// The database answers, and the server is not stopping.
#[utoipa::path(get, path = "/readyz", tag = "health", security(()),
    responses((status = 200, description = "It answers", content_type = "text/plain", body = String),
              (status = "4XX", description = "Bad input", content_type = "application/problem+json", body = Problem),
              (status = 503, description = "It does not, or the server stops", content_type = "application/problem+json", body = Problem)))]
async fn readyz(State(app): State<Arc<App>>) -> Result<&'static str, Problem> {
    if app.shutdown.is_cancelled() {
        return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "the server is stopping"));
    }
    let access = Arc::clone(app.keyring().lowest());
    let question = (access.role.clone(), "ready", String::new());
    let ask = async move {
        access.begin_reserved().await?;
        Ok(Default::default())
    };
    app.flights.join(question, ask).await.map_err(|problem| {
        // Anybody may ask, and PostgreSQL's words have the names of roles.
        tracing::warn!(problem = problem.detail(), "not ready");
        let away = Failure { sqlstate: Some("08006".into()), ..Failure::error("the database does not answer") };
        Problem::from(away).hint("the log of the server")
    })?;
    Ok("ok\n")
}
