//! Locks, deadlocks, the governor; triggers and foreign keys of the platform.

use cluster::{
    Cluster, SEE, column, fail, fail_in_any_order, genuine_errors, number, refused, truth, until, value, veto,
};
use postgres::Client;

use super::{JOB, RUNS, run};
use crate::batched::{balance, field, report};

fn ids(client: &mut Client) -> Vec<i32> {
    column(client, "SELECT id FROM generations ORDER BY id")
}

#[test]
fn a_locked_row_is_gone_round_and_counted_as_skipped() {
    let cluster = Cluster::start("");
    let mut client = cluster.platform();
    fail_in_any_order(&mut client, 400);
    client.batch_execute("UPDATE backlog_cleanup.target SET lock_timeout = '50 ms'").unwrap();
    let mut other = cluster.connect();
    other
        .batch_execute(
            "BEGIN; SELECT FROM generations WHERE id IN (17, 18) FOR KEY SHARE; UPDATE generations SET prompt = 'x' WHERE id = 333",
        )
        .unwrap();
    client.batch_execute("BEGIN").unwrap();
    let at_once = "SELECT concat_ws(' ', report -> 'removedCount', report -> 'skippedCount') FROM backlog_cleanup_emergency() report";
    assert_eq!(value::<String>(&mut client, at_once), "397 3");
    client.batch_execute("ROLLBACK").unwrap();
    let first = report(&mut client, "mode => 'emergency', batch_size => 100");
    assert_eq!(field(&first, "skippedCount"), "3");
    assert_eq!(ids(&mut client), [17, 18, 333]);
    assert_eq!(balance(&mut client, 400), 397);
    other.batch_execute("COMMIT").unwrap();
    let second = report(&mut client, "mode => 'emergency'");
    assert_eq!(field(&second, "removedCount"), "3");
}

#[test]
fn rows_that_a_trigger_or_a_foreign_key_holds_are_kept_back_and_the_rest_goes() {
    let cluster = Cluster::start("");
    let mut client = cluster.platform();
    fail_in_any_order(&mut client, 400);
    veto(&mut client, "generations", "OLD.id IN (5, 205)");
    client
        .batch_execute(
            "CREATE TABLE restricting (id int REFERENCES generations ON DELETE RESTRICT);
             CREATE TABLE holding (id int REFERENCES generations);
             CREATE TABLE deferring (id int REFERENCES generations DEFERRABLE INITIALLY DEFERRED);
             CREATE TABLE cascading (id int REFERENCES generations ON DELETE CASCADE);
             CREATE TABLE emptying (id int REFERENCES generations ON DELETE SET NULL);
             INSERT INTO restricting VALUES (100), (101); INSERT INTO holding VALUES (102); INSERT INTO deferring VALUES (303);
             INSERT INTO cascading VALUES (1), (400); INSERT INTO emptying VALUES (2), (399)",
        )
        .unwrap();
    for _ in 0..2 {
        let report = report(&mut client, "mode => 'emergency', batch_size => 150");
        assert_eq!(field(&report, "keptBackCount"), "6");
        assert_eq!(field(&report, "state"), "completed");
        assert_eq!(ids(&mut client), [5, 100, 101, 102, 205, 303]);
        assert_eq!(balance(&mut client, 400), 394);
    }
    assert_eq!(number(&mut client, "SELECT count(*) FROM cascading"), 0);
    assert_eq!(number(&mut client, "SELECT count(*) FROM emptying WHERE id IS NULL"), 2);
}

#[test]
fn deferred_triggers_fire_as_the_tables_owner() {
    let cluster = Cluster::start("max_worker_processes = 16\n");
    let mut client = cluster.platform();
    fail_in_any_order(&mut client, 400);
    client.batch_execute(SEE).unwrap();
    client
        .batch_execute(
            "CREATE ROLE the_owner; GRANT ALL ON SCHEMA public TO the_owner; ALTER TABLE generations OWNER TO the_owner;
             CREATE CONSTRAINT TRIGGER see AFTER DELETE ON generations DEFERRABLE INITIALLY DEFERRED
             FOR EACH ROW EXECUTE FUNCTION see()",
        )
        .unwrap();
    report(&mut client, "batch_size => 10");
    report(&mut client, "mode => 'emergency', batch_size => 10, workers => 2");
    assert_eq!(number(&mut client, "SELECT count(*) FROM seen WHERE who = 'the_owner'"), 400);
    assert_eq!(number(&mut client, "SELECT count(*) FROM seen"), 400);
}

#[test]
fn a_deadlock_and_a_serialization_failure_are_tried_again_a_bounded_number_of_times() {
    let cluster = Cluster::start("deadlock_timeout = '1s'\n");
    let mut client = cluster.platform();
    fail_in_any_order(&mut client, 100);
    client.batch_execute("UPDATE backlog_cleanup.target SET lock_timeout = '0'").unwrap();
    let mut other = cluster.connect();
    other
        .batch_execute("SET deadlock_timeout = '1h'; BEGIN; SELECT FROM generations WHERE id = 50 FOR UPDATE")
        .unwrap();
    let run = cluster.in_background("CALL backlog_cleanup_run(mode => 'emergency', batch_size => 60)");
    until(&cluster, "SELECT count(*) > 0 FROM pg_locks WHERE NOT granted");
    other.batch_execute("SELECT FROM generations WHERE id = 1 FOR UPDATE; COMMIT").unwrap();
    run.join().unwrap().1.unwrap();
    assert_eq!(balance(&mut client, 100), 100);
    until(&cluster, "SELECT deadlocks = 1 FROM pg_stat_database WHERE datname = 'postgres'");

    fail_in_any_order(&mut client, 100);
    genuine_errors(&mut client);
    client
        .batch_execute(
            "CREATE SEQUENCE failures;
             CREATE FUNCTION conflict() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public AS $$
                 BEGIN
                     IF nextval('failures') <= 3 THEN
                         PERFORM raise('40001', 'a conflict');
                     END IF;
                     RETURN OLD;
                 END $$;
             CREATE TRIGGER conflict BEFORE DELETE ON generations FOR EACH ROW EXECUTE FUNCTION conflict()",
        )
        .unwrap();
    report(&mut client, "mode => 'emergency', batch_size => 60");
    assert_eq!(balance(&mut client, 200), 200);

    fail_in_any_order(&mut client, 100);
    client.batch_execute("ALTER SEQUENCE failures RESTART WITH -1000000 MINVALUE -1000000").unwrap();
    let (sqlstate, message, _) = refused(client.batch_execute("CALL backlog_cleanup_run(mode => 'emergency')"));
    assert_eq!((sqlstate.as_str(), message.as_str()), ("40001", "a conflict"));
    assert_eq!(number(&mut client, "SELECT 1000000 + last_value FROM failures"), 5);
    assert_eq!(balance(&mut client, 300), 200);
}

#[test]
fn the_governor_makes_it_wait_says_why_and_lets_it_go_on() {
    let cluster = Cluster::start("autovacuum_naptime = 1\n");
    let mut client = cluster.platform();
    let standby = cluster.standby();
    standby
        .connect()
        .batch_execute("ALTER SYSTEM SET wal_receiver_status_interval = 1; SELECT pg_reload_conf()")
        .unwrap_or_default();
    client.batch_execute("CREATE TABLE load (reason text)").unwrap();
    // What the target allows, what goes beyond it, the reason, and what ends it.
    let mut busy = cluster.connect();
    let mut replica = standby.connect();
    for limit in ["throttle_query", "max_transaction_age", "max_wal_rate", "max_replica_lag", "yield_to_autovacuum"] {
        fail_in_any_order(&mut client, 100);
        let (value, reason) = match limit {
            "throttle_query" => {
                client.batch_execute("INSERT INTO load VALUES ('the queue is long')").unwrap();
                ("'SELECT reason FROM public.load'", "the queue is long")
            }
            "max_transaction_age" => {
                busy.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT").unwrap();
                ("'1 ms'", "process % has a transaction that is % old")
            }
            "max_wal_rate" => ("1", "the server writes % bytes of WAL per second"),
            "max_replica_lag" => {
                replica.batch_execute("SELECT pg_wal_replay_pause()").unwrap();
                client.batch_execute("INSERT INTO load VALUES (NULL)").unwrap();
                until(&cluster, "SELECT replay_lag > '1 s' FROM pg_stat_replication");
                ("'1 s'", "standby \"%\" replays % late")
            }
            _ => {
                client
                    .batch_execute(
                        "ALTER TABLE generations SET (autovacuum_vacuum_threshold = 0, autovacuum_vacuum_scale_factor = 0,
                                                      autovacuum_vacuum_cost_delay = 100, autovacuum_vacuum_cost_limit = 1)",
                    )
                    .unwrap();
                until(
                    &cluster,
                    "SELECT count(*) > 0 FROM pg_stat_progress_vacuum WHERE relid = 'generations'::regclass",
                );
                ("true", "autovacuum works on the table, as process %")
            }
        };
        client.batch_execute(&format!("UPDATE backlog_cleanup.target SET {limit} = {value}")).unwrap();
        let run = cluster.in_background("CALL backlog_cleanup_run(mode => 'emergency', batch_size => 30)");
        until(&cluster, &format!("SELECT waiting_for LIKE '{reason}' FROM backlog_cleanup.progress"));
        // But for the moment in which it looks again.
        until(
            &cluster,
            "SELECT count(*) = 0 FROM pg_locks WHERE relation = 'generations'::regclass AND mode LIKE 'Row%'",
        );
        let off = if limit == "yield_to_autovacuum" { "false" } else { "NULL" };
        match limit {
            "throttle_query" => client.batch_execute("DELETE FROM load").unwrap(),
            "max_transaction_age" => busy.batch_execute("COMMIT").unwrap(),
            _ => client.batch_execute(&format!("UPDATE backlog_cleanup.target SET {limit} = {off}")).unwrap(),
        }
        run.join().unwrap().1.unwrap();
        client.batch_execute(&format!("UPDATE backlog_cleanup.target SET {limit} = {off}")).unwrap();
        assert_eq!(number(&mut client, "SELECT count(*) FROM generations"), 0, "{limit}");
    }
}

#[test]
fn a_vetoed_row_among_thousands_is_kept_and_counted_as_kept() {
    let cluster = Cluster::start("");
    let mut client = cluster.platform();
    for recipe in 0..3 {
        fail(&mut client, recipe, 40_000);
    }
    veto(&mut client, "generations", "OLD.id = 60001");
    let details = "SELECT detail ->> 'recipeId' || ': ' || (detail ->> 'failedCount') || ' - ' || (detail ->> 'cleanedCount')
                   FROM jsonb_array_elements(backlog_cleanup_failed_generations() -> 'cleanupDetails') detail ORDER BY 1";
    let details: Vec<String> = column(&mut client, details);
    assert_eq!(details, ["0: 40000 - 39990", "1: 40000 - 39989", "2: 40000 - 39990"]);
    assert!(truth(&mut client, "SELECT EXISTS (SELECT FROM generations WHERE id = 60001)"));
    assert_eq!(balance(&mut client, 120_000), 119_969);
}

#[test]
fn an_emergency_run_on_a_recipe_of_text_goes_round_a_locked_row() {
    let cluster = Cluster::start("");
    let mut client = cluster.platform();
    client.batch_execute(JOB).unwrap();
    client.batch_execute("UPDATE backlog_cleanup.target SET lock_timeout = '50 ms'").unwrap();
    let mut other = cluster.connect();
    other.batch_execute("BEGIN; SELECT FROM job WHERE id = 40 FOR UPDATE").unwrap();
    let (removed, ..) = run(&mut client, RUNS[1]);
    assert_eq!(removed, 99);
}
