//! PagerDuty's incidents end and begin in the order in which their alerts do.

use serde_json::json;

use crate::receiver::{Answer, Receiver};
use crate::{File, OPEN, RESOLVE, database, serve};
use cluster::until_true;

#[test]
fn an_incident_whose_end_is_not_taken_does_not_begin_again_before_it() {
    let receiver = Receiver::start([Answer::Status(202, "taken"), Answer::Status(500, "oops")]);
    let file = File::of(&format!("[pagerduty.oncall]\nurl = \"{}\"\nrouting_key = \"R0UT1NG\"\n", receiver.address));
    let (cluster, mut client) = database("incidents");
    let _server = serve(&cluster, "incidents", &file);
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
