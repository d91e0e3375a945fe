//! Every SQL example of the README runs, in its order, on the platform's tables, and then those of docs/api.md; but those for
//! a database that has a function of the platform's, which `make test-install` types. `make demo` prints what the README shows.

use cluster::{Cluster, Page, fail, with_pg_cron};

/// The blocks `sql` of a page, in one script.
fn statements(page: &str) -> String {
    let text = Page::open(page).text.replace("<!-- install: instead -->\n```sql\n", "");
    let blocks = text.split("```sql\n").skip(1).map(|rest| rest.split_once("```").expect("an end").0);
    let blocks: Vec<_> = blocks.collect();
    assert!(!blocks.is_empty(), "{page} has lost its examples");
    blocks.concat()
}

#[test]
fn every_sql_example_runs() {
    let cluster = with_pg_cron();
    cluster.platform();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(&file, statements("README.md") + &statements("docs/api.md")).unwrap();
    cluster.program("psql", &["-X", "-v", "ON_ERROR_STOP=1", "-f", file.path().to_str().unwrap(), "postgres"]);
}

#[test]
fn the_demo_prints_what_the_readme_shows() {
    let cluster = Cluster::start_with_pg_cron();
    cluster.outage("postgres", 20_000, 200);
    let printed = cluster.program("psql", &["-X", "-v", "ON_ERROR_STOP=1", "-f", "../demo/tour.sql", "postgres"]);
    let page = Page::open("README.md");
    page.passage("`make demo` ends with:\n\n```text\n", "\n\nThe dashboard: ", printed.trim());
}

#[test]
fn the_pages_on_rules_show_what_is_printed() {
    for page in ["docs/policies.md", "docs/targets.md"] {
        let cluster = Cluster::start("");
        cluster.connect().batch_execute("SET client_min_messages = error; CREATE EXTENSION backlog_cleanup").unwrap();
        Page::open(page).queries(|query| {
            cluster.program("psql", &["-X", "-q", "-v", "ON_ERROR_STOP=1", "-P", "footer=off", "-c", query, "postgres"])
        });
    }
}

#[test]
fn the_page_of_the_tick_shows_what_is_printed() {
    let cluster = Cluster::start("");
    fail(&mut cluster.platform(), 1, 15);
    Page::open("docs/tick.md").queries(|query| {
        cluster.program(
            "psql",
            &["-X", "-q", "-v", "ON_ERROR_STOP=1", "-P", "footer=off", "-P", "null=null", "-c", query, "postgres"],
        )
    });
}

#[test]
fn the_pages_on_alerts_and_analytics_show_what_is_printed() {
    for page in ["docs/alerts.md", "docs/analytics.md"] {
        let cluster = Cluster::start("timezone = 'UTC'");
        cluster.connect().batch_execute("SET client_min_messages = error; CREATE EXTENSION backlog_cleanup").unwrap();
        let file = tempfile::NamedTempFile::new().unwrap();
        Page::open(page).queries(|query| {
            std::fs::write(&file, query).unwrap();
            let file = file.path().to_str().unwrap();
            cluster.program("psql", &["-X", "-q", "-v", "ON_ERROR_STOP=1", "-P", "footer=off", "-f", file, "postgres"])
        });
    }
}

/// The line above a block says what its statements remove, or that they would remove nothing.
#[test]
fn no_example_removes_anything_without_saying_so_above() {
    for page in [
        "README.md",
        "docs/api.md",
        "docs/command-line.md",
        "docs/dashboard.md",
        "docs/metrics.md",
        "docs/policies.md",
        "docs/targets.md",
        "docs/tick.md",
    ] {
        let text = Page::open(page).text;
        let blocks = text.split("\n```").step_by(2).zip(text.split("\n```").skip(1).step_by(2));
        for (before, block) in blocks {
            let above = before.trim_end().rsplit("\n\n").find(|above| !above.starts_with("<!--")).unwrap_or_default();
            let says = ["remove", "delete"].iter().any(|word| above.to_lowercase().contains(word));
            for line in block.lines().filter(|line| removes(line)) {
                assert!(says, "{page}: {line}\nis below: {above}");
            }
            let emergency = |line: &&str| line.contains("emergency") && removes(line);
            if let Some(line) = block.lines().find(emergency) {
                assert!(above.contains("emergency"), "{page}: {line}\nis below: {above}");
                let others = block.lines().filter(|other| removes(other)).count();
                assert!(others == 1, "{page}: {line}\nis not alone");
            }
        }
    }
}

/// Whether a line calls what removes rows, and neither in a dry run nor to show its help.
fn removes(line: &str) -> bool {
    let is_call = [
        "SELECT backlog_cleanup_failed_generations(",
        "SELECT backlog_cleanup_emergency(",
        "CALL backlog_cleanup_run(",
    ]
    .iter()
    .any(|call| line.starts_with(call));
    let is_command = ["cleanup", "run", "emergency"].iter().any(|command| {
        line.starts_with(&format!("$ backlog-cleanup {command} ")) || line == format!("$ backlog-cleanup {command}")
    });
    let is_request = line.starts_with("$ curl") && line.contains("-X POST");
    (is_call || is_command || is_request)
        && !line.contains("dry_run => true")
        && !line.contains("--dry-run")
        && !line.contains("dryRun=true")
}
