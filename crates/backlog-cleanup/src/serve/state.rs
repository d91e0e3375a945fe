use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::{ConnectOptions, Executor};

use crate::connect::{Server, use_extension};
use crate::failure::{Failure, Result};

use super::Settings;
use super::auth::Level;
use super::tokens::{self, Token};

/// How long a request waits for a connection.
const PATIENCE: Duration = Duration::from_secs(3);

/// A role of the database, with the level that its tokens have. The database enforces the level: the pool logs in as the
/// role itself, which has nothing to go back to.
pub struct Access {
    pub level: Level,
    pub role: String,
    pub pool: PgPool,
}

/// What all requests share.
pub struct App {
    pub settings: Settings,
    pub tokens: Vec<Token>,
    /// By level, lowest first.
    pub accesses: Vec<Arc<Access>>,
}

impl App {
    /// Connects to nothing yet. Errors: the file of tokens, and where it is missing.
    pub fn new(settings: Settings, server: &Server) -> Result<App> {
        let mut app = App { tokens: Vec::new(), accesses: Vec::new(), settings };
        match &app.settings.tokens {
            Some(file) => {
                let mut roles = BTreeMap::new();
                for (level, role, token) in tokens::read(file)? {
                    let access = match roles.get(&(level, role.clone())) {
                        Some(access) => Arc::clone(access),
                        None => {
                            let pool = pool(server.as_role(&role).options()?, &app.settings);
                            let access = Arc::new(Access { level, role: role.clone(), pool });
                            roles.insert((level, role), Arc::clone(&access));
                            access
                        }
                    };
                    app.tokens.push(Token { access, hash: token });
                }
                app.accesses = roles.into_values().collect();
            }
            None if app.settings.listen.ip().is_loopback() => {
                let options = server.options()?;
                let role = options.get_username().to_owned();
                let pool = pool(options, &app.settings);
                app.accesses.push(Arc::new(Access { level: Level::Admin, role, pool }));
            }
            None => {
                return Err(Failure::usage(format!("{} is not a loopback address", app.settings.listen))
                    .hint("backlog-cleanup serve --listen 127.0.0.1:8642 --insecure-no-auth"));
            }
        }
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
