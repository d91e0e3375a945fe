use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::thread::{self, JoinHandle};

use postgres::{Client, NoTls};
use tempfile::TempDir;

use crate::shared::Shared;
use crate::{installed, platform_of, until_holds};

/// The settings that run pg_cron in the database `postgres`.
pub const PG_CRON: &str =
    "shared_preload_libraries = 'pg_cron'\ncron.database_name = 'postgres'\ncron.use_background_workers = on\n";

/// A running server; dropping it stops it at once and removes its directory.
pub struct Cluster {
    bin: PathBuf,
    dir: TempDir,
    /// Lines of its configuration.
    settings: String,
    /// Where it listens on 127.0.0.1, if it does.
    port: Option<u16>,
    /// What `RUST_BACKTRACE` is in the server's environment.
    backtrace: &'static str,
    /// Keeps what its data directory was copied from for the next server.
    initialized: Option<Arc<TempDir>>,
}

impl Cluster {
    /// Starts a server whose configuration gets these lines.
    pub fn start(settings: &str) -> Cluster {
        Cluster::create(&pg_config(), settings, None, "0")
    }

    /// The same for a server that also listens on this port of 127.0.0.1, and trusts whoever connects there.
    pub fn start_on_port(port: u16, settings: &str) -> Cluster {
        Cluster::create(&pg_config(), settings, Some(port), "0")
    }

    /// The same with the server of another `pg_config`.
    pub fn start_of(pg_config: &str, settings: &str) -> Cluster {
        Cluster::create(pg_config, settings, None, "0")
    }

    /// Starts a server that was told to show the backtraces of panics in Rust.
    pub fn start_with_backtraces() -> Cluster {
        Cluster::create(&pg_config(), "", None, "full")
    }

    /// Copies a data directory that initdb has made once for the tests that run at this time: that is ten times as fast.
    fn create(pg_config: &str, settings: &str, port: Option<u16>, backtrace: &'static str) -> Cluster {
        static INITIALIZED: Shared<TempDir> = Shared::new();
        installed::check();
        let (bin, settings) = (bin_of(pg_config), settings.to_owned());
        let mut cluster = Cluster { bin, dir: directory(), settings, port, backtrace, initialized: None };
        let initialized = INITIALIZED.get(pg_config, || {
            cluster.run("initdb", &["-U", "postgres", "-A", "trust", "--locale=C", "-E", "UTF8", "--no-sync", "-k"]);
            std::mem::replace(&mut cluster.dir, directory())
        });
        let copy = Command::new("cp").arg("-a").arg(initialized.path().join("data")).arg(cluster.dir.path()).status();
        assert!(copy.expect("cp starts").success());
        cluster.initialized = Some(initialized);
        cluster.configure();
        cluster.pg_ctl(&["start"]);
        cluster
    }

    /// Starts a server that runs pg_cron in the database `postgres`.
    pub fn start_with_pg_cron() -> Cluster {
        Cluster::start(PG_CRON)
    }

    /// A server that tests share, each in a database of its own; the last of them stops it.
    pub fn shared(settings: &str) -> Arc<Cluster> {
        static SHARED: Shared<Cluster> = Shared::new();
        SHARED.get(settings, || Cluster::start(settings))
    }

    /// Starts a hot standby of this server.
    pub fn standby(&self) -> Cluster {
        let standby = Cluster {
            bin: self.bin.clone(),
            dir: directory(),
            settings: self.settings.clone(),
            port: None,
            backtrace: self.backtrace,
            initialized: self.initialized.clone(),
        };
        standby.run("pg_basebackup", &["-h", self.socket(), "-U", "postgres", "-R", "-c", "fast"]);
        standby.configure();
        standby.pg_ctl(&["start"]);
        standby
    }

    /// Takes over everything from a server of an earlier major, with pg_upgrade. That one stays stopped.
    pub fn take_over(&self, old: &Cluster) {
        for cluster in [old, self] {
            cluster.pg_ctl(&["stop", "-m", "fast"]);
        }
        let (bin, data) = (old.bin.to_str().expect("a plain name"), old.data());
        self.run("pg_upgrade", &["-U", "postgres", "-b", bin, "-d", data.to_str().expect("a plain name")]);
        self.pg_ctl(&["start"]);
    }

    /// Stops the server, whoever is connected, and starts it again.
    pub fn restart(&self) {
        self.pg_ctl(&["restart", "-m", "fast"]);
    }

    /// The same with options on its command line.
    pub fn restart_with_options(&self, options: &str) {
        self.pg_ctl(&["restart", "-m", "fast", "-o", options]);
    }

    /// The same with an environment of its own.
    pub fn restart_with(&self, environment: &[(&str, &str)]) {
        let arguments = ["restart", "-m", "fast", "-w", "-l", &self.log()];
        let mut restart = self.command("pg_ctl", &arguments);
        assert!(restart.envs(environment.iter().copied()).status().expect("pg_ctl starts").success());
    }

    /// Stops the server as a power failure would, and starts it again.
    pub fn crash(&self) {
        self.pg_ctl(&["restart", "-m", "immediate"]);
    }

    /// Ends a process of this server with no chance to clean up; false where there is none.
    pub fn kill(&self, process: i32) -> bool {
        let mut kill = Command::new("kill");
        kill.args(["-9", &process.to_string()]).stderr(Stdio::null()).status().expect("kill starts").success()
    }

    /// Stops the server as a power failure would.
    pub fn stop(&self) {
        self.pg_ctl(&["stop", "-m", "immediate"]);
    }

    /// Starts a server that was killed, as soon as the last of its processes is gone, unless it has come back by itself.
    pub fn start_again(&self) {
        let log = self.log();
        until_holds(|| {
            self.configuration("postgres").connect(NoTls).is_ok()
                || self
                    .command("pg_ctl", &["-w", "-l", &log, "start"])
                    .stderr(Stdio::null())
                    .status()
                    .unwrap()
                    .success()
        });
    }

    /// Adds a line to the configuration, for the next start.
    pub fn set(&self, line: &str) {
        let file = self.data().join("postgresql.auto.conf");
        let kept = std::fs::read_to_string(&file).expect("the configuration");
        std::fs::write(&file, format!("{kept}\n{line}\n")).expect("the configuration");
    }

    /// Makes a directory that is the server's.
    pub fn make_directory(&self, path: &Path) {
        std::fs::create_dir(path).expect("a directory");
        give_to_server(path);
    }

    /// Moves the write-ahead log to another file system.
    pub fn move_log_to(&self, path: &Path) {
        self.stop();
        let log = self.data().join("pg_wal");
        assert!(Command::new("mv").arg(&log).arg(path).status().expect("mv starts").success());
        std::os::unix::fs::symlink(path, &log).expect("a link");
        self.pg_ctl(&["start"]);
    }

    /// Makes a standby a primary.
    pub fn promote(&self) {
        self.pg_ctl(&["promote"]);
    }

    /// The process id of the postmaster.
    pub fn postmaster(&self) -> i32 {
        let file = std::fs::read_to_string(self.data().join("postmaster.pid")).expect("a server that runs");
        file.lines().next().expect("a process id").parse().expect("a number")
    }

    /// What the server has logged.
    pub fn logged(&self) -> String {
        std::fs::read_to_string(self.log()).expect("the log")
    }

    /// Its port, which also the name of the socket has.
    pub fn port(&self) -> u16 {
        self.port.unwrap_or(5432)
    }

    pub fn socket(&self) -> &str {
        self.dir.path().to_str().expect("a temporary directory has a plain name")
    }

    pub fn connect(&self) -> Client {
        self.connect_to("postgres")
    }

    pub fn connect_to(&self, database: &str) -> Client {
        self.configuration(database).connect(NoTls).expect("connects")
    }

    /// The statements that make a database of this server the server `name` of postgres_fdw, for the role `postgres`.
    pub fn as_server(&self, name: &str, database: &str) -> String {
        format!(
            "CREATE EXTENSION postgres_fdw;
             CREATE SERVER {name} FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '{}', dbname '{database}');
             CREATE USER MAPPING FOR postgres SERVER {name} OPTIONS (user 'postgres');",
            self.socket()
        )
    }

    /// The most memory that a new session has had after a statement, in kB.
    pub fn memory_for(&self, database: &str, role: &str, statement: &str) -> u32 {
        let mut session = self.connect_to(database);
        let process: i32 = crate::value(&mut session, "SELECT pg_backend_pid()");
        session.batch_execute(&format!("SET SESSION AUTHORIZATION {role}")).expect("a role");
        session.batch_execute(statement).unwrap_or_else(|failure| panic!("{statement}: {failure:?}"));
        let status = std::fs::read_to_string(format!("/proc/{process}/status")).expect("a process");
        let most = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("its memory");
        most.trim().trim_end_matches(" kB").parse().expect("a number")
    }

    /// Runs statements in a session of their own, which the handle gives back with the result.
    pub fn in_background(&self, statements: &str) -> JoinHandle<(Client, Result<(), postgres::Error>)> {
        let (mut session, statements) = (self.connect(), statements.to_owned());
        thread::spawn(move || {
            let result = session.batch_execute(&statements);
            (session, result)
        })
    }

    pub fn configuration(&self, database: &str) -> postgres::Config {
        let mut configuration = postgres::Config::new();
        configuration.host(self.socket()).port(self.port()).user("postgres").dbname(database);
        configuration
    }

    /// A connection, as soon as the server takes one again.
    pub fn reconnect(&self) -> Client {
        let mut connection = None;
        until_holds(|| {
            connection = self.configuration("postgres").connect(NoTls).ok();
            connection.is_some()
        });
        connection.expect("connects")
    }

    /// A connection whose notices and warnings are sent on, each with its hint.
    pub fn connect_with_notices(&self, notices: Sender<(String, String)>) -> Client {
        self.configuration("postgres")
            .notice_callback(move |notice| {
                let hint = notice.hint().unwrap_or_default().to_owned();
                notices.send((notice.message().to_owned(), hint)).unwrap_or_default()
            })
            .connect(NoTls)
            .expect("connects")
    }

    /// The platform's tables, empty, and the extension, in the database `postgres`.
    pub fn platform(&self) -> Client {
        platform_of(self.connect())
    }

    /// The same in a database of that name, which it creates.
    pub fn platform_in(&self, database: &str) -> Client {
        self.connect().batch_execute(&format!("CREATE DATABASE {database}")).expect("the database");
        platform_of(self.connect_to(database))
    }

    /// The platform's tables after an outage of ten days, as in `make demo`, without the extension.
    pub fn outage(&self, database: &str, rows: u32, recipes: u32) {
        let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("../demo");
        let [platform, outage] = ["platform.sql", "outage.sql"].map(|file| demo.join(file).display().to_string());
        let (rows, recipes) = (format!("rows={rows}"), format!("recipes={recipes}"));
        let settings = ["-v", &rows, "-v", &recipes, "-v", "failed=0.7", "-v", "days=10"];
        let files = ["-v", "ON_ERROR_STOP=1", "-Xq", "-f", &platform, "-f", &outage, database];
        self.program("psql", &[&settings[..], &files].concat());
    }

    /// Runs one of the server's programs on it and returns what it printed.
    pub fn program(&self, name: &str, arguments: &[&str]) -> String {
        let output = Command::new(self.bin.join(name))
            .args(["-h", self.socket(), "-U", "postgres"])
            .env("PGPORT", self.port().to_string())
            .args(arguments)
            .output()
            .expect("the program starts");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{name} {arguments:?}: {stderr}");
        String::from_utf8(output.stdout).expect("UTF-8")
    }

    fn configure(&self) {
        let listen = if self.port.is_some() { "127.0.0.1" } else { "" };
        let settings = format!(
            "listen_addresses = '{listen}'\nport = {}\nunix_socket_directories = '{}'\nfsync = off\n{}",
            self.port(),
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
        self.run("pg_ctl", &[&["-w", "-l", &self.log()], arguments].concat());
    }

    fn log(&self) -> String {
        format!("{}/log", self.socket())
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
            // The name of the socket has it.
            .env_remove("PGPORT")
            // pg_upgrade writes where it stands.
            .current_dir(self.dir.path())
            .stdout(Stdio::null());
        command
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // A server that did not start has nothing to stop, and its test has said so.
        self.command("pg_ctl", &["-m", "immediate", "stop"]).status().ok();
        // Whoever waited for the process or not.
        let log = std::fs::read_to_string(self.log()).unwrap_or_default();
        assert!(thread::panicking() || !log.contains("TRAP:"), "an assertion failed: {log}");
    }
}

/// The `pg_config` of the server that is tested.
pub fn pg_config() -> String {
    std::env::var("PG_CONFIG").unwrap_or_else(|_| "/usr/lib/postgresql/15/bin/pg_config".into())
}

fn bin_of(pg_config: &str) -> PathBuf {
    let output = Command::new(pg_config).arg("--bindir").output().expect("pg_config starts");
    PathBuf::from(String::from_utf8(output.stdout).expect("UTF-8").trim_end())
}

fn directory() -> TempDir {
    let dir = TempDir::with_prefix("backlog_cleanup-").expect("a temporary directory");
    give_to_server(dir.path());
    dir
}

fn give_to_server(path: &Path) {
    if is_root() {
        assert!(Command::new("chown").arg("postgres").arg(path).status().expect("chown starts").success());
    }
}

fn is_root() -> bool {
    std::fs::metadata("/proc/self").map(|process| std::os::unix::fs::MetadataExt::uid(&process) == 0).unwrap_or(false)
}
