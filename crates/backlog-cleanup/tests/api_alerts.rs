//! Alerts, rules, channels and analytics over HTTP: who may read, who may act, who may write.

mod server;

use serde_json::{Value, json};
use server::{ADMIN, BASE, MONITOR, OPERATOR, Server, bearer, start};

fn ask(server: &Server, method: &str, token: &str, path: &str, body: &Value) -> (u16, Value) {
    let headers = [("authorization", &*bearer(token)), ("content-type", "application/json")];
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let answer = server.send(method, &format!("{BASE}/{path}"), &headers, &body);
    (answer.status, answer.json())
}

const ALERT: &str = "
    INSERT INTO backlog_cleanup.alert (rule, target, value, threshold, sentence)
    VALUES ('rows in scope', 'generations', 7, 5, '7 generations are in scope'), ('books', NULL, 1, 0, 'books differ')";

#[test]
fn an_alert_is_listed_acknowledged_and_snoozed_by_who_may() {
    let (_cluster, mut client, server) = start("api_alerts", &[]);
    client.batch_execute(ALERT).unwrap();
    let (status, list) = ask(&server, "GET", MONITOR, "alerts?target=generations", &json!(null));
    assert_eq!((status, list["alerts"].as_array().unwrap().len()), (200, 2), "{list}");
    for path in ["alerts/1/acknowledge", "alerts/1/snooze"] {
        assert_eq!(ask(&server, "POST", MONITOR, path, &json!(null)).0, 403, "{path}");
    }
    assert_eq!(ask(&server, "POST", OPERATOR, "alerts/1/acknowledge", &json!({"note": "mine"})).0, 200);
    let (status, snoozed) = ask(&server, "POST", OPERATOR, "alerts/2/snooze", &json!({"interval": "2 hours"}));
    assert_eq!((status, snoozed["snoozedUntil"].is_string()), (200, true), "{snoozed}");
    let (_, list) = ask(&server, "GET", MONITOR, "alerts", &json!(null));
    assert_eq!(
        (&list["alerts"][1]["acknowledgedBy"], &list["alerts"][1]["note"]),
        (&json!("backlog_operator"), &json!("mine"))
    );
    assert_eq!(ask(&server, "POST", OPERATOR, "alerts/99/acknowledge", &json!(null)).0, 404);
    assert_eq!(ask(&server, "POST", OPERATOR, "alerts/2/snooze", &json!({"interval": "-1 hour"})).0, 400);
    assert_eq!(ask(&server, "POST", OPERATOR, "alerts/2/snooze", &json!({"interval": "a while"})).0, 400);
    client.batch_execute("UPDATE backlog_cleanup.alert SET resolved_at = now() WHERE id = 1").unwrap();
    assert_eq!(ask(&server, "POST", OPERATOR, "alerts/1/acknowledge", &json!(null)).0, 400);
    assert_eq!(ask(&server, "GET", MONITOR, "alerts", &json!(null)).1["alerts"].as_array().unwrap().len(), 1);
    assert_eq!(ask(&server, "GET", MONITOR, "alerts?all=true", &json!(null)).1["alerts"].as_array().unwrap().len(), 2);
}

#[test]
fn times_that_no_calendar_has_are_read_as_the_last_that_it_has() {
    let (_cluster, mut client, server) = start("api_infinite", &[]);
    client.batch_execute(ALERT).unwrap();
    client
        .batch_execute(
            "SET session_replication_role = replica; -- None can be written so; a table may have come with such.
             UPDATE backlog_cleanup.alert SET snoozed_until = '290000-01-01' WHERE id = 1;
             UPDATE backlog_cleanup.alert SET opened_at = '-infinity', acknowledged_at = '290000-01-01' WHERE id = 2;
             INSERT INTO backlog_cleanup.alert_channel (name, kind, seen_at, delivered_at, next_attempt_at, report_at)
             VALUES ('ops', 'slack', '-infinity', '-infinity', 'infinity', '290000-01-01')",
        )
        .unwrap();
    let last = "9999-12-31T23:59:59Z";
    let (status, list) = ask(&server, "GET", MONITOR, "alerts", &json!(null));
    assert_eq!(
        (status, &list["alerts"][1]["snoozedUntil"], &list["alerts"][1]["resolvedAt"]),
        (200, &json!(last), &json!(null))
    );
    assert_eq!(
        (&list["alerts"][0]["openedAt"], &list["alerts"][0]["acknowledgedAt"]),
        (&json!("0001-01-01T00:00:00Z"), &json!(last))
    );
    let (status, refused) = ask(&server, "POST", OPERATOR, "alerts/2/snooze", &json!({"interval": "290000 years"}));
    assert_eq!(status, 400, "{refused}");
    let (status, channels) = ask(&server, "GET", MONITOR, "channels", &json!(null));
    let channel = &channels["channels"][0];
    assert_eq!((status, &channel["nextAttemptAt"], &channel["reportAt"]), (200, &json!(last), &json!(last)));
}

#[test]
fn a_rule_is_written_and_dropped_by_an_admin() {
    let (_cluster, _client, server) = start("api_rules", &[]);
    let (_, rules) = ask(&server, "GET", MONITOR, "alert-rules", &json!(null));
    assert_eq!(rules["rules"].as_array().unwrap().len(), 12, "{rules}");
    let new = json!({"kind": "rows_in_scope", "target": "generations", "threshold": 500, "resolveAt": 400});
    assert_eq!(ask(&server, "PUT", OPERATOR, "alert-rules/mine", &new).0, 403);
    assert_eq!(ask(&server, "PUT", ADMIN, "alert-rules/mine", &new).0, 200);
    let (_, changed) = ask(&server, "PUT", ADMIN, "alert-rules/mine", &json!({"enabled": false}));
    assert_eq!((&changed["threshold"], &changed["enabled"]), (&json!(500.0), &json!(false)), "{changed}");
    for refused in [
        json!({"kind": "nonsense", "threshold": 1}),
        json!({"threshold": 1}),
        json!({"threshold": -1, "kind": "books"}),
    ] {
        assert_eq!(ask(&server, "PUT", ADMIN, "alert-rules/other", &refused).0, 400, "{refused}");
    }
    assert_eq!(ask(&server, "DELETE", ADMIN, "alert-rules/mine", &json!(null)).1["dropped"], true);
    assert_eq!(ask(&server, "DELETE", ADMIN, "alert-rules/mine", &json!(null)).1["dropped"], false);
}

#[test]
fn samples_the_report_quiet_hours_and_ticks_are_read() {
    let (_cluster, mut client, server) = start("api_analytics", &[]);
    client
        .batch_execute(
            "INSERT INTO backlog_cleanup.sample (target, grain, sampled_at, in_scope, table_bytes, index_bytes, milliseconds)
             SELECT 'generations', 'hour', date_trunc('hour', now()) - interval '1 hour' * i, 100 + i, 10, 5, 1 FROM generate_series(1, 30) i",
        )
        .unwrap();
    let (status, samples) = ask(&server, "GET", MONITOR, "samples?limit=24", &json!(null));
    let samples = samples["samples"].as_array().unwrap();
    assert_eq!(
        (status, samples.len(), &samples[23]["inScope"], &samples[23]["bytes"]),
        (200, 24, &json!(101), &json!(15))
    );
    assert_eq!(ask(&server, "GET", MONITOR, "samples?limit=0", &json!(null)).0, 400);
    assert_eq!(ask(&server, "POST", MONITOR, "tick", &json!(null)).0, 403);
    let (status, tick) = ask(&server, "POST", OPERATOR, "tick", &json!(null));
    assert_eq!((status, tick["tick"]["tick"].is_i64()), (200, true), "{tick}");
    let (_, ticks) = ask(&server, "GET", MONITOR, "ticks", &json!(null));
    assert_eq!(ticks["ticks"].as_array().unwrap().len(), 1);
    let (_, hours) = ask(&server, "GET", MONITOR, "quiet-hours", &json!(null));
    assert_eq!(hours["hours"].as_array().unwrap().len(), 24, "{hours}");
    let (_, report) = ask(&server, "GET", MONITOR, "report?since=1%20day", &json!(null));
    assert!(report["report"].as_str().unwrap().starts_with("Backlog cleanup of \"generations\""), "{report}");
    assert_eq!(ask(&server, "GET", MONITOR, "report?format=pdf", &json!(null)).0, 400);
    assert_eq!(ask(&server, "GET", MONITOR, "report?target=nothing", &json!(null)).0, 404);
}
