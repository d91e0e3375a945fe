use std::str::FromStr;

use clap::Args;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{ConnectOptions, Executor};

use crate::failure::{Failure, Result};

/// Where the database is, as psql has it: these arguments, else `DATABASE_URL`, else `PGHOST`, `PGPORT`, `PGUSER`,
/// `PGDATABASE`, `PGSSLMODE` and the rest. Passwords come from `PGPASSWORD`, `DATABASE_URL` or `~/.pgpass`, never from an
/// argument.
#[derive(Args, Clone)]
#[command(next_help_heading = "Connection")]
pub struct Server {
    /// Database name, or a postgres:// address without a password
    #[arg(short, long, global = true)]
    dbname: Option<String>,
    /// Host name, or the directory of the Unix socket
    #[arg(long, global = true)]
    host: Option<String>,
    /// Port
    #[arg(short, long, global = true)]
    port: Option<u16>,
    /// Role to connect as
    #[arg(short = 'U', long, global = true)]
    username: Option<String>,
}

/// Puts the extension's schema behind pg_catalog, and nothing else but temporary objects; returns no row where the
/// extension is missing.
const FIND_EXTENSION: &str = "
    SELECT pg_catalog.set_config('search_path', 'pg_catalog, ' || pg_catalog.quote_ident(n.nspname) || ', pg_temp', false)
    FROM pg_catalog.pg_extension e JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace
    WHERE e.extname = 'backlog_cleanup'";

impl Server {
    /// The same server, for another role.
    pub fn as_role(&self, role: &str) -> Server {
        Server { username: Some(role.into()), ..self.clone() }
    }

    /// The options of a connection; errors: an address that is none, or that holds a password.
    pub fn options(&self) -> Result<PgConnectOptions> {
        let mut options = match (&self.dbname, std::env::var("DATABASE_URL")) {
            (Some(url), _) if url.contains("://") => address(url)?,
            (None, Ok(url)) => PgConnectOptions::from_str(&url)?,
            _ => PgConnectOptions::new(),
        };
        if let Some(name) = self.dbname.as_ref().filter(|name| !name.contains("://")) {
            options = options.database(name);
        }
        if let Some(host) = &self.host {
            options = if host.starts_with('/') { options.socket(host) } else { options.host(host) };
        }
        if let Some(port) = self.port {
            options = options.port(port);
        }
        if let Some(username) = &self.username {
            options = options.username(username);
        }
        Ok(options.application_name("backlog-cleanup").disable_statement_logging())
    }

    /// A connection to a database that has the extension.
    pub async fn connect(&self) -> Result<PgConnection> {
        let mut connection = self.options()?.connect().await?;
        use_extension(&mut connection).await?;
        Ok(connection)
    }
}

/// Sets the search_path of a new connection: the first thing that it does. Errors: the extension is missing.
pub async fn use_extension(connection: &mut PgConnection) -> Result<()> {
    connection.execute("SET search_path = pg_catalog, pg_temp").await?;
    match sqlx::query(FIND_EXTENSION).fetch_optional(connection).await? {
        Some(_) => Ok(()),
        None => {
            Err(Failure::error("extension \"backlog_cleanup\" is not in this database").hint("backlog-cleanup setup"))
        }
    }
}

fn address(url: &str) -> Result<PgConnectOptions> {
    // user:password@host, as others on the machine could read in the list of processes.
    let authority = url.split("://").nth(1).and_then(|rest| rest.split('/').next()).unwrap_or_default();
    if authority.rsplit_once('@').is_some_and(|(user, _)| user.contains(':')) || url.contains("password=") {
        return Err(
            Failure::usage("an argument is no place for a password").hint("put it into PGPASSWORD or ~/.pgpass")
        );
    }
    Ok(PgConnectOptions::from_str(url)?)
}
