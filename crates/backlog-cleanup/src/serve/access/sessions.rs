use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::http::StatusCode;
use axum_extra::extract::CookieJar;

use super::Access;
use super::tokens::{Hash, hash};
use crate::serve::response::Problem;

/// After this long a session ends, whatever happens in it.
pub const LIFE: Duration = Duration::from_secs(12 * 3600);
/// The oldest goes where there are more.
const MOST: usize = 1000;
pub const COOKIE: &str = "backlog_cleanup_session";

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

    pub fn begin(&self, access: Arc<Access>) -> Result<String, Problem> {
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

    pub fn end(&self, cookies: &CookieJar) {
        if let Some(cookie) = cookies.get(COOKIE) {
            self.0.lock().expect("no panic holds it").remove(&hash(cookie.value()));
        }
    }

    /// Forgets those that are over.
    pub fn forget(&self) {
        self.0.lock().expect("no panic holds it").retain(|_, session| session.until > Instant::now());
    }
}
