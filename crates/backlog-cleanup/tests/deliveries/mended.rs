//! A setting was wrong, and the file is mended.

use serde_json::{Value, json};

use crate::receiver::{Answer, Receiver};
use crate::{File, OPEN, RESOLVE, database, serve_incidents};
use cluster::{until_holds, until_true};

#[test]
fn what_was_refused_for_a_wrong_setting_is_told_once_the_file_is_mended() {
    let invalid = Answer::Status(400, "invalid routing key");
    let receiver = Receiver::start([]);
    let channel = |key: &str| format!("[pagerduty.oncall]\nurl = \"{}\"\nrouting_key = \"{key}\"\n", receiver.address);
    let file = File::of(&channel("right"));
    let (cluster, mut client) = database("mended");
    let (server, ends) = serve_incidents(&cluster, "mended", &file, &receiver, [Answer::Status(202, "taken")]);
    let at_once = "UPDATE backlog_cleanup.alert_channel SET next_attempt_at = now(); NOTIFY backlog_cleanup";
    client.batch_execute(OPEN).unwrap();
    until_true(&mut client, "SELECT count(delivered_at) = 1 FROM backlog_cleanup.alert_delivery");
    // Until it is mended: the end of what was told, the beginning of what stays open, and of what does not.
    (0..5).for_each(|_| receiver.then(invalid.clone()));
    file.write(&channel("wrong"));
    server.signal("HUP");
    server.until_logged("reloaded");
    client.batch_execute(RESOLVE).unwrap();
    client
        .batch_execute(&format!(
            "INSERT INTO backlog_cleanup.alert (rule, value, threshold, sentence)
             VALUES ('books', 1, 0, 'books differ'), ('history size', 1, 0, 'history is large'); {at_once}"
        ))
        .unwrap();
    until_true(&mut client, "SELECT count(refused) = 3 FROM backlog_cleanup.alert_delivery");
    client.batch_execute("UPDATE backlog_cleanup.alert SET resolved_at = now() WHERE rule = 'history size'").unwrap();
    file.write(&channel("mended"));
    server.signal("HUP");
    until_holds(|| server.log().matches("reloaded").count() == 2);
    client.batch_execute(at_once).unwrap();
    until_true(
        &mut client,
        "SELECT bool_and(delivered_at IS NOT NULL) FROM backlog_cleanup.alert_delivery JOIN backlog_cleanup.alert a ON a.id = alert
         WHERE rule <> 'history size' HAVING count(*) = 3",
    );
    let is_it = |it: &Value| it["routing_key"] == "mended" && !ends.contains(&it["dedup_key"]);
    let came: Vec<_> = receiver.came().iter().map(|it| it.json()).filter(is_it).collect();
    let told: Vec<_> = came.iter().map(|it| (&it["event_action"], &it["payload"]["class"])).collect();
    let expected = [json!("resolve"), json!(null), json!("trigger"), json!("books")];
    assert_eq!(told[..2], [(&expected[0], &expected[1]), (&expected[2], &expected[3])]);
}
