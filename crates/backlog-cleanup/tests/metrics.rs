//! `/metrics`, and the alerts and dashboard in deploy/ that use it.

mod server;

use std::io::Write;
use std::process::{Command, Stdio};
use std::thread;

use cluster::{Cluster, number, until_holds};
use postgres::Client;
use server::{MONITOR, Server};

/// Failures of 25 types, and rows of other statuses and accounts.
const OUTAGE: &str = "
    INSERT INTO generations (user_id, recipe_id, prompt, status, failure_reason, updated_at)
    SELECT 'system_backlog', 1, '', 'failed', 'type ' || i, now() AT TIME ZONE 'UTC' - interval '2 days'
    FROM generate_series(1, 25) i, generate_series(1, i);
    INSERT INTO generations (user_id, recipe_id, prompt, status, failure_reason)
    VALUES ('system_backlog', 2, '', 'pending', NULL), ('system_backlog', 2, '', 'strange', NULL),
           ('system_backlog', 2, '', 'failed', NULL), ('somebody', 2, '', 'failed', NULL);
    SELECT backlog_cleanup_failed_generations(recipe_id => '2')";

/// A cluster with the outage, and a server that counts its rows every second.
fn outage() -> (Cluster, Client, Server) {
    let cluster = Cluster::start("");
    let mut client = server::database(&cluster, "outage");
    client.batch_execute(OUTAGE).unwrap();
    let server = serve(&cluster);
    (cluster, client, server)
}

fn serve(cluster: &Cluster) -> Server {
    Server::start(cluster, "outage", &["--count-interval", "1"])
}

fn scrape(server: &Server) -> String {
    let answer = server.get(MONITOR, "/metrics");
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.body
}

/// The first scrape in which a series has a value.
fn scrape_until(server: &Server, series: &str, expected: &str) -> String {
    let mut text = String::new();
    until_holds(|| {
        text = scrape(server);
        value(&text, series) == Some(expected)
    });
    text
}

fn value<'a>(scrape: &'a str, series: &str) -> Option<&'a str> {
    scrape.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '))
}

/// Whether promtool accepts its input, and its output.
fn promtool(arguments: &[&str], input: &str) -> (bool, String) {
    let mut promtool = Command::new("promtool")
        .args(arguments)
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/prometheus"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool is there: make setup");
    promtool.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    (output.status.success(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
}

/// The names of our metrics in a text.
fn names(text: &str) -> Vec<&str> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .filter(|word| word.starts_with("backlog_cleanup_") && *word != "backlog_cleanup_books")
        .collect()
}

#[test]
fn a_scrape_says_what_the_tables_hold_and_the_runs_did() {
    let (cluster, mut client, server) = outage();
    let counted = scrape_until(&server, "backlog_cleanup_count_success{target=\"generations\"}", "1");
    for (series, expected) in [
        ("backlog_cleanup_up", "1"),
        ("backlog_cleanup_rows{target=\"generations\",status=\"failed\"}", "326"),
        ("backlog_cleanup_rows{target=\"generations\",status=\"pending\"}", "1"),
        ("backlog_cleanup_rows{target=\"generations\",status=\"other\"}", "1"),
        ("backlog_cleanup_status_rows{target=\"generations\",status=\"failed\"}", "326"),
        ("backlog_cleanup_status_rows{target=\"generations\",status=\"strange\"}", "1"),
        ("backlog_cleanup_status_in_scope_rows{target=\"generations\",status=\"failed\"}", "absent"),
        ("backlog_cleanup_removable_rows{target=\"generations\"}", "315"),
        ("backlog_cleanup_failed_rows{target=\"generations\",failure_type=\"type 25\"}", "25"),
        ("backlog_cleanup_failed_rows{target=\"generations\",failure_type=\"(other)\"}", "16"),
        ("backlog_cleanup_books_difference_rows{target=\"generations\"}", "0"),
        ("backlog_cleanup_removed_rows_total{target=\"generations\",mode=\"emergency\"}", "0"),
        ("backlog_cleanup_runs_total{target=\"generations\",mode=\"regular\",result=\"completed\"}", "1"),
        ("backlog_cleanup_schedule_period_seconds{target=\"generations\"}", "86400"),
        // A run with a selection does not count.
        ("backlog_cleanup_last_success_timestamp_seconds{target=\"generations\"}", "absent"),
    ] {
        assert_eq!(value(&counted, series).unwrap_or("absent").trim_end_matches(".0"), expected, "{series}\n{counted}");
    }
    let age = value(&counted, "backlog_cleanup_oldest_failure_age_seconds{target=\"generations\"}").unwrap();
    assert!((172_800.0..173_800.0).contains(&age.parse::<f64>().unwrap()), "{age}");
    assert_eq!(counted.matches("backlog_cleanup_failed_rows{").count(), 21, "{counted}");

    client
        .batch_execute(
            "SELECT backlog_cleanup_failed_generations();
             SELECT backlog_cleanup_emergency();
             SELECT backlog_cleanup_emergency(dry_run => true);
             INSERT INTO credit_transactions (user_id, amount, type, description)
             VALUES ('system_backlog', 7, 'backlog_cleanup', '')",
        )
        .unwrap();
    let removed = scrape_until(&server, "backlog_cleanup_books_difference_rows{target=\"generations\"}", "7");
    for (series, expected) in [
        ("backlog_cleanup_removed_rows_total{target=\"generations\",mode=\"regular\"}", "315"),
        ("backlog_cleanup_removed_rows_total{target=\"generations\",mode=\"emergency\"}", "11"),
        ("backlog_cleanup_runs_total{target=\"generations\",mode=\"emergency\",result=\"completed\"}", "1"),
        ("backlog_cleanup_run_duration_seconds_count{target=\"generations\",mode=\"regular\"}", "2"),
        ("backlog_cleanup_run_duration_seconds_bucket{target=\"generations\",mode=\"regular\",le=\"+Inf\"}", "2"),
        ("backlog_cleanup_rows{target=\"generations\",status=\"failed\"}", "0"),
        ("backlog_cleanup_policy_in_scope_rows{target=\"generations\",policy=\"default\"}", "326"),
        ("backlog_cleanup_policy_removed_rows{target=\"generations\",policy=\"default\"}", "315"),
        ("backlog_cleanup_status_in_scope_rows{target=\"generations\",status=\"failed\"}", "326"),
        ("backlog_cleanup_status_removed_rows{target=\"generations\",status=\"failed\"}", "315"),
    ] {
        assert_eq!(value(&removed, series).unwrap_or("absent"), expected, "{series}\n{removed}");
    }
    let wal = value(&removed, "backlog_cleanup_wal_bytes_total{target=\"generations\",mode=\"regular\"}").unwrap();
    assert!(wal.parse::<f64>().unwrap() > 10_000.0, "{wal}");
    assert!(value(&removed, "backlog_cleanup_last_success_timestamp_seconds{target=\"generations\"}").is_some());
    assert_eq!(promtool(&["check", "metrics"], &removed), (true, String::new()), "{removed}");

    // Counters survive deletions from the history and a restart of the server.
    client.batch_execute("DELETE FROM backlog_cleanup.run").unwrap();
    drop(server);
    let server = serve(&cluster);
    let counters = |scrape: &str| -> Vec<String> {
        let is_counter = |line: &&str| line.contains("_total{") || line.contains("_duration_seconds_bucket{");
        scrape.lines().filter(is_counter).map(str::to_owned).collect()
    };
    assert_eq!(counters(&scrape(&server)), counters(&removed));
}

#[test]
fn however_many_policies_there_are_few_have_a_series() {
    let (_cluster, mut client, server) = outage();
    client
        .batch_execute(
            "SELECT backlog_cleanup_set_policy(failure_type => 'type ' || i, keep => 0) FROM generate_series(1, 25) i;
             SELECT backlog_cleanup_set_policy(failure_type => 'none ' || i) FROM generate_series(1, 40) i;
             SELECT backlog_cleanup_failed_generations()",
        )
        .unwrap();
    let series = |name: &str, policy: &str| {
        format!("backlog_cleanup_policy_{name}_rows{{target=\"generations\",policy=\"{policy}\"}}")
    };
    let scrape = scrape_until(&server, &series("removed", r#"failure type \"type 25\""#), "25");
    assert_eq!(value(&scrape, &series("in_scope", "default")), Some("1"));
    assert_eq!(value(&scrape, &series("in_scope", "(other)")), Some("0"));
    assert_eq!(scrape.matches("backlog_cleanup_policy_in_scope_rows{").count(), 51);
    assert_eq!(scrape.matches("backlog_cleanup_policy_removed_rows{").count(), 51);
}

#[test]
fn however_many_statuses_there_are_few_have_a_series() {
    let (_cluster, mut client, server) = outage();
    client
        .batch_execute(
            "INSERT INTO generations (user_id, recipe_id, prompt, status)
             SELECT 'system_backlog', 2, '', 'state ' || i FROM generate_series(1, 150) i, generate_series(1, i);
             UPDATE backlog_cleanup.target
             SET statuses = (SELECT array_agg('state ' || i ORDER BY i) FROM generate_series(1, 150) i);
             SELECT backlog_cleanup_failed_generations()",
        )
        .unwrap();
    let series = |name: &str, status: &str| {
        format!("backlog_cleanup_status_{name}{{target=\"generations\",status=\"{status}\"}}")
    };
    let scrape = scrape_until(&server, &series("in_scope_rows", "state 150"), "150");
    assert_eq!(value(&scrape, &series("rows", "state 150")), Some("150"));
    // All rows are in a series, also those that the extension has summed up.
    let rows = scrape.lines().filter(|line| line.starts_with("backlog_cleanup_status_rows{"));
    let rows: i64 = rows.map(|line| line.rsplit(' ').next().unwrap().parse::<i64>().unwrap()).sum();
    let all = "SELECT count(*) FROM generations WHERE user_id = 'system_backlog'";
    assert_eq!(rows, number(&mut client, all), "{scrape}");
    for name in ["rows", "in_scope_rows", "removed_rows"] {
        assert_eq!(scrape.matches(&format!("backlog_cleanup_status_{name}{{")).count(), 21, "{name}");
    }
}

#[test]
fn who_scrapes_has_a_token_and_the_format_that_it_accepts() {
    let (_cluster, _client, server) = outage();
    assert_eq!(server.send("GET", "/metrics", &[], "").status, 401);
    assert_eq!(server.get("another-token-of-some-length", "/metrics").status, 401);
    let authorization = server::bearer(MONITOR);
    // The header that Prometheus sends.
    let accept = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
                  text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
    let answer = server.send("GET", "/metrics", &[("authorization", &authorization), ("accept", accept)], "");
    assert_eq!(answer.header("content-type"), "application/openmetrics-text; version=1.0.0; charset=utf-8");
    assert!(answer.body.contains("# TYPE backlog_cleanup_runs counter\n"), "{}", answer.body);
    assert!(answer.body.ends_with("# EOF\n"), "{}", answer.body);
    let answer = server.get(MONITOR, "/metrics");
    assert_eq!(answer.header("content-type"), "text/plain; version=0.0.4; charset=utf-8");
    assert!(answer.body.contains("# TYPE backlog_cleanup_runs_total counter\n"), "{}", answer.body);
}

#[test]
fn a_scrape_answers_while_the_database_is_away_or_hangs() {
    let (cluster, mut client, server) = outage();
    let failed = "backlog_cleanup_rows{target=\"generations\",status=\"failed\"}";
    scrape_until(&server, failed, "326");

    // During a lock one scrape waits, for a limited time; others get the last figures at once.
    let mut holder = cluster.connect_to("outage");
    holder.batch_execute("BEGIN; LOCK backlog_cleanup.run").unwrap();
    thread::scope(|scope| {
        for _ in 0..20 {
            scope.spawn(|| assert_eq!(value(&scrape(&server), failed), Some("326")));
        }
        until_holds(|| {
            let waiting =
                "SELECT count(*) FROM pg_stat_activity WHERE usename = 'backlog_monitor' AND wait_event_type = 'Lock'";
            let waiting = number(&mut client, waiting);
            // One query of a scrape and one of the count.
            assert!(waiting <= 2, "{waiting} queries wait");
            waiting > 0
        });
    });
    assert_eq!(value(&scrape(&server), "backlog_cleanup_up"), Some("0"));
    holder.batch_execute("ROLLBACK").unwrap();
    scrape_until(&server, "backlog_cleanup_up", "1");

    cluster.stop();
    let away = scrape_until(&server, "backlog_cleanup_up", "0");
    assert_eq!(value(&away, failed), Some("326"), "what was known, with its time: {away}");
    scrape_until(&server, "backlog_cleanup_count_success{target=\"generations\"}", "0");
    cluster.start_again();
    scrape_until(&server, "backlog_cleanup_up", "1");
    scrape_until(&server, "backlog_cleanup_count_success{target=\"generations\"}", "1");
}

#[test]
fn the_alerts_and_the_dashboard_ask_for_metrics_that_are_there() {
    let (_cluster, mut client, server) = outage();
    client
        .batch_execute(
            "SELECT backlog_cleanup_failed_generations(); SELECT backlog_cleanup_tick();
             INSERT INTO backlog_cleanup.alert_channel (name, kind) VALUES ('ops', 'slack')",
        )
        .unwrap();
    let of_the_run = "backlog_cleanup_policy_in_scope_rows{target=\"generations\",policy=\"default\"}";
    let scrape = scrape_until(&server, of_the_run, "326");
    let there = names(&scrape);
    let dashboard = include_str!("../../../deploy/grafana/backlog-cleanup.json");
    let dashboard: serde_json::Value = serde_json::from_str(dashboard).unwrap();
    let mut asked: Vec<String> = Vec::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        assert_eq!(panel["datasource"]["uid"], "${datasource}", "{panel}");
        for target in panel["targets"].as_array().unwrap() {
            let expr = target["expr"].as_str().unwrap();
            assert!(!names(expr).is_empty(), "{expr}");
            asked.extend(names(expr).into_iter().map(str::to_owned));
        }
    }
    let variables = dashboard["templating"]["list"].as_array().unwrap();
    assert_eq!(variables.iter().map(|v| v["name"].as_str().unwrap()).collect::<Vec<_>>(), ["datasource", "target"]);
    asked.extend(names(variables[1]["definition"].as_str().unwrap()).into_iter().map(str::to_owned));
    asked.extend(
        names(include_str!("../../../deploy/prometheus/backlog-cleanup.rules.yml")).into_iter().map(str::to_owned),
    );
    for name in asked {
        assert!(there.contains(&name.as_str()), "{name} is in no scrape");
    }
    for arguments in
        [["check", "rules", "backlog-cleanup.rules.yml"], ["test", "rules", "backlog-cleanup.rules.test.yml"]]
    {
        let (content, said) = promtool(&arguments, "");
        assert!(content, "{said}");
    }
}

#[test]
fn prometheus_may_call_the_server_of_the_compose_file_by_its_name() {
    let cluster = Cluster::shared("");
    server::database(&cluster, "compose");
    let compose = include_str!("../../../deploy/compose.yaml");
    let after = |start: &str| compose.split_once(start).and_then(|(_, rest)| rest.lines().next()).expect(start);
    let allowed = after("command: serve").split_once("--allowed-host ").and_then(|(_, rest)| rest.split(' ').next());
    let server = Server::start(&cluster, "compose", &["--allowed-host", allowed.unwrap_or_default()]);
    let host = after("targets: [\"").split('"').next().unwrap();
    let authorization = server::bearer(MONITOR);
    let answer = server.send("GET", "/metrics", &[("host", host), ("authorization", &authorization)], "");
    assert_eq!(answer.status, 200, "{answer:?}");
}

#[test]
fn a_scrape_says_what_is_alerted_and_whether_it_ticks_and_is_delivered() {
    let (_cluster, mut client, server) = outage();
    assert!(!scrape(&server).contains("backlog_cleanup_tick_"), "nothing has ticked");
    client
        .batch_execute(
            "DELETE FROM backlog_cleanup.alert_rule WHERE name NOT IN ('books', 'dead rows');
             SELECT backlog_cleanup_tick();
             INSERT INTO backlog_cleanup.alert (rule, subject, value, threshold, sentence) VALUES ('books', 'a', 1, 0, ''), ('books', 'b', 1, 0, '');
             INSERT INTO backlog_cleanup.alert_channel (name, kind, failures) SELECT 'c' || i, 'slack', i FROM generate_series(1, 60) i",
        )
        .unwrap();
    let scrape = scrape_until(&server, "backlog_cleanup_alerts_open{rule=\"books\"}", "2");
    assert_eq!(value(&scrape, "backlog_cleanup_alerts_open{rule=\"dead rows\"}"), Some("0"));
    assert_eq!(value(&scrape, "backlog_cleanup_channel_failures{channel=\"c60\"}"), Some("60"));
    assert_eq!(value(&scrape, "backlog_cleanup_channel_failures{channel=\"(other)\"}"), Some("55"));
    assert_eq!(scrape.matches("backlog_cleanup_channel_failures{").count(), 51);
    for series in
        ["tick_timestamp_seconds", "tick_duration_seconds", "sample_timestamp_seconds{target=\"generations\"}"]
    {
        assert!(value(&scrape, &format!("backlog_cleanup_{series}")).is_some(), "{series}: {scrape}");
    }
}
