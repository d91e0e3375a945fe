use std::net::SocketAddr;
use std::ops::Deref;
use std::sync::Arc;

use axum::extract::{ConnectInfo, FromRequestParts};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use axum_extra::extract::CookieJar;
use backlog_cleanup_report::Level;
use tokio::sync::SemaphorePermit;

use crate::serve::access::Access;
use crate::serve::access::secret::Hash;
use crate::serve::access::sessions::secret;
use crate::serve::access::tokens::Token;
use crate::serve::app::App;
use crate::serve::middleware::log::Who;
use crate::serve::response::Problem;

/// The caller, an argument of every handler that is not public. Derefs to its [`Access`]: level, role and pool. Rejects the
/// request with 401 if it has neither a token nor a session; a handler with `Result<Caller, Problem>` answers itself.
#[derive(Clone)]
pub struct Caller {
    pub token: Arc<Token>,
    pub peer: SocketAddr,
    session: Option<Hash>,
}

impl Deref for Caller {
    type Target = Arc<Access>;

    fn deref(&self) -> &Arc<Access> {
        &self.token.access
    }
}

impl Caller {
    /// Does what needs a level. Errors: 403 if the token has a lower one; where the database refuses it to the role, the hint
    /// is the statement that gives the role the level.
    pub async fn with_level<T>(
        &self,
        level: Level,
        work: impl Future<Output = Result<T, Problem>>,
    ) -> Result<T, Problem> {
        self.at_least(level)?;
        work.await.map_err(|problem| problem.of_level(level, &self.role))
    }

    /// Checks the level before the database does. Errors: 403.
    fn at_least(&self, level: Level) -> Result<(), Problem> {
        if self.level >= level {
            return Ok(());
        }
        tracing::warn!(who = self.who(), from = %self.peer, needs = level.as_str(), "level refused");
        let detail = format!("this needs level {level}; the token has level {}", self.level);
        Err(Problem::forbidden(detail).hint(format!("a token of level {level}")))
    }

    /// A permit for what reads the whole table while others wait. Errors: 503.
    pub fn dry_run(&self) -> Result<SemaphorePermit<'_>, Problem> {
        self.dry_runs.try_acquire().map_err(|_| {
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, "too many concurrent dry runs")
                .hint("backlog-cleanup serve --pool-size 10")
        })
    }

    /// Whether the token is still there, and the session, if any, has not ended.
    pub fn is_still_in(&self, app: &App) -> bool {
        let has_session = |session| self.token.sessions.has(session);
        app.keyring().has(&self.token) && self.session.as_ref().is_none_or(has_session)
    }
}

/// The token of a request, and its session if it has one instead. Errors: 401, with true if the token is wrong.
pub fn identify(app: &App, headers: &HeaderMap) -> Result<(Arc<Token>, Option<Hash>), bool> {
    let keyring = app.keyring();
    if let Some(everybody) = &keyring.everybody {
        return Ok((Arc::clone(everybody), None));
    }
    if let Some(authorization) = headers.get(header::AUTHORIZATION) {
        let token = authorization.to_str().ok().and_then(bearer).and_then(|token| keyring.find(token));
        return token.map(|token| (Arc::clone(token), None)).ok_or(true);
    }
    let session = secret(&CookieJar::from_headers(headers), app.is_https(headers)).ok_or(false)?;
    keyring.of_session(&session).map(|token| (Arc::clone(token), Some(session))).ok_or(false)
}

impl FromRequestParts<Arc<App>> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Caller, Problem> {
        let ConnectInfo(peer) = ConnectInfo::<SocketAddr>::from_request_parts(parts, app)
            .await
            .map_err(|_| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the connection has no address"))?;
        let (token, session) = identify(app, &parts.headers).map_err(|is_wrong| match is_wrong {
            true => app.limits.failed_login(peer.ip()),
            false => Problem::unauthorized("a token or a session is needed"),
        })?;
        if let Some(Who(who)) = parts.extensions.get() {
            who.get_or_init(|| token.access.who().to_owned());
        }
        Ok(Caller { token, peer, session })
    }
}

fn bearer(authorization: &str) -> Option<&str> {
    let (scheme, token) = authorization.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
}
