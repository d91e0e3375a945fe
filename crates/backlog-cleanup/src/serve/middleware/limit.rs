use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::extract::{ConnectInfo, Request, State};
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::Response;
use tokio::time::timeout;

use crate::serve::app::App;
use crate::serve::response::Problem;

/// The longest body: those of this API hold a number.
const BODY: usize = 16 * 1024;
/// How long a body may take, all of it.
const BODY_TIME: Duration = Duration::from_secs(10);
/// Sheds what is too much, and reads the body: all of it, short and soon, before anybody works on the request.
pub async fn limit(State(app): State<Arc<App>>, request: Request, next: Next) -> Result<Response, Problem> {
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>();
    let _permit = app.limits.admit(peer.map(|peer| peer.ip()))?;
    let (parts, body) = request.into_parts();
    let body = match timeout(BODY_TIME, to_bytes(body, BODY)).await {
        Ok(Ok(body)) => body,
        Ok(Err(error)) if is_too_long(&error) => {
            return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, format!("the body is longer than {BODY} bytes")));
        }
        Ok(Err(_)) => return Err(Problem::bad_request("the body could not be read")),
        Err(_) => return Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "the body did not come in time")),
    };
    Ok(next.run(Request::from_parts(parts, Body::from(body))).await)
}

fn is_too_long(error: &axum::Error) -> bool {
    std::error::Error::source(error).is_some_and(|source| source.is::<http_body_util::LengthLimitError>())
}
