//! Alerts come through, although nobody can listen for them.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;

use cluster::{Cluster, until_holds};

use crate::pgbouncer::{Mode, Pgbouncer};
use crate::receiver::{Answer, Receiver};
use crate::server::{self, Server};
use crate::{assert_clean, truth};

/// Delivers an alert that opens and resolves, also after a failure, by two servers that share the channel.
fn delivered(mode: Mode) {
    let cluster = Cluster::start("");
    let mut client = server::database(&cluster, "behind");
    // The tick was a moment ago, so that no server evaluates rules.
    client.batch_execute("SELECT backlog_cleanup_tick(); DELETE FROM backlog_cleanup.alert_rule").unwrap();
    let Some(pooler) = Pgbouncer::start(&cluster, mode) else { return };
    let receiver = Receiver::start([Answer::Status(500, "oops")]);
    let files = tempfile::TempDir::new().unwrap();
    let channels = files.path().join("channels");
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&channels).unwrap();
    write!(file, "[webhook.ops]\nurl = \"{}\"\nsecret = \"a shared secret\"\n", receiver.address).unwrap();
    let arguments = ["--channels", channels.to_str().unwrap()];
    let servers = [(); 2].map(|()| Server::start_behind(pooler.host(), "behind", &arguments));
    client
        .batch_execute(
            "INSERT INTO backlog_cleanup.alert (rule, target, value, threshold, sentence, fix)
             VALUES ('rows in scope', 'generations', 7, 5, '7 generations are in scope', 'SELECT 1')",
        )
        .unwrap();
    until_holds(|| receiver.came().len() == 2);
    client.batch_execute("UPDATE backlog_cleanup.alert SET resolved_at = now()").unwrap();
    until_holds(|| receiver.came().len() == 3);
    let came = receiver.came();
    let ids: Vec<&str> = came.iter().map(|request| request.header("webhook-id")).collect();
    assert!(ids[0] == ids[1] && ids[1] != ids[2], "{ids:?}");
    assert!(truth(&mut client, "SELECT failures = 0 FROM backlog_cleanup.alert_channel"));
    // Nobody sends it once more.
    std::thread::sleep(std::time::Duration::from_secs(12));
    assert_eq!(receiver.came().len(), 3);
    for server in &servers {
        assert!(!server.log().contains("WARN") || server.log().contains("HTTP 500"), "{}", server.log());
    }
    assert_clean(&pooler, &cluster);
    drop(servers);
}

#[test]
fn alerts_are_delivered_once_behind_a_pooler_of_transactions() {
    delivered(Mode::Transaction);
}

#[test]
fn alerts_are_delivered_once_behind_a_pooler_of_sessions() {
    delivered(Mode::Session);
}
