//! What each kind of channel is told.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use hmac::{Hmac, Mac};
use serde_json::json;

use crate::receiver::{Answer, MailServer, Receiver};
use crate::{File, OPEN, RESOLVE, database, serve, serve_incidents};
use cluster::{until_holds, until_true};

/// Opens an alert, waits for it, resolves it, and waits for that: the two requests.
fn told(name: &str, receiver: &Receiver, file: &File) -> Vec<crate::receiver::Request> {
    let (cluster, mut client) = database(name);
    let _server = match name {
        "forms_pagerduty" => serve_incidents(&cluster, name, file, receiver, []).0,
        _ => serve(&cluster, name, file),
    };
    client.batch_execute(OPEN).unwrap();
    until_holds(|| receiver.came().len() == 1);
    let many = "UPDATE backlog_cleanup.alert_channel SET next_attempt_at = now()";
    until_holds(|| {
        client.execute(&format!("{many} WHERE leased_by IS NULL AND delivered_at IS NOT NULL"), &[]).unwrap() == 1
    });
    client.batch_execute(RESOLVE).unwrap();
    until_holds(|| receiver.came().len() == 2);
    let deliveries =
        "SELECT count(*) FROM backlog_cleanup.alert_delivery WHERE delivered_at IS NOT NULL AND attempts = 1";
    until_true(&mut client, &format!("SELECT ({deliveries}) = 2"));
    receiver.came()
}

#[test]
fn a_webhook_is_signed_over_its_id_its_time_and_its_body() {
    let receiver = Receiver::start([]);
    let file = File::of(&format!("[webhook.ops]\nurl = \"{}/in\"\nsecret = \"a shared secret\"\n", receiver.address));
    let came = told("forms_webhook", &receiver, &file);
    for (request, change) in came.iter().zip(["opened", "resolved"]) {
        assert_eq!(request.path, "/in");
        let body = request.json();
        assert_eq!((&body["type"], &body["id"]), (&json!("alerts"), &json!(request.header("webhook-id"))));
        assert!(body["database"].as_str().unwrap().starts_with("forms_webhook on "), "{body}");
        let alert = &body["alerts"][0];
        assert_eq!((&alert["change"], &alert["rule"]), (&json!(change), &json!("rows in scope")));
        assert_eq!(alert["fix"], "SELECT 1");
        let signed =
            format!("{}.{}.{}", request.header("webhook-id"), request.header("webhook-timestamp"), request.body);
        let mut mac = Hmac::<sha2::Sha256>::new_from_slice(b"a shared secret").unwrap();
        mac.update(signed.as_bytes());
        let signature = BASE64_STANDARD.encode(mac.finalize().into_bytes());
        assert_eq!(request.header("webhook-signature"), format!("v1,{signature}"));
    }
    assert_ne!(came[0].header("webhook-id"), came[1].header("webhook-id"));
}

#[test]
fn slack_is_told_in_text_that_calls_nobody() {
    let receiver = Receiver::start([]);
    let secret = File::of(&format!("{}/services/T0/B0/secret\n", receiver.address));
    let targets = "targets = [\"generations\"]";
    let file = File::of(&format!("[slack.ops]\nurl = {{ file = \"{}\" }}\n{targets}\n", secret.path()));
    let came = told("forms_slack", &receiver, &file);
    assert_eq!(came[0].path, "/services/T0/B0/secret");
    let text = came[0].json()["text"].as_str().unwrap().to_owned();
    assert!(
        text.contains("1 alert opened") && text.contains("7 &lt;generations&gt; &amp; more are in scope"),
        "{text}"
    );
    assert!(text.contains("fix: SELECT 1"), "{text}");
    let text = came[1].json()["text"].as_str().unwrap().to_owned();
    assert!(text.contains("1 alert resolved") && !text.contains("fix:"), "{text}");
}

#[test]
fn alertmanager_has_labels_by_which_it_knows_the_alert_again() {
    let receiver = Receiver::start([]);
    let file = File::of(&format!(
        "database = \"app\"\n[alertmanager.am]\nurl = \"{}/\"\nlabels = {{ severity = \"page\" }}\n",
        receiver.address
    ));
    let came = told("forms_alertmanager", &receiver, &file);
    let (opened, resolved) = (came[0].json(), came[1].json());
    assert_eq!(came[0].path, "/api/v2/alerts");
    let labels = json!({
        "alertname": "rows in scope", "target": "generations", "database": "app", "job": "backlog-cleanup", "severity": "page"
    });
    assert_eq!((&opened[0]["labels"], &resolved[0]["labels"]), (&labels, &labels));
    assert_eq!((&opened[0]["endsAt"], resolved[0]["endsAt"].is_string()), (&json!(null), true));
    assert_eq!(opened[0]["startsAt"], resolved[0]["startsAt"]);
}

#[test]
fn alertmanager_is_told_again_of_what_is_still_open_also_with_what_is_new() {
    let receiver = Receiver::start([]);
    let file = File::of(&format!("[alertmanager.am]\nurl = \"{}\"\n", receiver.address));
    let (cluster, mut client) = database("forms_reminder");
    let _server = serve(&cluster, "forms_reminder", &file);
    client.batch_execute(OPEN).unwrap();
    until_holds(|| receiver.came().len() == 1);
    let mut a_minute_later = |more: &str| {
        until_true(&mut client, "SELECT leased_by IS NULL FROM backlog_cleanup.alert_channel");
        client
            .batch_execute(&format!(
                "UPDATE backlog_cleanup.alert_delivery SET delivered_at = now() - interval '61 s';
                 {more};
                 UPDATE backlog_cleanup.alert_channel SET next_attempt_at = now();
                 NOTIFY backlog_cleanup"
            ))
            .unwrap();
    };
    a_minute_later("");
    until_holds(|| receiver.came().len() == 2);
    assert_eq!(receiver.came()[0].json()[0]["labels"], receiver.came()[1].json()[0]["labels"]);
    a_minute_later(
        "INSERT INTO backlog_cleanup.alert (rule, value, threshold, sentence) VALUES ('books', 1, 0, 'books differ')",
    );
    until_holds(|| receiver.came().len() == 3);
    let rules: Vec<_> =
        receiver.came()[2].json().as_array().unwrap().iter().map(|it| it["labels"]["alertname"].clone()).collect();
    assert_eq!(rules, [json!("books"), json!("rows in scope")]);
    // What was told a moment ago is not told again.
    until_true(
        &mut client,
        "SELECT bool_and(delivered_at > now() - interval '50 s') FROM backlog_cleanup.alert_delivery",
    );
}

#[test]
fn alertmanager_is_not_told_of_an_alert_while_it_is_snoozed() {
    let receiver = Receiver::start([]);
    let file = File::of(&format!("[alertmanager.am]\nurl = \"{}\"\n", receiver.address));
    let (cluster, mut client) = database("forms_snoozed");
    let _server = serve(&cluster, "forms_snoozed", &file);
    client.batch_execute(OPEN).unwrap();
    client
        .batch_execute(
            "INSERT INTO backlog_cleanup.alert (rule, value, threshold, sentence) VALUES ('books', 1, 0, 'differ')",
        )
        .unwrap();
    until_true(&mut client, "SELECT count(delivered_at) = 2 FROM backlog_cleanup.alert_delivery");
    let mut told_a_minute_later = |more: &str| {
        let before = receiver.came().len();
        until_true(&mut client, "SELECT leased_by IS NULL FROM backlog_cleanup.alert_channel");
        client
            .batch_execute(&format!(
                "{more};
                 UPDATE backlog_cleanup.alert_delivery SET delivered_at = now() - interval '61 s';
                 UPDATE backlog_cleanup.alert_channel SET next_attempt_at = now();
                 NOTIFY backlog_cleanup"
            ))
            .unwrap();
        until_holds(|| receiver.came().len() > before);
        let told = receiver.came().last().unwrap().json();
        let mut rules: Vec<_> = told.as_array().unwrap().iter().map(|it| it["labels"]["alertname"].clone()).collect();
        rules.sort_by_key(|rule| rule.to_string());
        rules
    };
    let snoozed =
        "SELECT backlog_cleanup_snooze(id, now() + interval '1 hour') FROM backlog_cleanup.alert WHERE rule = 'books'";
    assert_eq!(told_a_minute_later(snoozed), [json!("rows in scope")]);
    let over = "UPDATE backlog_cleanup.alert SET snoozed_until = now() - interval '1 s' WHERE rule = 'books'";
    assert_eq!(told_a_minute_later(over), [json!("books"), json!("rows in scope")]);
}

#[test]
fn pagerduty_has_an_incident_per_alert() {
    let receiver = Receiver::start([Answer::Status(202, "{\"status\": \"success\"}")]);
    let file = File::of(&format!(
        "[pagerduty.oncall]\nurl = \"{}/v2/enqueue\"\nrouting_key = \"R0UT1NG\"\nseverity = \"critical\"\n",
        receiver.address
    ));
    let came = told("forms_pagerduty", &receiver, &file);
    let (opened, resolved) = (came[0].json(), came[1].json());
    assert_eq!((&opened["routing_key"], &opened["event_action"]), (&json!("R0UT1NG"), &json!("trigger")));
    assert_eq!((&opened["payload"]["severity"], &resolved["event_action"]), (&json!("critical"), &json!("resolve")));
    assert_eq!(opened["dedup_key"], resolved["dedup_key"]);
    assert!(opened["dedup_key"].as_str().unwrap().len() <= 255);
    for field in ["summary", "source"] {
        assert!(opened["payload"][field].is_string(), "{opened}");
    }
}

#[test]
fn pagerduty_has_each_event_although_it_refuses_one() {
    let statuses = [400, 202, 500].into_iter().chain([202; 22]).chain([400]);
    let receiver = Receiver::start([]);
    let file = File::of(&format!(
        "[pagerduty.oncall]\nurl = \"{}/v2/enqueue\"\nrouting_key = \"R0UT1NG\"\n",
        receiver.address
    ));
    let (cluster, mut client) = database("forms_events");
    let answers = statuses.map(|status| Answer::Status(status, "said"));
    let _server = serve_incidents(&cluster, "forms_events", &file, &receiver, answers);
    client
        .batch_execute(
            "INSERT INTO backlog_cleanup.alert (rule, subject, value, threshold, sentence)
             SELECT 'recipe failures', i, 1, 0, 'recipe ' || i || ' fails' FROM generate_series(1, 30) i",
        )
        .unwrap();
    // The first is a bad request, twice; the third is taken by the second attempt.
    until_true(
        &mut client,
        "SELECT count(*) = 25 AND count(delivered_at) = 24 AND count(refused) = 1 FROM backlog_cleanup.alert_delivery",
    );
    let subjects: Vec<_> =
        receiver.came().iter().map(|it| it.json()["payload"]["custom_details"]["subject"].clone()).collect();
    let expected: Vec<_> = (1..=25).chain([1, 3]).map(|it| json!(it.to_string())).collect();
    assert!(subjects.starts_with(&expected), "{subjects:?}");
    // The rest goes with the next message.
    until_true(&mut client, "SELECT count(delivered_at) = 29 FROM backlog_cleanup.alert_delivery");
}

#[test]
fn a_mail_comes_after_the_mail_server_was_busy_and_names_what_is_wrong() {
    let mails = MailServer::start(["451 4.7.1 come again later"]);
    let file = File::of(&format!(
        "database = \"app\"\n[mail.team]\nurl = \"{}\"\nfrom = \"db@example.com\"\nto = [\"a@example.com\", \"B <b@example.com>\"]\n",
        mails.address
    ));
    let (cluster, mut client) = database("forms_mail");
    let _server = serve(&cluster, "forms_mail", &file);
    client.batch_execute(OPEN).unwrap();
    until_holds(|| mails.came().len() == 1);
    // Soft line breaks of quoted-printable.
    let mail = mails.came()[0].replace("=\n", "");
    for part in [
        "Subject: [backlog-cleanup] app: 1 alert opened",
        "To: a@example.com",
        "7 <generations> & more are in scope",
        "fix: SELECT 1",
        "Auto-Submitted: auto-generated",
    ] {
        assert!(mail.contains(part), "{part}: {mail}");
    }
    let message: String =
        client.query_one("SELECT message::text FROM backlog_cleanup.alert_delivery", &[]).unwrap().get(0);
    assert!(mail.contains(&format!("Message-ID: <{message}@backlog-cleanup>")), "{mail}");
}

#[test]
fn a_mail_that_is_refused_for_good_is_not_sent_again() {
    for (name, answer) in [("forms_large", "552 5.3.4 too large"), ("forms_unwanted", "554 5.7.1 not wanted")] {
        let mails = MailServer::start([answer]);
        let file = File::of(&format!(
            "database = \"app\"\n[mail.team]\nurl = \"{}\"\nfrom = \"db@example.com\"\nto = [\"a@example.com\"]\n",
            mails.address
        ));
        let (cluster, mut client) = database(name);
        let _server = serve(&cluster, name, &file);
        client.batch_execute(OPEN).unwrap();
        until_true(&mut client, "SELECT count(refused) = 1 FROM backlog_cleanup.alert_delivery");
        let why: String = client.query_one("SELECT refused FROM backlog_cleanup.alert_delivery", &[]).unwrap().get(0);
        assert!(why.contains(&answer[10..]), "{why}");
        // The next one comes.
        client.batch_execute(RESOLVE).unwrap();
        until_holds(|| mails.came().len() == 1);
        assert!(mails.came()[0].contains("1 alert resolved"), "{:?}", mails.came());
    }
}

#[test]
fn a_flood_is_one_message_that_can_be_read() {
    let receiver = Receiver::start([]);
    let file = File::of(&format!("[slack.ops]\nurl = \"{}\"\n", receiver.address));
    let (cluster, mut client) = database("forms_flood");
    let _server = serve(&cluster, "forms_flood", &file);
    client
        .batch_execute(
            "INSERT INTO backlog_cleanup.alert (rule, subject, value, threshold, sentence)
             SELECT 'recipe failures', i, 1, 0, 'recipe ' || i || ' fails: ' || repeat('x', 2000) FROM generate_series(1, 90) i",
        )
        .unwrap();
    until_true(&mut client, "SELECT count(delivered_at) = 90 FROM backlog_cleanup.alert_delivery");
    assert_eq!(receiver.came().len(), 1);
    let text = receiver.came()[0].json()["text"].as_str().unwrap().to_owned();
    assert!(text.contains("90 alerts opened") && text.contains("and 70 more"), "{text}");
    assert!(text.len() < 15_000, "{}", text.len());
}

#[test]
fn the_report_comes_by_its_schedule_once() {
    let mails = MailServer::start([]);
    let file = File::of(&format!(
        "[mail.team]\nurl = \"{}\"\nfrom = \"db@example.com\"\nto = [\"a@example.com\"]\nreport = \"0 8 * * 1\"\n",
        mails.address
    ));
    let (cluster, mut client) = database("forms_report");
    let _server = serve(&cluster, "forms_report", &file);
    let due = "UPDATE backlog_cleanup.alert_channel SET report_at = now() - interval '1 minute' WHERE report_at > now() AND leased_by IS NULL";
    until_holds(|| client.execute(due, &[]).unwrap() == 1);
    client.batch_execute("NOTIFY backlog_cleanup").unwrap();
    until_holds(|| mails.came().len() == 1);
    assert!(mails.came()[0].contains("Backlog cleanup of"), "{:?}", mails.came());
    until_true(&mut client, "SELECT report_at > now() FROM backlog_cleanup.alert_channel");
    assert_eq!(mails.came().len(), 1);
}

#[test]
fn a_changed_schedule_of_the_report_is_obeyed() {
    let receiver = Receiver::start([]);
    let file = |schedule: &str| format!("[webhook.ops]\nurl = \"{}\"\nreport = \"{schedule}\"\n", receiver.address);
    let channels = File::of(&file("0 8 1 1 *"));
    let (cluster, mut client) = database("forms_schedule");
    let server = serve(&cluster, "forms_schedule", &channels);
    until_true(
        &mut client,
        "SELECT coalesce(max(report_at) > now() + interval '1 hour', false) FROM backlog_cleanup.alert_channel",
    );
    channels.write(&file("* * * * *"));
    server.signal("HUP");
    until_true(&mut client, "SELECT report_at < now() + interval '1 hour' FROM backlog_cleanup.alert_channel");
}

#[test]
fn nothing_in_a_report_turns_its_lines_round() {
    let receiver = Receiver::start([]);
    let file = File::of(&format!("[slack.ops]\nurl = \"{}\"\nreport = \"0 8 * * 1\"\n", receiver.address));
    let (cluster, mut client) = database("forms_turned");
    let _server = serve(&cluster, "forms_turned", &file);
    client
        .batch_execute(
            "INSERT INTO backlog_cleanup.alert (rule, target, value, threshold, sentence, resolved_at)
             VALUES ('rows in scope', 'generations', 1, 0, U&'turned \\202E round', now())",
        )
        .unwrap();
    let due = "UPDATE backlog_cleanup.alert_channel SET report_at = now() - interval '1 minute', next_attempt_at = now()
               WHERE report_at > now() AND leased_by IS NULL AND NOT EXISTS (SELECT FROM backlog_cleanup.alert_delivery WHERE delivered_at IS NULL)";
    until_holds(|| client.execute(due, &[]).unwrap() == 1);
    client.batch_execute("NOTIFY backlog_cleanup").unwrap();
    let is_report = |it: &crate::receiver::Request| it.body.contains("```");
    until_holds(|| receiver.came().iter().any(is_report));
    let report = receiver.came().into_iter().find(is_report).unwrap().json()["text"].as_str().unwrap().to_owned();
    assert!(report.contains("turned") && !report.contains('\u{202e}'), "{report}");
}
