//! What a log in JSON has of deliveries.

use serde_json::Value;

use crate::receiver::{Answer, Receiver};
use crate::server::Server;
use crate::{File, OPEN, database};
use cluster::until_true;

#[test]
fn a_line_of_a_log_in_json_has_each_member_once_and_says_why_nothing_was_delivered() {
    let receiver = Receiver::start([Answer::Status(500, "oops")]);
    let file = File::of(&format!("[webhook.ops]\nurl = \"{}\"\n", receiver.address));
    let (cluster, mut client) = database("logged");
    let server = Server::start(&cluster, "logged", &["--channels", &file.path(), "--log-json"]);
    client.batch_execute(OPEN).unwrap();
    until_true(&mut client, "SELECT count(delivered_at) = 1 FROM backlog_cleanup.alert_delivery");
    server.until_logged("\"delivered\"");
    let log = server.log();
    for line in log.lines() {
        let read: Value = serde_json::from_str(line).unwrap();
        // What is there twice is lost as it is read.
        assert_eq!(read.to_string().len(), line.len(), "{line}");
    }
    let said: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let failed =
        said.iter().find(|line| line["message"] == "not delivered: HTTP 500 Internal Server Error: oops").expect(&log);
    let delivered = said.iter().find(|line| line["message"] == "delivered").expect(&log);
    assert_eq!(failed["id"], delivered["id"]);
    assert!(failed["id"].is_string());
}
