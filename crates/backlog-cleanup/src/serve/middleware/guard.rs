use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::Response;

use crate::serve::app::App;
use crate::serve::response::Problem;

/// Rejects requests for other hosts, which DNS rebinding could point here, and requests that change something from the
/// pages of other sites.
pub async fn guard(State(app): State<Arc<App>>, request: Request, next: Next) -> Result<Response, Problem> {
    let host = host(&request)?;
    if !is_probe(&request) && !is_allowed(&app, &host) {
        return Err(Problem::new(
            StatusCode::MISDIRECTED_REQUEST,
            format!("host \"{}\" is not a name of this server", host.host()),
        )
        .hint(format!("backlog-cleanup serve --allowed-host {}", host.host())));
    }
    // Without tokens a link or an image of any page would do for a dry run.
    let is_open = app.settings.insecure_no_auth && !is_probe(&request);
    if (is_open || !request.method().is_safe()) && !is_same_site(&app, request.headers(), &host) {
        return Err(Problem::forbidden("the request comes from a page of another site")
            .hint("Authorization: Bearer <token>, without Origin, Sec-Fetch-Site and Cookie"));
    }
    Ok(next.run(request).await)
}

/// Whether the request is a probe, which names a host of its own.
pub fn is_probe(request: &Request) -> bool {
    matches!(request.uri().path(), "/healthz" | "/readyz")
}

/// The host that the request names.
fn host(request: &Request) -> Result<Authority, Problem> {
    if let Some(authority) = request.uri().authority() {
        return Ok(authority.clone());
    }
    let mut hosts = request.headers().get_all(header::HOST).iter();
    match (hosts.next().and_then(|host| host.to_str().ok()).map(str::parse), hosts.next()) {
        (Some(Ok(host)), None) => Ok(host),
        _ => Err(Problem::bad_request("the request must have exactly one host")),
    }
}

fn is_allowed(app: &App, host: &Authority) -> bool {
    let name = host.host().trim_start_matches('[').trim_end_matches(']');
    let listen = app.settings.listen.ip();
    ["localhost", "127.0.0.1", "::1"].contains(&name)
        || (!listen.is_unspecified() && name == listen.to_string())
        || app.settings.allowed_host.iter().any(|allowed| allowed.eq_ignore_ascii_case(name))
}

/// Browsers send Sec-Fetch-Site, older ones Origin; other programs send neither, and have no cookie.
fn is_same_site(app: &App, headers: &HeaderMap, host: &Authority) -> bool {
    let scheme = if app.is_https(headers) { "https" } else { "http" };
    let text = |name| headers.get(name).map(|value: &header::HeaderValue| value.to_str().unwrap_or_default());
    match (text(header::HeaderName::from_static("sec-fetch-site")), text(header::ORIGIN)) {
        (Some(site), _) => matches!(site, "same-origin" | "none"),
        (None, Some(origin)) => origin
            .parse::<Uri>()
            .is_ok_and(|origin| origin.authority() == Some(host) && origin.scheme_str() == Some(scheme)),
        (None, None) => !headers.contains_key(header::COOKIE),
    }
}
