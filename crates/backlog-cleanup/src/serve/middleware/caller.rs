use std::net::SocketAddr;
use std::ops::Deref;
use std::sync::Arc;

use axum::extract::{ConnectInfo, FromRequestParts};
use axum::http::StatusCode;
use axum::http::header;
use axum::http::request::Parts;
use axum_extra::extract::CookieJar;
use backlog_cleanup_report::Level;

use crate::serve::access::{Access, tokens};
use crate::serve::app::App;
use crate::serve::middleware::log::Who;
use crate::serve::response::Problem;

/// The caller, an argument of every handler that is not public. Derefs to its [`Access`]: level, role and pool. Rejects the
/// request with 401 if it has neither a token nor a session; a handler with `Result<Caller, Problem>` answers itself.
pub struct Caller {
    access: Arc<Access>,
    pub peer: SocketAddr,
    /// The cookies, if the caller has a session.
    session: Option<CookieJar>,
}

impl Deref for Caller {
    type Target = Arc<Access>;

    fn deref(&self) -> &Arc<Access> {
        &self.access
    }
}

impl Caller {
    /// Checks the level before the database does. Errors: 403.
    pub fn at_least(&self, level: Level) -> Result<(), Problem> {
        if self.level >= level {
            return Ok(());
        }
        let detail = format!("this needs level {level}; the token has level {}", self.level);
        Err(Problem::forbidden(detail).hint(format!("a token of level {level}")))
    }

    /// Whether the session, if any, has not ended.
    pub fn is_still_in(&self, app: &App) -> bool {
        self.session.as_ref().is_none_or(|cookies| app.sessions.find(cookies).is_some())
    }
}

impl FromRequestParts<Arc<App>> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Caller, Problem> {
        let ConnectInfo(peer) = ConnectInfo::<SocketAddr>::from_request_parts(parts, app)
            .await
            .map_err(|_| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the connection has no address"))?;
        let cookies = CookieJar::from_headers(&parts.headers);
        let mut session = None;
        let access = if let Some(access) = app.everybody() {
            Arc::clone(access)
        } else if let Some(authorization) = parts.headers.get(header::AUTHORIZATION) {
            let token = authorization.to_str().ok().and_then(bearer).and_then(|token| tokens::find(&app.tokens, token));
            let token = token.ok_or_else(|| app.limits.failed_login(peer.ip()))?;
            Arc::clone(&token.access)
        } else {
            let access = app.sessions.find(&cookies);
            session = Some(cookies);
            access.ok_or_else(|| Problem::unauthorized("a token or a session is needed"))?
        };
        if let Some(Who(who)) = parts.extensions.get() {
            who.get_or_init(|| access.who().to_owned());
        }
        Ok(Caller { access, peer, session })
    }
}

fn bearer(authorization: &str) -> Option<&str> {
    let (scheme, token) = authorization.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
}
