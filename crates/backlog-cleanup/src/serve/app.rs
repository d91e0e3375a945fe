use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::client::connect::Server;
use crate::failure::Result;
use crate::serve::access::sessions::Sessions;
use crate::serve::access::tokens::Token;
use crate::serve::access::{self, Access, PATIENCE};
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
        let (tokens, accesses) = access::load(&settings, server)?;
        Ok(App {
            tokens,
            accesses,
            sessions: Sessions::default(),
            limits: Limits::new(settings.rate_limit),
            metrics: Metrics::default(),
            streams: Arc::new(Semaphore::new(STREAMS)),
            flights: Arc::new(Flights::new(settings.request_timeout + 2 * PATIENCE)),
            keys: Arc::default(),
            shutdown: CancellationToken::new(),
            runs: TaskTracker::new(),
            settings,
        })
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
