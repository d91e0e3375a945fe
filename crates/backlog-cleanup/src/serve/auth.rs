use std::net::SocketAddr;
use std::ops::Deref;
use std::sync::Arc;

use axum::extract::{ConnectInfo, FromRequestParts};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum_extra::TypedHeader;
use axum_extra::headers::Authorization;
use axum_extra::headers::authorization::Bearer;
use subtle::ConstantTimeEq;

use super::Problem;
use super::state::{Access, App};
use super::tokens::{self, Token};

/// Who may do what; each level has what those before it have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    Monitor,
    Operator,
    Admin,
}

impl Level {
    pub const ALL: [Level; 3] = [Level::Monitor, Level::Operator, Level::Admin];

    pub fn name(self) -> &'static str {
        match self {
            Level::Monitor => "monitor",
            Level::Operator => "operator",
            Level::Admin => "admin",
        }
    }

    pub fn named(name: &str) -> Option<Level> {
        Level::ALL.into_iter().find(|level| level.name() == name)
    }
}

/// Who calls: an argument of every handler that shows or does something. It has the `level`, `role` and `pool` of an
/// `Access`. Refused with 401 where there is neither a token nor a session; `Result<Caller, Problem>` as an argument lets
/// the handler answer instead.
pub struct Caller {
    access: Arc<Access>,
    pub peer: SocketAddr,
}

impl Deref for Caller {
    type Target = Arc<Access>;

    fn deref(&self) -> &Arc<Access> {
        &self.access
    }
}

impl FromRequestParts<Arc<App>> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Caller, Problem> {
        let ConnectInfo(peer) = ConnectInfo::<SocketAddr>::from_request_parts(parts, app)
            .await
            .map_err(|_| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the connection has no address"))?;
        let access = match (app.everybody(), bearer(parts, app).await) {
            (Some(access), _) => Arc::clone(access),
            (None, Some(token)) => {
                let token = find(&app.tokens, &token);
                token
                    .map(|token| Arc::clone(&token.access))
                    .ok_or_else(|| Problem::unauthorized("the token is unknown"))?
            }
            (None, None) => return Err(Problem::unauthorized("a token is needed")),
        };
        Ok(Caller { access, peer })
    }
}

async fn bearer(parts: &mut Parts, app: &Arc<App>) -> Option<String> {
    let header = TypedHeader::<Authorization<Bearer>>::from_request_parts(parts, app).await;
    header.ok().map(|TypedHeader(authorization)| authorization.token().to_owned())
}

/// The token of this text. Compares digests, all of them and each to its last byte, so that the time says nothing.
pub fn find<'a>(tokens: &'a [Token], secret: &str) -> Option<&'a Token> {
    let hash = tokens::hash(secret);
    tokens.iter().fold(None, |found, token| if token.hash.ct_eq(&hash).into() { Some(token) } else { found })
}
