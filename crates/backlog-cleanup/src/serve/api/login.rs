use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Form;
use axum::extract::{ConnectInfo, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Redirect, Response};
use axum_extra::extract::CookieJar;
use axum_extra::extract::cookie::{Cookie, SameSite};
use serde::Deserialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::auth::find;
use super::openapi::Problems;
use super::state::Access;
use super::tokens::{Hash, hash};
use super::{App, Problem};

/// After this long a session ends, whatever happens in it.
const LIFE: Duration = Duration::from_secs(12 * 3600);
/// The oldest goes where there are more.
const MOST: usize = 1000;
const COOKIE: &str = "backlog_cleanup_session";

pub fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new().routes(routes!(login)).routes(routes!(logout))
}

struct Session {
    access: Arc<Access>,
    until: Instant,
}

/// Browsers that have logged in, by the hash of their cookie. A restart ends them all.
#[derive(Default)]
pub struct Sessions(Mutex<HashMap<Hash, Session>>);

impl Sessions {
    /// The access of a session that is not over.
    pub fn find(&self, cookies: &CookieJar) -> Option<Arc<Access>> {
        let sessions = self.0.lock().expect("no panic holds it");
        let session = sessions.get(&hash(cookies.get(COOKIE)?.value()))?;
        (session.until > Instant::now()).then(|| Arc::clone(&session.access))
    }

    fn begin(&self, access: Arc<Access>) -> Result<String, Problem> {
        let mut secret = [0; 32];
        getrandom::fill(&mut secret)
            .map_err(|error| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, format!("no random bytes: {error}")))?;
        let secret: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
        self.forget();
        let mut sessions = self.0.lock().expect("no panic holds it");
        if sessions.len() >= MOST {
            let oldest = sessions.iter().min_by_key(|(_, session)| session.until).map(|(hash, _)| *hash);
            oldest.map(|oldest| sessions.remove(&oldest));
        }
        sessions.insert(hash(&secret), Session { access, until: Instant::now() + LIFE });
        Ok(secret)
    }

    fn end(&self, cookies: &CookieJar) {
        if let Some(cookie) = cookies.get(COOKIE) {
            self.0.lock().expect("no panic holds it").remove(&hash(cookie.value()));
        }
    }

    /// Forgets those that are over.
    pub fn forget(&self) {
        self.0.lock().expect("no panic holds it").retain(|_, session| session.until > Instant::now());
    }
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Login {
    token: String,
}

/// Begins a browser's session: a cookie for a token.
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
        // Also where a proxy has taken TLS off.
        .secure(app.settings.tls_cert.is_some() || headers.get("x-forwarded-proto").is_some_and(|it| it == "https"))
        .max_age(LIFE.try_into().expect("a short time"));
    Ok((cookies.add(cookie), Redirect::to("/")).into_response())
}

/// Ends a browser's session.
#[utoipa::path(post, path = "/logout", responses((status = 303, description = "The session is over"), Problems), security(()))]
async fn logout(State(app): State<Arc<App>>, cookies: CookieJar) -> Response {
    app.sessions.end(&cookies);
    (cookies.remove(Cookie::build(COOKIE).path("/")), Redirect::to("/")).into_response()
}
