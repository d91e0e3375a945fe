use std::env;
use std::time::Duration;

use clap::Args;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgSslMode};
use sqlx::{ConnectOptions, Connection, Executor};
use tokio::time::timeout;
use url::Url;

use crate::failure::{Failure, Result};

/// Where the database is: these arguments, else `DATABASE_URL`, else libpq's variables `PGHOST`, `PGPORT` and so on.
/// Passwords come from `PGPASSWORD`, `DATABASE_URL` or `~/.pgpass`, never from an argument.
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

/// Sets the search path to pg_catalog, the extension's schema and pg_temp. Returns no row if the extension is missing.
const FIND_EXTENSION: &str = "
    SELECT pg_catalog.set_config('search_path', 'pg_catalog, ' || pg_catalog.quote_ident(n.nspname) || ', pg_temp', false)
    FROM pg_catalog.pg_extension e JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace
    WHERE e.extname = 'backlog_cleanup'";

/// Variables that libpq reads and sqlx does not, each with the value that asks for nothing. They are refused, because
/// ignoring them would connect to another server, or less safely.
const NOT_UNDERSTOOD: [(&str, &str); 6] = [
    ("PGSERVICE", ""),
    ("PGTARGETSESSIONATTRS", "any"),
    ("PGCHANNELBINDING", "prefer"),
    ("PGREQUIREPEER", ""),
    ("PGREQUIREAUTH", ""),
    ("PGSSLCRL", ""),
];

impl Server {
    /// The same server, for another role.
    pub fn as_role(&self, role: &str) -> Server {
        Server { username: Some(role.into()), ..self.clone() }
    }

    /// The options of a connection. Errors: an address that is not valid or contains a password; an unsupported or invalid
    /// variable.
    pub fn options(&self) -> Result<PgConnectOptions> {
        check_environment()?;
        let options = self.address(None)?;
        // Without a name the database is named as the role; .pgpass is searched for that name.
        let options = match options.get_database() {
            Some(_) => options,
            None => self.address(Some(options.get_username()))?,
        };
        if options.get_host().contains(',') {
            let message = format!("several hosts are not supported: \"{}\"", options.get_host());
            return Err(Failure::usage(message).hint("name the primary"));
        }
        Ok(options.application_name("backlog-cleanup").disable_statement_logging())
    }

    /// Puts everything into one address, because sqlx looks up .pgpass by the address, not by options that are set later.
    fn address(&self, database: Option<&str>) -> Result<PgConnectOptions> {
        let (name, address) = match &self.dbname {
            Some(address) if address.contains("://") => (None, Some(address.clone())),
            name => (name.as_deref(), env::var("DATABASE_URL").ok()),
        };
        let mut address = match Url::parse(address.as_deref().unwrap_or("postgres://")) {
            Ok(address) if ["postgres", "postgresql"].contains(&address.scheme()) => address,
            // It may contain a password, so it is not shown.
            _ => {
                return Err(
                    Failure::usage("the database's address is not valid").hint("postgres://user@host:5432/database")
                );
            }
        };
        if let Some((key, _)) = address.query_pairs().find(|(key, _)| is_password(key) && key != "password") {
            // sqlx would ignore it, and print its value.
            return Err(Failure::usage(format!("parameter \"{key}\" of the database's address is not supported"))
                .hint("put the password into ~/.pgpass, PGPASSWORD or DATABASE_URL"));
        }
        if name.is_none() && self.dbname.is_some() && has_password(&address) {
            return Err(Failure::usage("a password in an argument can be read by other users of this machine")
                .hint("put it into ~/.pgpass, PGPASSWORD or DATABASE_URL"));
        }
        let port = self.port.map(|port| port.to_string());
        let arguments = [
            ("dbname", name.or(database)),
            ("host", self.host.as_deref()),
            ("port", port.as_deref()),
            ("user", self.username.as_deref()),
        ];
        for (key, value) in arguments.into_iter().filter_map(|(key, value)| Some((key, value?))) {
            address.query_pairs_mut().append_pair(key, value);
        }
        PgConnectOptions::from_url(&address).map_err(|error| Failure::usage(error.to_string()))
    }

    /// A connection to a database that has the extension.
    pub async fn connect(&self) -> Result<PgConnection> {
        let mut connection = self.connect_without_extension().await?;
        use_extension(&mut connection).await?;
        Ok(connection)
    }

    /// A connection whose search_path is pg_catalog.
    pub async fn connect_without_extension(&self) -> Result<PgConnection> {
        self.open(self.options()?).await
    }

    /// The same to another database of the server.
    pub async fn connect_to(&self, database: &str) -> Result<PgConnection> {
        self.open(self.options()?.database(database)).await
    }

    async fn open(&self, options: PgConnectOptions) -> Result<PgConnection> {
        let seconds = env::var("PGCONNECT_TIMEOUT").ok().and_then(|seconds| seconds.trim().parse().ok());
        let opened = match seconds.filter(|seconds| *seconds > 0) {
            Some(seconds) => timeout(Duration::from_secs(seconds), options.connect())
                .await
                .unwrap_or_else(|_| Err(sqlx::Error::Io(std::io::ErrorKind::TimedOut.into()))),
            None => options.connect().await,
        };
        let mut connection = opened.map_err(|error| not_connected(error, &options))?;
        connection.execute("SET search_path = pg_catalog, pg_temp").await?;
        Ok(connection)
    }
}

/// Sets the search path of a new connection, before any other statement. Errors: the extension is missing.
pub async fn use_extension(connection: &mut PgConnection) -> Result<()> {
    connection.execute("SET search_path = pg_catalog, pg_temp").await?;
    match sqlx::query(FIND_EXTENSION).fetch_optional(connection).await? {
        Some(_) => Ok(()),
        None => Err(Failure::error("extension \"backlog_cleanup\" does not exist in this database")
            .hint("backlog-cleanup setup")),
    }
}

fn check_environment() -> Result<()> {
    for (name, nothing) in NOT_UNDERSTOOD {
        if env::var(name).is_ok_and(|value| !value.is_empty() && value != nothing) {
            return Err(Failure::usage(format!("{name} is not supported")).hint(format!("unset {name}")));
        }
    }
    // For a value that it cannot read sqlx uses the default, which verifies no certificate.
    for (name, is_valid) in [
        ("PGSSLMODE", (|value| value.parse::<PgSslMode>().is_ok()) as fn(&str) -> bool),
        ("PGPORT", |value| value.parse::<u16>().is_ok()),
        ("PGCONNECT_TIMEOUT", |value| value.trim().parse::<u64>().is_ok()),
    ] {
        if let Some(value) = env::var(name).ok().filter(|value| !is_valid(value)) {
            return Err(Failure::usage(format!("{name} is not valid: \"{value}\"")));
        }
    }
    Ok(())
}

fn has_password(address: &Url) -> bool {
    address.password().is_some() || address.query_pairs().any(|(key, _)| is_password(&key))
}

/// In any case of letters, and libpq's sslpassword too.
fn is_password(key: &str) -> bool {
    key.to_lowercase().contains("password")
}

/// The error of a connection that could not be opened.
pub fn not_connected(error: sqlx::Error, options: &PgConnectOptions) -> Failure {
    let what = match &error {
        sqlx::Error::Io(error) => error.to_string(),
        sqlx::Error::Tls(error) => error.to_string(),
        _ => {
            return Failure::from(error).or_hint(
                "--dbname and --username, PGDATABASE and PGUSER, or DATABASE_URL choose the database and the role",
            );
        }
    };
    let host = options.get_socket().map_or(options.get_host().into(), |socket| socket.to_string_lossy());
    let message = format!("could not connect to \"{host}\", port {}: {what}", options.get_port());
    Failure { sqlstate: Some("08006".into()), ..Failure::error(message) }
        .hint("--host and --port, PGHOST and PGPORT, or DATABASE_URL choose the server")
}

/// The server process of a connection.
pub async fn pid(connection: &mut PgConnection) -> sqlx::Result<i32> {
    sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(connection).await
}

/// Waits until the server has ended the transaction of a failed statement, and released its locks: it reports the error
/// before that.
pub async fn settle(connection: &mut PgConnection) {
    connection.ping().await.ok();
}
