use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::Response;

use crate::serve::app::App;
use crate::serve::response::Problem;

/// Lets in only what is meant for this server: under a name that is its own, so that no other site's name can be pointed
/// at it, and, where something may change, not from the page of another site.
pub async fn guard(State(app): State<Arc<App>>, request: Request, next: Next) -> Result<Response, Problem> {
    let is_probe = matches!(request.uri().path(), "/healthz" | "/readyz");
    let host = host(&request)?;
    if !is_probe && !is_allowed(&app, &host) {
        return Err(Problem::new(
            StatusCode::MISDIRECTED_REQUEST,
            format!("host \"{}\" is not one of this server's", host.host()),
        )
        .hint(format!("backlog-cleanup serve --allowed-host {}", host.host())));
    }
    if !request.method().is_safe() && !is_same_site(request.headers(), &host) {
        return Err(Problem::forbidden("the request comes from another site's page")
            .hint("Authorization: Bearer <token>, without Origin, Sec-Fetch-Site and Cookie"));
    }
    Ok(next.run(request).await)
}

/// The name under which the server was called.
fn host(request: &Request) -> Result<Authority, Problem> {
    if let Some(authority) = request.uri().authority() {
        return Ok(authority.clone());
    }
    let mut hosts = request.headers().get_all(header::HOST).iter();
    match (hosts.next().and_then(|host| host.to_str().ok()).map(str::parse), hosts.next()) {
        (Some(Ok(host)), None) => Ok(host),
        _ => Err(Problem::bad_request("the request has no host, or more than one")),
    }
}

fn is_allowed(app: &App, host: &Authority) -> bool {
    let name = host.host().trim_start_matches('[').trim_end_matches(']');
    let listen = app.settings.listen.ip();
    ["localhost", "127.0.0.1", "::1"].contains(&name)
        || (!listen.is_unspecified() && name == listen.to_string())
        || app.settings.allowed_host.iter().any(|allowed| allowed.eq_ignore_ascii_case(name))
}

/// Browsers say where a request comes from by Sec-Fetch-Site, older ones by Origin; other programs say neither, and have
/// no session.
fn is_same_site(headers: &HeaderMap, host: &Authority) -> bool {
    let text = |name| headers.get(name).map(|value: &header::HeaderValue| value.to_str().unwrap_or_default());
    match (text(header::HeaderName::from_static("sec-fetch-site")), text(header::ORIGIN)) {
        (Some(site), _) => matches!(site, "same-origin" | "none"),
        (None, Some(origin)) => origin.parse::<Uri>().is_ok_and(|origin| origin.authority() == Some(host)),
        (None, None) => !headers.contains_key(header::COOKIE),
    }
}
