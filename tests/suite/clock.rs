//! Clocks that are wrong: times in the future stay, and a server whose clock is a year ahead does not empty the table.

use cluster::{Cluster, number, refused, truth};

#[test]
fn a_time_in_the_future_is_never_removed() {
    let cluster = Cluster::start("");
    let mut client = cluster.platform();
    client
        .batch_execute(
            "UPDATE backlog_cleanup.policy SET keep = 0;
             INSERT INTO generations (user_id, recipe_id, prompt, status, updated_at)
             SELECT 'system_backlog', 1, '', 'failed', at
             FROM (VALUES (now() AT TIME ZONE 'UTC' + interval '1 second'), (now() AT TIME ZONE 'UTC' + interval '1 year'),
                          ('infinity'), (NULL), (now() AT TIME ZONE 'UTC' - interval '2 days')) failed (at)",
        )
        .unwrap();
    for run in ["SELECT backlog_cleanup_failed_generations()", "CALL backlog_cleanup_run()"] {
        client.batch_execute(run).unwrap();
        assert_eq!(number(&mut client, "SELECT count(*) FROM generations"), 4, "{run}");
    }
}

#[test]
fn a_clock_that_is_a_year_ahead_does_not_empty_a_table_that_has_a_breaker() {
    let cluster = Cluster::start("");
    let mut client = cluster.platform();
    client
        .batch_execute(
            "INSERT INTO generations (user_id, recipe_id, prompt, status, updated_at)
             SELECT 'system_backlog', 1, '', 'failed', now() AT TIME ZONE 'UTC' - i * interval '10 minutes'
             FROM generate_series(1, 200) i;
             UPDATE backlog_cleanup.target SET max_share = 50",
        )
        .unwrap();
    drop(client);
    let Some(library) = faketime() else {
        println!("skipped: libfaketime is not installed");
        return;
    };
    cluster.restart_with(&[("LD_PRELOAD", &library), ("FAKETIME", "+365d"), ("FAKETIME_DONT_FAKE_MONOTONIC", "1")]);
    let mut client = cluster.connect();
    let year = "SELECT now() - max(updated_at) AT TIME ZONE 'UTC' > interval '364 days' FROM generations";
    assert!(truth(&mut client, year), "the clock is ahead");
    for run in ["SELECT backlog_cleanup_failed_generations()", "CALL backlog_cleanup_run()"] {
        let (sqlstate, message, _) = refused(client.batch_execute(run));
        assert_eq!(sqlstate, "54000", "{message}");
        assert!(message.contains("190 of 200"), "{message}");
    }
    drop(client);
    // The clock is right again: what is old goes, as ever.
    cluster.restart();
    let mut client = cluster.connect();
    client.batch_execute("SELECT backlog_cleanup_failed_generations()").unwrap();
    let left = number(&mut client, "SELECT count(*) FROM generations");
    assert!((150..160).contains(&left), "{left}");
}

#[test]
fn one_tick_of_a_clock_that_was_ahead_stops_no_sample_no_decision_no_roll_up_and_no_pruning() {
    let cluster = Cluster::start("");
    let mut client = cluster.platform();
    client
        .batch_execute(
            "INSERT INTO backlog_cleanup.sample (target, grain, sampled_at, milliseconds, in_scope, failed, failed_seconds, seconds, counters)
             SELECT 'generations', 'fine', now() - interval '5 minutes' * i, 1, 5, 5, 300, 300, '{}' FROM generate_series(1, 1000) i;
             INSERT INTO backlog_cleanup.tick (started_at, milliseconds, steps)
             SELECT now() - interval '20 days' + interval '5 minutes' * i, 1, '[]' FROM generate_series(1, 500) i;
             UPDATE backlog_cleanup.target SET adaptive = true, adaptive_min_rows = 1;
             SELECT backlog_cleanup_tick();
             UPDATE backlog_cleanup.tick SET started_at = now() + interval '1 year' WHERE started_at = (SELECT max(started_at) FROM backlog_cleanup.tick);
             INSERT INTO backlog_cleanup.sample (target, grain, sampled_at, milliseconds) VALUES ('generations', 'hour', now() + interval '300 days', 1);
             DELETE FROM backlog_cleanup.sample WHERE grain <> 'fine' AND sampled_at < now();
             UPDATE backlog_cleanup.sample SET sampled_at = sampled_at + interval '1 year'
             WHERE grain = 'fine' AND sampled_at > now() - interval '1 minute'",
        )
        .unwrap();
    client.batch_execute("SELECT pg_sleep(0.01); UPDATE backlog_cleanup.decision SET action = 'run', decided_at = now() + interval '1 year'").unwrap();
    let told = "SELECT concat(step ->> 'skipped', step ->> 'error') FROM jsonb_array_elements(backlog_cleanup_tick() -> 'steps') step WHERE step ->> 'step' = 'look at the clock'";
    let told: String = cluster::value(&mut client, told);
    assert!(told.starts_with("the clock was ahead: 1 samples, up to one of "), "{told}");
    assert!(truth(
        &mut client,
        "SELECT in_scope = 0 AND seconds BETWEEN 200 AND 400 FROM backlog_cleanup.sample WHERE grain = 'fine' ORDER BY sampled_at DESC LIMIT 1"
    ));
    assert!(
        number(&mut client, "SELECT count(*) FROM backlog_cleanup.sample WHERE grain = 'hour' AND sampled_at < now()")
            > 40
    );
    client.batch_execute("SELECT backlog_cleanup_tick()").unwrap();
    assert_eq!(
        number(&mut client, "SELECT count(*) FROM backlog_cleanup.tick WHERE started_at < now() - interval '8 days'"),
        0
    );
    let reason: String =
        cluster::value(&mut client, "SELECT reason FROM backlog_cleanup.decision ORDER BY id DESC OFFSET 1 LIMIT 1");
    assert!(reason.starts_with("0 rows are removable"), "{reason}");
}

/// Debian's libfaketime, where it is installed.
pub fn faketime() -> Option<String> {
    let library = format!("/usr/lib/{}-linux-gnu/faketime/libfaketime.so.1", std::env::consts::ARCH);
    std::path::Path::new(&library).exists().then_some(library)
}
