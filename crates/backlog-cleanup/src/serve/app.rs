use std::collections::BTreeMap;
use std::sync::Arc;

use backlog_cleanup_report::Level;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::client::connect::Server;
use crate::failure::{Failure, Result};
use crate::serve::access::sessions::Sessions;
use crate::serve::access::tokens::{self, Token};
use crate::serve::access::{Access, PATIENCE};
use crate::serve::metrics::Metrics;
use crate::serve::settings::Settings;
use crate::serve::shared::flights::Flights;
use crate::serve::shared::idempotency::Keys;
use crate::serve::shared::limits::Limits;

/// Concurrent streams of events.
const STREAMS: usize = 200;

/// What all requests share.
pub struct App {
    pub settings: Settings,
    pub tokens: Vec<Token>,
    /// By level, lowest first.
    pub accesses: Vec<Arc<Access>>,
    pub sessions: Sessions,
    pub limits: Limits,
    pub metrics: Metrics,
    pub streams: Arc<Semaphore>,
    pub flights: Arc<Flights>,
    pub keys: Arc<Keys>,
    /// Cancelled when the server stops.
    pub shutdown: CancellationToken,
    /// The runs for which it then waits.
    pub runs: TaskTracker,
}

impl App {
    /// Does not connect yet. Errors: the file of tokens; without one, an address that is not loopback.
    pub fn new(settings: Settings, server: &Server) -> Result<App> {
        let mut app = App {
            tokens: Vec::new(),
            accesses: Vec::new(),
            sessions: Sessions::default(),
            limits: Limits::new(settings.rate_limit),
            metrics: Metrics::default(),
            streams: Arc::new(Semaphore::new(STREAMS)),
            flights: Arc::new(Flights::new(settings.request_timeout + 2 * PATIENCE)),
            keys: Arc::default(),
            shutdown: CancellationToken::new(),
            runs: TaskTracker::new(),
            settings,
        };
        let Some(file) = &app.settings.tokens else {
            if !app.settings.listen.ip().is_loopback() {
                let message =
                    format!("without --tokens the server listens on loopback only, not on {}", app.settings.listen);
                return Err(
                    Failure::usage(message).hint("backlog-cleanup serve --listen 127.0.0.1:8642 --insecure-no-auth")
                );
            }
            let options = server.options()?;
            let role = options.get_username().to_owned();
            app.accesses.push(Arc::new(Access::new(Level::Admin, role, options, &app.settings)));
            return Ok(app);
        };
        let mut accesses: BTreeMap<(Level, String), Arc<Access>> = BTreeMap::new();
        for (level, role, hash) in tokens::read(file)? {
            let access = match accesses.get(&(level, role.clone())) {
                Some(access) => Arc::clone(access),
                None => {
                    let options = server.as_role(&role).options()?;
                    let access = Arc::new(Access::new(level, role.clone(), options, &app.settings));
                    accesses.insert((level, role), Arc::clone(&access));
                    access
                }
            };
            app.tokens.push(Token { hash, access });
        }
        app.accesses = accesses.into_values().collect();
        Ok(app)
    }

    /// The access with the lowest level, for the server's own queries: readiness, metrics.
    pub fn lowest(&self) -> &Arc<Access> {
        &self.accesses[0]
    }

    /// The access of all callers, if there are no tokens.
    pub fn everybody(&self) -> Option<&Arc<Access>> {
        self.settings.insecure_no_auth.then(|| self.lowest())
    }
}
