//! Outside of `run_between` a regular run in batches waits, in nobody's way.

use std::time::Instant;

use cluster::{Cluster, balance, fail, number, refused, truth, until_true, value};
use postgres::Client;

/// A window from one time to another, in hours from now.
fn window(client: &mut Client, from: i32, to: i32) {
    client
        .batch_execute(&format!(
            "UPDATE backlog_cleanup.target
             SET time_zone = 'Asia/Tokyo',
                 run_between = ARRAY[(now() AT TIME ZONE 'Asia/Tokyo' + interval '{from} hours')::time,
                                     (now() AT TIME ZONE 'Asia/Tokyo' + interval '{to} hours')::time]"
        ))
        .unwrap();
}

const WAITS: &str = "SELECT count(*) = 1 FROM backlog_cleanup.progress WHERE waiting_for ~ '^it is outside of run_between, .* \\(Asia/Tokyo\\)$'";

#[test]
fn outside_of_its_window_a_run_waits_hears_a_stop_and_is_in_nobodys_way() {
    let cluster = Cluster::start("");
    let mut client = cluster.platform();
    fail(&mut client, 1, 60);
    for workers in [1, 2] {
        window(&mut client, 2, 3);
        let run = cluster.in_background(&format!("CALL backlog_cleanup_run(workers => {workers})"));
        until_true(&mut client, WAITS);
        let shown: String = value(&mut client, "SELECT backlog_cleanup_status_json() #>> '{lastRun,waitingFor}'");
        assert!(shown.starts_with("it is outside of run_between"), "{shown}");
        // It holds no snapshot, and its table can be changed.
        until_true(
            &mut client,
            "SELECT bool_and(backend_xmin IS NULL AND backend_xid IS NULL) FROM pg_stat_activity WHERE query ~ '^CALL'",
        );
        client.batch_execute("SET lock_timeout = '100ms'; ALTER TABLE generations ADD c int; ALTER TABLE generations DROP c; RESET lock_timeout").unwrap();
        let asked = Instant::now();
        assert!(truth(&mut client, "SELECT backlog_cleanup_stop(run_id) FROM backlog_cleanup.progress"));
        run.join().unwrap().1.unwrap();
        assert!(asked.elapsed().as_secs_f64() < 2.0, "{:?}", asked.elapsed());
        assert_eq!(
            value::<String>(&mut client, "SELECT state FROM backlog_cleanup.run ORDER BY id DESC LIMIT 1"),
            "stopped"
        );
        assert_eq!(balance(&mut client, 60), 0);
    }
}

#[test]
fn when_its_window_opens_a_run_goes_on_also_over_midnight() {
    let cluster = Cluster::start("");
    let mut client = cluster.platform();
    fail(&mut client, 1, 60);
    window(&mut client, 2, 3);
    let run = cluster.in_background("CALL backlog_cleanup_run()");
    until_true(&mut client, WAITS);
    window(&mut client, -1, 1);
    run.join().unwrap().1.unwrap();
    assert_eq!(balance(&mut client, 60), 50);
    assert!(truth(&mut client, "SELECT state = 'completed' AND waiting_for IS NULL FROM backlog_cleanup.run"));
    // One of the two goes over midnight, whatever time it is.
    for (from, to, works) in [(-11, 11, true), (11, -11, false), (-1, 12, true), (1, -1, false)] {
        fail(&mut client, 1, 10);
        window(&mut client, from, to);
        let before = number(&mut client, "SELECT count(*) FROM generations");
        client.batch_execute("CALL backlog_cleanup_run(max_duration => '1 second')").unwrap();
        let gone = before - number(&mut client, "SELECT count(*) FROM generations");
        assert_eq!(gone > 0, works, "{from} to {to}");
        // The time in which it waits counts.
        let state: String = value(&mut client, "SELECT state FROM backlog_cleanup.run ORDER BY id DESC LIMIT 1");
        assert_eq!(state, if works { "completed" } else { "stopped" });
    }
}

#[test]
fn the_window_is_for_regular_runs_in_batches_and_adaptive_ones() {
    let cluster = Cluster::start("");
    let mut client = cluster.platform();
    fail(&mut client, 1, 60);
    window(&mut client, 2, 3);
    client
        .batch_execute(
            "UPDATE backlog_cleanup.target SET adaptive = true, adaptive_min_rows = 10; SELECT backlog_cleanup_tick()",
        )
        .unwrap();
    let decided: String = value(&mut client, "SELECT concat_ws(': ', action, reason) FROM backlog_cleanup.decision");
    assert!(decided.starts_with("none: it is outside of run_between, "), "{decided}");
    // A run in one transaction cannot wait, and passes over it, as over other limits of batched runs. An emergency does not wait.
    client.batch_execute("SELECT backlog_cleanup_failed_generations()").unwrap();
    assert_eq!(balance(&mut client, 60), 50);
    client.batch_execute("CALL backlog_cleanup_run(mode => 'emergency')").unwrap();
    assert_eq!(balance(&mut client, 60), 60);
    for wrong in ["{}", "{01:00}", "{01:00,01:00}", "{01:00,NULL}", "{01:00,02:00,03:00}", "{{01:00,02:00}}"] {
        let (sqlstate, ..) =
            refused(client.batch_execute(&format!("UPDATE backlog_cleanup.target SET run_between = '{wrong}'")));
        assert_eq!(sqlstate, "23514", "{wrong}");
    }
    const WINDOW: &str =
        "UPDATE backlog_cleanup.target SET run_between = '[0:1]={01:00,02:00}' RETURNING run_between = '{01:00,02:00}'";
    assert!(client.query_one(WINDOW, &[]).unwrap().get::<_, bool>(0));
}
