//! The database's clock was ahead, and is right again.

use crate::receiver::Receiver;
use crate::{File, OPEN, RESOLVE, database, serve};
use cluster::{until_holds, until_true};

/// What a server has written a day ahead. Now that the clock is right, none can be written so.
const AHEAD: &str = "
    SET session_replication_role = replica;
    UPDATE backlog_cleanup.alert_delivery SET begun_at = now() + interval '1 day', delivered_at = now() + interval '1 day';
    UPDATE backlog_cleanup.alert_channel
    SET since = now() + interval '1 day', seen_at = now() + interval '1 day', next_attempt_at = now() + interval '1 day 30 seconds',
        leased_by = 'a server that has died', leased_until = now() + interval '1 day 90 seconds',
        failing_since = now() + interval '1 day', failures = 1, last_error = 'HTTP 500';
    RESET session_replication_role";

#[test]
fn after_a_clock_that_was_ahead_channels_are_delivered_to_at_once() {
    let receiver = Receiver::start([]);
    let file = File::of(&format!("[webhook.ops]\nurl = \"{}\"\n", receiver.address));
    let (cluster, mut client) = database("clock_lease");
    {
        let _server = serve(&cluster, "clock_lease", &file);
        until_true(&mut client, "SELECT count(*) = 1 FROM backlog_cleanup.alert_channel WHERE leased_by IS NULL");
    }
    client.batch_execute(AHEAD).unwrap();
    // One has opened and resolved while no server was there.
    client.batch_execute(OPEN).unwrap();
    client.batch_execute(RESOLVE).unwrap();
    client.batch_execute(OPEN).unwrap();
    let _server = serve(&cluster, "clock_lease", &file);
    until_holds(|| receiver.came().len() == 1);
    until_true(
        &mut client,
        "SELECT since <= now() AND seen_at <= now() AND leased_by IS NULL AND failing_since IS NULL FROM backlog_cleanup.alert_channel",
    );
    // What a server writes now holds others up as ever.
    client.batch_execute(RESOLVE).unwrap();
    client.batch_execute("NOTIFY backlog_cleanup").unwrap();
    std::thread::sleep(std::time::Duration::from_secs(2));
    assert_eq!(receiver.came().len(), 1);
}

#[test]
fn after_a_clock_that_was_ahead_alertmanager_is_reminded() {
    let receiver = Receiver::start([]);
    let file = File::of(&format!("[alertmanager.am]\nurl = \"{}\"\n", receiver.address));
    let (cluster, mut client) = database("clock_reminder");
    let _server = serve(&cluster, "clock_reminder", &file);
    client.batch_execute(OPEN).unwrap();
    until_true(&mut client, "SELECT count(delivered_at) = 1 FROM backlog_cleanup.alert_delivery");
    until_true(&mut client, "SELECT leased_by IS NULL FROM backlog_cleanup.alert_channel");
    client.batch_execute(AHEAD).unwrap();
    client.batch_execute("NOTIFY backlog_cleanup").unwrap();
    until_holds(|| receiver.came().len() == 2);
    until_true(&mut client, "SELECT delivered_at <= now() FROM backlog_cleanup.alert_delivery");
}
