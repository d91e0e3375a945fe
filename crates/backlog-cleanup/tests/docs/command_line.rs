//! docs/command-line.md: its commands run here in their order, in a terminal.

use std::path::Path;
use std::process::Command;

use crate::cli::{self, Terminal};
use cluster::{Cluster, Page};

/// The output of a command in a terminal of 110 columns. `keys` are pressed once a text is on the screen.
fn shown(cluster: &Cluster, line: &str, keys: Option<(&str, &str)>) -> String {
    let mut template = cli::command(cluster, "postgres", &[]);
    let path = Path::new(env!("CARGO_BIN_EXE_backlog-cleanup")).parent().unwrap().display().to_string();
    // Examples write files here.
    let directory = tempfile::tempdir().unwrap();
    let line = format!("cd {}; {line}", directory.path().display());
    template.env("PATH", format!("{path}:{}", std::env::var("PATH").unwrap())).env("NO_COLOR", "1");
    let rows = if line.contains("watch") { 30 } else { 200 };
    let mut terminal = Terminal::start(&template, &line, 110, rows);
    let mut page = None;
    if let Some((when, keys)) = keys {
        assert!(terminal.until(|screen| screen.contains(when)), "{line}: {}", terminal.text());
        page = terminal.screen.screen().alternate_screen().then(|| terminal.text());
        terminal.press(keys);
    }
    terminal.finish();
    let text = page.unwrap_or_else(|| terminal.text());
    text.lines().map(str::trim_end).collect::<Vec<_>>().join("\n").trim_end().to_owned()
}

/// Reads the comment before an example: after which text to press which keys.
fn keys(before: &str) -> Option<(String, String)> {
    let comment = before.trim_end().strip_suffix("-->")?.rsplit_once("<!-- at ")?.1;
    let (when, keys) = comment.split_once(" type ")?;
    Some((when.trim().to_owned(), keys.trim().replace("^C", "\u{3}").replace("Enter", "\n").replace(' ', "")))
}

#[test]
fn the_docs_show_what_is_printed() {
    let cluster = Cluster::start_with_pg_cron();
    cluster.outage("postgres", 20_000, 200);
    for more in ["CREATE EXTENSION pg_cron", "CREATE ROLE duty LOGIN", "CREATE DATABASE shop"] {
        cluster.connect().batch_execute(more).unwrap();
    }
    let page = Page::open("docs/command-line.md");
    let help = Command::new(env!("CARGO_BIN_EXE_backlog-cleanup")).arg("--help").output().unwrap();
    for line in String::from_utf8(help.stdout).unwrap().lines().skip_while(|line| *line != "Commands:").skip(1) {
        let Some(command) = line.split_whitespace().next() else { break };
        // What it does may take a second line.
        if line.starts_with("   ") {
            continue;
        }
        let shown = page.text.contains(&format!("backlog-cleanup {command}"));
        assert!(command == "help" || shown, "{command} is not in the docs");
    }
    page.examples(|before, command| {
        let keys = keys(before);
        shown(&cluster, command, keys.as_ref().map(|(when, keys)| (when.as_str(), keys.as_str())))
    });
}
