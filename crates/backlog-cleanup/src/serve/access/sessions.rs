use std::time::Duration;

use axum_extra::extract::CookieJar;
use moka::policy::EvictionPolicy;
use moka::sync::Cache;

use super::secret::{Hash, hash};
use crate::serve::response::Problem;

/// A session ends after this time, even if it is in use.
pub const LIFE: Duration = Duration::from_secs(12 * 3600);
/// Beyond that the token's least recently used session ends.
const MOST: u64 = 100;

/// The name of the cookie. Over TLS browsers take a cookie of that prefix only from this host, by TLS, for all of its paths.
pub fn cookie(is_https: bool) -> &'static str {
    if is_https { "__Host-backlog_cleanup_session" } else { "backlog_cleanup_session" }
}

/// The sessions of browsers that one token has begun, by the hash of their cookie. They end with the token, and with the
/// process.
pub struct Sessions(Cache<Hash, ()>);

impl Default for Sessions {
    fn default() -> Sessions {
        let sessions = Cache::builder().max_capacity(MOST).eviction_policy(EvictionPolicy::lru()).time_to_live(LIFE);
        Sessions(sessions.build())
    }
}

impl Sessions {
    /// Whether one of them has that secret, and has not ended.
    pub fn has(&self, secret: &Hash) -> bool {
        self.0.get(secret).is_some()
    }

    /// Begins a session; returns the secret for its cookie.
    pub fn begin(&self) -> Result<String, Problem> {
        let mut secret = [0; 32];
        getrandom::fill(&mut secret)
            .map_err(|error| Problem::internal(format!("no random bytes are available: {error}")))?;
        let secret = hex::encode(secret);
        self.0.insert(hash(&secret), ());
        Ok(secret)
    }

    pub fn end(&self, secret: &Hash) {
        self.0.invalidate(secret);
    }
}

/// The hash of a session's secret, if the request has one.
pub fn secret(cookies: &CookieJar, is_https: bool) -> Option<Hash> {
    Some(hash(cookies.get(cookie(is_https))?.value()))
}
