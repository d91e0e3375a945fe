//! What happens when something is not there: a receiver, a server, the database, the tick.

use std::process::{Child, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::receiver::{Answer, Receiver};
use crate::server::{self, BASE, OPERATOR, Server};
use crate::{File, OPEN, RESOLVE, database, serve};
use cluster::{Cluster, number, until_holds, until_true};

fn webhook(receiver: &Receiver) -> File {
    File::of(&format!("[webhook.ops]\nurl = \"{}\"\nsecret = \"a shared secret\"\n", receiver.address))
}

#[test]
fn a_receiver_that_fails_is_sent_the_same_message_until_it_takes_it() {
    let receiver = Receiver::start([Answer::Status(500, "oops"), Answer::Status(404, "a shared secret")]);
    let (cluster, mut client) = database("lost_receiver");
    let server = serve(&cluster, "lost_receiver", &webhook(&receiver));
    client.batch_execute(OPEN).unwrap();
    until_true(&mut client, "SELECT coalesce(max(failures), 0) = 2 FROM backlog_cleanup.alert_channel");
    let error: String = client.query_one("SELECT last_error FROM backlog_cleanup.alert_channel", &[]).unwrap().get(0);
    assert!(error.starts_with("HTTP 404"), "{error}");
    until_holds(|| receiver.came().len() == 3);
    until_true(&mut client, "SELECT failures = 0 AND last_error IS NULL FROM backlog_cleanup.alert_channel");
    let ids: Vec<String> = receiver.came().iter().map(|it| it.header("webhook-id").to_owned()).collect();
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    let row = client.query_one("SELECT attempts, message::text FROM backlog_cleanup.alert_delivery", &[]).unwrap();
    assert_eq!((row.get::<_, i32>(0), row.get::<_, String>(1)), (3, ids[0].clone()));
    // What a receiver says may have the secret in it.
    let everything = "SELECT concat((SELECT jsonb_agg(c) FROM backlog_cleanup.alert_channel c), (SELECT jsonb_agg(d) FROM backlog_cleanup.alert_delivery d))";
    let everything: String = client.query_one(everything, &[]).unwrap().get(0);
    for text in [error, server.log(), everything] {
        assert!(!text.contains("a shared secret") && !text.contains(&receiver.address), "{text}");
    }
}

#[test]
fn a_receiver_that_stays_away_is_found_by_the_doctor() {
    let (cluster, mut client) = database("lost_away");
    let file = File::of("[webhook.ops]\nurl = \"http://127.0.0.1:1/\"\n");
    let _server = serve(&cluster, "lost_away", &file);
    client.batch_execute(OPEN).unwrap();
    until_true(&mut client, "SELECT coalesce(max(failures), 0) >= 3 FROM backlog_cleanup.alert_channel");
    let finding = "SELECT status, detail FROM backlog_cleanup_doctor() WHERE check_name = 'deliveries'";
    let finding = client.query_one(finding, &[]).unwrap();
    assert_eq!(finding.get::<_, &str>(0), "fail");
    assert!(finding.get::<_, &str>(1).starts_with("channel \"ops\" takes no alerts, since "), "{finding:?}");
}

#[test]
fn what_a_receiver_refuses_for_good_does_not_keep_back_the_rest() {
    let receiver = Receiver::start([Answer::Status(400, "invalid")]);
    let (cluster, mut client) = database("lost_refused");
    let _server = serve(&cluster, "lost_refused", &webhook(&receiver));
    client.batch_execute(OPEN).unwrap();
    until_true(&mut client, "SELECT count(refused) = 1 FROM backlog_cleanup.alert_delivery");
    client.batch_execute(RESOLVE).unwrap();
    until_true(
        &mut client,
        "SELECT count(*) = 1 FROM backlog_cleanup.alert_delivery WHERE delivered_at IS NOT NULL AND change = 'resolved'",
    );
    let warns = "SELECT status = 'warn' AND detail LIKE '%has refused a message%' FROM backlog_cleanup_doctor() WHERE check_name = 'deliveries'";
    until_true(&mut client, warns);
}

#[test]
fn of_an_answer_without_an_end_the_beginning_is_told() {
    let receiver = Receiver::start([Answer::Flood(500)]);
    let (cluster, mut client) = database("lost_flood");
    let _server = serve(&cluster, "lost_flood", &webhook(&receiver));
    client.batch_execute(OPEN).unwrap();
    until_true(
        &mut client,
        "SELECT coalesce(max(last_error), '') LIKE 'HTTP 500 %: first words xxx%' FROM backlog_cleanup.alert_channel",
    );
    until_true(&mut client, "SELECT count(delivered_at) = 1 FROM backlog_cleanup.alert_delivery");
}

#[test]
fn an_alert_that_is_snoozed_for_ever_is_still_told_to_have_resolved() {
    let receiver = Receiver::start([]);
    let (cluster, mut client) = database("lost_snoozed");
    let _server = serve(&cluster, "lost_snoozed", &webhook(&receiver));
    client.batch_execute(OPEN).unwrap();
    until_true(&mut client, "SELECT count(delivered_at) = 1 FROM backlog_cleanup.alert_delivery");
    client
        .batch_execute(&format!(
            "SET session_replication_role = replica; -- None can be written so; a table may have come with such.
             UPDATE backlog_cleanup.alert SET snoozed_until = '290000-01-01';
             UPDATE backlog_cleanup.alert_channel SET next_attempt_at = '-infinity';
             RESET session_replication_role;
             {RESOLVE};
             NOTIFY backlog_cleanup"
        ))
        .unwrap();
    until_holds(|| receiver.came().len() == 2);
    let told = &receiver.came()[1].json()["alerts"][0];
    assert_eq!((&told["change"], &told["snoozedUntil"]), (&json!("resolved"), &json!("9999-12-31T23:59:59Z")));
}

#[test]
fn a_redirect_is_not_followed() {
    let elsewhere = Receiver::start([]);
    let receiver = Receiver::start([Answer::Redirect(elsewhere.address.clone())]);
    let (cluster, mut client) = database("lost_redirect");
    let _server = serve(&cluster, "lost_redirect", &webhook(&receiver));
    client.batch_execute(OPEN).unwrap();
    until_holds(|| receiver.came().len() == 2);
    assert!(elsewhere.came().is_empty());
}

#[test]
fn a_server_that_is_killed_after_it_has_sent_leaves_the_message_to_the_next_with_its_id() {
    let receiver = Receiver::start([Answer::Stall(Duration::from_secs(15))]);
    let (cluster, mut client) = database("lost_killed");
    let file = webhook(&receiver);
    let first = serve(&cluster, "lost_killed", &file);
    client.batch_execute(OPEN).unwrap();
    until_holds(|| receiver.came().len() == 1);
    first.signal("KILL");
    // Meanwhile more has happened; the message stays what it was.
    client.batch_execute(RESOLVE).unwrap();
    let _second = serve(&cluster, "lost_killed", &file);
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(receiver.came().len(), 1, "the dead server's lease holds");
    client
        .batch_execute("UPDATE backlog_cleanup.alert_channel SET leased_until = now(); NOTIFY backlog_cleanup")
        .unwrap();
    until_holds(|| receiver.came().len() == 2);
    let came = receiver.came();
    assert_eq!(came[0].header("webhook-id"), came[1].header("webhook-id"));
    assert_eq!(came[1].json()["alerts"][0]["change"], "opened");
    until_true(&mut client, "SELECT max(attempts) = 2 AND count(delivered_at) = 1 FROM backlog_cleanup.alert_delivery");
}

#[test]
fn two_servers_deliver_once() {
    let receiver = Receiver::start([]);
    let (cluster, mut client) = database("lost_two");
    let file = webhook(&receiver);
    let _servers =
        [serve(&cluster, "lost_two", &file), serve(&cluster, "lost_two", &file), serve(&cluster, "lost_two", &file)];
    for round in 1..=5 {
        client
            .batch_execute("UPDATE backlog_cleanup.alert_channel SET next_attempt_at = now() WHERE leased_by IS NULL")
            .unwrap();
        client.batch_execute(if round % 2 == 1 { OPEN } else { RESOLVE }).unwrap();
        until_true(&mut client, &format!("SELECT count(delivered_at) = {round} FROM backlog_cleanup.alert_delivery"));
    }
    let came = receiver.came();
    let changes: Vec<_> = came.iter().map(|it| it.json()["alerts"][0]["change"].clone()).collect();
    assert_eq!(changes, ["opened", "resolved", "opened", "resolved", "opened"].map(|it| json!(it)));
}

#[test]
fn nothing_is_lost_while_no_server_is_there_and_snoozed_alerts_wait() {
    let receiver = Receiver::start([]);
    let (cluster, mut client) = database("lost_server");
    let file = webhook(&receiver);
    {
        let _server = serve(&cluster, "lost_server", &file);
        until_true(&mut client, "SELECT count(*) = 1 FROM backlog_cleanup.alert_channel");
    }
    // One opens and resolves, one opens and stays, one is snoozed.
    client.batch_execute(OPEN).unwrap();
    client.batch_execute(RESOLVE).unwrap();
    client.batch_execute(OPEN).unwrap();
    client
        .batch_execute(
            "INSERT INTO backlog_cleanup.alert (rule, value, threshold, sentence) VALUES ('books', 1, 0, 'books differ');
             SELECT backlog_cleanup_snooze(3, now() + interval '4 s');
             UPDATE backlog_cleanup.alert_channel SET leased_until = NULL, leased_by = NULL",
        )
        .unwrap();
    let _server = serve(&cluster, "lost_server", &file);
    until_holds(|| receiver.came().len() == 1);
    let told: Vec<_> = receiver.came()[0].json()["alerts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| (it["id"].as_i64().unwrap(), it["change"].as_str().unwrap().to_owned()))
        .collect();
    assert_eq!(told, [(1, "resolved".to_owned()), (2, "opened".into())]);
    let later = "UPDATE backlog_cleanup.alert_channel SET next_attempt_at = now() WHERE leased_by IS NULL";
    until_holds(|| client.execute(later, &[]).unwrap() == 1);
    until_holds(|| receiver.came().len() == 2);
    assert_eq!(receiver.came()[1].json()["alerts"][0]["id"], 3);
}

#[test]
fn a_server_that_evaluates_for_long_can_still_stop_a_run() {
    let cluster = Cluster::shared("");
    let mut client = server::database(&cluster, "lost_locked");
    let mut locks = client.transaction().unwrap();
    locks.batch_execute("LOCK TABLE backlog_cleanup.alert_rule").unwrap();
    let receiver = Receiver::start([]);
    let server = serve(&cluster, "lost_locked", &webhook(&receiver));
    until_true(
        &mut cluster.connect(),
        "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE query LIKE '%evaluate_alerts%' AND wait_event_type = 'Lock')",
    );
    // What stops a run, although there is none.
    assert_eq!(server.post(OPERATOR, &format!("{BASE}/runs/1/stop"), "").status, 404);
}

#[test]
fn a_server_without_channels_evaluates_the_rules_too_while_nothing_ticks() {
    let cluster = Cluster::shared("");
    let mut client = server::database(&cluster, "lost_alone");
    client
        .batch_execute("INSERT INTO backlog_cleanup.alert_rule (name, kind, target, threshold) VALUES ('any', 'history_size', NULL, 1)")
        .unwrap();
    let server = Server::start(&cluster, "lost_alone", &[]);
    let by = Instant::now() + Duration::from_secs(100);
    while !server.log().contains("this server evaluates the rules") {
        assert!(Instant::now() < by, "{}", server.log());
        sleep(Duration::from_millis(100));
    }
    assert!(number(&mut client, "SELECT count(*) FROM backlog_cleanup.alert WHERE rule = 'any'") == 1);
}

#[test]
fn rules_are_evaluated_while_nothing_ticks() {
    let cluster = Cluster::shared("");
    let mut client = server::database(&cluster, "lost_tick");
    // A job that is gone: the nightly run of the target has not completed for days.
    client
        .batch_execute(
            "INSERT INTO backlog_cleanup.run (target, mode, state, requested_by, total_failed, removed, recipes_affected, started_at, finished_at)
             VALUES ('generations', 'regular', 'completed', 'postgres', 0, 0, 0, now() - interval '9 days', now() - interval '9 days');
             UPDATE backlog_cleanup.target SET named_at = now() - interval '10 days'",
        )
        .unwrap();
    // The clock was a day ahead when it ticked last.
    client
        .batch_execute(
            "INSERT INTO backlog_cleanup.tick (started_at, milliseconds, steps) VALUES (now() + interval '1 day', 1, '[]')",
        )
        .unwrap();
    let receiver = Receiver::start([]);
    let _server = serve(&cluster, "lost_tick", &webhook(&receiver));
    until_holds(|| receiver.came().iter().any(|it| it.body.contains("no successful run")));
}

#[test]
fn a_test_reaches_the_channel_and_says_why_not() {
    let receiver = Receiver::start([]);
    let file = webhook(&receiver);
    let run = |channel: &str| -> std::process::Output {
        let child: Child = std::process::Command::new(env!("CARGO_BIN_EXE_backlog-cleanup"))
            .args(["alerts", "test", channel, "--channels", &file.path(), "--dbname", "app"])
            .env_remove("DATABASE_URL")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.wait_with_output().unwrap()
    };
    assert!(run("ops").status.success());
    let changes: Vec<_> = receiver.came().iter().map(|it| it.json()["alerts"][0]["change"].clone()).collect();
    assert_eq!(changes, [json!("opened"), json!("resolved")]);
    let missing = run("nobody");
    assert_eq!(missing.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&missing.stderr).contains("there is ops"), "{missing:?}");
    receiver.then(Answer::Status(403, "a shared secret is wrong"));
    let refused = run("ops");
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(said.contains("HTTP 403") && said.contains("*** is wrong"), "{said}");
}

#[test]
fn a_file_of_channels_that_is_not_obeyed_is_refused() {
    let (cluster, _client) = database("lost_file");
    for (channels, why) in [
        ("[webhook.a]\nurl = \"https://x\"\ntypo = 1", "unknown field `typo`"),
        ("[slack.a]\nurl = \"http://hooks.example.com\"", "url must be https://"),
        ("[webhook.a]\nurl = \"ftp://x\"", "url must be http:// or https://"),
        ("[webhook.a]\nurl = \"http://x\"\nauthorization = \"Bearer 1\"", "authorization takes a url with https://"),
        ("[pagerduty.a]\nrouting_key = \"k\"\nreport = \"0 8 * * 1\"", "it takes no report"),
        ("[mail.a]\nurl = \"smtps://x\"\nfrom = \"a@b\"\nto = []", "to has no address"),
        ("[alertmanager.a]\nurl = \"http://x\"\nlabels = { bad-label = \"1\" }", "\"bad-label\" is no name of a label"),
        ("[alertmanager.a]\nurl = \"http://x\"\nlabels = { 1st = \"1\" }", "\"1st\" is no name of a label"),
        ("[webhook.a]\nurl = \"https://x\"\n[slack.a]\nurl = \"https://x\"", "two channels have the name \"a\""),
        (
            "[carrier_pigeon.a]\nurl = \"https://x\"",
            "unknown variant `carrier_pigeon`, expected one of `webhook`, `slack`",
        ),
        ("[mail.a]\nurl = \"smtps://x\"\nfrom = \"a@b\"\nto = [\"a@b\"]\nuser = \"u\"", "both a user and a password"),
        (
            "[mail.a]\nurl = \"smtps://x\"\nfrom = \"a@b\"\nto = [\"a@b\"]\npassword = \"p\"",
            "both a user and a password",
        ),
        ("[webhook.a]\nurl = \"https://user:pass@x\"", "url must be http:// or https://, without a user"),
        ("[webhook.a]\nurl = { env = \"NOT_SET\" }", "environment variable \"NOT_SET\" is not set"),
        ("[webhook.a]\nurl = \"https://x", "line 2:"),
    ] {
        let file = File::of(channels);
        let log = Server::try_start(&cluster, "lost_file", &["--channels", &file.path()]).err().expect("it is refused");
        assert!(log.contains(why), "{why}: {log}");
    }
    let file = File::of("[webhook.a]\nurl = \"https://x\"");
    std::fs::set_permissions(file.path(), std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    let log = Server::try_start(&cluster, "lost_file", &["--channels", &file.path()]).err().expect("it is refused");
    assert!(log.contains("other users may read the file of channels"), "{log}");
}
