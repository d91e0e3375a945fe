//! The real binary, with a throwaway server.
#![allow(dead_code)] // each test file uses its part

use std::io::Write;
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;

use cluster::Cluster;

/// Failed rows: 15 expired of recipe 1, 3 fresh of recipe 2, 12 expired without a recipe.
pub const FAILURES: &str = "
    INSERT INTO recipes (id, name, slug, description, prompt, category, credit_cost)
    VALUES (1, 'Cat Olympic Diving', 'one', '', '', '', 1), (2, 'Dog Chess', 'two', '', '', '', 1);
    INSERT INTO generations (user_id, recipe_id, prompt, status, failure_reason, updated_at)
    SELECT 'system_backlog', recipe, '', 'failed', 'timeout', now() AT TIME ZONE 'UTC' - age * interval '1 hour'
    FROM (VALUES (1, 15, 48), (2, 3, 1), (NULL, 12, 72)) r (recipe, rows, age), generate_series(1, rows);";

/// The binary, connecting as the superuser of a cluster; its environment has no other variables about connections.
pub fn command(cluster: &Cluster, database: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_backlog-cleanup"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("PG") || name == "DATABASE_URL") {
        command.env_remove(name);
    }
    command
        .envs([("PGHOST", cluster.socket()), ("PGUSER", "postgres"), ("PGDATABASE", database)])
        .env_remove("NO_COLOR")
        .args(arguments)
        .stdin(Stdio::null());
    command
}

/// The exit code and the output.
#[derive(Debug)]
pub struct Ran {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Ran {
        let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
        Ran {
            code: output.status.code().unwrap_or_else(|| panic!("{output:?}")),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        }
    }
}

impl Ran {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The error of `--json`.
    pub fn failure(&self) -> Value {
        serde_json::from_str(&self.stderr).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

pub fn run(cluster: &Cluster, database: &str, arguments: &[&str]) -> Ran {
    command(cluster, database, arguments).output().expect("the binary starts").into()
}

/// Starts a command with pipes.
pub fn spawn(mut command: Command) -> Child {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary starts")
}

pub fn signal(child: &Child, name: &str) {
    let kill = Command::new("kill").args([&format!("-{name}"), &child.id().to_string()]).status();
    assert!(kill.expect("kill starts").success());
}

pub fn wait(child: Child) -> Ran {
    child.wait_with_output().expect("an end").into()
}

/// A program in a terminal, and its screen.
pub struct Terminal {
    script: Child,
    pub screen: vt100::Parser,
    /// All bytes, also those that are not visible.
    pub sent: Vec<u8>,
}

impl Terminal {
    /// Runs a shell command in a terminal; `script` is part of every Debian.
    pub fn start(template: &Command, shell: &str, columns: u16, rows: u16) -> Terminal {
        // A shell starts background jobs with these signals ignored, and the binary heeds that.
        let mut script = Command::new("env");
        script.args(["--default-signal=INT,QUIT", "script"]);
        script.args(["-qefc", &format!("stty cols {columns} rows {rows}; {shell}"), "/dev/null"]);
        for (name, value) in template.get_envs() {
            match value {
                Some(value) => script.env(name, value),
                None => script.env_remove(name),
            };
        }
        script.env("TERM", "xterm-256color").env("SHELL", "/bin/sh");
        let script = spawn(script);
        Terminal { script, screen: vt100::Parser::new(rows, columns, 0), sent: Vec::new() }
    }

    /// Reads until the screen satisfies a condition; false if the program ends before.
    pub fn until(&mut self, condition: impl Fn(&str) -> bool) -> bool {
        use std::io::Read;
        let mut bytes = [0; 4096];
        while !condition(&self.screen.screen().contents()) {
            let read = self.script.stdout.as_mut().expect("a pipe").read(&mut bytes).expect("it can be read");
            if read == 0 {
                return false;
            }
            self.screen.process(&bytes[..read]);
            self.sent.extend_from_slice(&bytes[..read]);
        }
        true
    }

    pub fn press(&mut self, keys: &str) {
        let keyboard = self.script.stdin.as_mut().expect("a pipe");
        keyboard.write_all(keys.as_bytes()).and_then(|()| keyboard.flush()).expect("it takes keys");
    }

    /// Reads to the end; returns the exit code.
    pub fn finish(&mut self) -> i32 {
        self.until(|_| false);
        self.script.wait().expect("an end").code().expect("no signal")
    }

    pub fn text(&self) -> String {
        self.screen.screen().contents()
    }
}
