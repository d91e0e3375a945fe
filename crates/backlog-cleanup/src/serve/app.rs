use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::{ConnectOptions, Executor};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::connect::{Server, not_connected, use_extension};
use crate::failure::{Failure, Result};

use super::Settings;
use super::auth::Level;
use super::flight::Flights;
use super::idempotency::Keys;
use super::limit::Limits;
use super::metrics::Metrics;
use super::session::Sessions;
use super::tokens::{self, Token};

/// How long a request waits for a connection.
pub const PATIENCE: Duration = Duration::from_secs(3);
/// Streams of events at a time.
const STREAMS: usize = 200;

/// A role of the database, with the level that its tokens have. The database enforces the level: the pool logs in as the
/// role itself, which has nothing to go back to.
pub struct Access {
    pub level: Level,
    pub role: String,
    pub pool: PgPool,
    /// Runs at a time; each has a connection of the pool, and one is left for the others.
    pub runs: Semaphore,
}

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
    /// Cancelled when the server is to stop.
    pub shutdown: CancellationToken,
    /// The runs that it waits for then.
    pub runs: TaskTracker,
}

impl App {
    /// Connects to nothing yet. Errors: the file of tokens; where there is none, an address that others reach.
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
                    format!("without --tokens it listens on loopback only, and not on {}", app.settings.listen);
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

    /// The access of the lowest level, for what the server asks on its own account: readiness, metrics.
    pub fn lowest(&self) -> &Arc<Access> {
        &self.accesses[0]
    }

    /// The access of everybody, where there are no tokens.
    pub fn everybody(&self) -> Option<&Arc<Access>> {
        self.settings.insecure_no_auth.then(|| self.lowest())
    }
}

impl Access {
    fn new(level: Level, role: String, options: PgConnectOptions, settings: &Settings) -> Access {
        let runs = Semaphore::new(settings.pool_size as usize - 1);
        Access { level, role, pool: pool(options, settings), runs }
    }

    /// The caller, as the log and `run.requested_by` have it: the role.
    pub fn who(&self) -> &str {
        &self.role
    }

    /// Looks whether the database is there, has the extension, and binds the role to its level. Errors: all three.
    pub async fn check(&self) -> Result<()> {
        let options = self.pool.connect_options();
        let mut connection = options.connect().await.map_err(|error| not_connected(error, &options))?;
        use_extension(&mut connection).await?;
        let is_free: bool = sqlx::query_scalar("SELECT rolsuper FROM pg_roles WHERE rolname = CURRENT_USER")
            .fetch_one(&mut connection)
            .await?;
        if is_free && self.level < Level::Admin {
            return Err(Failure::usage(format!(
                "role \"{}\" of level {} is a superuser, whom no level binds",
                self.role,
                self.level.name()
            ))
            .hint(format!(
                "CREATE ROLE backlog_{0} LOGIN; SELECT backlog_cleanup_grant('backlog_{0}', '{0}')",
                self.level.name()
            )));
        }
        Ok(())
    }

    /// The names of all targets, in their order.
    pub async fn targets(&self) -> sqlx::Result<Vec<String>> {
        sqlx::query_scalar("SELECT name FROM backlog_cleanup.target ORDER BY name").fetch_all(&self.pool).await
    }
}

fn pool(options: PgConnectOptions, settings: &Settings) -> PgPool {
    let timeout = settings.request_timeout.as_millis();
    PgPoolOptions::new()
        .max_connections(settings.pool_size)
        .acquire_timeout(PATIENCE)
        .idle_timeout(Duration::from_secs(300))
        .after_connect(move |connection, _| {
            Box::pin(async move {
                use_extension(connection)
                    .await
                    .map_err(|failure| sqlx::Error::Configuration(failure.message.into()))?;
                // A client that has gone leaves no query behind for longer.
                connection.execute(&*format!("SET statement_timeout = {timeout}")).await.map(drop)
            })
        })
        .connect_lazy_with(options.disable_statement_logging())
}
