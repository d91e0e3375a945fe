//! An outage of three days, told by the clock of back-dated rows: alerts open and are delivered, early and nightly runs clean up, one of
//! them goes slower while the database is busy, alerts resolve, the report tells it. docs/walkthrough.md is printed from this.

use std::io::Write;
use std::thread::sleep;
use std::time::Duration;

use cluster::{Cluster, Page, balance, column, create_index, number, truth, until_holds, until_true, value};
use postgres::Client;
use serde_json::{Value, json};

use crate::receiver::{Answer, MailServer, Receiver};
use crate::server::{self, Server};

/// An hour passes: everything that the platform and the extension have recorded is an hour older. Days are made of the hours anew.
const AN_HOUR: &str = "
    UPDATE generations SET updated_at = updated_at - interval '1 hour';
    UPDATE credit_transactions SET created_at = created_at - interval '1 hour';
    DELETE FROM backlog_cleanup.sample WHERE grain = 'day';
    -- No two samples of a grain may be of one time in between.
    UPDATE backlog_cleanup.sample SET sampled_at = sampled_at - interval '1000 days';
    UPDATE backlog_cleanup.sample SET sampled_at = sampled_at + interval '1000 days' - interval '1 hour';
    UPDATE backlog_cleanup.tick SET started_at = started_at - interval '1 hour';
    UPDATE backlog_cleanup.decision SET decided_at = decided_at - interval '1 hour';
    UPDATE backlog_cleanup.run SET started_at = started_at - interval '1 hour', finished_at = finished_at - interval '1 hour';
    UPDATE backlog_cleanup.run_failure SET hour = hour - interval '1 hour';
    UPDATE backlog_cleanup.alert SET opened_at = opened_at - interval '1 hour', resolved_at = resolved_at - interval '1 hour'";

/// Four ordinary weeks before: 30 rows fail an hour, and the database has 100 transactions a second.
const WEEKS: &str = "
    INSERT INTO backlog_cleanup.sample (target, grain, sampled_at, milliseconds, failed, failed_seconds, seconds, transactions, removed)
    SELECT 'generations', 'hour', date_trunc('hour', now()) - interval '1 hour' * i, 1, 30, 3600, 3600, 360000, 30 FROM generate_series(1, 672) i";

const TICK: &str = "SELECT backlog_cleanup_tick()";

/// Who is told of alerts: a page that fails the first time, and a mailbox.
struct Told {
    page: Receiver,
    mailbox: MailServer,
    _server: Server,
}

impl Told {
    fn start(cluster: &Cluster) -> Told {
        let (page, mailbox) = (Receiver::start([Answer::Status(500, "not now")]), MailServer::start([]));
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let channels = format!(
            "[webhook.page]\nurl = \"{}\"\nsecret = \"a shared secret\"\n
             [mail.team]\nurl = \"{}\"\nfrom = \"db@example.com\"\nto = [\"team@example.com\"]\n",
            page.address, mailbox.address
        );
        file.write_all(channels.as_bytes()).unwrap();
        let _server = Server::start(cluster, DATABASE, &["--channels", file.path().to_str().unwrap()]);
        Told { page, mailbox, _server }
    }

    /// Waits until both know of every alert how it is, with less than half a minute between two messages.
    fn hear(client: &mut Client) {
        const ALL: &str = "
            SELECT NOT EXISTS (
                SELECT FROM backlog_cleanup.alert a CROSS JOIN unnest('{page,team}'::text[]) AS known (by)
                WHERE NOT EXISTS (SELECT FROM backlog_cleanup.alert_delivery d
                                  WHERE d.alert = a.id AND d.channel = known.by AND delivered_at IS NOT NULL
                                    AND change = CASE WHEN resolved_at IS NULL THEN 'opened' ELSE 'resolved' END))";
        const SOON: &str = "
            UPDATE backlog_cleanup.alert_channel SET next_attempt_at = now() WHERE failures = 0 AND leased_until IS NULL AND next_attempt_at > now();
            NOTIFY backlog_cleanup";
        until_holds(|| {
            truth(client, ALL) || {
                client.batch_execute(SOON).unwrap();
                false
            }
        });
    }
}

const DATABASE: &str = "outage";

/// Lives through five days, with a tick every hour and a run every night: a quiet day, three in which the upstream service fails more and
/// more, and one in which it is back.
fn live(client: &mut Client) {
    create_index(client, "generations");
    client.batch_execute(WEEKS).unwrap();
    client
        .batch_execute(
            "UPDATE backlog_cleanup.target
             SET adaptive = true, adaptive_min_rows = 1500, adaptive_min_interval = '3 hours', batch_size = 500, max_rows_per_second = 5000;
             UPDATE backlog_cleanup.alert_rule SET enabled = kind IN ('rows_in_scope', 'failure_rate');
             UPDATE backlog_cleanup.alert_rule SET threshold = 8000, resolve_at = 5000 WHERE kind = 'rows_in_scope';
             UPDATE backlog_cleanup.alert_rule SET threshold = 5, resolve_at = 3 WHERE kind = 'failure_rate'",
        )
        .unwrap();
    let mut was_busy = false;
    for hour in 0..120 {
        let failures = if (24..96).contains(&hour) { 60 + 10 * (hour - 24) } else { 30 };
        client
            .batch_execute(&format!(
                "{AN_HOUR};
                 INSERT INTO generations (user_id, recipe_id, prompt, status, failure_reason, updated_at)
                 SELECT 'system_backlog', 1 + i % 60, '', 'failed', CASE WHEN {failures} > 30 AND i % 5 < 4 THEN 'HTTP 503' ELSE 'timeout' END,
                        now() AT TIME ZONE 'UTC' - interval '1 minute' * (1 + i % 58)
                 FROM generate_series(1, {failures}) i"
            ))
            .unwrap();
        // In the worst of it one early run lasts until the tick behind the next.
        let may_last = hour >= 60 && !was_busy;
        let speed = if may_last { 300 } else { 5000 };
        client.batch_execute(&format!("UPDATE backlog_cleanup.target SET max_rows_per_second = {speed}")).unwrap();
        client.batch_execute(TICK).unwrap();
        if may_last && truth(client, IS_AT_WORK) {
            be_busy(client);
            was_busy = true;
        }
        // Each decision to run has its run, besides those of the nights.
        until_true(
            client,
            &format!(
                "SELECT (SELECT count(*) FROM backlog_cleanup.run WHERE state = 'completed')
                        = {} + (SELECT count(*) FROM backlog_cleanup.decision WHERE action = 'run')
                        AND NOT EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'backlog_cleanup early run')",
                hour / 24
            ),
        );
        Told::hear(client);
        if hour % 24 == 23 {
            client.batch_execute("CALL backlog_cleanup_run()").unwrap();
        }
    }
    assert!(was_busy);
}

const IS_AT_WORK: &str = "
    SELECT action = 'run' FROM backlog_cleanup.decision WHERE target = 'generations' ORDER BY id DESC LIMIT 1";

/// The platform works off what has waited, while a run goes on: one tick sees that, and the next that it is over.
fn be_busy(client: &mut Client) {
    until_true(client, "SELECT count(*) = 1 FROM backlog_cleanup.run WHERE state = 'running' AND removed > 0");
    for _ in 0..400 {
        client.batch_execute("UPDATE recipes SET name = name WHERE id = 1").unwrap();
    }
    client.batch_execute("SELECT pg_stat_force_next_flush()").unwrap();
    client.batch_execute(TICK).unwrap();
    sleep(Duration::from_secs(3));
    client.batch_execute(TICK).unwrap();
}

#[test]
fn an_outage_of_three_days_is_noticed_told_cleaned_up_and_reported() {
    let cluster = Cluster::start("timezone = 'UTC'");
    let mut client = server::database(&cluster, DATABASE);
    let told = Told::start(&cluster);
    live(&mut client);

    let alerts = "SELECT string_agg(DISTINCT rule, ', ' ORDER BY rule) FROM backlog_cleanup.alert";
    assert_eq!(value::<String>(&mut client, alerts), "failure rate, rows in scope");
    assert!(
        truth(&mut client, "SELECT bool_and(resolved_at > opened_at) FROM backlog_cleanup.alert"),
        "all have resolved"
    );
    // Each was told as it opened and as it resolved; what the page did not take at first came again as the same message.
    let came = told.page.came();
    assert_eq!(came[0].header("webhook-id"), came[1].header("webhook-id"));
    let changes: Vec<Value> =
        came[1..].iter().flat_map(|request| request.json()["alerts"].as_array().unwrap().clone()).collect();
    let words = |rule: &str| changes.iter().filter(|it| it["rule"] == rule).map(|it| it["change"].clone()).collect();
    for rule in ["failure rate", "rows in scope"] {
        let words: Vec<Value> = words(rule);
        assert_eq!(words, [json!("opened"), json!("resolved")], "{rule}");
    }
    assert_eq!(told.mailbox.came().len(), changes.len());
    // The early runs, each with its reason, and the nightly ones; one went slower for a while.
    let early = number(&mut client, "SELECT count(*) FROM backlog_cleanup.decision WHERE action = 'run'");
    let runs = number(&mut client, "SELECT count(*) FROM backlog_cleanup.run WHERE state = 'completed'");
    assert!(early >= 2, "{early}");
    assert_eq!(runs, early + 5);
    let paced: Vec<String> = column(
        &mut client,
        "SELECT action || ': ' || reason FROM backlog_cleanup.decision WHERE action IN ('slow', 'resume') ORDER BY id",
    );
    assert!(paced.len() == 2 && paced[0].starts_with("slow") && paced[1].starts_with("resume"), "{paced:?}");
    let came = number(&mut client, "SELECT max(id) FROM generations");
    let gone = balance(&mut client, came);
    assert!(gone > came / 2, "{gone} of {came}");
    // What was removed is in the past of the failures still.
    let told = "SELECT sum(failed_count + removed_count) FROM backlog_cleanup_failures(since => '7 days')";
    assert_eq!(number(&mut client, told), came);
    let report: String = value(&mut client, "SELECT backlog_cleanup_report('5 days')");
    for part in ["All is well: no alert is open", "2 alerts opened", "; the tick has started "] {
        assert!(report.contains(part), "{part}\n{report}");
    }

    Page::open("docs/walkthrough.md").queries(|query| {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&file, query).unwrap();
        let file = file.path().to_str().unwrap();
        cluster.program("psql", &["-X", "-q", "-v", "ON_ERROR_STOP=1", "-P", "footer=off", "-f", file, DATABASE])
    });
}
