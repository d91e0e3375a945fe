use std::net::SocketAddr;
use std::sync::Arc;

use axum::Form;
use axum::extract::{ConnectInfo, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Redirect, Response};
use axum_extra::extract::CookieJar;
use axum_extra::extract::cookie::{Cookie, SameSite};
use serde::Deserialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::serve::access::sessions::{LIFE, cookie, secret};
use crate::serve::app::App;
use crate::serve::response::{Problem, Problems};

pub fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new().routes(routes!(login)).routes(routes!(logout))
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Login {
    token: String,
    /// The path of this server to go to
    #[serde(default)]
    next: String,
}

/// Begins a session of a browser: returns a cookie for a token.
#[utoipa::path(post, path = "/login", request_body(content = Login, content_type = "application/x-www-form-urlencoded"),
    responses((status = 303, description = "The session has begun: the dashboard"), Problems), security(()))]
async fn login(
    State(app): State<Arc<App>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    cookies: CookieJar,
    headers: HeaderMap,
    Form(Login { token, next }): Form<Login>,
) -> Result<Response, Problem> {
    let keyring = app.keyring();
    let Some(token) = keyring.find(token.trim()) else {
        tracing::warn!(from = %peer, "login with an unknown token");
        return Err(app.limits.failed_login(peer.ip()));
    };
    end_session(&app, &cookies, &headers);
    let secret = token.sessions.begin()?;
    let is_https = app.is_https(&headers);
    tracing::info!(who = token.access.who(), from = %peer, "login");
    let cookie = Cookie::build((cookie(is_https), secret))
        .path("/")
        .http_only(true)
        .same_site(SameSite::Strict)
        .secure(is_https)
        .max_age(LIFE.try_into().expect("a short time"));
    // A second slash, or a backslash, would name another host.
    let is_ours = next.starts_with('/') && !next[1..].starts_with(['/', '\\']) && !next.contains(char::is_control);
    Ok((cookies.add(cookie), Redirect::to(if is_ours { &next } else { "/" })).into_response())
}

/// Ends a session of a browser.
#[utoipa::path(post, path = "/logout", responses((status = 303, description = "The session has ended"), Problems), security(()))]
async fn logout(State(app): State<Arc<App>>, cookies: CookieJar, headers: HeaderMap) -> Response {
    end_session(&app, &cookies, &headers);
    let is_https = app.is_https(&headers);
    (cookies.remove(Cookie::build(cookie(is_https)).path("/").secure(is_https)), Redirect::to("/")).into_response()
}

fn end_session(app: &App, cookies: &CookieJar, headers: &HeaderMap) {
    if let Some(secret) = secret(cookies, app.is_https(headers))
        && let Some(token) = app.keyring().of_session(&secret)
    {
        token.sessions.end(&secret);
    }
}
