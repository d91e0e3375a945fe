use std::env;
use std::time::Duration;

use clap::Args;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgSslMode};
use sqlx::{ConnectOptions, Connection, Executor, Postgres, Transaction};
use tokio::time::timeout;
use url::Url;

use super::targets::extension_version;
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

/// Puts the extension's schema into the search path of a transaction.
macro_rules! use_extension {
    () => {
        "SELECT set_config('search_path', 'pg_catalog, ' || quote_ident(n.nspname) || ', pg_temp', true)
         FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = 'backlog_cleanup'"
    };
}

/// Begins a transaction in which names are those of pg_catalog and the extension, and no timeout of the role holds. All of it
/// ends with the transaction: a pooler may give the server connection to another client then.
pub const BEGIN: &str = concat!(
    "BEGIN ISOLATION LEVEL READ COMMITTED;
     SET LOCAL search_path = pg_catalog, pg_temp;
     SET LOCAL statement_timeout = 0;",
    use_extension!()
);

/// Settings with which a connection starts, for the calls that commit: no timeout of the role ends them, and they end soon
/// after their client.
const SETTINGS: [(&str, &str); 2] = [("statement_timeout", "0"), ("client_connection_check_interval", "2s")];

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
        // A pooler refuses the parameter; numbers come in binary.
        Ok(options.application_name("backlog-cleanup").extra_float_digits(None).disable_statement_logging())
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
        has_extension(&mut connection).await?;
        Ok(connection)
    }

    /// A connection to any database.
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
            Some(seconds) => timeout(Duration::from_secs(seconds), open(&options))
                .await
                .unwrap_or_else(|_| Err(sqlx::Error::Io(std::io::ErrorKind::TimedOut.into()))),
            None => open(&options).await,
        };
        opened.map_err(|error| not_connected(error, &options))
    }
}

/// Opens a connection with our settings, or without them where a pooler refuses them.
pub async fn open(options: &PgConnectOptions) -> sqlx::Result<PgConnection> {
    match with_settings(options).connect().await {
        Err(error) if are_settings_refused(&error) => options.connect().await,
        opened => opened,
    }
}

/// The options with our settings; PGOPTIONS wins.
pub fn with_settings(options: &PgConnectOptions) -> PgConnectOptions {
    let ours = SETTINGS.into_iter().filter(|(name, _)| options.get_options().is_none_or(|given| !given.contains(name)));
    options.clone().options(ours)
}

pub fn are_settings_refused(error: &sqlx::Error) -> bool {
    // protocol_violation: a pooler; invalid_parameter_value: a server on a platform without such a check
    let code = error.as_database_error().and_then(|error| error.code());
    code.is_some_and(|code| ["08P01", "22023"].contains(&&*code))
}

/// Begins a transaction on a connection: see [`BEGIN`].
pub async fn begin(connection: &mut PgConnection) -> sqlx::Result<Transaction<'_, Postgres>> {
    connection.begin_with(BEGIN).await
}

/// Finds an extension that the transaction has created itself.
pub async fn use_extension(work: &mut PgConnection) -> sqlx::Result<()> {
    work.execute(use_extension!()).await.map(drop)
}

/// Errors: the extension is missing.
pub async fn has_extension(connection: &mut PgConnection) -> Result<()> {
    let mut work = begin(connection).await?;
    let version = extension_version(&mut work).await?;
    work.commit().await?;
    match version {
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

/// Waits until the server has ended the transaction of a failed statement, and released its locks: it reports the error
/// before that.
pub async fn settle(connection: &mut PgConnection) {
    connection.ping().await.ok();
}
