//! An outage of three days, told by the clock of back-dated rows: alerts open, early and nightly runs clean up, alerts resolve, the
//! report tells it. docs/walkthrough.md is printed from this.

use cluster::{Cluster, Page, balance, create_index, number, truth, until_true, value};
use postgres::Client;

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

/// Lives through four days, with a tick every hour and a run every night: a quiet day, two in which the upstream service fails more and
/// more, and one in which it is back.
fn live(cluster: &Cluster) -> Client {
    let mut client = cluster.platform();
    create_index(&mut client, "generations");
    client
        .batch_execute(
            "UPDATE backlog_cleanup.target
             SET adaptive = true, adaptive_min_rows = 1500, adaptive_min_interval = '3 hours', batch_size = 500, max_rows_per_second = 5000;
             UPDATE backlog_cleanup.alert_rule SET enabled = kind IN ('rows_in_scope', 'failure_rate');
             UPDATE backlog_cleanup.alert_rule SET threshold = 8000, resolve_at = 5000 WHERE kind = 'rows_in_scope';
             UPDATE backlog_cleanup.alert_rule SET threshold = 5, resolve_at = 3 WHERE kind = 'failure_rate'",
        )
        .unwrap();
    for hour in 0..96 {
        let failures = if (24..72).contains(&hour) { 60 + 10 * (hour - 24) } else { 30 };
        client
            .batch_execute(&format!(
                "{AN_HOUR};
                 INSERT INTO generations (user_id, recipe_id, prompt, status, failure_reason, updated_at)
                 SELECT 'system_backlog', 1 + i % 60, '', 'failed', CASE WHEN {failures} > 30 AND i % 5 < 4 THEN 'HTTP 503' ELSE 'timeout' END,
                        now() AT TIME ZONE 'UTC' - interval '1 minute' * (1 + i % 58)
                 FROM generate_series(1, {failures}) i"
            ))
            .unwrap();
        client.batch_execute("SELECT backlog_cleanup_tick()").unwrap();
        // Each decision to run has its run, besides those of the nights.
        until_true(
            &mut client,
            &format!(
                "SELECT (SELECT count(*) FROM backlog_cleanup.run WHERE state = 'completed')
                        = {} + (SELECT count(*) FROM backlog_cleanup.decision WHERE action = 'run')
                        AND NOT EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'backlog_cleanup early run')",
                hour / 24
            ),
        );
        if hour % 24 == 23 {
            client.batch_execute("CALL backlog_cleanup_run()").unwrap();
        }
    }
    client
}

#[test]
fn an_outage_of_three_days_is_noticed_cleaned_up_and_told() {
    let cluster = Cluster::start("");
    let mut client = live(&cluster);
    let alerts = "SELECT string_agg(DISTINCT rule, ', ' ORDER BY rule) FROM backlog_cleanup.alert";
    assert_eq!(value::<String>(&mut client, alerts), "failure rate, rows in scope");
    assert!(
        truth(&mut client, "SELECT bool_and(resolved_at > opened_at) FROM backlog_cleanup.alert"),
        "all have resolved"
    );
    // The early runs, each with its reason, and the nightly ones.
    let early = number(&mut client, "SELECT count(*) FROM backlog_cleanup.decision WHERE action = 'run'");
    let runs = number(&mut client, "SELECT count(*) FROM backlog_cleanup.run WHERE state = 'completed'");
    assert!(early >= 2, "{early}");
    assert_eq!(runs, early + 4);
    let came = number(&mut client, "SELECT max(id) FROM generations");
    let gone = balance(&mut client, came);
    assert!(gone > came / 2, "{gone} of {came}");
    // What was removed is in the past of the failures still.
    let told = "SELECT sum(failed_count + removed_count) FROM backlog_cleanup_failures(since => '6 days')";
    assert_eq!(number(&mut client, told), came);
    let report: String = value(&mut client, "SELECT backlog_cleanup_report('5 days')");
    for part in ["no alert is open", "2 alerts opened", "of them started early by the"] {
        assert!(report.contains(part), "{part}\n{report}");
    }
}

#[test]
fn the_walkthrough_shows_what_is_printed() {
    let cluster = Cluster::start("timezone = 'UTC'");
    live(&cluster);
    let file = tempfile::NamedTempFile::new().unwrap();
    Page::open("docs/walkthrough.md").queries(|query| {
        std::fs::write(&file, query).unwrap();
        let file = file.path().to_str().unwrap();
        cluster.program("psql", &["-X", "-q", "-v", "ON_ERROR_STOP=1", "-P", "footer=off", "-f", file, "postgres"])
    });
}
