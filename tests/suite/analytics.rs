//! Rates, forecasts and the report: what samples, runs and alerts of the past say.

use cluster::{Cluster, fail, number, refused, truth, value};
use postgres::Client;

/// A week of an outage that began two days ago, hour by hour, and today in fine samples: 10 rows an hour come, and 1,000 in the outage.
const WEEK: &str = "
    INSERT INTO backlog_cleanup.sample (target, grain, sampled_at, in_scope, removable, oldest_at, failed, failed_seconds, seconds, removed,
                                        table_bytes, index_bytes, live_rows, dead_rows, milliseconds)
    SELECT 'generations', 'hour', date_trunc('hour', now()) - interval '1 hour' * i, CASE WHEN i < 48 THEN (48 - i) * 1000 ELSE 100 END,
           50, now(), CASE WHEN i < 48 THEN 1000 ELSE 10 END, 3600, 3600, CASE i WHEN 30 THEN 240 ELSE 0 END,
           1000000000 - 1000000 * i, 0, 10, 0, 1
    FROM generate_series(1, 167) i;
    INSERT INTO backlog_cleanup.sample (target, grain, sampled_at, in_scope, removable, oldest_at, failed, failed_seconds, seconds, removed,
                                        table_bytes, index_bytes, live_rows, dead_rows, milliseconds, recipes, failure_types)
    SELECT 'generations', 'fine', now() - interval '5 minutes' * i, 48000, 24000, now() - interval '40 hours', 100, 300, 300,
           CASE i WHEN 1 THEN 600 ELSE 0 END, 1000000000, 0, 10, 0, 1,
           jsonb_build_array(jsonb_build_object('recipeId', 1, 'change', CASE WHEN i < 288 THEN 60 ELSE 30 END),
                             jsonb_build_object('recipeId', NULL, 'change', CASE WHEN i < 288 THEN 5 END)),
           jsonb_build_array(jsonb_build_object('failureType', E'HTTP 503 | upstream\\x1b[31m', 'change', 10))
    FROM generate_series(0, 570) i;
    INSERT INTO recipes (id, name, slug, description, prompt, category, credit_cost) VALUES (1, 'Cats', 'cats', '', '', '', 1);
    INSERT INTO backlog_cleanup.run (target, mode, state, requested_by, total_failed, removed, recipes_affected, started_at, finished_at)
    SELECT 'generations', 'regular', CASE i WHEN 3 THEN 'failed' ELSE 'completed' END, 'postgres', 100, i * 10, 1,
           now() - interval '1 day' * i, now() - interval '1 day' * i + interval '1 second' * i
    FROM generate_series(1, 20) i;
    INSERT INTO backlog_cleanup.alert (rule, target, opened_at, resolved_at, value, threshold, sentence, fix) VALUES
        ('failure rate', 'generations', now() - interval '40 hours', NULL, 90, 60,
         'target \"generations\": 90.0 generations a minute have come into scope in the last 15 minutes (the limit is 60)',
         'CALL public.backlog_cleanup_run(''generations'')'),
        ('books', 'generations', now() - interval '70 hours', now() - interval '69 hours', 1, 0, 'the ledger has 1 removed row more', NULL),
        ('books', 'generations', now() - interval '20 days', now() - interval '19 days', 1, 0, 'long over', NULL)";

fn week(cluster: &Cluster) -> Client {
    let mut client = cluster.platform();
    client.batch_execute(WEEK).unwrap();
    client
}

#[test]
fn rates_sizes_and_runs_are_what_the_samples_add_up_to() {
    let cluster = Cluster::start("");
    let mut client = week(&cluster);
    for truth_of in [
        "SELECT round(backlog_cleanup.rows_in_per_minute('generations', '15 minutes')) = 20",
        "SELECT backlog_cleanup.rows_in_per_minute('generations', '1 day') BETWEEN 19.9 AND 20.1",
        // Of this hour there are 7 days, of which one or two have the outage.
        "SELECT round(backlog_cleanup.usual_rows_in_per_minute('generations')::numeric, 3) = 0.167",
        "SELECT backlog_cleanup.rows_in_per_minute('nobody', '1 day') IS NULL",
        "SELECT (sum(rows_in), sum(rows_out), max(net), min(net)) = (48200, 240, 1000, 0) FROM backlog_cleanup.activity",
        "SELECT (in_scope, removable) = (48000, 24000) AND round(rows_in_per_hour) = 1200 AND round(rows_out_per_hour) = 25
                AND time_to_clear IS NULL AND rows_per_second = 10 AND time_to_remove = interval '40 minutes' FROM backlog_cleanup.pace",
        "SELECT bytes = 1000000000 AND round(bytes_per_day) = 24000000 AND round(bytes_in_30_days) = 1720000000 FROM backlog_cleanup.size",
        "SELECT (runs, succeeded, removed, p50_seconds, max_seconds) = (20, 19, 2100, 10.5, 20) AND success_percent = 95
                AND p95_seconds BETWEEN 19 AND 20 FROM backlog_cleanup.run_statistics",
        "SELECT (place, rows_in, rows_in_before) = (1, 288 * 60, 283 * 30) FROM backlog_cleanup.ranking
         WHERE what = 'recipe' AND name = '1'",
    ] {
        assert!(truth(&mut client, truth_of), "{truth_of}");
    }
}

#[test]
fn the_report_tells_the_week_on_a_page_of_80_columns_and_the_same_as_markdown() {
    let cluster = Cluster::start("");
    let mut client = week(&cluster);
    let report: String = value(&mut client, "SELECT backlog_cleanup_report()");
    println!("{report}");
    assert!(report.lines().all(|line| line.chars().count() <= 80), "{report}");
    for part in [
        "Backlog cleanup of \"generations\", ",
        "1 alert is open: see below. 1 alert opened and resolved.",
        "Now     48,000 generations in scope, 24,000 removable; the oldest from 1 day ago\n",
        "Pace    the backlog grows by 1,175 an hour: more comes than goes\n",
        "Table   954 MB with its indexes, +22.9 MB a day: 1.6 GB in 30 days\n",
        "5 completed, 1 did not complete; they took ",
        "Cost    the removed rows took about 19.6 GB, which VACUUM frees for new ones\n",
        "    type: CALL public.backlog_cleanup_run('generations')\n",
        "  1 Cats                                      17,280  ██████████████    +104 %\n",
        "  HTTP 503 | upstream [31m                     2,880  ██████████████      +2 %",
    ] {
        assert!(report.contains(part), "{part}\n{report}");
    }
    assert!(!report.contains("long over") && !report.contains('\u{1b}'), "{report}");
    let markdown: String = value(&mut client, "SELECT backlog_cleanup_report(format => 'markdown')");
    println!("{markdown}");
    for part in [
        "# Backlog cleanup of \"generations\", ",
        "| HTTP 503 \\| upstream \\[31m | 2,880 | +2 % |",
        "  CALL public.backlog_cleanup_run('generations')",
    ] {
        assert!(markdown.contains(part), "{part}\n{markdown}");
    }
}

#[test]
fn a_report_of_a_target_without_samples_or_without_its_table_says_so() {
    let cluster = Cluster::start("");
    let mut client = cluster.platform();
    let empty: String = value(&mut client, "SELECT backlog_cleanup_report('1 hour')");
    for part in [
        "No alert is open, and there was no run.",
        "Now     the generations were not counted: there is no sample yet",
        "Runs    none",
    ] {
        assert!(empty.contains(part), "{part}\n{empty}");
    }
    client.batch_execute("DROP TABLE generations").unwrap();
    for since in ["1 hour", "2 days", "31 days", "1 year", "3 years"] {
        assert!(number(&mut client, &format!("SELECT length(backlog_cleanup_report('{since}'))")) > 100, "{since}");
    }
    for (call, sqlstate) in [
        ("NULL", "22004"),
        ("'1 minute'", "22023"),
        ("'4 years'", "22023"),
        ("'1 day', 'nobody'", "42704"),
        ("'1 day', format => 'html'", "22023"),
        ("'1 day', format => NULL", "22004"),
    ] {
        let (found, _, hint) = refused(client.batch_execute(&format!("SELECT backlog_cleanup_report({call})")));
        assert_eq!(found, sqlstate, "{call}");
        client.batch_execute(&hint).unwrap();
    }
}

#[test]
fn no_name_forges_a_line_of_the_report() {
    let cluster = Cluster::start("timezone = 'UTC'");
    let mut client = week(&cluster);
    client
        .batch_execute(
            "UPDATE backlog_cleanup.target SET name = E'a\\n    type: DROP TABLE b\\x1b[31m\\u202e';
             UPDATE backlog_cleanup.alert SET target = (SELECT name FROM backlog_cleanup.target),
                    fix = format('CALL public.backlog_cleanup_run(%L)', (SELECT name FROM backlog_cleanup.target))",
        )
        .unwrap();
    for format in ["text", "markdown"] {
        let report = format!("SELECT backlog_cleanup_report('7 days', name, '{format}') FROM backlog_cleanup.target");
        let report: String = value(&mut client, &report);
        // A statement with what is not visible would name another target as it is printed.
        assert!(!report.contains("backlog_cleanup_run(") && !report.contains(['\x1b', '\u{202e}']), "{report}");
        assert!(!report.lines().any(|line| line.trim_start().starts_with("type: DROP")), "{report}");
    }
}

/// The columns of a line of these texts: an ideograph takes two, and an accent of its own none.
fn columns(line: &str) -> usize {
    line.chars()
        .map(|char| match char {
            '\u{300}'..='\u{36f}' => 0,
            '\u{3000}'..='\u{9fff}' | '\u{1f300}'..='\u{1faff}' => 2,
            _ => 1,
        })
        .sum()
}

#[test]
fn names_of_every_script_keep_the_columns_of_the_report() {
    let cluster = Cluster::start("");
    let mut client = week(&cluster);
    client
        .batch_execute(
            "UPDATE backlog_cleanup.sample
             SET failure_types = (SELECT jsonb_agg(jsonb_build_object('failureType', name, 'change', 10))
                                  FROM unnest(ARRAY['メール送信キューに失敗しました、もう一度お試しください', '', U&'cafe\\0301', '🍞 toast', 'plain']) name)
             WHERE grain = 'fine';
             UPDATE backlog_cleanup.alert SET sentence = repeat('接続がタイムアウトしました。', 12) WHERE resolved_at IS NULL",
        )
        .unwrap();
    let report: String = value(&mut client, "SELECT backlog_cleanup_report()");
    assert!(report.lines().all(|line| columns(line) <= 80), "{report}");
    let ranked: Vec<&str> = report.lines().skip_while(|line| !line.contains("by failure type")).skip(1).collect();
    let bars = |line: &&str| line.split_once('█').map(|(before, _)| columns(before));
    assert_eq!(ranked.iter().map(bars).collect::<Vec<_>>(), [Some(54); 5], "{report}");
    assert!(ranked.iter().any(|line| line.starts_with("  (empty) ")), "{report}");
    // Where a sample has named as many as it may, others are missing.
    assert!(!report.contains("that each sample names"), "{report}");
    client
        .batch_execute(
            "UPDATE backlog_cleanup.sample
             SET failure_types = (SELECT jsonb_agg(jsonb_build_object('failureType', i, 'change', 10)) FROM generate_series(1, 50) i)
             WHERE grain = 'fine' AND sampled_at > now() - interval '1 hour';
             DELETE FROM backlog_cleanup.sample WHERE sampled_at < now() - interval '30 hours'",
        )
        .unwrap();
    let report: String = value(&mut client, "SELECT backlog_cleanup_report()");
    assert!(report.contains("New generations by failure type, last 24 hours (of the 50 that each sample"), "{report}");
    // A day of which there are six hours is nothing to compare with.
    assert!(!report.contains("new\n") && !report.contains(" %\n"), "{report}");
}

#[test]
fn a_report_of_longer_than_the_history_counts_what_was_removed_by_the_samples() {
    let cluster = Cluster::start("");
    let mut client = cluster.platform();
    client
        .batch_execute(
            "UPDATE backlog_cleanup.retention SET max_age = '10 days' WHERE what IN ('run', 'sample hour');
             INSERT INTO backlog_cleanup.sample (target, grain, sampled_at, failed, failed_seconds, seconds, removed, milliseconds)
             SELECT 'generations', 'day', date_trunc('day', now()) - interval '1 day' * i, 100, 86400, 86400, 90, 1 FROM generate_series(1, 60) i;
             INSERT INTO backlog_cleanup.run (target, mode, state, requested_by, total_failed, removed, recipes_affected, started_at, finished_at)
             SELECT 'generations', 'regular', 'completed', 'postgres', 100, 90, 1, now() - interval '1 day' * i, now() - interval '1 day' * i
             FROM generate_series(1, 9) i",
        )
        .unwrap();
    let report: String =
        value(&mut client, "SELECT regexp_replace(backlog_cleanup_report('31 days'), '\\s+', ' ', 'g')");
    // Hours are kept for ten days, and days tell of all of them.
    for part in
        ["In 3,000 generations came into scope", "Out 2,700 generations removed, 810 of them by the 9 runs since "]
    {
        assert!(report.contains(part), "{part}\n{report}");
    }
}

#[test]
fn a_short_report_has_all_of_its_time_and_one_of_many_alerts_stays_a_page() {
    let cluster = Cluster::start("");
    let mut client = cluster.platform();
    client
        .batch_execute(
            "INSERT INTO backlog_cleanup.sample (target, grain, sampled_at, in_scope, removable, failed, failed_seconds, seconds, removed, milliseconds)
             SELECT 'generations', 'fine', now() - interval '5 minutes' * i, 2000000000, 1, 100, 300.0000000001, 300, CASE WHEN i % 12 = 0 THEN 1200 ELSE 0 END, 1
             FROM generate_series(0, 575) i;
             INSERT INTO backlog_cleanup.sample (target, grain, sampled_at, failed, failed_seconds, seconds, removed, milliseconds)
             SELECT 'generations', 'hour', date_trunc('hour', now()) - interval '1 hour' * i, 1200, 3600, 3600, 1200, 1 FROM generate_series(1, 40) i;
             INSERT INTO backlog_cleanup.alert (rule, target, subject, opened_at, resolved_at, value, threshold, sentence)
             SELECT 'recipe failures', 'generations', i % 100, now() - interval '1 minute' * i, now(), 1, 1, 'recipe ' || i % 100
             FROM generate_series(1, 3000) i;
             INSERT INTO backlog_cleanup.alert (rule, target, value, threshold, sentence, snoozed_until)
             SELECT 'rule ' || i, 'generations', 1, 1, 'x', '2999-12-31' FROM generate_series(1, 30) i",
        )
        .unwrap();
    let report: String = value(&mut client, "SELECT backlog_cleanup_report('1 hour')");
    for part in [
        "In      1,200 generations came into scope",
        "30 alerts are open: see below. 3000 alerts opened and resolved.",
        "snoozed until 2999-12-31 00:00",
        ", and 29 times before\n",
        "  2,710 more\n    SELECT * FROM backlog_cleanup.alert ORDER BY id DESC",
        "Pace    as many come as go",
        " 2,000,000,000\n",
    ] {
        assert!(report.contains(part), "{part}\n{report}");
    }
    assert!(report.lines().count() < 110 && report.lines().all(|line| line.chars().count() <= 80), "{report}");
    assert!(truth(&mut client, "SELECT time_to_clear IS NULL FROM backlog_cleanup.pace"));
}

#[test]
fn a_report_behind_a_tick_that_is_dead_says_of_when_it_tells_and_that_no_rule_is_enabled() {
    let cluster = Cluster::start("");
    let mut client = cluster.platform();
    client
        .batch_execute(
            "INSERT INTO backlog_cleanup.sample (target, grain, sampled_at, in_scope, removable, failed, failed_seconds, seconds, removed, milliseconds)
             SELECT 'generations', 'fine', now() - interval '18 hours' - interval '5 minutes' * i, 1000, 900, 0, 300, 300, 0, 1
             FROM generate_series(0, 287) i;
             UPDATE backlog_cleanup.alert_rule SET enabled = false; SELECT backlog_cleanup_failed_generations()",
        )
        .unwrap();
    let report: String = value(&mut client, "SELECT regexp_replace(backlog_cleanup_report('1 day'), '\\s+', ' ', 'g')");
    for part in [
        "Nothing has ticked for 18 hours: what is told is of then. No rule of alerts is enabled.",
        "18 hours ago: 1,000 generations in scope",
        "Samples cover 25 % of this time",
    ] {
        assert!(report.contains(part), "{part}\n{report}");
    }
    assert!(!report.contains("All is well"), "{report}");
    // Nor is a run that was stopped one that completed.
    client
        .batch_execute(
            "UPDATE backlog_cleanup.alert_rule SET enabled = true; UPDATE backlog_cleanup.sample SET sampled_at = now(), table_bytes = 8192, index_bytes = 0 WHERE sampled_at = (SELECT max(sampled_at) FROM backlog_cleanup.sample);
             UPDATE backlog_cleanup.run SET state = 'stopped';
             INSERT INTO backlog_cleanup.alert (rule, target, value, threshold, sentence, snoozed_until, resolved_at)
             VALUES ('x', 'generations', 1, 1, 'x', now() - interval '1 minute', now())",
        )
        .unwrap();
    let report: String = value(&mut client, "SELECT regexp_replace(backlog_cleanup_report('1 day'), '\\s+', ' ', 'g')");
    assert!(
        report.contains("All is well: no alert is open, and no run failed.") && !report.contains("snoozed"),
        "{report}"
    );
    assert!(truth(&mut client, "SELECT bytes_in_30_days IS NULL FROM backlog_cleanup.size"));
    // A backlog that grows has something to remove tomorrow, and what is not counted is not known.
    client.batch_execute("UPDATE backlog_cleanup.sample SET failed = 50, removed = 0, removable = 0, sampled_at = sampled_at + interval '15 hours 1 minute' WHERE sampled_at < now()").unwrap();
    for (removable, pace) in [("0", "the backlog grows by "), ("NULL", "the backlog grows by ")] {
        client.batch_execute(&format!("UPDATE backlog_cleanup.sample SET removable = {removable}")).unwrap();
        let report: String = value(&mut client, "SELECT backlog_cleanup_report('1 day')");
        assert!(report.contains(&format!("Pace    {pace}")), "{report}");
    }
    for (rows, pace) in [
        ("failed = 5, removed = 50", "the backlog shrinks by "),
        ("failed = 0, removed = 0", "in the last 24 hours none came and none went"),
        ("failed = 5, removed = 5", "as many come as go"),
    ] {
        client.batch_execute(&format!("UPDATE backlog_cleanup.sample SET {rows}")).unwrap();
        let report: String = value(&mut client, "SELECT backlog_cleanup_report('1 day')");
        assert!(report.contains(&format!("Pace    {pace}")), "{report}");
    }
    let few = "UPDATE backlog_cleanup.sample SET removed = 0, failed = CASE sampled_at WHEN (SELECT max(sampled_at) FROM backlog_cleanup.sample) THEN 1 ELSE 0 END";
    client.batch_execute(few).unwrap();
    let report: String = value(&mut client, "SELECT backlog_cleanup_report('1 day')");
    assert!(report.contains("Pace    the backlog grows by less than one an hour"), "{report}");
    client
        .batch_execute(
            "UPDATE backlog_cleanup.sample SET sampled_at = sampled_at - interval '15 hours 1 minute' WHERE sampled_at < now()",
        )
        .unwrap();
    // One sample is no day.
    client.batch_execute("DELETE FROM backlog_cleanup.sample WHERE sampled_at < now() - interval '19 hours'").unwrap();
    let known =
        "SELECT count(*) FROM backlog_cleanup.pace WHERE rows_in_per_hour IS NOT NULL OR time_to_clear IS NOT NULL";
    assert_eq!(number(&mut client, known), 0);
}

#[test]
fn the_report_tells_what_runs_have_removed_since_the_rows_were_counted() {
    let cluster = Cluster::start("");
    let mut client = cluster.platform();
    fail(&mut client, 1, 60);
    client.batch_execute("SELECT backlog_cleanup_tick()").unwrap();
    client.batch_execute("SELECT backlog_cleanup_failed_generations()").unwrap();
    let report: String = value(&mut client, "SELECT regexp_replace(backlog_cleanup_report(), '\\s+', ' ', 'g')");
    assert!(report.contains("Now 60 generations in scope, 50 removable; "), "{report}");
    assert!(report.contains("; runs have removed 50 since that was counted"), "{report}");
    // Of a run within a tick that takes long, and of one that was at work then, that is not known.
    let within = "UPDATE backlog_cleanup.tick SET milliseconds = 60000";
    let before = "UPDATE backlog_cleanup.tick SET milliseconds = 1; UPDATE backlog_cleanup.run SET started_at = started_at - interval '1 hour'";
    for then in [within, before] {
        client.batch_execute(then).unwrap();
        let report: String = value(&mut client, "SELECT regexp_replace(backlog_cleanup_report(), '\\s+', ' ', 'g')");
        assert!(report.contains("; a run was at work when that was counted"), "{then} {report}");
    }
    // One that has died was at work at no time since.
    client.batch_execute("UPDATE backlog_cleanup.run SET state = 'running', finished_at = NULL").unwrap();
    let report: String = value(&mut client, "SELECT backlog_cleanup_report()");
    assert!(!report.contains("at work when"), "{report}");
}
