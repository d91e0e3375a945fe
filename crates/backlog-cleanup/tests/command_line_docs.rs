//! docs/command-line.md shows the real output: its commands run here in their order, in a terminal, and are compared but for
//! times and speeds. `REGENERATE=1 cargo test -p backlog-cleanup --test command_line_docs` rewrites it.

mod cli;

use std::path::Path;
use std::process::Command;

use cli::Terminal;
use cluster::Cluster;

const DOCS: &str = "../../docs/command-line.md";

/// The platform after an outage, as in `make demo`.
fn outage() -> Cluster {
    let cluster = Cluster::start_with_pg_cron();
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../demo");
    let psql = |arguments: &[&str]| cluster.program("psql", &[&["-Xq"], arguments, &["postgres"]].concat());
    psql(&["-f", demo.join("platform.sql").to_str().unwrap()]);
    let outage = demo.join("outage.sql");
    let settings = ["-v", "rows=20000", "-v", "recipes=200", "-v", "failed=0.7", "-v", "days=10", "-f"];
    psql(&[&settings[..], &[outage.to_str().unwrap()]].concat());
    psql(&["-c", "CREATE EXTENSION pg_cron", "-c", "CREATE ROLE duty LOGIN", "-c", "CREATE DATABASE shop"]);
    cluster
}

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

/// Leaves out what differs from run to run: numbers, their units, a recipe's name, and the bar, which may be too quick.
fn without_figures(text: &str) -> String {
    let lines = text.lines().filter(|line| !line.contains(['█', '░']));
    let text = lines.collect::<Vec<_>>().join("\n").replace("Cat Olympic Diving", "Recipe 16").replace("days", "day");
    let words = text.split_whitespace().map(|word| match word {
        "ms" | "s" => "#",
        word if word.contains(|char: char| char.is_ascii_digit()) => "#",
        word => word,
    });
    words.collect::<Vec<_>>().join(" ").replace("# # ", "# ")
}

#[test]
fn the_docs_show_what_is_printed() {
    let cluster = outage();
    let old = std::fs::read_to_string(DOCS).unwrap();
    let (mut new, mut rest, mut examples) = (String::new(), old.as_str(), 0);
    while let Some((before, example)) = rest.split_once("```console\n$ ") {
        let (example, after) = example.split_once("```").expect("an end");
        let (line, printed) = example.split_once('\n').expect("a line");
        let keys = keys(before);
        let shown = shown(&cluster, line, keys.as_ref().map(|(when, keys)| (when.as_str(), keys.as_str())));
        if std::env::var_os("REGENERATE").is_none() {
            assert_eq!(without_figures(printed), without_figures(&shown), "$ {line}\n{shown}");
        }
        new += &format!("{before}```console\n$ {line}\n{shown}\n```");
        (rest, examples) = (after, examples + 1);
    }
    assert!(examples > 10, "the docs have lost their examples");
    if std::env::var_os("REGENERATE").is_some() {
        std::fs::write(DOCS, new + rest).unwrap();
    }
    let help = Command::new(env!("CARGO_BIN_EXE_backlog-cleanup")).arg("--help").output().unwrap();
    for line in String::from_utf8(help.stdout).unwrap().lines().skip_while(|line| *line != "Commands:").skip(1) {
        let Some(command) = line.split_whitespace().next() else { break };
        assert!(
            command == "help" || old.contains(&format!("backlog-cleanup {command}")),
            "{command} is not in the docs"
        );
    }
}
