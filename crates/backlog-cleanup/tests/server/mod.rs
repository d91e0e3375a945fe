//! The real binary, serving a throwaway cluster over real HTTP.
#![allow(dead_code)] // each test file uses its part

use std::io::{BufRead, BufReader};
use std::os::unix::fs::OpenOptionsExt;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use postgres::Client;
use serde_json::Value;
use tempfile::TempDir;
use ureq::http::{Request, Response};

use cluster::{Cluster, until_holds};

/// The tokens of the three levels.
pub const MONITOR: &str = "monitor-token-for-tests-0";
pub const OPERATOR: &str = "operator-token-for-tests-";
pub const ADMIN: &str = "admin-token-for-tests-000";

/// The path of the admin API.
pub const BASE: &str = "/api/admin/backlog-cleanup";

/// The value of the header `authorization`.
pub fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

/// A database of that name in the shared cluster, and a server for it.
pub fn start(name: &str, arguments: &[&str]) -> (Arc<Cluster>, Client, Server) {
    let cluster = Cluster::shared("");
    let client = database(&cluster, name);
    let server = Server::start(&cluster, name, arguments);
    (cluster, client, server)
}

/// A database with the platform's tables, and the role of each level.
pub fn database(cluster: &Cluster, name: &str) -> Client {
    // Roles are shared by the cluster.
    static ROLES: Mutex<()> = Mutex::new(());
    let mut client = cluster.platform_in(name);
    let _roles = ROLES.lock().unwrap();
    client
        .batch_execute(
            "DO $$
             BEGIN
                 IF to_regrole('backlog_monitor') IS NULL THEN
                     CREATE ROLE backlog_monitor LOGIN;
                     CREATE ROLE backlog_operator LOGIN;
                     CREATE ROLE backlog_admin LOGIN;
                 END IF;
             END $$;
             SELECT backlog_cleanup_grant('backlog_' || level, level) FROM unnest('{monitor,operator,admin}'::text[]) AS level;
             INSERT INTO recipes (id, name, slug, description, prompt, category, credit_cost)
             VALUES (1, 'Bread', 'bread', '', '', '', 1), (2, 'Soup', 'soup', '', '', '', 1)",
        )
        .unwrap();
    client
}

/// A running server; dropping it ends it.
pub struct Server {
    pub child: Child,
    /// `http://127.0.0.1:port`
    pub address: String,
    log: Arc<Mutex<String>>,
    files: TempDir,
}

/// The answer to a request.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: ureq::http::HeaderMap,
    pub body: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("JSON: {self:?}"))
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

impl Server {
    /// Starts a server with a token for each level.
    pub fn start(cluster: &Cluster, database: &str, arguments: &[&str]) -> Server {
        Server::try_start(cluster, database, arguments).unwrap_or_else(|log| panic!("the server starts: {log}"))
    }

    /// The same behind a pooler.
    pub fn start_behind(pooler: &str, database: &str, arguments: &[&str]) -> Server {
        Server::of(command_of(pooler, database), arguments).unwrap_or_else(|log| panic!("the server starts: {log}"))
    }

    /// The same with more in its environment.
    pub fn start_with(cluster: &Cluster, database: &str, arguments: &[&str], environment: &[(&str, &str)]) -> Server {
        let mut command = command(cluster, database);
        command.envs(environment.iter().copied());
        Server::of(command, arguments).unwrap_or_else(|log| panic!("the server starts: {log}"))
    }

    /// The server, or its log if it ended.
    pub fn try_start(cluster: &Cluster, database: &str, arguments: &[&str]) -> Result<Server, String> {
        Server::of(command(cluster, database), arguments)
    }

    fn of(mut command: Command, arguments: &[&str]) -> Result<Server, String> {
        let files = TempDir::new().unwrap();
        let tokens = files.path().join("tokens");
        let lines = format!(
            "# level role token\nmonitor backlog_monitor {MONITOR}\noperator backlog_operator {OPERATOR}\n\
             admin backlog_admin {ADMIN} # in the clear\n"
        );
        let file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&tokens).unwrap();
        std::io::Write::write_all(&mut &file, lines.as_bytes()).unwrap();
        command.arg("serve");
        if !arguments.contains(&"--listen") {
            command.args(["--listen", "127.0.0.1:0"]);
        }
        if !arguments.iter().any(|it| ["--tokens", "--insecure-no-auth"].contains(it)) {
            command.arg("--tokens").arg(&tokens);
        }
        let mut child = command.args(arguments).stderr(Stdio::piped()).spawn().expect("the binary starts");
        let log = Arc::new(Mutex::new(String::new()));
        let lines = BufReader::new(child.stderr.take().unwrap());
        thread::spawn({
            let log = Arc::clone(&log);
            move || {
                for line in lines.lines().map_while(Result::ok) {
                    log.lock().unwrap().push_str(&(line + "\n"));
                }
            }
        });
        let said = || log.lock().unwrap().clone();
        until_holds(|| said().contains("listening on") || child.try_wait().unwrap().is_some());
        let Some(address) =
            said().split_once("listening on ").map(|(_, rest)| rest.split([' ', '\n', '"']).next().unwrap().to_owned())
        else {
            thread::sleep(Duration::from_millis(50));
            return Err(said());
        };
        Ok(Server { child, address, log, files })
    }

    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// Waits for a text in the log, which may be written after the answer.
    pub fn until_logged(&self, text: &str) {
        let by = Instant::now() + Duration::from_secs(30);
        while !self.log().contains(text) {
            assert!(Instant::now() < by, "no {text:?} in {}", self.log());
            thread::sleep(Duration::from_millis(10));
        }
    }

    pub fn get(&self, token: &str, path: &str) -> Answer {
        self.send("GET", path, &[("authorization", &bearer(token))], "")
    }

    pub fn post(&self, token: &str, path: &str, body: &str) -> Answer {
        self.send("POST", path, &[("authorization", &bearer(token)), ("content-type", "application/json")], body)
    }

    pub fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.address));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        answer(agent().run(request.body(body.to_owned()).unwrap()).expect("an answer"))
    }

    /// Sends SIGTERM, as systemd does.
    pub fn terminate(&self) {
        self.signal("TERM");
    }

    pub fn signal(&self, name: &str) {
        let arguments = [format!("-{name}"), self.child.id().to_string()];
        assert!(Command::new("kill").args(arguments).status().expect("kill starts").success());
    }

    /// The file of tokens that `start` has written.
    pub fn tokens(&self) -> std::path::PathBuf {
        self.files.path().join("tokens")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// The command of the binary, for a database of a cluster.
pub fn command(cluster: &Cluster, database: &str) -> Command {
    command_of(cluster.socket(), database)
}

fn command_of(host: &str, database: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_backlog-cleanup"));
    command.env_remove("DATABASE_URL").env("PGHOST", host).env("PGUSER", "postgres").env("PGDATABASE", database);
    command
}

fn agent() -> ureq::Agent {
    ureq::Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .allow_non_standard_methods(true)
        .build()
        .into()
}

fn answer(mut response: Response<ureq::Body>) -> Answer {
    Answer {
        status: response.status().as_u16(),
        headers: response.headers().clone(),
        body: response.body_mut().read_to_string().expect("a body"),
    }
}
