use std::sync::Arc;
use std::time::Duration;

use axum_extra::extract::CookieJar;
use moka::policy::EvictionPolicy;
use moka::sync::Cache;

use super::Access;
use super::tokens::{Hash, hash};
use crate::serve::response::Problem;

/// A session ends after this time, even if it is in use.
pub const LIFE: Duration = Duration::from_secs(12 * 3600);
pub const COOKIE: &str = "backlog_cleanup_session";
/// Beyond that the least recently used session ends.
const MOST: u64 = 1000;

/// The sessions of browsers, by the hash of their cookie. They end with the process.
pub struct Sessions(Cache<Hash, Arc<Access>>);

impl Default for Sessions {
    fn default() -> Sessions {
        let sessions = Cache::builder().max_capacity(MOST).eviction_policy(EvictionPolicy::lru()).time_to_live(LIFE);
        Sessions(sessions.build())
    }
}

impl Sessions {
    /// The access of a session that has not ended.
    pub fn find(&self, cookies: &CookieJar) -> Option<Arc<Access>> {
        self.0.get(&hash(cookies.get(COOKIE)?.value()))
    }

    /// Begins a session; returns the secret for its cookie.
    pub fn begin(&self, access: Arc<Access>) -> Result<String, Problem> {
        let mut secret = [0; 32];
        getrandom::fill(&mut secret)
            .map_err(|error| Problem::internal(format!("no random bytes are available: {error}")))?;
        let secret = hex::encode(secret);
        self.0.insert(hash(&secret), access);
        Ok(secret)
    }

    pub fn end(&self, cookies: &CookieJar) {
        if let Some(cookie) = cookies.get(COOKIE) {
            self.0.invalidate(&hash(cookie.value()));
        }
    }
}
