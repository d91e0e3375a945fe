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

use crate::serve::access::sessions::{COOKIE, LIFE};
use crate::serve::access::tokens::find;
use crate::serve::app::App;
use crate::serve::response::{Problem, Problems};

pub fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new().routes(routes!(login)).routes(routes!(logout))
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Login {
    token: String,
}

/// Begins a session of a browser: returns a cookie for a token.
#[utoipa::path(post, path = "/login", request_body(content = Login, content_type = "application/x-www-form-urlencoded"),
    responses((status = 303, description = "The session has begun: the dashboard"), Problems), security(()))]
async fn login(
    State(app): State<Arc<App>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    cookies: CookieJar,
    headers: HeaderMap,
    Form(Login { token }): Form<Login>,
) -> Result<Response, Problem> {
    let Some(token) = find(&app.tokens, token.trim()) else {
        tracing::warn!(from = %peer, "login with an unknown token");
        return Err(app.limits.failed_login(peer.ip()));
    };
    app.sessions.end(&cookies);
    let secret = app.sessions.begin(Arc::clone(&token.access))?;
    tracing::info!(who = token.access.who(), from = %peer, "login");
    let cookie = Cookie::build((COOKIE, secret))
        .path("/")
        .http_only(true)
        .same_site(SameSite::Strict)
        // Also behind a TLS-terminating proxy.
        .secure(app.settings.tls_cert.is_some() || headers.get("x-forwarded-proto").is_some_and(|it| it == "https"))
        .max_age(LIFE.try_into().expect("a short time"));
    Ok((cookies.add(cookie), Redirect::to("/")).into_response())
}

/// Ends a session of a browser.
#[utoipa::path(post, path = "/logout", responses((status = 303, description = "The session has ended"), Problems), security(()))]
async fn logout(State(app): State<Arc<App>>, cookies: CookieJar) -> Response {
    app.sessions.end(&cookies);
    (cookies.remove(Cookie::build(COOKIE).path("/")), Redirect::to("/")).into_response()
}
