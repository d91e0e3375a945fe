//! Who may do what: the roles of the database that tokens and sessions stand for. Knows no request.

mod level;
pub mod sessions;
pub mod tokens;

use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::{ConnectOptions, Executor};
use tokio::sync::Semaphore;

use crate::client::connect::{not_connected, use_extension};
use crate::failure::{Failure, Result};
use crate::serve::settings::Settings;

pub use level::Level;

/// How long a request waits for a connection.
pub const PATIENCE: Duration = Duration::from_secs(3);
/// A role of the database, with the level that its tokens have. The database enforces the level: the pool logs in as the
/// role itself, which has nothing to go back to.
pub struct Access {
    pub level: Level,
    pub role: String,
    pub pool: PgPool,
    /// Runs at a time; each has a connection of the pool, and one is left for the others.
    pub runs: Semaphore,
}

impl Access {
    pub fn new(level: Level, role: String, options: PgConnectOptions, settings: &Settings) -> Access {
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
