//! The database roles that tokens and sessions stand for, each with its pool. Knows no request.

pub mod sessions;
pub mod tokens;

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;
use std::time::Duration;

use backlog_cleanup_report::Level;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::{ConnectOptions, Executor};
use tokio::sync::Semaphore;

use self::tokens::Token;
use crate::client::connect::{Server, not_connected, use_extension};
use crate::failure::{Failure, Result};
use crate::serve::settings::Settings;

/// How long a request waits for a connection.
pub const PATIENCE: Duration = Duration::from_secs(3);
/// A database role with the level of its tokens. The database enforces the level: the pool logs in as the role itself, so
/// there is no more privileged role to return to.
pub struct Access {
    pub level: Level,
    pub role: String,
    pub pool: PgPool,
    /// Permits for concurrent runs: all connections of the pool but one, which is left for other requests.
    pub runs: Semaphore,
}

/// The tokens, and the accesses that they stand for, lowest level first. Without a file of tokens there is one access, that of
/// the server's own role. Errors: the file; without one, an address that is not loopback.
pub fn load(settings: &Settings, server: &Server) -> Result<(Vec<Token>, Vec<Arc<Access>>)> {
    let Some(file) = &settings.tokens else {
        if !settings.listen.ip().is_loopback() {
            let message = format!("without --tokens the server listens on loopback only, not on {}", settings.listen);
            return Err(
                Failure::usage(message).hint("backlog-cleanup serve --listen 127.0.0.1:8642 --insecure-no-auth")
            );
        }
        let options = server.options()?;
        let role = options.get_username().to_owned();
        return Ok((Vec::new(), vec![Arc::new(Access::new(Level::Admin, role, options, settings))]));
    };
    let mut tokens = Vec::new();
    let mut accesses: BTreeMap<(Level, String), Arc<Access>> = BTreeMap::new();
    for (level, role, hash) in tokens::read(file)? {
        let access = match accesses.entry((level, role)) {
            Entry::Occupied(known) => Arc::clone(known.get()),
            Entry::Vacant(unknown) => {
                let role = unknown.key().1.clone();
                let options = server.as_role(&role).options()?;
                Arc::clone(unknown.insert(Arc::new(Access::new(level, role, options, settings))))
            }
        };
        tokens.push(Token { hash, access });
    }
    Ok((tokens, accesses.into_values().collect()))
}

impl Access {
    fn new(level: Level, role: String, options: PgConnectOptions, settings: &Settings) -> Access {
        let runs = Semaphore::new(settings.pool_size as usize - 1);
        Access { level, role, pool: pool(options, settings), runs }
    }

    /// The caller's name in the log and in `run.requested_by`.
    pub fn who(&self) -> &str {
        &self.role
    }

    /// Connects once. Errors: the database is away; it does not have the extension; the role is a superuser, which bypasses
    /// levels.
    pub async fn check(&self) -> Result<()> {
        let options = self.pool.connect_options();
        let mut connection = options.connect().await.map_err(|error| not_connected(error, &options))?;
        use_extension(&mut connection).await?;
        let is_superuser: bool = sqlx::query_scalar("SELECT rolsuper FROM pg_roles WHERE rolname = CURRENT_USER")
            .fetch_one(&mut connection)
            .await?;
        if is_superuser && self.level < Level::Admin {
            return Err(Failure::usage(format!(
                "role \"{}\" of level {} is a superuser, and superusers bypass levels",
                self.role, self.level
            ))
            .hint(format!(
                "CREATE ROLE backlog_{0} LOGIN; SELECT backlog_cleanup_grant('backlog_{0}', '{0}')",
                self.level
            )));
        }
        Ok(())
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
                // Ends the query of a client that has disconnected.
                connection.execute(&*format!("SET statement_timeout = {timeout}")).await.map(drop)
            })
        })
        .connect_lazy_with(options.disable_statement_logging())
}
