//! The database roles that tokens and sessions stand for, each with its connections. Knows no request.

pub mod keyring;
pub mod secret;
pub mod sessions;
pub mod tokens;

use std::time::Duration;

use backlog_cleanup_report::Level;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPool, PgPoolOptions};
use sqlx::{ConnectOptions, Postgres, Transaction};
use tokio::sync::Semaphore;

use crate::client::connect::{BEGIN, are_settings_refused, begin, has_extension, not_connected, open, with_settings};
use crate::client::statement::{query_as, query_scalar};
use crate::failure::{Failure, Result};
use crate::serve::settings::Settings;

/// How long a request waits for a connection.
pub const PATIENCE: Duration = Duration::from_secs(3);

/// A database role with the level of its tokens. The database enforces the level: the pools log in as the role itself, so
/// there is no more privileged role to return to.
pub struct Access {
    pub level: Level,
    pub role: String,
    options: PgConnectOptions,
    pub pool: PgPool,
    /// One more connection, for what must get one while `pool` has none: stopping a run, readiness.
    pub reserved: PgPool,
    /// Begins a transaction whose statements have the time of a request, also if their client has gone.
    begin: String,
    /// Permits for concurrent runs: all connections of the pool but one, which is left for other requests.
    pub runs: Semaphore,
    /// Permits for concurrent dry runs: half of the pool.
    pub dry_runs: Semaphore,
}

/// A role that the session's role is or may become, and that may do more than a level.
const TOO_POWERFUL: &str = "
    SELECT r.rolname::text, r.rolsuper
    FROM pg_roles r
    WHERE pg_has_role(CURRENT_USER, r.oid, 'MEMBER')
      AND (r.rolsuper
           OR $1 = 'monitor' AND EXISTS (
               SELECT FROM pg_proc p JOIN pg_extension e ON e.extnamespace = p.pronamespace
               WHERE e.extname = 'backlog_cleanup'
                 AND p.proname IN ('backlog_cleanup_run', 'backlog_cleanup_emergency', 'backlog_cleanup_stop',
                                   'backlog_cleanup_failed_generations', 'backlog_cleanup_schedule')
                 AND has_function_privilege(r.oid, p.oid, 'EXECUTE'))
           OR $1 IN ('monitor', 'operator') AND EXISTS (
               SELECT FROM pg_class c
               WHERE c.relnamespace = (SELECT n.oid FROM pg_namespace n WHERE n.nspname = 'backlog_cleanup')
                 AND c.relname IN ('target', 'policy')
                 AND has_table_privilege(r.oid, c.oid, 'INSERT, UPDATE, DELETE')))
    ORDER BY r.rolname <> CURRENT_USER, NOT r.rolsuper, r.rolname LIMIT 1";

impl Access {
    fn new(level: Level, role: String, options: PgConnectOptions, settings: &Settings) -> Access {
        let size = settings.pool_size;
        Access {
            pool: pool(level, with_settings(&options), size),
            reserved: pool(level, with_settings(&options), 1),
            options,
            begin: format!("{BEGIN}; SET LOCAL statement_timeout = {}", settings.request_timeout.as_millis()),
            runs: Semaphore::new(size as usize - 1),
            dry_runs: Semaphore::new(size as usize / 2),
            level,
            role,
        }
    }

    /// The database and its host: `app on localhost:5432`.
    pub fn place(&self) -> String {
        let database = self.options.get_database().unwrap_or(&self.role);
        // A socket is on the same machine.
        let is_socket = self.options.get_socket().is_some() || self.options.get_host().starts_with('/');
        let host = if is_socket { "localhost" } else { self.options.get_host() };
        format!("{database} on {host}:{}", self.options.get_port())
    }

    /// The caller's name in the log and in `run.requested_by`.
    pub fn who(&self) -> &str {
        &self.role
    }

    /// Begins a transaction, which rolls back unless it commits.
    pub async fn begin(&self) -> sqlx::Result<Transaction<'static, Postgres>> {
        self.begin_in(&self.pool).await
    }

    /// The same with the reserved connection.
    pub async fn begin_reserved(&self) -> sqlx::Result<Transaction<'static, Postgres>> {
        self.begin_in(&self.reserved).await
    }

    /// One more connection, to listen, with our settings only. Each of them is new: one that has stalled cannot be had back.
    pub fn listening(&self) -> PgPool {
        pool(self.level, with_settings(&self.options), 1)
    }

    async fn begin_in(&self, pool: &PgPool) -> sqlx::Result<Transaction<'static, Postgres>> {
        match pool.begin_with(self.begin.clone()).await {
            Err(error) if are_settings_refused(&error) => {
                for pool in [&self.pool, &self.reserved] {
                    pool.set_connect_options(self.options.clone());
                }
                pool.begin_with(self.begin.clone()).await
            }
            begun => begun,
        }
    }

    /// Connects once. Errors: the database is away; it does not have the extension; the role may do more than its level.
    pub async fn check(&self) -> Result<()> {
        let mut connection = open(&self.options).await.map_err(|error| not_connected(error, &self.options))?;
        check(self.level, &mut connection).await
    }
}

/// Errors: there is no extension; the role of the connection may do more than its level.
async fn check(level: Level, connection: &mut PgConnection) -> Result<()> {
    has_extension(connection).await?;
    let mut work = begin(connection).await?;
    refuse_more_than(level, &mut work).await?;
    Ok(work.commit().await?)
}

async fn refuse_more_than(level: Level, connection: &mut PgConnection) -> Result<()> {
    let found: Option<(String, bool)> =
        query_as(TOO_POWERFUL).bind(level.as_str()).fetch_optional(&mut *connection).await?;
    let Some((powerful, is_superuser)) = found else { return Ok(()) };
    let role: String = query_scalar("SELECT CURRENT_USER::text").fetch_one(connection).await?;
    let why = match (powerful == role, is_superuser) {
        (true, true) => "is a superuser, and superusers bypass levels".into(),
        (true, false) => "has privileges of a higher level".into(),
        (false, true) => format!("is a member of superuser \"{powerful}\""),
        (false, false) => format!("is a member of role \"{powerful}\", which has privileges of a higher level"),
    };
    Err(Failure::usage(format!("role \"{role}\" of level {level} {why}"))
        .hint(format!("CREATE ROLE backlog_{level} LOGIN; SELECT backlog_cleanup_grant('backlog_{level}', '{level}')")))
}

fn pool(level: Level, options: PgConnectOptions, size: u32) -> PgPool {
    PgPoolOptions::new()
        .max_connections(size)
        .acquire_timeout(PATIENCE)
        .idle_timeout(Duration::from_secs(300))
        .after_connect(move |connection, _| {
            // Also where the database was away when the server started, or the role has got more since.
            Box::pin(async move {
                check(level, connection).await.map_err(|failure| sqlx::Error::Configuration(failure.message.into()))
            })
        })
        .connect_lazy_with(options.disable_statement_logging())
}
