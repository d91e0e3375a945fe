use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::Bytes;
use axum::http::HeaderMap;
use backlog_cleanup_report::StatusReport;
use parking_lot::{Mutex, RwLock};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::channel::Channels;
use crate::client::calls::Mark;
use crate::client::connect::Server;
use crate::failure::{Failure, Result};
use crate::random;
use crate::serve::access::keyring::Keyring;
use crate::serve::access::{Access, PATIENCE};
use crate::serve::metrics::Metrics;
use crate::serve::settings::Settings;
use crate::serve::shared::flights::Flights;
use crate::serve::shared::idempotency::Keys;
use crate::serve::shared::limits::Limits;

/// What all requests share.
pub struct App {
    pub settings: Settings,
    server: Server,
    keyring: RwLock<Arc<Keyring>>,
    /// This process, among those that deliver alerts.
    pub name: String,
    pub channels: watch::Sender<Arc<Channels>>,
    /// What delivers to them.
    pub deliveries: TaskTracker,
    /// Why the database takes nothing that deliveries write; `None` if it does.
    pub refusal: Mutex<Option<String>>,
    /// It is this server's turn to evaluate the rules, if nothing ticks.
    pub turn: Notify,
    pub limits: Limits,
    pub metrics: Metrics,
    pub flights: Arc<Flights<Bytes>>,
    /// The status reports of the dashboard, read once for all requests that share a query.
    pub reports: Arc<Flights<Arc<StatusReport>>>,
    pub keys: Arc<Keys>,
    /// Cancelled when the server stops.
    pub shutdown: CancellationToken,
    /// The runs for which it then waits.
    pub runs: TaskTracker,
    /// The calls of these runs, and what they do.
    pub calls: Mutex<BTreeMap<Mark, String>>,
}

impl App {
    /// Does not connect yet. Errors: the file of tokens, or of channels; without tokens, an address that is not loopback.
    pub fn new(settings: Settings, server: &Server) -> Result<App> {
        let limit = settings.request_timeout + 2 * PATIENCE;
        let keyring = Keyring::load(&settings, server, None)?;
        let channels = channels(&settings, &keyring)?;
        Ok(App {
            server: server.clone(),
            keyring: RwLock::new(Arc::new(keyring)),
            name: random::name()?,
            channels: watch::Sender::new(Arc::new(channels)),
            deliveries: TaskTracker::new(),
            refusal: Mutex::default(),
            turn: Notify::new(),
            limits: Limits::new(settings.rate_limit),
            metrics: Metrics::default(),
            flights: Arc::new(Flights::new(limit)),
            reports: Arc::new(Flights::new(limit)),
            keys: Arc::default(),
            shutdown: CancellationToken::new(),
            runs: TaskTracker::new(),
            calls: Mutex::default(),
            settings,
        })
    }

    /// Who is let in now.
    pub fn keyring(&self) -> Arc<Keyring> {
        Arc::clone(&self.keyring.read())
    }

    /// What messages call the database.
    pub fn database(&self) -> String {
        self.channels.borrow().database.clone().unwrap_or_else(|| self.keyring().lowest().place())
    }

    /// The role that delivers alerts. Errors: no token has its level.
    pub fn deliverer(&self) -> Result<Arc<Access>> {
        self.keyring().deliverer().cloned().ok_or_else(no_deliverer)
    }

    /// Reads the files of tokens and of channels again. Errors: those of the start; then everything stays as it was.
    pub async fn reload(&self) -> Result<()> {
        let keyring = Keyring::load(&self.settings, &self.server, Some(&self.keyring()))?;
        keyring.check().await?;
        let channels = channels(&self.settings, &keyring)?;
        *self.keyring.write() = Arc::new(keyring);
        self.channels.send_replace(Arc::new(channels));
        Ok(())
    }

    /// Whether the client uses TLS, also to a TLS-terminating proxy.
    pub fn is_https(&self, headers: &HeaderMap) -> bool {
        self.settings.tls_cert.is_some() || headers.get("x-forwarded-proto").is_some_and(|it| it == "https")
    }

    /// Says which runs the process leaves behind.
    pub fn warn_of_runs(&self) {
        for (mark, run) in &*self.calls.lock() {
            tracing::warn!(
                query = mark.as_str(),
                run,
                "goes on in the database until that notices that the server has gone"
            );
        }
    }
}

/// Reads the file of channels, if there is one. Errors: the file; no role may deliver.
fn channels(settings: &Settings, keyring: &Keyring) -> Result<Channels> {
    let Some(file) = &settings.channels else { return Ok(Channels::default()) };
    let channels = Channels::read(file)?;
    match keyring.deliverer() {
        None if !channels.channels.is_empty() => Err(no_deliverer()),
        _ => Ok(channels),
    }
}

fn no_deliverer() -> Failure {
    Failure::usage("to deliver alerts takes a token of level operator")
        .hint("operator backlog_operator sha256:<SHA-256 of the token in hex>")
}
