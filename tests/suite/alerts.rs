//! Alerts: what rules find, and that each alert opens once and resolves once. Days are samples and runs of the past.

use std::time::{Duration, Instant};

use cluster::{Cluster, JOBS, fail, number, refused, truth, value, veto, with_pg_cron};
use postgres::Client;
use postgres::fallible_iterator::FallibleIterator;

const EVALUATE: &str = "SELECT count(*) FROM backlog_cleanup.evaluate_alerts()";

/// A sample of so many minutes ago: rows in scope, and how many of them failed in the five minutes before.
fn sample(client: &mut Client, minutes: i32, in_scope: i64, failed: i64) {
    let sample = format!(
        "INSERT INTO backlog_cleanup.sample (target, grain, sampled_at, in_scope, removable, failed, failed_seconds, seconds, removed,
                                             table_bytes, index_bytes, live_rows, dead_rows, milliseconds)
         VALUES ('generations', 'fine', now() - interval '{minutes} minutes', {in_scope}, {in_scope}, {failed}, 300, 300, 0, 8192, 8192, 10, 0, 1)"
    );
    client.batch_execute(&sample).unwrap();
}

/// Forgets the samples, and has one of now.
fn now(client: &mut Client, in_scope: i64) {
    client.batch_execute("DELETE FROM backlog_cleanup.sample").unwrap();
    sample(client, 0, in_scope, 0);
}

/// The open alerts of a rule: how many, and the values of the first.
fn open(client: &mut Client, rule: &str) -> i64 {
    number(client, &format!("SELECT count(*) FROM backlog_cleanup.alert WHERE rule = '{rule}' AND resolved_at IS NULL"))
}

/// An hour later: what takes long is due again.
fn evaluate(client: &mut Client) {
    client.batch_execute("DELETE FROM backlog_cleanup.alert_measured").unwrap();
    number(client, EVALUATE);
}

#[test]
fn an_alert_opens_once_stays_open_and_resolves_once_at_the_lower_threshold() {
    let cluster = Cluster::start("");
    let mut client = cluster.platform();
    let states = "SELECT string_agg(format('%s %s', value, resolved_at IS NOT NULL), ', ' ORDER BY id)
                  FROM backlog_cleanup.alert WHERE rule = 'rows in scope'";
    for (in_scope, alerts) in [
        (100_000, None),
        (100_001, Some("100001 f")),
        (500_000, Some("500000 f")),
        // Below the threshold it is about what was above.
        (80_001, Some("500000 f")),
        (80_000, Some("500000 t")),
        (100_000, Some("500000 t")),
        (100_002, Some("500000 t, 100002 f")),
    ] {
        now(&mut client, in_scope);
        evaluate(&mut client);
        evaluate(&mut client);
        assert_eq!(value::<Option<String>>(&mut client, states).as_deref(), alerts, "{in_scope}");
    }
    let [sentence, fix] = ["sentence", "fix"].map(|column| {
        value::<String>(&mut client, &format!("SELECT {column} FROM backlog_cleanup.alert ORDER BY id DESC LIMIT 1"))
    });
    assert_eq!(
        sentence,
        "target \"generations\": 100,002 generations are in scope (the limit is 100,000); a run would remove 100,002 of them"
    );
    client.batch_execute(&fix).unwrap();
}

#[test]
fn listeners_hear_of_each_change_in_a_payload_that_fits() {
    let cluster = Cluster::start("");
    let mut client = cluster.platform();
    let mut listener = cluster.connect();
    listener.batch_execute("LISTEN backlog_cleanup").unwrap();
    let long = "\u{1}ü\"".repeat(30);
    client.execute("UPDATE backlog_cleanup.alert_rule SET name = $1 WHERE kind = 'rows_in_scope'", &[&long]).unwrap();
    client
        .execute("UPDATE backlog_cleanup.target SET name = $1, row_word = repeat('ü', 40)", &[&long.repeat(6)])
        .unwrap();
    client
        .batch_execute("UPDATE backlog_cleanup.alert_rule SET enabled = false WHERE kind <> 'rows_in_scope'")
        .unwrap();
    let sampled = "INSERT INTO backlog_cleanup.sample (target, grain, sampled_at, in_scope, milliseconds)
                   SELECT name, 'fine', now(), 100001, 1 FROM backlog_cleanup.target";
    client.batch_execute(sampled).unwrap();
    evaluate(&mut client);
    evaluate(&mut client);
    client
        .batch_execute(
            "SELECT backlog_cleanup_snooze(max(id), now() + interval '1 hour') FROM backlog_cleanup.alert;
             SELECT backlog_cleanup_acknowledge(max(id), repeat('n', 9000)) FROM backlog_cleanup.alert;
             UPDATE backlog_cleanup.sample SET in_scope = 1",
        )
        .unwrap();
    evaluate(&mut client);
    evaluate(&mut client);
    let mut changes = Vec::new();
    let mut heard = listener.notifications();
    let mut heard = heard.timeout_iter(Duration::from_secs(2));
    while let Some(notification) = heard.next().unwrap() {
        assert!(notification.payload().len() < 8000);
        let payload: serde_json::Value = serde_json::from_str(notification.payload()).unwrap();
        assert_eq!(payload["alert"], 1);
        // Any role can listen.
        let names: Vec<&String> = payload.as_object().unwrap().keys().collect();
        assert_eq!(names, ["alert", "change", "rule", "target"]);
        changes.push(payload["change"].as_str().unwrap().to_owned());
    }
    assert_eq!(changes, ["opened", "snoozed", "acknowledged", "resolved"]);
}

/// What makes a kind alert, and what ends it.
struct Case {
    kind: &'static str,
    harm: &'static str,
    mended: &'static str,
    /// What the sentence says.
    says: &'static str,
    /// How the fix begins, if there is one.
    fix: Option<&'static str>,
}

const RUN: &str = "INSERT INTO backlog_cleanup.run (target, mode, state, requested_by, total_failed, removed, recipes_affected, started_at, finished_at, kept_back, error_message)
                   VALUES ('generations', 'regular', ";
const HOUR: &str = "INSERT INTO backlog_cleanup.sample (target, grain, sampled_at, failed, failed_seconds, table_bytes, index_bytes, milliseconds)
                    SELECT 'generations', 'hour', date_trunc('hour', now()) - ";

const CASES: [Case; 10] = [
    Case {
        kind: "failure_rate",
        harm: "UPDATE backlog_cleanup.sample SET failed = 305",
        mended: "UPDATE backlog_cleanup.sample SET failed = 150",
        says: "61.0 generations a minute have come into scope in the last 15 minutes (the limit is 60)",
        fix: None,
    },
    Case {
        kind: "failure_rate_factor",
        harm: "HOUR interval '1 day' * i, 120 * i, 3600, 1, 1, 1 FROM generate_series(1, 9) i;
               UPDATE backlog_cleanup.sample SET failed = 255 WHERE grain = 'fine'",
        mended: "UPDATE backlog_cleanup.sample SET failed = 100 WHERE grain = 'fine'",
        says: "51.0 generations a minute have come into scope in the last 15 minutes, 5.1 times the usual of this hour, 10.0 (the limit is 5)",
        fix: None,
    },
    Case {
        kind: "no_successful_run",
        harm: "UPDATE backlog_cleanup.target SET named_at = now() - interval '9 days';
               RUN 'completed', 'x', 1, 1, 1, now() - interval '50 hours', now() - interval '49 hours', 0, NULL)",
        mended: "RUN 'completed', 'x', 1, 1, 1, now() - interval '47 hours', now() - interval '47 hours', 0, NULL)",
        says: "the last regular run that ended well was 2 days ago, on ",
        fix: Some("CALL public.backlog_cleanup_run('generations')"),
    },
    Case {
        kind: "failed_runs",
        harm: "RUN 'failed', 'x', 1, 0, 1, now() - interval '1 hour', now(), 0, 'no room')",
        mended: "RUN 'completed', 'x', 1, 0, 1, now(), now(), 0, NULL)",
        says: "UTC, failed: no room",
        fix: Some("SELECT * FROM public.backlog_cleanup_doctor("),
    },
    Case {
        kind: "nothing_removed",
        harm: "RUN 'completed', 'x', 10, 0, 1, now(), now(), 0, NULL); RUN 'completed', 'x', 1011, 0, 1, now(), now(), 0, NULL)",
        mended: "RUN 'completed', 'x', 1500, 1, 1, now(), now(), 0, NULL)",
        says: "run 2 has removed none of 1,011 generations, 1,001 more than the run before had left: none of them was removable yet",
        fix: None,
    },
    Case {
        kind: "kept_back",
        harm: "RUN 'completed', 'x', 10, 0, 1, now(), now(), 3, NULL)",
        mended: "RUN 'completed', 'x', 10, 3, 1, now(), now(), 0, NULL)",
        says: "run 1 could not remove 3 generations",
        fix: None,
    },
    Case {
        kind: "books",
        harm: "RUN 'completed', 'x', 10, 3, 1, now(), now(), 0, NULL)",
        mended: "UPDATE backlog_cleanup.run SET removed = 0",
        says: "the ledger has 0 removed generations, the history 3",
        fix: None,
    },
    Case {
        kind: "history_size",
        harm: "UPDATE backlog_cleanup.alert_rule SET threshold = 1000, resolve_at = NULL WHERE kind = 'history_size';
               INSERT INTO backlog_cleanup.tick (started_at, milliseconds, steps)
               SELECT now() - interval '1 day', 1, jsonb_build_array(i) FROM generate_series(1, 20000) i",
        mended: "UPDATE backlog_cleanup.alert_rule SET threshold = 1073741824 WHERE kind = 'history_size'",
        says: "the largest is backlog_cleanup.tick with ",
        fix: Some("UPDATE backlog_cleanup.retention SET max_age = '3 days 12:00:00' WHERE what = 'tick'"),
    },
    Case {
        kind: "dead_rows",
        harm: "UPDATE backlog_cleanup.sample SET live_rows = 20000, dead_rows = 10000",
        mended: "UPDATE backlog_cleanup.sample SET dead_rows = 0 WHERE sampled_at > now() - interval '6 minutes'",
        says: "33.3 % of the rows of public.generations are dead, and have been for 60 minutes (the limit is 30 %)",
        fix: Some("VACUUM (ANALYZE) public.generations"),
    },
    Case {
        kind: "table_size",
        harm: "HOUR interval '1 hour' * i, 0, 3600, 100e9 - 1e9 * i, 0, 1 FROM generate_series(0, 30) i;
               UPDATE backlog_cleanup.sample SET table_bytes = 100e9 WHERE grain = 'fine'",
        mended: "UPDATE backlog_cleanup.sample SET table_bytes = 1e9, index_bytes = 0",
        says: "public.generations with its indexes has 93 GB and grows by 22 GB a day: it passes 100 GB on ",
        fix: None,
    },
];

#[test]
fn every_kind_opens_says_what_is_wrong_and_resolves() {
    let cluster = Cluster::start("");
    for Case { kind, harm, mended, says, fix } in CASES {
        let database = kind.replace('_', "");
        let mut client = cluster.platform_in(&database);
        (0..12).for_each(|tick| sample(&mut client, tick * 5, 1, 1));
        let typed = |text: &str| text.replace("RUN ", RUN).replace("HOUR ", HOUR);
        let opened = format!(
            "SELECT count(*) FROM backlog_cleanup.alert JOIN backlog_cleanup.alert_rule ON rule = name
             WHERE kind = '{kind}' AND resolved_at IS NULL"
        );
        evaluate(&mut client);
        assert_eq!(number(&mut client, &opened), 0, "{kind}");
        client.batch_execute(&typed(harm)).unwrap();
        evaluate(&mut client);
        assert_eq!(number(&mut client, &opened), 1, "{kind}");
        let alert = "SELECT a.sentence, a.fix FROM backlog_cleanup.alert a JOIN backlog_cleanup.alert_rule ON rule = name WHERE kind = $1";
        let alert = client.query_one(alert, &[&kind]).unwrap();
        let (sentence, found): (String, Option<String>) = (alert.get(0), alert.get(1));
        assert!(sentence.contains(says), "{kind}: {sentence}");
        assert_eq!(found.is_some(), fix.is_some(), "{kind}: {found:?}");
        if let (Some(found), Some(fix)) = (found, fix) {
            assert!(found.starts_with(fix), "{kind}: {found}");
            client.batch_execute(&found).unwrap_or_else(|failure| panic!("{found}: {failure:?}"));
        }
        client.batch_execute(&typed(mended)).unwrap();
        evaluate(&mut client);
        assert_eq!(number(&mut client, &opened), 0, "{kind}");
    }
}

#[test]
fn a_recipe_alerts_by_its_attempts_and_an_outage_of_all_opens_ten() {
    let cluster = Cluster::start("");
    let mut client = cluster.platform();
    client
        .batch_execute(
            "INSERT INTO recipes (id, name, slug, description, prompt, category, credit_cost) VALUES (1, 'Cats', 'cats', '', '', '', 1);
             INSERT INTO generations (user_id, recipe_id, prompt, status, updated_at)
             SELECT 'system_backlog', recipe, '', CASE WHEN i <= failed THEN 'failed' ELSE 'completed' END, now() AT TIME ZONE 'UTC'
             FROM (VALUES (1, 19, 20), (2, 18, 20), (3, 15, 15), (NULL, 30, 30)) r (recipe, failed, attempts), generate_series(1, attempts) i;
             INSERT INTO generations (user_id, recipe_id, prompt, status, updated_at)
             SELECT 'system_backlog', 2, '', 'failed', now() AT TIME ZONE 'UTC' - interval '2 hours' FROM generate_series(1, 100)",
        )
        .unwrap();
    evaluate(&mut client);
    let subjects = "SELECT string_agg(format('%s|%s', subject, sentence), E'\n' ORDER BY value) FROM backlog_cleanup.alert WHERE rule = 'recipe failures'";
    assert_eq!(
        value::<String>(&mut client, subjects),
        "1|target \"generations\": 19 of 20 attempts of recipe 1 (Cats) have failed in the last 60 minutes (the limit is 90 %)\n\
         |target \"generations\": 30 of 30 attempts of recipe (none) have failed in the last 60 minutes (the limit is 90 %)"
    );
    client.batch_execute("UPDATE generations SET status = 'completed' WHERE recipe_id = 1 AND id % 2 = 0").unwrap();
    evaluate(&mut client);
    assert_eq!(open(&mut client, "recipe failures"), 1);
    client
        .batch_execute(
            "INSERT INTO generations (user_id, recipe_id, prompt, status, updated_at)
             SELECT 'system_backlog', recipe, '', 'failed', now() AT TIME ZONE 'UTC' FROM generate_series(10, 60) recipe, generate_series(1, 20)",
        )
        .unwrap();
    evaluate(&mut client);
    assert_eq!(open(&mut client, "recipe failures"), 10);
    client.batch_execute("UPDATE backlog_cleanup.target SET completed_status = NULL").unwrap();
    evaluate(&mut client);
    assert_eq!(open(&mut client, "recipe failures"), 10, "what is not known resolves nothing");
}

#[test]
fn rows_without_a_recipe_and_those_of_an_empty_one_alert_apart() {
    let cluster = Cluster::start("");
    let mut client = cluster.platform();
    client
        .batch_execute(
            "ALTER TABLE generations DROP CONSTRAINT IF EXISTS generations_recipe_id_fkey, ALTER recipe_id TYPE text;
             UPDATE backlog_cleanup.target SET recipes_table = NULL;
             INSERT INTO generations (user_id, recipe_id, prompt, status, updated_at)
             SELECT 'system_backlog', recipe, '', 'failed', now() AT TIME ZONE 'UTC'
             FROM (VALUES (NULL, 30), ('', 31), ('real', 25)) r (recipe, failed), generate_series(1, failed)",
        )
        .unwrap_or_else(|failure| panic!("{failure:?}"));
    for _ in 0..2 {
        evaluate(&mut client);
        let subjects = "SELECT string_agg(quote_nullable(subject), ' ' ORDER BY subject) FROM backlog_cleanup.alert WHERE rule = 'recipe failures'";
        assert_eq!(value::<String>(&mut client, subjects), "'' 'real' NULL");
    }
}

#[test]
fn a_rule_for_a_target_beats_the_one_for_all_and_a_rule_that_is_gone_leaves_no_alert_open() {
    let cluster = Cluster::start("");
    let mut client = cluster.platform();
    now(&mut client, 5_000);
    let own = "INSERT INTO backlog_cleanup.alert_rule (name, kind, target, threshold) VALUES ('own', 'rows_in_scope', 'generations', 1000)";
    client.batch_execute(own).unwrap();
    evaluate(&mut client);
    assert_eq!((open(&mut client, "own"), open(&mut client, "rows in scope")), (1, 0));
    client
        .batch_execute(
            "UPDATE backlog_cleanup.alert_rule SET threshold = 100, resolve_at = 0 WHERE kind = 'rows_in_scope'",
        )
        .unwrap();
    evaluate(&mut client);
    assert_eq!((open(&mut client, "own"), open(&mut client, "rows in scope")), (1, 0));
    client.batch_execute("UPDATE backlog_cleanup.alert_rule SET enabled = false WHERE name = 'own'").unwrap();
    evaluate(&mut client);
    assert_eq!(
        (open(&mut client, "own"), open(&mut client, "rows in scope")),
        (0, 0),
        "the target has none of this kind"
    );
    client.batch_execute("DELETE FROM backlog_cleanup.alert_rule WHERE name = 'own'").unwrap();
    evaluate(&mut client);
    assert_eq!(open(&mut client, "rows in scope"), 1);
    client.batch_execute("DELETE FROM backlog_cleanup.target").unwrap();
    evaluate(&mut client);
    assert_eq!(open(&mut client, "rows in scope"), 0);
}

#[test]
fn a_rule_that_cannot_be_evaluated_or_would_wait_stops_no_other() {
    let cluster = Cluster::start("");
    let mut client = cluster.platform();
    now(&mut client, 200_000);
    evaluate(&mut client);
    now(&mut client, 300_000);
    let mut other = cluster.connect();
    other
        .batch_execute(
            "BEGIN; LOCK TABLE generations, credit_transactions; SELECT FROM backlog_cleanup.alert FOR UPDATE;
             LOCK TABLE backlog_cleanup.run_batch",
        )
        .unwrap();
    client
        .batch_execute(
            "INSERT INTO backlog_cleanup.alert_rule (name, kind, threshold) VALUES ('low', 'rows_in_scope', 5);
             DELETE FROM backlog_cleanup.alert_measured",
        )
        .unwrap();
    let since = Instant::now();
    let unknown: String = value(
        &mut client,
        "SELECT string_agg(rule, ', ' ORDER BY rule) FROM backlog_cleanup.evaluate_alerts()
         WHERE unknown LIKE '%lock%' AND unknown NOT LIKE '%once an hour%'",
    );
    assert!(since.elapsed() < Duration::from_secs(3), "{:?}", since.elapsed());
    assert_eq!(unknown, "books, history size, recipe failures");
    assert_eq!((open(&mut client, "rows in scope"), open(&mut client, "low")), (1, 1));
    assert!(truth(&mut client, "SELECT value = 200000 FROM backlog_cleanup.alert WHERE rule = 'rows in scope'"));
    other.batch_execute("ROLLBACK").unwrap();
    client.batch_execute("DROP TABLE credit_transactions").unwrap();
    evaluate(&mut client);
    assert!(truth(&mut client, "SELECT value = 300000 FROM backlog_cleanup.alert WHERE rule = 'rows in scope'"));
}

#[test]
fn a_rule_is_obeyed_or_refused_when_it_is_written() {
    let cluster = Cluster::start("");
    let mut client = cluster.platform();
    for (columns, values) in [
        ("kind, threshold", "'rows', 1"),
        ("kind, threshold", "'rows_in_scope', -1"),
        ("kind, threshold", "'rows_in_scope', 'NaN'"),
        ("kind, threshold", "'rows_in_scope', 'Infinity'"),
        ("kind, threshold, resolve_at", "'rows_in_scope', 5, 6"),
        ("kind, threshold, within", "'rows_in_scope', 5, '1 hour'"),
        ("kind, threshold", "'failure_rate', 5"),
        ("kind, threshold, within", "'failure_rate', 5, '1 minute'"),
        ("kind, threshold, within", "'failure_rate', 5, '2 days'"),
        ("kind, threshold, within", "'recipe_failures', 100, '1 hour'"),
        ("kind, threshold, target", "'history_size', 100, 'generations'"),
    ] {
        let rule = format!("INSERT INTO backlog_cleanup.alert_rule (name, {columns}) VALUES ('r', {values})");
        assert_eq!(refused(client.batch_execute(&rule)).0, "23514", "{values}");
    }
    let rule = "INSERT INTO backlog_cleanup.alert_rule (name, kind, threshold, target) VALUES ('r', 'rows_in_scope', 1, 'nobody')";
    assert_eq!(refused(client.batch_execute(rule)).0, "23503");
}

#[test]
fn a_snooze_outlives_an_alert_that_comes_back_and_refuses_what_means_nothing() {
    let cluster = Cluster::start("");
    let mut client = cluster.platform();
    now(&mut client, 200_000);
    evaluate(&mut client);
    for (call, sqlstate) in [
        ("backlog_cleanup_snooze(NULL, now())", "22004"),
        ("backlog_cleanup_snooze(1, now())", "22023"),
        ("backlog_cleanup_snooze(7, now() + interval '1 day')", "42704"),
        ("backlog_cleanup_acknowledge(7)", "42704"),
    ] {
        let (found, _, hint) = refused(client.batch_execute(&format!("SELECT {call}")));
        assert_eq!(found, sqlstate, "{call}");
        client.batch_execute(&hint).unwrap();
    }
    client
        .batch_execute(
            "SELECT backlog_cleanup_snooze(1, now() + interval '1 day', 'on it'), backlog_cleanup_acknowledge(1)",
        )
        .unwrap();
    let taken = "SELECT acknowledged_by = CURRENT_USER AND note = 'on it' FROM backlog_cleanup.alert";
    assert!(truth(&mut client, taken));
    for in_scope in [1, 200_000] {
        now(&mut client, in_scope);
        evaluate(&mut client);
    }
    let again = "SELECT snoozed_until > now() AND note = 'on it' AND acknowledged_at IS NULL FROM backlog_cleanup.alert WHERE id = 2";
    assert!(truth(&mut client, again));
    // Nor does it come back when somebody has ended it.
    client.batch_execute("SELECT backlog_cleanup_snooze(2, NULL)").unwrap();
    for in_scope in [1, 200_000] {
        now(&mut client, in_scope);
        evaluate(&mut client);
    }
    assert!(truth(&mut client, "SELECT bool_and(snoozed_until IS NULL) FROM backlog_cleanup.alert WHERE id IN (2, 3)"));
    let (sqlstate, message, _) = refused(client.batch_execute("SELECT backlog_cleanup_acknowledge(1)"));
    assert_eq!((sqlstate.as_str(), message.as_str()), ("55000", "alert 1 has resolved"));
}

#[test]
fn a_job_that_is_paused_deleted_or_was_never_there_is_an_alert_whose_fix_brings_it_back() {
    let cluster = with_pg_cron();
    let mut client = cluster.platform();
    client.batch_execute("UPDATE backlog_cleanup.target SET named_at = now() - interval '3 days'").unwrap();
    for (harm, says) in [
        ("SELECT cron.alter_job(jobid, active => false) FROM cron.job", "is not active"),
        ("DELETE FROM cron.job", "no job runs target"),
    ] {
        client.batch_execute(harm).unwrap();
        evaluate(&mut client);
        let [sentence, fix] = ["sentence", "fix"].map(|column| {
            let alert = format!(
                "SELECT {column} FROM backlog_cleanup.alert WHERE rule = 'no successful run' AND resolved_at IS NULL"
            );
            value::<String>(&mut client, &alert)
        });
        assert!(sentence.contains(says) && sentence.contains("no regular run has ended well"), "{sentence}");
        client.batch_execute(&fix).unwrap();
        assert_eq!(number(&mut client, "SELECT count(*) FROM cron.job WHERE active"), 1, "{fix}");
    }
    // The job is there again, and has not run yet.
    evaluate(&mut client);
    assert_eq!(open(&mut client, "no successful run"), 1);
    client.batch_execute("SELECT backlog_cleanup_failed_generations()").unwrap();
    evaluate(&mut client);
    assert_eq!(open(&mut client, "no successful run"), 0);
}

#[test]
fn rows_kept_back_and_a_failed_night_are_found_in_what_runs_really_write() {
    let cluster = Cluster::start("");
    let mut client = cluster.connect();
    client.batch_execute(JOBS).unwrap();
    client.batch_execute("DELETE FROM backlog_cleanup.target WHERE name = 'generations'").unwrap();
    veto(&mut client, "job", "OLD.id IN (5, 6)");
    client.batch_execute("SELECT backlog_cleanup_failed_generations('t')").unwrap();
    evaluate(&mut client);
    let kept = "SELECT sentence FROM backlog_cleanup.alert WHERE rule = 'rows kept back'";
    let sentence: String = value(&mut client, kept);
    assert!(sentence.starts_with("target \"t\": run 1 could not remove 2 rows: row 5"), "{sentence}");
    assert_eq!((open(&mut client, "books"), open(&mut client, "failed runs")), (0, 0));
}

#[test]
fn code_of_the_tables_owner_runs_as_the_owner_in_the_one_rule_that_reads_the_table() {
    let cluster = Cluster::start("");
    let mut client = cluster.connect();
    client.batch_execute(JOBS).unwrap();
    client
        .batch_execute(
            "CREATE FUNCTION spy(id int) RETURNS boolean IMMUTABLE LANGUAGE plpgsql AS
                 $$BEGIN IF current_user <> 'app' THEN RAISE EXCEPTION 'runs as %', current_user; END IF; RETURN true; END$$;
             ALTER FUNCTION spy OWNER TO app;
             UPDATE backlog_cleanup.target SET condition = '(public.spy(id))' WHERE name = 't';
             UPDATE job SET at = now() WHERE id <= 25",
        )
        .unwrap();
    let failed =
        "SELECT count(*) FROM backlog_cleanup.evaluate_alerts() WHERE target = 't' AND rule = 'recipe failures'";
    assert_eq!(number(&mut client, failed), 0);
    assert_eq!(open(&mut client, "recipe failures"), 1);
}

#[test]
fn a_tick_opens_the_alert_of_the_sample_that_it_has_just_taken_and_says_what_it_does_not_know() {
    let cluster = Cluster::start("");
    let mut client = cluster.platform();
    fail(&mut client, 1, 30);
    client
        .batch_execute(
            "UPDATE backlog_cleanup.alert_rule SET threshold = 29, resolve_at = 0 WHERE kind = 'rows_in_scope'",
        )
        .unwrap();
    let skipped = "SELECT step ->> 'skipped' FROM jsonb_array_elements(backlog_cleanup_tick() -> 'steps') step WHERE step ->> 'step' = 'alerts'";
    let skipped: String = value(&mut client, skipped);
    assert!(skipped.contains("rule \"unusual failure rate\" of target \"generations\": no baseline yet"), "{skipped}");
    assert_eq!(open(&mut client, "rows in scope"), 1);
}

#[test]
fn runs_of_the_platform_open_nothing_and_balance() {
    let cluster = Cluster::start("");
    let mut client = cluster.platform();
    fail(&mut client, 1, 30);
    client.batch_execute("SELECT backlog_cleanup_failed_generations()").unwrap();
    client.batch_execute("CALL backlog_cleanup_run()").unwrap();
    evaluate(&mut client);
    assert_eq!(number(&mut client, "SELECT count(*) FROM backlog_cleanup.alert"), 0);
}

#[test]
fn only_a_run_of_everything_resolves_what_runs_have_left_and_one_that_its_limit_stops_has_done_its_work() {
    let cluster = Cluster::start("");
    let mut client = cluster.platform();
    client.batch_execute("UPDATE backlog_cleanup.target SET named_at = now() - interval '9 days'").unwrap();
    let ran = |client: &mut Client, hours: i32, values: &str| {
        let run = format!(
            "INSERT INTO backlog_cleanup.run (target, mode, started_at, finished_at, requested_by, recipes_affected, state, recipe_id,
                                              total_failed, removed, kept_back, stop_requested_by)
             VALUES ('generations', 'regular', now() - interval '{hours} hours', now() - interval '{hours} hours', 'x', 1, {values})"
        );
        client.batch_execute(&run).unwrap();
        evaluate(client);
        ["no successful run", "failed runs", "rows kept back", "nothing removed"].map(|rule| open(client, rule))
    };
    assert_eq!(ran(&mut client, 9, "'failed', NULL, 9000, 0, 0, NULL"), [1, 1, 0, 0]);
    assert_eq!(ran(&mut client, 8, "'completed', '3', 0, 0, 0, NULL"), [1, 1, 0, 0]);
    assert_eq!(ran(&mut client, 7, "'stopped', NULL, 9000, 50, 0, 'somebody'"), [1, 1, 0, 0]);
    assert_eq!(ran(&mut client, 6, "'stopped', NULL, 9000, 8000, 0, NULL"), [0, 0, 0, 0]);
    assert_eq!(ran(&mut client, 5, "'completed', NULL, 2500, 0, 20, NULL"), [0, 0, 1, 1]);
    assert_eq!(ran(&mut client, 4, "'completed', '3', 0, 0, 0, NULL"), [0, 0, 1, 1]);
    assert_eq!(ran(&mut client, 3, "'completed', NULL, 2500, 20, 0, NULL"), [0, 0, 0, 0]);
    // A clock that was ahead.
    client
        .batch_execute("UPDATE backlog_cleanup.run SET finished_at = now() + interval '1 year' WHERE id = 7")
        .unwrap();
    assert_eq!(ran(&mut client, 1, "'failed', NULL, 2500, 0, 0, NULL"), [0, 1, 0, 0]);
    // The runs are of another target.
    client.batch_execute("UPDATE backlog_cleanup.target SET name = 'renamed'").unwrap();
    evaluate(&mut client);
    assert_eq!(open(&mut client, "no successful run"), 0);
}

#[test]
fn a_recipe_with_few_attempts_left_stays_open_and_a_long_one_opens() {
    let cluster = Cluster::start("");
    let mut client = cluster.platform();
    fail(&mut client, 1, 21);
    client.batch_execute("UPDATE generations SET updated_at = now() AT TIME ZONE 'UTC'").unwrap();
    for (fewer, alerts) in [("false", "1 f"), ("id <= 2", "1 f"), ("id <= 19", "1 f"), ("true", "1 t")] {
        let old = format!("UPDATE generations SET updated_at = updated_at - interval '2 hours' WHERE {fewer}");
        client.batch_execute(&old).unwrap();
        evaluate(&mut client);
        let state = "SELECT string_agg(concat_ws(' ', id, resolved_at IS NOT NULL), ',' ORDER BY id) FROM backlog_cleanup.alert";
        assert_eq!(value::<String>(&mut client, state), alerts, "{fewer}");
    }
    let random = "(SELECT string_agg(md5(i::text), '') FROM generate_series(1, 30) i)";
    client
        .batch_execute(&format!(
            "UPDATE backlog_cleanup.alert_rule SET threshold = 1, resolve_at = NULL WHERE kind = 'rows_in_scope';
             ALTER TABLE generations ALTER recipe_id TYPE text;
             UPDATE generations SET recipe_id = {random}, updated_at = now() AT TIME ZONE 'UTC';
             UPDATE backlog_cleanup.target SET name = (SELECT string_agg(md5(i::text), '') FROM generate_series(1, 75) i)"
        ))
        .unwrap();
    evaluate(&mut client);
    assert_eq!(open(&mut client, "recipe failures"), 1);
}

#[test]
fn a_rule_that_fails_is_an_error_of_the_tick_and_the_ledger_is_compared_again_if_it_was_locked() {
    let cluster = Cluster::start("");
    let mut client = cluster.platform();
    client.batch_execute("ALTER VIEW backlog_cleanup.size RENAME TO gone").unwrap();
    let mut other = cluster.connect();
    other.batch_execute("BEGIN; LOCK TABLE credit_transactions").unwrap();
    let said = "SELECT concat_ws(E'\n', coalesce(step ->> 'skipped', ''), step ->> 'error')
                FROM jsonb_array_elements(backlog_cleanup_tick() -> 'steps') step WHERE step ->> 'step' = 'alerts'";
    let first: String = value(&mut client, said);
    let (skipped, error) = first.split_once('\n').unwrap();
    assert!(
        skipped.contains("rule \"books\" of target \"generations\": target \"generations\": another session"),
        "{skipped}"
    );
    assert!(
        error.starts_with("rule \"table size\" of target \"generations\": relation ") && !error.contains("books"),
        "{error}"
    );
    let doctor = "SELECT detail FROM backlog_cleanup_doctor() WHERE check_name = 'tick'";
    let found: String = value(&mut client, doctor);
    assert!(found.starts_with("step alerts of the last tick has failed: rule \"table size\""), "{found}");
    other.batch_execute("ROLLBACK").unwrap();
    client.batch_execute("ALTER VIEW backlog_cleanup.gone RENAME TO size").unwrap();
    let [second, third] = [(); 2].map(|()| value::<String>(&mut client, said));
    assert!(!second.contains("books"), "{second}");
    assert!(third.contains("rule \"books\" of target \"generations\": the ledger is compared once an hour"), "{third}");
    let by_hand: String = value(&mut client, doctor);
    assert!(by_hand.starts_with("no job ticks; the last tick, by hand, was 0 minutes ago: SELECT "), "{by_hand}");
    // Whoever evaluates where nothing ticks does not compare it more often, and a clock that was ahead puts nothing off.
    let rests =
        "SELECT count(*) FROM backlog_cleanup.evaluate_alerts() WHERE rule = 'books' AND unknown LIKE '%once an hour%'";
    client.batch_execute("DELETE FROM backlog_cleanup.tick").unwrap();
    assert_eq!(number(&mut client, rests), 1);
    client
        .batch_execute(
            "UPDATE backlog_cleanup.alert_measured SET measured_at = now() + interval '1 day' WHERE rule = 'books'",
        )
        .unwrap();
    assert_eq!(number(&mut client, rests), 0);
    assert_eq!(number(&mut client, rests), 1);
}

#[test]
fn a_rule_that_takes_too_long_stops_no_other() {
    let cluster = Cluster::start("");
    let mut client = cluster.platform();
    // The ledger of one target is a view that takes long.
    client
        .batch_execute(
            "CREATE FUNCTION slow() RETURNS int LANGUAGE plpgsql AS $$BEGIN PERFORM pg_sleep(30); RETURN 1; END$$;
             CREATE VIEW ledger AS SELECT user_id, amount * slow() AS amount, type, description, created_at FROM credit_transactions;
             CREATE RULE ledger AS ON INSERT TO ledger DO INSTEAD INSERT INTO credit_transactions (user_id, amount, type, description, created_at)
                 VALUES (NEW.user_id, NEW.amount, NEW.type, NEW.description, NEW.created_at);
             INSERT INTO credit_transactions (user_id, amount, type, description, created_at)
             SELECT user_id, 1, 'backlog_cleanup', 'x', now() FROM (SELECT 'system_backlog' AS user_id) u;
             UPDATE backlog_cleanup.target SET ledger_table = 'public.ledger';
             UPDATE backlog_cleanup.alert_rule SET threshold = 0, resolve_at = NULL WHERE kind = 'rows_in_scope'",
        )
        .unwrap();
    fail(&mut client, 1, 1);
    let error = "SELECT step ->> 'error' FROM jsonb_array_elements(backlog_cleanup_tick() -> 'steps') step WHERE step ->> 'step' = 'alerts'";
    let error: String = value(&mut client, error);
    assert!(error.contains("rule \"books\" of target \"generations\": it was ended after 3 s"), "{error}");
    assert_eq!(open(&mut client, "rows in scope"), 1);
    // It rests then.
    let began = Instant::now();
    assert_eq!(
        number(
            &mut client,
            "SELECT count(*) FROM backlog_cleanup.evaluate_alerts() WHERE unknown LIKE '%rests for an hour'"
        ),
        1
    );
    assert!(began.elapsed() < Duration::from_secs(2));
    // Which is told all the while.
    client.batch_execute("SELECT backlog_cleanup_tick()").unwrap();
    let (status, detail, _) = cluster::findings_of(&mut client, "generations", "tick").remove(0);
    assert!(status == "warn" && detail.starts_with("rule \"books\" rests until "), "{detail}");
    let report: String = value(&mut client, "SELECT backlog_cleanup_report('1 day')");
    assert!(report.contains("1 rule could not be measured: see the doctor."), "{report}");
}

#[test]
fn rules_that_take_almost_too_long_keep_no_other_from_its_turn() {
    let cluster = Cluster::start("");
    let mut client = cluster.platform();
    let slow = |seconds: &str| {
        format!(
            "CREATE OR REPLACE FUNCTION slow(t timestamptz) RETURNS timestamptz LANGUAGE plpgsql IMMUTABLE COST 1 AS
             $$BEGIN PERFORM pg_sleep({seconds}); RETURN t; END$$"
        )
    };
    client.batch_execute(&slow("0")).unwrap();
    client
        .batch_execute(
            "CREATE TABLE job (id int PRIMARY KEY, owner text DEFAULT 'w', queue text DEFAULT 'a', state text, at timestamptz DEFAULT now());
             INSERT INTO job (id, state) SELECT i, CASE WHEN i > 20 THEN 'failed' ELSE 'completed' END FROM generate_series(1, 40) i;
             ANALYZE job;
             INSERT INTO backlog_cleanup.target (name, generations_table, recipes_table, users_table, ledger_table, account_column, account,
                                                 recipe_column, status_column, failed_at_column, failure_type_column)
             SELECT name, 'public.job', NULL, NULL, NULL, 'owner', 'w', 'queue', 'state', '(public.slow(at))', NULL
             FROM unnest('{a1,a2,a3,a4}'::text[]) name;
             SELECT backlog_cleanup_tick();
             UPDATE backlog_cleanup.alert_rule SET threshold = 0, resolve_at = NULL WHERE kind = 'rows_in_scope';
             DELETE FROM backlog_cleanup.alert_measured",
        )
        .unwrap_or_else(|failure| panic!("{failure:?}"));
    fail(&mut client, 1, 1);
    client.batch_execute("UPDATE backlog_cleanup.sample SET in_scope = 1 WHERE target = 'generations'").unwrap();
    client.batch_execute(&slow("0.065")).unwrap();
    let of_generations =
        "SELECT count(*) FROM backlog_cleanup.alert WHERE rule = 'rows in scope' AND target = 'generations'";
    let unmeasured = |client: &mut Client| {
        let report: String = value(client, "SELECT backlog_cleanup_report('1 day')");
        let (status, detail, _) = cluster::findings_of(client, "generations", "tick").remove(0);
        assert_eq!(
            report.contains(" rules could not be measured: see the doctor."),
            status == "warn",
            "{report}{detail}"
        );
        status == "warn"
    };
    for _ in 0..2 {
        number(&mut client, EVALUATE);
        client.batch_execute("UPDATE backlog_cleanup.alert_measured SET measured_at = NULL").unwrap();
        assert_eq!(number(&mut client, of_generations), 0, "five seconds are over");
        assert!(!unmeasured(&mut client), "of a tick or two nobody is told");
    }
    client
        .batch_execute("UPDATE backlog_cleanup.alert_measured SET missed_since = missed_since - interval '20 minutes'")
        .unwrap();
    assert!(unmeasured(&mut client));
    number(&mut client, EVALUATE);
    assert_eq!(number(&mut client, of_generations), 1, "its turn has come");
    assert!(!unmeasured(&mut client));
    // A rule that is not enabled any more is not missed.
    client.batch_execute("UPDATE backlog_cleanup.alert_rule SET enabled = kind <> 'recipe_failures'").unwrap();
    number(&mut client, EVALUATE);
    assert_eq!(number(&mut client, "SELECT count(missed_since) FROM backlog_cleanup.alert_measured"), 0);
}

#[test]
fn the_history_of_pg_cron_is_read_once_for_all_targets() {
    let cluster = with_pg_cron();
    let mut client = cluster.platform();
    client
        .batch_execute(
            "INSERT INTO cron.job_run_details (jobid, runid, database, username, command, status, return_message, start_time, end_time)
             SELECT 7, i, 'postgres', 'postgres', format('SELECT public.backlog_cleanup_failed_generations(''t%s'')', i % 2), 'failed', 'ERROR: x',
                    now() - interval '2 hours', now() - interval '1 hour' FROM generate_series(1, 3) i",
        )
        .unwrap();
    let scans = || {
        let mut client = cluster.connect();
        let mut transaction = client.transaction().unwrap();
        transaction.query(EVALUATE, &[]).unwrap();
        let scans = "SELECT pg_stat_get_xact_numscans('cron.job_run_details'::regclass)
                            + pg_stat_get_xact_numscans('cron.job_run_details_pkey'::regclass)";
        let scans: i64 = transaction.query_one(scans, &[]).unwrap().get(0);
        transaction.commit().unwrap();
        scans
    };
    let of_one = scans();
    client
        .batch_execute(
            "INSERT INTO backlog_cleanup.target (name, account)
             SELECT 't' || i, 'nobody' FROM generate_series(0, 4) i",
        )
        .unwrap();
    // It looks for the newest, reads what is not much older, and the texts of what has failed.
    assert_eq!((of_one, scans()), (3, 3));
    let alerts = "SELECT string_agg(target || ' ' || value, ', ' ORDER BY target) FROM backlog_cleanup.alert WHERE rule = 'failed runs'";
    assert_eq!(value::<String>(&mut client, alerts), "t0 1, t1 2");
    // A thousand failures of another job hide none.
    client
        .batch_execute(
            "INSERT INTO cron.job_run_details (jobid, runid, database, username, command, status, return_message, start_time, end_time)
             SELECT 8, 10 + i, 'postgres', 'postgres', 'SELECT 1/0 -- backlog_cleanup', 'failed', 'ERROR: x', now(), now()
             FROM generate_series(1, 3000) i",
        )
        .unwrap();
    assert_eq!(number(&mut client, "SELECT count(*) FROM backlog_cleanup.history WHERE job_id = 7"), 3);
    // Nor do those of a thousand jobs of another role.
    client
        .batch_execute(
            "CREATE ROLE op; SELECT backlog_cleanup_grant('op', 'operator');
             INSERT INTO cron.job_run_details (jobid, runid, database, username, command, status, return_message, start_time, end_time)
             SELECT 1000 + i, 9000 + i, 'postgres', 'op', 'SELECT 1/0 -- backlog_cleanup', 'failed', 'ERROR: x', now(), now()
             FROM generate_series(1, 3000) i",
        )
        .unwrap();
    assert_eq!(number(&mut client, "SELECT count(*) FROM backlog_cleanup.history WHERE job_id = 7"), 3);
}

#[test]
fn the_fix_of_a_large_history_keeps_something_for_less_long() {
    let cluster = Cluster::start("");
    let mut client = cluster.platform();
    client
        .batch_execute(
            "UPDATE backlog_cleanup.alert_rule SET threshold = 1000, resolve_at = NULL WHERE kind = 'history_size';
             INSERT INTO backlog_cleanup.sample (target, grain, sampled_at, milliseconds)
             SELECT 'generations', 'day', now() - interval '1 hour' * i, 1 FROM generate_series(1, 20000) i",
        )
        .unwrap();
    for (is_kept_for_good, fix) in [
        (false, "SET max_age = '45 days' WHERE what = 'sample hour'"),
        (true, "SET max_age = '90 days' WHERE what = 'sample hour'"),
    ] {
        let forever = "UPDATE backlog_cleanup.retention SET max_age = NULL WHERE what = 'sample hour'";
        client.batch_execute(if is_kept_for_good { forever } else { "" }).unwrap();
        evaluate(&mut client);
        let found: String = value(&mut client, "SELECT fix FROM backlog_cleanup.alert WHERE rule = 'history size'");
        assert!(found.ends_with(fix), "{found}");
        client.batch_execute(&found).unwrap();
    }
}

#[test]
fn two_recipes_that_somebody_has_chosen_for_their_hash_alert_each() {
    let cluster = Cluster::start("");
    let mut client = cluster.connect();
    client.batch_execute(JOBS).unwrap();
    let chosen = ["$a$6bw hz7gog5ezcm8jp wu114$a$", "$a$scr9r19rvzpg%n1{IJ~-,kwq$a$"];
    let [one, other] = chosen;
    assert!(truth(&mut client, &format!("SELECT hashtextextended({one}, 0) = hashtextextended({other}, 0)")));
    client
        .batch_execute(&format!(
            "TRUNCATE job;
             INSERT INTO job (id, queue, at)
             SELECT i, (ARRAY[{one}, {other}, 'honest', E'with a \\\\ backslash'])[1 + i % 4], now() - interval '10 minutes'
             FROM generate_series(1, 120) i"
        ))
        .unwrap();
    evaluate(&mut client);
    evaluate(&mut client);
    assert_eq!(open(&mut client, "recipe failures"), 4);
    let twice = "INSERT INTO backlog_cleanup.alert (rule, target, subject, value, threshold, sentence)
                 SELECT rule, target, subject, 1, 0, 'again' FROM backlog_cleanup.alert WHERE rule = 'recipe failures' ORDER BY id LIMIT 1";
    for place in 0..4 {
        assert_eq!(refused(client.batch_execute(&format!("{twice} OFFSET {place}"))).0, "23505");
    }
}

#[test]
fn what_an_operator_writes_of_alerts_and_deliveries_is_bounded() {
    let cluster = Cluster::start("");
    let mut client = cluster.platform();
    now(&mut client, 200_000);
    evaluate(&mut client);
    client
        .batch_execute(
            "CREATE ROLE op LOGIN; SELECT backlog_cleanup_grant('op', 'operator'); SET SESSION AUTHORIZATION op;
             INSERT INTO backlog_cleanup.alert_channel (name, kind) VALUES ('ops', 'webhook');
             INSERT INTO backlog_cleanup.alert_delivery (channel, alert, change, message) VALUES ('ops', 1, 'opened', gen_random_uuid())",
        )
        .unwrap();
    for (column, furthest) in [
        ("since", "0"),
        ("leased_until", "90 seconds"),
        ("seen_at", "0"),
        ("next_attempt_at", "5 minutes"),
        ("delivered_at", "0"),
        ("failing_since", "0"),
        ("report_at", "10 years"),
    ] {
        let update = |time: &str| format!("UPDATE backlog_cleanup.alert_channel SET {column} = {time}");
        client.batch_execute(&update(&format!("now() + interval '{furthest}'"))).unwrap();
        for time in ["'infinity'", "'-infinity'", &format!("now() + interval '{furthest}' + interval '1 minute'")] {
            let (sqlstate, message, hint) = refused(client.batch_execute(&update(time)));
            assert_eq!(sqlstate, "22023", "{column} {time}: {message}");
            assert!(
                message.starts_with(&format!("\"{column}\" of table \"alert_channel\" is not finite")),
                "{message}"
            );
            client.batch_execute(&hint).unwrap();
        }
    }
    let insert = "INSERT INTO backlog_cleanup.alert_channel (name, kind, seen_at) VALUES ('far', 'slack', 'infinity')";
    assert_eq!(refused(client.batch_execute(insert)).0, "22023");
    for (write, expected) in [
        ("UPDATE backlog_cleanup.alert_delivery SET begun_at = 'infinity'", "22023"),
        ("UPDATE backlog_cleanup.alert_delivery SET delivered_at = '-infinity'", "22023"),
        ("UPDATE backlog_cleanup.alert_delivery SET refused = repeat('x', 10001)", "23514"),
        ("UPDATE backlog_cleanup.alert_channel SET last_error = repeat('x', 10001)", "23514"),
        ("UPDATE backlog_cleanup.alert_channel SET leased_by = repeat('x', 101)", "23514"),
        ("SELECT backlog_cleanup_snooze(1, 'infinity')", "22023"),
        ("SELECT backlog_cleanup_snooze(1, '-infinity')", "22023"),
        ("SELECT backlog_cleanup_snooze(1, now() + interval '1001 years')", "22023"),
        ("SELECT backlog_cleanup_snooze(1, now() + interval '1 day', repeat('x', 10001))", "22023"),
        ("SELECT backlog_cleanup_acknowledge(1, repeat('x', 10001))", "22023"),
    ] {
        let (sqlstate, message, hint) = refused(client.batch_execute(write));
        assert_eq!(sqlstate, expected, "{write}: {message}");
        if write.starts_with("SELECT") {
            client.batch_execute(&hint).unwrap_or_else(|failure| panic!("{hint}: {failure:?}"));
        }
    }
    // Another time may be what it is: whoever writes one thing is not refused for another.
    client
        .batch_execute(
            "UPDATE backlog_cleanup.alert_channel SET failures = 3, failing_since = now(), last_error = repeat('ü', 10000);
             UPDATE backlog_cleanup.alert_delivery SET refused = repeat('x', 10000)",
        )
        .unwrap();
    client
        .batch_execute("INSERT INTO backlog_cleanup.alert_channel (name, kind, failures) SELECT 'c' || i, 'mail', 3 FROM generate_series(1, 2000) i")
        .unwrap();
    let found = "SELECT max(length(detail))::bigint FROM backlog_cleanup_doctor() WHERE check_name = 'deliveries'";
    let longest = number(&mut client, found);
    assert!((1000..1200).contains(&longest), "{longest}");
    let found = "SELECT count(*) FROM backlog_cleanup_doctor() WHERE check_name = 'deliveries'";
    assert_eq!(number(&mut client, found), 51);
}

#[test]
fn a_run_that_ends_while_alerts_are_evaluated_is_not_told_as_interrupted() {
    let cluster = Cluster::start("");
    let mut client = cluster.platform();
    fail(&mut client, 1, 20);
    let mut runner = cluster.connect();
    let runs = std::thread::spawn(move || {
        for _ in 0..150 {
            runner.batch_execute("CALL backlog_cleanup_run()").unwrap();
        }
    });
    while !runs.is_finished() {
        evaluate(&mut client);
    }
    runs.join().unwrap();
    assert_eq!(number(&mut client, "SELECT count(*) FROM backlog_cleanup.alert WHERE rule = 'failed runs'"), 0);
    // One that nobody does any more still is.
    client
        .batch_execute(
            "INSERT INTO backlog_cleanup.run (target, mode, state, started_at, requested_by, recipes_affected, total_failed, removed, skipped)
             SELECT target, mode, 'running', now(), requested_by, 0, 0, 0, 0 FROM backlog_cleanup.run ORDER BY id DESC LIMIT 1",
        )
        .unwrap();
    evaluate(&mut client);
    assert_eq!(open(&mut client, "failed runs"), 1);
}

#[test]
fn the_failures_of_a_recipe_are_not_known_where_only_failures_have_a_time() {
    let cluster = Cluster::start("");
    let mut client = cluster.connect();
    client.batch_execute(JOBS).unwrap();
    client
        .batch_execute(
            "DELETE FROM job; UPDATE backlog_cleanup.target SET completed_status = '{done}' WHERE name = 't';
             INSERT INTO job (id, owner, queue, state, at) SELECT i, 'w', 'mail', 'done', NULL FROM generate_series(1, 500) i;
             INSERT INTO job (id, owner, queue, state, at) SELECT i, 'w', 'mail', 'failed', now() FROM generate_series(1001, 1030) i",
        )
        .unwrap();
    let unknown =
        "SELECT unknown FROM backlog_cleanup.evaluate_alerts() WHERE rule = 'recipe failures' AND target = 't'";
    assert!(value::<String>(&mut client, unknown).contains("rows that completed have no time in column"));
    assert_eq!(open(&mut client, "recipe failures"), 0);
    client.batch_execute("UPDATE job SET at = now() - interval '2 days' WHERE state = 'done'").unwrap();
    evaluate(&mut client);
    assert_eq!(open(&mut client, "recipe failures"), 1);
}

#[test]
fn a_job_of_every_hour_that_is_dead_is_told_after_two_hours() {
    let cluster = with_pg_cron();
    let mut client = cluster.platform();
    client
        .batch_execute(
            "SELECT backlog_cleanup_schedule('0 * * * *'); SELECT backlog_cleanup_failed_generations();
             UPDATE backlog_cleanup.target SET named_at = now() - interval '9 days';
             UPDATE backlog_cleanup.run SET started_at = now() - interval '3 hours', finished_at = now() - interval '3 hours'",
        )
        .unwrap();
    evaluate(&mut client);
    let sentence: String = value(
        &mut client,
        "SELECT sentence FROM backlog_cleanup.alert WHERE rule = 'no successful run' AND resolved_at IS NULL",
    );
    assert!(sentence.contains("the job has a period of 1 hour"), "{sentence}");
    // The doctor says the same.
    assert_eq!(cluster::findings_of(&mut client, "generations", "overdue")[0].0, "fail");
    // A run in batches waits while the window is closed, for 20 hours or one; the others do not.
    for (batched, window, is_dead) in
        [(true, "{01:00,05:00}", false), (true, "{01:00,00:30}", true), (false, "{01:00,05:00}", true)]
    {
        client
            .batch_execute(&format!(
                "SELECT backlog_cleanup_schedule('0 * * * *', batched => {batched});
                 UPDATE backlog_cleanup.target SET run_between = '{window}';
                 UPDATE backlog_cleanup.run SET started_at = now() - interval '5 hours', finished_at = now() - interval '5 hours'"
            ))
            .unwrap();
        evaluate(&mut client);
        assert_eq!(open(&mut client, "no successful run"), i64::from(is_dead), "{batched} {window}");
        let overdue = &cluster::findings_of(&mut client, "generations", "overdue")[0].0;
        assert_eq!(overdue, if is_dead { "fail" } else { "ok" }, "{batched} {window}");
    }
}

#[test]
fn the_doctor_tells_what_is_wrong_with_a_channel_that_is_served_and_what_it_has_refused_of_an_open_alert() {
    let cluster = Cluster::start("");
    let mut client = cluster.platform();
    client
        .batch_execute(
            "INSERT INTO backlog_cleanup.alert_channel (name, kind, last_error) VALUES ('typo', 'slack', 'it is for target nope');
             INSERT INTO backlog_cleanup.alert (rule, target, value, threshold, sentence) VALUES ('x', 'generations', 2, 1, 'x');
             INSERT INTO backlog_cleanup.alert_delivery (channel, alert, change, message, begun_at, refused)
             SELECT 'typo', max(id), 'opened', gen_random_uuid(), now() - interval '3 days', 'HTTP 400' FROM backlog_cleanup.alert",
        )
        .unwrap();
    let told = "SELECT string_agg(detail, '; ' ORDER BY detail) FROM backlog_cleanup_doctor() WHERE check_name = 'deliveries' AND status = 'warn'";
    let said: String = value(&mut client, told);
    assert!(said.contains("channel \"typo\": it is for target nope"), "{said}");
    assert!(said.contains("channel \"typo\" has refused a message of an alert that is open"), "{said}");
    client.batch_execute("UPDATE backlog_cleanup.alert SET resolved_at = now()").unwrap();
    assert!(!value::<String>(&mut client, told).contains("has refused"));
}
