use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::serve::app::App;
use crate::serve::response::Problem;

pub fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new().routes(routes!(healthz)).routes(routes!(readyz))
}

/// The process answers.
#[utoipa::path(get, path = "/healthz", tag = "health", security(()),
    responses((status = 200, content_type = "text/plain", body = String),
              (status = "4XX", content_type = "application/problem+json", body = Problem)))]
async fn healthz() -> &'static str {
    "ok\n"
}

/// The database answers, and the server is not stopping.
#[utoipa::path(get, path = "/readyz", tag = "health", security(()),
    responses((status = 200, content_type = "text/plain", body = String),
              (status = "4XX", content_type = "application/problem+json", body = Problem),
              (status = 503, content_type = "application/problem+json", body = Problem)))]
async fn readyz(State(app): State<Arc<App>>) -> Result<&'static str, Problem> {
    if app.shutdown.is_cancelled() {
        return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "the server is stopping"));
    }
    let access = Arc::clone(app.lowest());
    let question = (access.role.clone(), "ready", String::new());
    let ask = async move {
        sqlx::query("SELECT 1").execute(&access.pool).await?;
        Ok(Default::default())
    };
    app.flights.join(question, ask).await?;
    Ok("ok\n")
}
