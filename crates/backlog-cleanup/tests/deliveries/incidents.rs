//! PagerDuty's incidents end and begin in the order in which their alerts do, and it hears who has taken them on.

use serde_json::json;

use crate::receiver::{Answer, Receiver};
use crate::{File, OPEN, RESOLVE, database, serve_incidents};
use cluster::until_true;

#[test]
fn an_incident_whose_end_is_not_taken_does_not_begin_again_before_it() {
    let receiver = Receiver::start([]);
    let file = File::of(&format!("[pagerduty.oncall]\nurl = \"{}\"\nrouting_key = \"R0UT1NG\"\n", receiver.address));
    let (cluster, mut client) = database("incidents");
    let answers = [Answer::Status(202, "taken"), Answer::Status(500, "oops")];
    let _server = serve_incidents(&cluster, "incidents", &file, &receiver, answers);
    client.batch_execute(OPEN).unwrap();
    until_true(&mut client, "SELECT count(delivered_at) = 1 FROM backlog_cleanup.alert_delivery");
    // It flaps, and another opens: one message.
    client.batch_execute(RESOLVE).unwrap();
    client.batch_execute(OPEN).unwrap();
    client
        .batch_execute(
            "INSERT INTO backlog_cleanup.alert (rule, value, threshold, sentence) VALUES ('books', 1, 0, 'books differ');
             UPDATE backlog_cleanup.alert_channel SET next_attempt_at = now();
             NOTIFY backlog_cleanup",
        )
        .unwrap();
    until_true(&mut client, "SELECT count(delivered_at) = 4 FROM backlog_cleanup.alert_delivery");
    let came: Vec<_> = receiver.came().iter().map(|it| it.json()).collect();
    let key = &came[0]["dedup_key"];
    let of_key = came.iter().filter(|event| event["dedup_key"] == *key).map(|event| event["event_action"].clone());
    let expected = ["trigger", "resolve", "resolve", "trigger"].map(|it| json!(it));
    assert_eq!(of_key.collect::<Vec<_>>(), expected);
    // The other one did not wait.
    assert_eq!(came[2]["payload"]["class"], "books");
}

#[test]
fn an_incident_that_somebody_has_taken_on_calls_nobody_else() {
    let receiver = Receiver::start([]);
    let webhook = Receiver::start([]);
    let file = File::of(&format!(
        "[pagerduty.oncall]\nurl = \"{}\"\nrouting_key = \"R0UT1NG\"\n[webhook.log]\nurl = \"{}\"\n",
        receiver.address, webhook.address
    ));
    let (cluster, mut client) = database("taken_on");
    let answers = [Answer::Status(202, "taken"), Answer::Status(500, "oops")];
    let _server = serve_incidents(&cluster, "taken_on", &file, &receiver, answers);
    client.batch_execute(OPEN).unwrap();
    until_true(&mut client, "SELECT count(delivered_at) = 2 FROM backlog_cleanup.alert_delivery");
    client
        .batch_execute(
            "SELECT backlog_cleanup_acknowledge(id, 'I look') FROM backlog_cleanup.alert;
             UPDATE backlog_cleanup.alert_channel SET next_attempt_at = now(); NOTIFY backlog_cleanup",
        )
        .unwrap();
    until_true(
        &mut client,
        "SELECT count(delivered_at) = 1 FROM backlog_cleanup.alert_delivery WHERE change = 'acknowledged'",
    );
    client.batch_execute(RESOLVE).unwrap();
    client
        .batch_execute("UPDATE backlog_cleanup.alert_channel SET next_attempt_at = now(); NOTIFY backlog_cleanup")
        .unwrap();
    until_true(
        &mut client,
        "SELECT count(delivered_at) = 2 FROM backlog_cleanup.alert_delivery WHERE change = 'resolved'",
    );
    let came: Vec<_> = receiver.came().iter().map(|it| it.json()).collect();
    let actions: Vec<_> = came.iter().map(|event| event["event_action"].clone()).collect();
    // The second attempt to say so is the first that was taken.
    assert_eq!(actions, ["trigger", "acknowledge", "acknowledge", "resolve"].map(|it| json!(it)));
    assert!(came.iter().all(|event| event["dedup_key"] == came[0]["dedup_key"]), "{came:?}");
    assert_eq!(webhook.came().len(), 2, "a log is told of what opens and resolves");
}
