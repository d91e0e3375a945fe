//! A stop is heard within two seconds, whatever the run does: its books are right, and the next run finishes the job.

use std::thread::JoinHandle;
use std::time::Instant;

use cluster::{Cluster, fail, number, refused, truth, until, value};
use postgres::{Client, Error};

use crate::batched::balance;

type Run = JoinHandle<(Client, Result<(), Error>)>;

const SLEEPS: &str =
    "SELECT count(*) = greatest(1, (SELECT max(workers) FROM backlog_cleanup.run WHERE state = 'running'))
                      FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
const WAITS_FOR_A_LOCK: &str = "SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'";
/// Rows in the order of their ids, of which the 200 first go quickly.
const SLOW: &str = "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS
                        'BEGIN IF OLD.id > 200 THEN PERFORM pg_sleep(30); END IF; RETURN OLD; END';
                    CREATE TRIGGER slow BEFORE DELETE ON generations FOR EACH ROW EXECUTE FUNCTION slow();";

/// The platform with 400 failed rows, and an operator who may not signal other sessions.
fn platform(cluster: &Cluster, before: &str) -> Client {
    let mut client = cluster.platform();
    fail(&mut client, 1, 400);
    client.batch_execute("CREATE ROLE operator; SELECT backlog_cleanup_grant('operator', 'operator')").unwrap();
    client.batch_execute(before).unwrap();
    client
}

/// Stops the run as the operator. Returns how many rows it has removed.
fn stop(cluster: &Cluster, run: Run, case: &str) -> i64 {
    let mut operator = cluster.connect();
    operator.batch_execute("SET ROLE operator").unwrap();
    let asked = Instant::now();
    assert!(truth(&mut operator, "SELECT backlog_cleanup_stop(run_id) FROM backlog_cleanup.progress"), "{case}");
    run.join().unwrap().1.unwrap_or_else(|failure| panic!("{case}: {failure:?}"));
    assert!(asked.elapsed().as_secs_f64() < 2.0, "{case}: {:?}", asked.elapsed());
    operator.batch_execute("RESET ROLE").unwrap();
    let state =
        "SELECT concat_ws(' ', state, stop_requested_by, error_message, kept_back, skipped, finished_at > started_at)
                 FROM backlog_cleanup.run ORDER BY id DESC LIMIT 1";
    assert_eq!(value::<String>(&mut operator, state), "stopped operator 0 0 t", "{case}");
    number(&mut operator, "SELECT removed FROM backlog_cleanup.run ORDER BY id DESC LIMIT 1")
}

#[test]
fn a_stop_cancels_a_statement_that_goes_on_and_keeps_what_was_committed() {
    for (mode, workers) in [("regular", 1), ("emergency", 1), ("regular", 2)] {
        let case = format!("{mode}, {workers} workers");
        let cluster = Cluster::start("max_worker_processes = 16\n");
        let mut client = platform(&cluster, SLOW);
        let call = format!("CALL backlog_cleanup_run(mode => '{mode}', batch_size => 50, workers => {workers})");
        let run = cluster.in_background(&call);
        until(&cluster, SLEEPS);
        let removed = stop(&cluster, run, &case);
        assert!((150..=200).contains(&removed), "{case}: {removed}");
        assert_eq!(balance(&mut client, 400), removed, "{case}");
        client.batch_execute("DROP TRIGGER slow ON generations").unwrap();
        client.batch_execute(&call).unwrap();
        assert_eq!(balance(&mut client, 400), if mode == "regular" { 390 } else { 400 }, "{case}");
    }
}

/// pgrx raises an error again where it leaves a function of the extension.
#[test]
fn a_stop_reaches_code_that_is_within_a_function_of_the_extension() {
    let cluster = Cluster::start("");
    let calls = "FOR i IN 1..100000 LOOP PERFORM backlog_cleanup_report(); END LOOP";
    goes_on(&cluster, calls);
}

#[test]
fn a_stop_ends_code_that_catches_each_cancel() {
    let cluster = Cluster::start("");
    goes_on(&cluster, "LOOP BEGIN PERFORM pg_sleep(10); EXCEPTION WHEN query_canceled THEN NULL; END; END LOOP");
}

/// A trigger goes on with this.
fn goes_on(cluster: &Cluster, with: &str) {
    platform(cluster, &SLOW.replace("PERFORM pg_sleep(30)", with));
    let run = cluster.in_background("CALL backlog_cleanup_run(batch_size => 50)");
    until(cluster, "SELECT coalesce(max(removed) >= 150, false) FROM backlog_cleanup.progress");
    let removed = stop(cluster, run, with);
    assert!((150..=200).contains(&removed), "{removed}");
}

#[test]
fn a_statement_timeout_that_code_catches_behind_a_stop_ends_the_call() {
    let cluster = Cluster::start("");
    let mut client = platform(
        &cluster,
        "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$
         BEGIN
             FOR i IN 1..60 LOOP BEGIN PERFORM pg_sleep(0.1); EXCEPTION WHEN query_canceled THEN NULL; END; END LOOP;
             RETURN OLD;
         END $$;
         CREATE TRIGGER slow BEFORE DELETE ON generations FOR EACH ROW EXECUTE FUNCTION slow()",
    );
    client.batch_execute("ALTER ROLE postgres SET statement_timeout = '4 s'").unwrap();
    let run = cluster.in_background("CALL backlog_cleanup_run(batch_size => 1)");
    // A second before it stops.
    until(
        &cluster,
        "SELECT count(*) = 1 FROM backlog_cleanup.progress WHERE clock_timestamp() > started_at + interval '3.4 s'",
    );
    assert!(truth(&mut client, "SELECT backlog_cleanup_stop(run_id) FROM backlog_cleanup.progress"));
    let (sqlstate, message, _) = refused(run.join().unwrap().1);
    assert_eq!((sqlstate.as_str(), message.as_str()), ("57014", "canceling statement due to statement timeout"));
}

#[test]
fn a_stop_is_heard_by_a_run_that_waits_for_a_row() {
    let call = "CALL backlog_cleanup_run(batch_size => 50)";
    let cluster = Cluster::start("");
    let mut client = platform(&cluster, "UPDATE backlog_cleanup.target SET lock_timeout = '60 s'");
    client.batch_execute("BEGIN; SELECT FROM generations WHERE id = 220 FOR UPDATE").unwrap();
    let run = cluster.in_background(call);
    until(&cluster, WAITS_FOR_A_LOCK);
    let removed = stop(&cluster, run, "a row");
    client.batch_execute("COMMIT").unwrap();
    assert_eq!(balance(&mut client, 400), removed);
    client.batch_execute(call).unwrap();
    assert_eq!(balance(&mut client, 400), 390);
}

#[test]
fn a_stop_is_heard_by_a_throttle_query_that_takes_long() {
    let cluster = Cluster::start("");
    let throttle = "CREATE TABLE busy ();
                    UPDATE backlog_cleanup.target SET throttle_query =
                        'SELECT CASE WHEN EXISTS (SELECT FROM busy) THEN pg_sleep(30)::text END';
                    INSERT INTO busy DEFAULT VALUES";
    let mut client = platform(&cluster, throttle);
    let run = cluster.in_background("CALL backlog_cleanup_run()");
    until(&cluster, SLEEPS);
    assert_eq!(stop(&cluster, run, "throttle"), 0);
    client.batch_execute("TRUNCATE busy").unwrap();
    client.batch_execute("CALL backlog_cleanup_run()").unwrap();
    assert_eq!(balance(&mut client, 400), 390);
}

#[test]
fn a_stop_is_heard_by_a_statement_that_has_all_rows_of_a_circle() {
    let cluster = Cluster::start("");
    let circle = "ALTER TABLE generations ADD next int REFERENCES generations;
                  UPDATE generations SET next = id % 400 + 1; CREATE INDEX ON generations (next);";
    let mut client = platform(&cluster, &format!("{circle} {SLOW}"));
    let run = cluster.in_background("CALL backlog_cleanup_run(mode => 'emergency')");
    until(&cluster, SLEEPS);
    assert_eq!(stop(&cluster, run, "circle"), 0);
    assert_eq!(balance(&mut client, 400), 0);
}

#[test]
fn a_stop_is_heard_by_a_statement_on_another_server() {
    let (remote, cluster) = (Cluster::start(""), Cluster::start(""));
    let mut far = remote.platform();
    (1..=5).for_each(|recipe| fail(&mut far, recipe, 100));
    far.batch_execute(&SLOW.replace("200", "400")).unwrap();
    let foreign = format!(
        "DROP TABLE generations CASCADE; {}
         IMPORT FOREIGN SCHEMA public LIMIT TO (generations) FROM SERVER remote INTO public",
        remote.as_server("remote", "postgres")
    );
    let mut client = platform(&cluster, &foreign);
    let call = "CALL backlog_cleanup_run(batch_size => 90)";
    let run = cluster.in_background(call);
    until(&remote, "SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep'");
    let removed = stop(&cluster, run, "by key");
    assert_eq!(balance(&mut client, 500), removed);
    far.batch_execute("DROP TRIGGER slow ON generations").unwrap();
    client.batch_execute(call).unwrap();
    assert_eq!(balance(&mut client, 500), 450);
}

#[test]
fn a_stop_that_is_taken_back_ends_nothing_and_another_cancel_is_no_stop() {
    let cluster = Cluster::start("");
    let slow = SLOW.replace("pg_sleep(30)", "pg_sleep(0.02)");
    let mut client = platform(&cluster, &slow);
    let run = cluster.in_background("CALL backlog_cleanup_run()");
    until(&cluster, SLEEPS);
    let taken_back = "BEGIN; SAVEPOINT here; SELECT backlog_cleanup_stop(run_id) FROM backlog_cleanup.progress;
                      ROLLBACK TO here; COMMIT";
    client.batch_execute(taken_back).unwrap();
    run.join().unwrap().1.unwrap();
    assert_eq!(balance(&mut client, 400), 390);
    assert_eq!(value::<String>(&mut client, "SELECT state FROM backlog_cleanup.run"), "completed");

    fail(&mut client, 1, 400);
    let run = cluster.in_background("CALL backlog_cleanup_run()");
    until(&cluster, SLEEPS);
    client.batch_execute("SELECT pg_cancel_backend(pid) FROM backlog_cleanup.progress").unwrap();
    assert_eq!(refused(run.join().unwrap().1).0, "57014");
    assert_eq!(
        value::<String>(&mut client, "SELECT state FROM backlog_cleanup.run ORDER BY id DESC LIMIT 1"),
        "interrupted"
    );
}

#[test]
fn a_run_over_a_replication_connection_is_refused() {
    let cluster = Cluster::start("");
    let mut client = cluster.platform();
    fail(&mut client, 1, 15);
    for run in [
        "SELECT backlog_cleanup_failed_generations()",
        "SELECT backlog_cleanup_emergency()",
        "CALL backlog_cleanup_run()",
    ] {
        let run = format!("{run};\n\\echo :SQLSTATE\n");
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), run).unwrap();
        let arguments = ["-X", "-f", file.path().to_str().unwrap(), "dbname=postgres replication=database"];
        assert_eq!(cluster.program("psql", &arguments).trim(), "0A000");
    }
    assert_eq!(number(&mut client, "SELECT count(*) FROM generations"), 15);
}

#[test]
fn a_cancel_that_code_raises_again_as_its_own_error_ends_the_run() {
    let cluster = Cluster::start("");
    let mut client = platform(
        &cluster,
        "CREATE FUNCTION wrapped() RETURNS trigger LANGUAGE plpgsql AS $$
             BEGIN PERFORM pg_sleep(3); RETURN OLD; EXCEPTION WHEN query_canceled THEN RAISE 'wrapped: %', SQLERRM; END$$;
         CREATE TRIGGER wrapped BEFORE DELETE ON generations FOR EACH ROW WHEN (OLD.id = 5) EXECUTE FUNCTION wrapped();
         SET statement_timeout = '1s'",
    );
    for call in [
        "SELECT backlog_cleanup_failed_generations()",
        "SELECT backlog_cleanup_emergency()",
        "CALL backlog_cleanup_run()",
    ] {
        let started = Instant::now();
        let (_, message, ..) = refused(client.batch_execute(call));
        assert!(message.contains("wrapped: canceling statement"), "{call}: {message}");
        assert!(started.elapsed().as_secs_f64() < 2.9, "{call}: {:?}", started.elapsed());
    }
}
