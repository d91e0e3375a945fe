//! An alert reaches every channel, whatever the receiver, the server or the database does meanwhile: at least once, and known
//! by its id if twice. No secret is in the database or in a log.

#[path = "../receiver/mod.rs"]
mod receiver;
#[path = "../server/mod.rs"]
mod server;

mod alertmanager;
mod button;
mod clock;
mod forms;
mod incidents;
mod logged;
mod lost;
mod mail;
mod mailboxes;
mod mended;
mod outage;
mod reloaded;
mod secrets;
mod stalled;
mod targets;
mod together;

use std::os::unix::fs::OpenOptionsExt;
use std::sync::Arc;

use cluster::{Cluster, until_holds, until_true};
use postgres::Client;
use receiver::{Answer, Receiver, Request};
use serde_json::Value;
use server::Server;
use tempfile::TempDir;

/// A rule whose alert the test opens and resolves itself, so that nothing else does.
const OPEN: &str = "
    INSERT INTO backlog_cleanup.alert (rule, target, value, threshold, sentence, fix)
    VALUES ('rows in scope', 'generations', 7, 5, 'target \"generations\": 7 <generations> & more are in scope', 'SELECT 1')";
const RESOLVE: &str = "UPDATE backlog_cleanup.alert SET resolved_at = now() WHERE resolved_at IS NULL";

/// A database of its own in the shared cluster. The tick was a moment ago, so that no server evaluates rules.
fn database(name: &str) -> (Arc<Cluster>, Client) {
    let cluster = Cluster::shared("");
    let mut client = server::database(&cluster, name);
    client.batch_execute("SELECT backlog_cleanup_tick(); DELETE FROM backlog_cleanup.alert_rule").unwrap();
    (cluster, client)
}

/// A private file of channels.
struct File(TempDir);

impl File {
    fn of(channels: &str) -> File {
        let file = File(TempDir::new().unwrap());
        file.write(channels);
        file
    }

    fn write(&self, channels: &str) {
        let mut opened = std::fs::OpenOptions::new();
        let opened = opened.write(true).create(true).truncate(true).mode(0o600).open(self.path()).unwrap();
        std::io::Write::write_all(&mut &opened, channels.as_bytes()).unwrap();
    }

    fn path(&self) -> String {
        self.0.path().join("channels").display().to_string()
    }
}

fn serve(cluster: &Cluster, database: &str, file: &File) -> Server {
    Server::start(cluster, database, &["--channels", &file.path()])
}

/// A server for PagerDuty, which has ended the incidents that another may have left open; the receiver answers so then. Returns the keys of these, too.
fn serve_incidents(
    cluster: &Cluster,
    database: &str,
    file: &File,
    receiver: &Receiver,
    answers: impl IntoIterator<Item = Answer>,
) -> (Server, Vec<Value>) {
    let server = serve(cluster, database, file);
    until_holds(|| receiver.came().len() == 2);
    until_true(
        &mut cluster.connect_to(database),
        "SELECT delivered_at IS NOT NULL AND leased_by IS NULL FROM backlog_cleanup.alert_channel WHERE kind = 'pagerduty'",
    );
    let ends: Vec<Value> = receiver.forget().iter().map(Request::json).collect();
    assert!(ends.iter().all(|end| end["event_action"] == "resolve"), "{ends:?}");
    answers.into_iter().for_each(|answer| receiver.then(answer));
    (server, ends.iter().map(|end| end["dedup_key"].clone()).collect())
}
