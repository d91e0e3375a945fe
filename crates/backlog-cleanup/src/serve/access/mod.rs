//! The database roles that tokens and sessions stand for, each with its pool. Knows no request.

pub mod sessions;
pub mod tokens;

use std::time::Duration;

use backlog_cleanup_report::Level;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::{ConnectOptions, Executor};
use tokio::sync::Semaphore;

use crate::client::connect::{not_connected, use_extension};
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

impl Access {
    pub fn new(level: Level, role: String, options: PgConnectOptions, settings: &Settings) -> Access {
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
