//! Channels are told of each outage of the database.

use serde_json::json;

use crate::File;
use crate::receiver::{Answer, Receiver};
use crate::server::{self, Server};
use cluster::{Cluster, until_holds, until_true};

/// A database and a server for it that tells after so many seconds; the receiver answers so.
fn watched(name: &str, seconds: &str, answers: &[Answer]) -> (Cluster, Receiver, Server) {
    let cluster = Cluster::start("");
    let mut client = server::database(&cluster, name);
    client.batch_execute("SELECT backlog_cleanup_tick(); DELETE FROM backlog_cleanup.alert_rule").unwrap();
    let receiver = Receiver::start(answers.iter().cloned());
    let file = File::of(&format!("[webhook.ops]\nurl = \"{}\"\n", receiver.address));
    let server = Server::start(&cluster, name, &["--channels", &file.path(), "--unreachable-after", seconds]);
    until_true(&mut client, "SELECT count(*) = 1 FROM backlog_cleanup.alert_channel");
    (cluster, receiver, server)
}

/// The ids of the messages that say of the outage that it has opened, or resolved.
fn told(receiver: &Receiver, change: &str) -> Vec<String> {
    told_of("server unreachable", receiver, change)
}

fn told_of(rule: &str, receiver: &Receiver, change: &str) -> Vec<String> {
    let is_it = |alert: &serde_json::Value| (&alert["rule"], &alert["change"]) == (&json!(rule), &json!(change));
    let came = receiver.came();
    let messages = came.iter().filter(|it| is_it(&it.json()["alerts"][0]));
    messages.map(|it| it.header("webhook-id").to_owned()).collect()
}

#[test]
fn channels_are_told_that_the_database_is_away_and_that_it_is_back() {
    let (cluster, receiver, _server) = watched("outage_once", "2", &[Answer::Status(503, "busy")]);
    cluster.stop();
    // The first was not taken.
    until_holds(|| told(&receiver, "opened").len() == 2);
    cluster.start_again();
    until_holds(|| told(&receiver, "resolved").len() == 1);
    let opened = told(&receiver, "opened");
    assert_eq!(opened[0], opened[1]);
}

/// A server that has stopped during an outage cannot know of the incident it has opened.
#[test]
fn a_server_that_starts_ends_the_incidents_of_one_that_has_stopped_in_an_outage() {
    let cluster = Cluster::start("");
    drop(server::database(&cluster, "outage_left"));
    let receiver = Receiver::start([Answer::Status(202, "{}")]);
    let file = File::of(&format!(
        "[pagerduty.oncall]\nurl = \"{}/v2/enqueue\"\nrouting_key = \"R0UT1NG\"\n",
        receiver.address
    ));
    let start = || Server::start(&cluster, "outage_left", &["--channels", &file.path(), "--unreachable-after", "2"]);
    let events = |action: &str| -> Vec<String> {
        let came = receiver.came();
        let events = came.iter().map(|it| it.json()).filter(|event| event["event_action"] == action);
        events.map(|event| event["dedup_key"].as_str().unwrap().to_owned()).collect()
    };
    let server = start();
    until_holds(|| events("resolve").len() == 2);
    receiver.forget();
    cluster.stop();
    until_holds(|| events("trigger").len() == 1);
    drop(server);
    cluster.start_again();
    let _server = start();
    until_holds(|| events("resolve").contains(&events("trigger")[0]));
}

#[test]
fn a_long_outage_is_told_again() {
    let (cluster, receiver, _server) = watched("outage_long", "1", &[]);
    cluster.stop();
    until_holds(|| told(&receiver, "opened").len() == 2);
    let opened = told(&receiver, "opened");
    assert_ne!(opened[0], opened[1]);
}

#[test]
fn channels_are_told_that_a_database_is_read_only_and_takes_no_deliveries() {
    let (cluster, receiver, server) = watched("outage_read_only", "2", &[]);
    let set = |statement: &str| {
        let mut client = cluster.connect();
        client.batch_execute(statement).unwrap();
        client.batch_execute("SELECT pg_reload_conf()").unwrap();
    };
    set("ALTER SYSTEM SET default_transaction_read_only = on");
    until_holds(|| told_of("deliveries refused", &receiver, "opened").len() == 1);
    let sentence = receiver.came()[0].json()["alerts"][0]["sentence"].as_str().unwrap().to_owned();
    assert!(sentence.contains(" takes no deliveries: cannot execute "), "{sentence}");
    assert!(sentence.ends_with(" in a read-only transaction"), "{sentence}");
    let log = server.log();
    assert_eq!((log.matches("WARN").count(), log.matches("ERROR").count()), (1, 1), "{log}");
    set("ALTER SYSTEM RESET default_transaction_read_only");
    until_holds(|| told_of("deliveries refused", &receiver, "resolved").len() == 1);
}
