//! A channel for targets that do not exist.

use crate::receiver::Receiver;
use crate::server::command;
use crate::{File, database, serve};
use cluster::{until_holds, until_true};

#[test]
fn a_channel_for_a_target_that_does_not_exist_is_told_of_and_gets_no_empty_report() {
    let receiver = Receiver::start([]);
    let file = File::of(&format!(
        "[webhook.typo]\nurl = \"{}\"\ntargets = [\"generation\", \"nope\"]\nreport = \"0 8 * * 1\"\n",
        receiver.address
    ));
    let (cluster, mut client) = database("targets");
    let server = serve(&cluster, "targets", &file);
    let said = "it is for targets \"generation\", \"nope\", which do not exist";
    server.until_logged("it is for targets");
    assert!(server.log().contains(&said.replace('"', "\\\"")) || server.log().contains(said), "{}", server.log());
    let shown = command(&cluster, "targets").args(["alerts", "channels"]).env("COLUMNS", "300").output().unwrap();
    let shown = String::from_utf8(shown.stdout).unwrap();
    assert!(shown.contains("warn") && shown.contains("which do not exist"), "{shown}");
    let due = "UPDATE backlog_cleanup.alert_channel SET report_at = now() - interval '1 minute' WHERE report_at > now() AND leased_by IS NULL";
    until_holds(|| client.execute(due, &[]).unwrap() == 1);
    client.batch_execute("NOTIFY backlog_cleanup").unwrap();
    until_true(&mut client, "SELECT report_at > now() FROM backlog_cleanup.alert_channel");
    // An alert of no target reaches the channel, and its delivery does not hide what is wrong.
    client
        .batch_execute("INSERT INTO backlog_cleanup.alert (rule, value, threshold, sentence) VALUES ('history size', 1, 0, 'large')")
        .unwrap();
    until_true(
        &mut client,
        "SELECT delivered_at IS NOT NULL AND last_error LIKE 'it is for targets %' FROM backlog_cleanup.alert_channel",
    );
    assert_eq!(receiver.came().len(), 1);
    assert_eq!(server.log().matches("it is for targets").count(), 1);
    client.batch_execute("UPDATE backlog_cleanup.target SET name = 'nope'").unwrap();
    client
        .batch_execute("UPDATE backlog_cleanup.alert_channel SET next_attempt_at = now(); NOTIFY backlog_cleanup")
        .unwrap();
    until_true(
        &mut client,
        "SELECT last_error = 'it is for target \"generation\", which does not exist' FROM backlog_cleanup.alert_channel",
    );
}
