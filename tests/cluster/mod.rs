//! A throwaway PostgreSQL server per test: its own directory, its own socket, never root, gone at the end.
#![allow(dead_code)] // each test file uses its part

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::mpsc::Sender;

use postgres::{Client, NoTls};
use tempfile::TempDir;

const PLATFORM: &str = include_str!("../../demo/platform.sql");

/// The settings that run pg_cron in the database `postgres`.
pub const PG_CRON: &str =
    "shared_preload_libraries = 'pg_cron'\ncron.database_name = 'postgres'\ncron.use_background_workers = on\n";

/// A running server; dropping it stops it at once and removes its directory.
pub struct Cluster {
    bin: PathBuf,
    dir: TempDir,
    /// Whether pg_cron is loaded, its database `postgres`.
    settings: String,
    /// What `RUST_BACKTRACE` is in the server's environment.
    backtrace: &'static str,
}

impl Cluster {
    /// Starts a server whose configuration gets these lines.
    pub fn start(settings: &str) -> Cluster {
        Cluster { bin: bin(), dir: directory(), settings: settings.to_owned(), backtrace: "0" }.initialized()
    }

    /// Starts a server that was told to show the backtraces of panics in Rust.
    pub fn start_with_backtraces() -> Cluster {
        Cluster { bin: bin(), dir: directory(), settings: String::new(), backtrace: "full" }.initialized()
    }

    fn initialized(self) -> Cluster {
        let cluster = self;
        cluster.run("initdb", &["-U", "postgres", "-A", "trust", "--locale=C", "-E", "UTF8", "--no-sync"]);
        cluster.configure();
        cluster.pg_ctl(&["start"]);
        cluster
    }

    /// Starts a server that runs pg_cron in the database `postgres`.
    pub fn start_with_pg_cron() -> Cluster {
        Cluster::start(PG_CRON)
    }

    /// Starts a hot standby of this server.
    pub fn standby(&self) -> Cluster {
        let standby = Cluster {
            bin: self.bin.clone(),
            dir: directory(),
            settings: self.settings.clone(),
            backtrace: self.backtrace,
        };
        standby.run("pg_basebackup", &["-h", self.socket(), "-U", "postgres", "-R", "-c", "fast"]);
        standby.configure();
        standby.pg_ctl(&["start"]);
        standby
    }

    /// Stops the server, whoever is connected, and starts it again.
    pub fn restart(&self) {
        self.pg_ctl(&["restart", "-m", "fast"]);
    }

    /// Stops the server as a power failure would, and starts it again.
    pub fn crash(&self) {
        self.pg_ctl(&["restart", "-m", "immediate"]);
    }

    /// Ends a process of this server with no chance to clean up.
    pub fn kill(&self, pid: i32) {
        assert!(Command::new("kill").args(["-9", &pid.to_string()]).status().expect("kill starts").success());
    }

    /// What the server has logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).expect("the log")
    }

    pub fn socket(&self) -> &str {
        self.dir.path().to_str().expect("a temporary directory has a plain name")
    }

    pub fn connect(&self) -> Client {
        self.connect_to("postgres")
    }

    pub fn connect_to(&self, database: &str) -> Client {
        Client::connect(&format!("host={} user=postgres dbname={database}", self.socket()), NoTls).expect("connects")
    }

    /// A connection whose notices and warnings are sent on, each with its hint.
    pub fn connect_with_notices(&self, notices: Sender<(String, String)>) -> Client {
        postgres::Config::new()
            .host(self.socket())
            .user("postgres")
            .dbname("postgres")
            .notice_callback(move |notice| {
                let hint = notice.hint().unwrap_or_default().to_owned();
                notices.send((notice.message().to_owned(), hint)).unwrap_or_default()
            })
            .connect(NoTls)
            .expect("connects")
    }

    /// The platform's tables, empty, and the extension, in the database `postgres`.
    pub fn platform(&self) -> Client {
        let mut client = self.connect();
        client.batch_execute(PLATFORM).expect("the platform's tables");
        client.batch_execute("CREATE EXTENSION backlog_cleanup").expect("the extension");
        client
    }

    /// Runs one of the server's programs on it and returns what it printed.
    pub fn program(&self, name: &str, arguments: &[&str]) -> String {
        let output = Command::new(self.bin.join(name))
            .args(["-h", self.socket(), "-U", "postgres"])
            .args(arguments)
            .output()
            .expect("the program starts");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{name} {arguments:?}: {stderr}");
        String::from_utf8(output.stdout).expect("UTF-8")
    }

    fn configure(&self) {
        let settings = format!(
            "listen_addresses = ''\nunix_socket_directories = '{}'\nfsync = off\n{}",
            self.socket(),
            self.settings
        );
        let file = self.data().join("postgresql.auto.conf");
        let kept = std::fs::read_to_string(&file).unwrap_or_default();
        std::fs::write(&file, kept + &settings).expect("the configuration");
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    fn pg_ctl(&self, arguments: &[&str]) {
        let log = self.dir.path().join("log");
        self.run("pg_ctl", &[&["-w", "-l", log.to_str().expect("UTF-8")], arguments].concat());
    }

    /// Runs a program on the data directory, as a user who is not root.
    fn run(&self, program: &str, arguments: &[&str]) {
        let status = self.command(program, arguments).status().expect("the program starts");
        assert!(status.success(), "{program} {arguments:?}");
    }

    fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let program = self.bin.join(program);
        let mut command = if is_root() {
            let mut command = Command::new("runuser");
            command.args(["-u", "postgres", "--"]).arg(&program);
            command
        } else {
            Command::new(&program)
        };
        command
            .args(arguments)
            .arg("-D")
            .arg(self.data())
            .env("RUST_BACKTRACE", self.backtrace)
            .current_dir("/")
            .stdout(Stdio::null());
        command
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // A server that did not start has nothing to stop, and its test has said so.
        self.command("pg_ctl", &["-m", "immediate", "stop"]).status().ok();
    }
}

fn bin() -> PathBuf {
    let pg_config = std::env::var("PG_CONFIG").unwrap_or_else(|_| "/usr/lib/postgresql/15/bin/pg_config".into());
    let output = Command::new(pg_config).arg("--bindir").output().expect("pg_config starts");
    PathBuf::from(String::from_utf8(output.stdout).expect("UTF-8").trim_end())
}

fn directory() -> TempDir {
    let dir = TempDir::with_prefix("backlog_cleanup-").expect("a temporary directory");
    if is_root() {
        assert!(Command::new("chown").arg("postgres").arg(dir.path()).status().expect("chown starts").success());
    }
    dir
}

fn is_root() -> bool {
    std::fs::metadata("/proc/self").map(|process| std::os::unix::fs::MetadataExt::uid(&process) == 0).unwrap_or(false)
}

/// Waits until a query returns true, also over a restart of the server.
pub fn until(cluster: &Cluster, query: &str) {
    for _ in 0..1200 {
        let config = format!("host={} user=postgres dbname=postgres", cluster.socket());
        let answer = Client::connect(&config, NoTls).and_then(|mut client| client.query_one(query, &[]));
        if answer.is_ok_and(|row| row.get::<_, Option<bool>>(0) == Some(true)) {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    panic!("never true: {query}");
}

/// The SQLSTATE, message and hint of a refused statement.
pub fn refused(result: Result<(), postgres::Error>) -> (String, String, String) {
    let failure = result.expect_err("refused");
    let error = failure.as_db_error().unwrap_or_else(|| panic!("an error of the server: {failure}"));
    (error.code().code().to_owned(), error.message().to_owned(), error.hint().unwrap_or_default().to_owned())
}
