use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{ConnectInfo, FromRequest, Request, State};
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::Response;
use tokio::time::timeout;

use crate::serve::app::App;
use crate::serve::response::Problem;

/// The longest body in bytes: bodies of this API hold a number.
pub const BODY: usize = 16 * 1024;
/// The longest time for a whole body.
const BODY_TIME: Duration = Duration::from_secs(10);

/// Rejects a request beyond the limits, and reads its body before a handler starts. The router's `DefaultBodyLimit` is
/// [`BODY`].
pub async fn limit(State(app): State<Arc<App>>, request: Request, next: Next) -> Result<Response, Problem> {
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>();
    let _permit = app.limits.admit(peer.map(|peer| peer.ip()))?;
    let (parts, body) = request.into_parts();
    let body = Bytes::from_request(Request::from_parts(parts.clone(), body), &app);
    let body = match timeout(BODY_TIME, body).await {
        Ok(Ok(body)) => body,
        Ok(Err(error)) if error.status() == StatusCode::PAYLOAD_TOO_LARGE => {
            return Err(Problem::new(error.status(), format!("the body is longer than {BODY} bytes")));
        }
        Ok(Err(_)) => return Err(Problem::bad_request("the body could not be read")),
        Err(_) => return Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "the body took too long")),
    };
    Ok(next.run(Request::from_parts(parts, Body::from(body))).await)
}
