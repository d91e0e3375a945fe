//! Debian's pgbouncer, in front of a cluster.

use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Stdio};

use cluster::{Cluster, until_holds};
use postgres::{NoTls, SimpleQueryMessage};
use tempfile::TempDir;

use crate::cli::Ran;

const PROGRAM: &str = "/usr/sbin/pgbouncer";

#[derive(Debug, Clone, Copy)]
pub enum Mode {
    Transaction,
    Session,
}

/// A running pgbouncer, on a socket in a directory of its own; dropping it ends it.
pub struct Pgbouncer {
    child: Child,
    /// Server connections per database and role.
    pub size: usize,
    files: TempDir,
}

impl Pgbouncer {
    /// In front of the database `behind`; `None`, with a note, where it is not installed.
    pub fn start(cluster: &Cluster, mode: Mode) -> Option<Pgbouncer> {
        Pgbouncer::start_with(cluster, mode, "")
    }

    /// The same with one more setting.
    pub fn start_with(cluster: &Cluster, mode: Mode, setting: &str) -> Option<Pgbouncer> {
        if !std::path::Path::new(PROGRAM).exists() {
            eprintln!("skipped: {PROGRAM} is not installed (make setup)");
            return None;
        }
        let files = TempDir::with_prefix("backlog_cleanup-").expect("a directory");
        std::fs::set_permissions(files.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
        let path = files.path().display();
        // In a pooler of sessions each connection of the server's pools keeps one.
        let size = if let Mode::Session = mode { 20 } else { 3 };
        let mode = format!("{mode:?}").to_lowercase();
        let configuration = format!(
            "[databases]\nbehind = host={}\n[pgbouncer]\nlisten_port = 5432\nlisten_addr =\nunix_socket_dir = {path}\n\
             auth_type = any\nauth_file = {path}/users\npool_mode = {mode}\ndefault_pool_size = {size}\nmin_pool_size = 0\n\
             logfile = {path}/log\nmax_client_conn = 100\nserver_round_robin = 1\n{setting}\n",
            cluster.socket()
        )
        .replace("auth_type = any", "auth_type = trust");
        let users = ["postgres", "backlog_monitor", "backlog_operator", "backlog_admin"];
        let users: String = users.iter().map(|user| format!("\"{user}\" \"\"\n")).collect();
        std::fs::write(files.path().join("users"), users).unwrap();
        std::fs::write(files.path().join("ini"), configuration).unwrap();
        let mut command = Command::new(PROGRAM);
        command.args(["-q", "-u", "postgres"]).arg(files.path().join("ini"));
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("pgbouncer starts");
        let pooler = Pgbouncer { child, size, files };
        until_holds(|| pooler.connect().is_ok());
        Some(pooler)
    }

    pub fn host(&self) -> &str {
        self.files.path().to_str().expect("a plain name")
    }

    pub fn connect(&self) -> Result<postgres::Client, postgres::Error> {
        let mut configuration = postgres::Config::new();
        configuration.host(self.host()).user("postgres").dbname("behind").connect(NoTls)
    }

    /// The one value that a query returns on the next server connection.
    pub fn ask(&self, query: &str) -> String {
        let rows = self.connect().expect("connects").simple_query(query).expect(query);
        rows.iter()
            .find_map(|row| if let SimpleQueryMessage::Row(row) = row { row.get(0).map(str::to_owned) } else { None })
            .unwrap_or_default()
    }

    /// The binary behind it.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_backlog-cleanup"));
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("PG") || name == "DATABASE_URL") {
            command.env_remove(name);
        }
        command
            .envs([("PGHOST", self.host()), ("PGUSER", "postgres"), ("PGDATABASE", "behind")])
            .args(arguments)
            .stdin(Stdio::null());
        command
    }

    pub fn run(&self, arguments: &[&str]) -> Ran {
        self.command(arguments).output().expect("the binary starts").into()
    }

    /// Another client, with a statement.
    pub fn psql(&self, statement: &str) -> Command {
        let mut command = Command::new("psql");
        command.args(["-X", "-h", self.host(), "-U", "postgres", "-d", "behind", "-c", statement]);
        command
    }
}

impl Drop for Pgbouncer {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
