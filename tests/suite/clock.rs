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

/// Debian's libfaketime, where it is installed.
pub fn faketime() -> Option<String> {
    let library = format!("/usr/lib/{}-linux-gnu/faketime/libfaketime.so.1", std::env::consts::ARCH);
    std::path::Path::new(&library).exists().then_some(library)
}
