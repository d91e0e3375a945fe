use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{ConnectInfo, FromRequest, Request, State};
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::Response;
use tokio::time::timeout;

use super::caller::identify;
use super::guard::is_probe;
use crate::serve::app::App;
use crate::serve::response::Problem;
use crate::serve::shared::limits::Payer;

/// The longest body in bytes: bodies of this API hold a number.
pub const BODY: usize = 16 * 1024;
/// The longest time for a whole body.
const BODY_TIME: Duration = Duration::from_secs(10);

/// Rejects a request beyond the limits, and reads its body before a handler starts. The router's `DefaultBodyLimit` is
/// [`BODY`]. A body that does not end holds nothing but its connection.
pub async fn limit(State(app): State<Arc<App>>, request: Request, next: Next) -> Result<Response, Problem> {
    if let Some(payer) = payer(&app, &request) {
        app.limits.admit(payer)?;
    }
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

/// Who the request counts for; nobody if it must get through: a probe, a stop with a token.
fn payer(app: &App, request: &Request) -> Option<Payer> {
    match identify(app, request.headers()) {
        _ if is_probe(request) => None,
        Ok(_) if request.uri().path().ends_with("/stop") => None,
        Ok((token, _)) if app.keyring().everybody.is_none() => Some(Payer::Token(token.hash)),
        _ => request.extensions().get::<ConnectInfo<SocketAddr>>().map(|peer| Payer::Address(peer.ip())),
    }
}
