//! docs/api.md and docs/metrics.md: their requests are sent in their order, by a shell, after an outage of three recipes.

use std::path::Path;
use std::process::Command;

use crate::server::{ADMIN, MONITOR, OPERATOR, Server};
use cluster::{Cluster, Page, pg_config, until_holds, until_true};
use postgres::Client;

/// The address of the pages.
const ADDRESS: &str = "http://127.0.0.1:8642";
const DATABASE: &str = "postgres";

/// Makes the batches of a run small and slow, so that it can be watched.
const SLOW: &str = "
    CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.1); RETURN NULL; END $$;
    CREATE TRIGGER slow AFTER DELETE ON generations FOR EACH STATEMENT EXECUTE FUNCTION slow();
    UPDATE backlog_cleanup.target SET batch_size = 20";

/// A server with the outage, the extension, its job and the roles of docs/api.md, whose statements it runs.
fn app() -> (Cluster, Client) {
    let cluster = Cluster::start_with_pg_cron();
    cluster.outage(DATABASE, 20_000, 3);
    let mut client = cluster.connect();
    client.batch_execute("CREATE EXTENSION pg_cron; CREATE EXTENSION backlog_cleanup").unwrap();
    let page = Page::open("docs/api.md");
    let (_, statements) = page.text.split_once("```sql\n").expect("statements");
    client.batch_execute(statements.split_once("```").expect("an end").0).unwrap();
    (cluster, client)
}

/// What a shell prints for a command of a page.
fn printed(cluster: &Cluster, server: &Server, command: &str) -> String {
    let directory = tempfile::tempdir().unwrap();
    if command.contains("serve.log") {
        server.until_logged("run ends");
    }
    std::fs::write(directory.path().join("serve.log"), server.log()).unwrap();
    let programs = Path::new(&pg_config()).parent().unwrap().display().to_string();
    let output = Command::new("sh")
        .args(["-c", &command.replace(ADDRESS, &server.address)])
        .current_dir(directory.path())
        .env("PATH", format!("{programs}:{}", std::env::var("PATH").unwrap()))
        .envs([("MONITOR", MONITOR), ("OPERATOR", OPERATOR), ("ADMIN", ADMIN)])
        .envs([("PGHOST", cluster.socket()), ("PGUSER", "postgres"), ("PGDATABASE", DATABASE)])
        .output()
        .expect("a shell");
    let text = String::from_utf8(output.stdout).unwrap() + &String::from_utf8_lossy(&output.stderr);
    let text = text.replace(&server.address, ADDRESS);
    text.lines().map(str::trim_end).collect::<Vec<_>>().join("\n").trim_end().to_owned()
}

#[test]
fn the_docs_of_the_api_show_its_answers() {
    let (cluster, mut client) = app();
    let server = Server::start(&cluster, DATABASE, &[]);
    Page::open("docs/api.md").examples(|_, command| {
        if command.contains("respond-async") {
            client.batch_execute(SLOW).unwrap();
        }
        if command.contains("/progress") {
            until_true(&mut client, "SELECT EXISTS (SELECT FROM backlog_cleanup.progress WHERE removed > 0)");
        }
        printed(&cluster, &server, command)
    });
}

#[test]
fn the_docs_of_the_metrics_show_a_scrape() {
    let (cluster, mut client) = app();
    client.batch_execute("SELECT backlog_cleanup_failed_generations()").unwrap();
    client.batch_execute("CALL backlog_cleanup_run(mode => 'emergency', max_rows => 1000)").unwrap();
    let server = Server::start(&cluster, DATABASE, &[]);
    // The first count has been made.
    until_holds(|| server.get(MONITOR, "/metrics").body.contains("backlog_cleanup_rows{"));
    Page::open("docs/metrics.md").examples(|_, command| printed(&cluster, &server, command));
}
