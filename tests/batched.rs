//! Batched runs: what is committed stays and balances, whatever happens, and nobody is kept waiting.

mod cluster;

use std::thread::{self, JoinHandle};

use cluster::{Cluster, refused, until};
use postgres::{Client, Error};

/// Old failures of the recipes 0 to 2 and of none, one in two seconds, in a random order of age.
fn fail(client: &mut Client, rows: i32) {
    client
        .execute(
            "INSERT INTO generations (user_id, recipe_id, prompt, status, updated_at)
             SELECT 'system_backlog', nullif(i % 4, 3), '', 'failed',
                    now() AT TIME ZONE 'UTC' - interval '2 days' - interval '1 second' * (i * 7919 % $1)
             FROM generate_series(1, $1) i",
            &[&rows],
        )
        .unwrap();
}

/// The rows that are left.
fn ids(client: &mut Client) -> Vec<i32> {
    client.query("SELECT id FROM generations ORDER BY id", &[]).unwrap().iter().map(|row| row.get(0)).collect()
}

/// A call in a session of its own, which is handed back with what became of the call.
fn start(cluster: &Cluster, call: &str) -> JoinHandle<(Client, Result<(), Error>)> {
    let mut client = cluster.connect();
    let call = call.to_owned();
    thread::spawn(move || {
        let done = client.batch_execute(&call);
        (client, done)
    })
}

fn number(client: &mut Client, query: &str) -> i64 {
    client.query_one(&format!("SELECT ({query})::bigint"), &[]).unwrap().get(0)
}

fn truth(client: &mut Client, query: &str) -> bool {
    client.query_one(query, &[]).unwrap().get(0)
}

fn report(client: &mut Client, arguments: &str) -> String {
    client.query_one(&format!("CALL backlog_cleanup_run({arguments})"), &[]).unwrap().get::<_, Report>(0).0
}

/// A jsonb as its text.
struct Report(String);

impl<'a> postgres::types::FromSql<'a> for Report {
    fn from_sql(_: &postgres::types::Type, raw: &'a [u8]) -> Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        Ok(Report(String::from_utf8(raw[1..].to_vec())?))
    }

    fn accepts(sql_type: &postgres::types::Type) -> bool {
        *sql_type == postgres::types::Type::JSONB
    }
}

/// A field of a report, as text.
fn field(client: &mut Client, report: &str, name: &str) -> String {
    client.query_one("SELECT $1::text::jsonb ->> $2", &[&report, &name]).unwrap().get(0)
}

/// The rows that are gone of `rows` are those of the ledger, of the runs and, where these are over, of their recipes.
fn balance(client: &mut Client, rows: i64) -> i64 {
    let gone = rows - number(client, "SELECT count(*) FROM generations");
    assert_eq!(number(client, "SELECT coalesce(sum(amount), 0) FROM credit_transactions"), gone);
    assert_eq!(number(client, "SELECT coalesce(sum(removed), 0) FROM backlog_cleanup.run"), gone);
    let of_recipes = "SELECT bool_and(removed = cleaned AND total_failed = failed AND recipes_affected = recipes)
        FROM backlog_cleanup.run, LATERAL (
            SELECT coalesce(sum(cleaned_count), 0) AS cleaned, coalesce(sum(failed_count), 0) AS failed, count(*) AS recipes
            FROM backlog_cleanup.run_recipe WHERE run_id = id) r
        WHERE state <> 'running'";
    let balanced = client.query_one(of_recipes, &[]).unwrap().get::<_, Option<bool>>(0);
    assert_ne!(balanced, Some(false), "run and run_recipe");
    gone
}

#[test]
fn it_removes_exactly_what_one_transaction_would_with_a_ledger_row_per_batch() {
    // Settings under which the planner would gladly read the table in parallel, in no order.
    let cluster = Cluster::start(
        "max_worker_processes = 16\nmin_parallel_table_scan_size = 0\nparallel_setup_cost = 0\nparallel_tuple_cost = 0\n",
    );
    let mut client = cluster.platform();
    fail(&mut client, 6000);
    client
        .batch_execute(
            "UPDATE generations SET status = 'pending' WHERE id % 7 = 0;
             UPDATE generations SET updated_at = now() AT TIME ZONE 'UTC' WHERE id % 11 = 0;
             CREATE TABLE saved AS TABLE generations; SET enable_indexscan = off; ANALYZE",
        )
        .unwrap();
    for (mode, one_transaction) in [("regular", "failed_generations"), ("emergency", "emergency")] {
        client.batch_execute(&format!("BEGIN; SELECT backlog_cleanup_{one_transaction}()")).unwrap();
        let expected = ids(&mut client);
        client.batch_execute("ROLLBACK").unwrap();
        for workers in [1, 2, 4] {
            client
                .batch_execute(
                    "TRUNCATE generations, credit_transactions, backlog_cleanup.run CASCADE;
                     INSERT INTO generations TABLE saved",
                )
                .unwrap();
            let report = report(&mut client, &format!("mode => '{mode}', batch_size => 70, workers => {workers}"));
            assert_eq!(ids(&mut client), expected, "{mode}, {workers}");
            let removed = balance(&mut client, 6000);
            let count = if mode == "regular" { "cleanedUpGenerations" } else { "removedCount" };
            assert_eq!(field(&mut client, &report, count), removed.to_string());
            assert_eq!(field(&mut client, &report, "state"), "completed");
            let batches = number(&mut client, "SELECT count(*) FROM credit_transactions WHERE amount BETWEEN 1 AND 70");
            assert_eq!(field(&mut client, &report, "batches"), batches.to_string());
            assert!(
                batches >= removed / 70 && batches == number(&mut client, "SELECT count(*) FROM credit_transactions")
            );
            assert_eq!(
                field(&mut client, &report, "workers"),
                if workers == 1 { "0".into() } else { workers.to_string() }
            );
            assert_eq!(number(&mut client, "SELECT count(*) FROM backlog_cleanup.run"), 1);
        }
    }
    let again = report(&mut client, "mode => 'emergency'");
    assert_eq!(field(&mut client, &again, "removedCount"), "0");
}

#[test]
fn it_is_refused_where_it_cannot_commit_and_leaves_nothing() {
    let cluster = Cluster::start("");
    let mut client = cluster.platform();
    fail(&mut client, 100);
    client
        .batch_execute(
            "CREATE FUNCTION within() RETURNS void LANGUAGE plpgsql AS 'DECLARE r jsonb; BEGIN CALL backlog_cleanup_run(report => r); END'",
        )
        .unwrap();
    for call in [
        "BEGIN; CALL backlog_cleanup_run()",
        "BEGIN; DO 'DECLARE r jsonb; BEGIN CALL backlog_cleanup_run(report => r); END'",
        "SELECT within()",
        "DO 'DECLARE r jsonb; BEGIN CALL backlog_cleanup_run(report => r); EXCEPTION WHEN division_by_zero THEN NULL; END'",
    ] {
        let (sqlstate, _, hint) = refused(client.batch_execute(call));
        assert_eq!(sqlstate, "25001", "{call}");
        assert!(hint.contains("CALL backlog_cleanup_run()"), "{hint}");
        client.batch_execute("ROLLBACK").unwrap();
        assert_eq!(number(&mut client, "SELECT count(*) FROM pg_locks WHERE locktype = 'object'"), 0, "{call}");
        assert_eq!(balance(&mut client, 100), 0);
    }
    client.batch_execute("DO 'DECLARE r jsonb; BEGIN CALL backlog_cleanup_run(report => r); END'").unwrap();
    assert_eq!(balance(&mut client, 100), 60);
}

#[test]
fn wherever_it_is_interrupted_the_books_balance_and_the_next_run_finishes_the_job() {
    let cluster = Cluster::start("max_worker_processes = 16\n");
    fail(&mut cluster.platform(), 400);
    let mut client = cluster.connect();
    client.batch_execute("CREATE TABLE saved AS TABLE generations").unwrap();
    let pid = "SELECT pid FROM backlog_cleanup.progress WHERE state = 'running'";
    for workers in [1, 2] {
        for interruption in ["cancel", "timeout", "terminate", "worker", "kill", "crash"] {
            if workers == 1 && interruption == "worker" {
                continue;
            }
            let case = format!("{interruption}, {workers}");
            let mut client = cluster.connect();
            client
                .batch_execute(
                    "TRUNCATE generations, credit_transactions, backlog_cleanup.run CASCADE;
                     INSERT INTO generations TABLE saved",
                )
                .unwrap();
            if interruption == "timeout" {
                client.batch_execute("ALTER DATABASE postgres SET statement_timeout = '2s'").unwrap();
            }
            let run = start(
                &cluster,
                &format!(
                    "CALL backlog_cleanup_run(mode => 'emergency', batch_size => 10, pause => '1 hour', workers => {workers})"
                ),
            );
            client.batch_execute("ALTER DATABASE postgres RESET statement_timeout").unwrap();
            if interruption != "timeout" {
                until(&cluster, &format!("SELECT removed = 10 * {workers} FROM backlog_cleanup.progress"));
            }
            let of_leader = |function: &str| format!("SELECT {function}(pid) FROM ({pid}) p");
            match interruption {
                "cancel" => client.batch_execute(&of_leader("pg_cancel_backend")).unwrap(),
                "terminate" => client.batch_execute(&of_leader("pg_terminate_backend")).unwrap(),
                "worker" => client
                    .batch_execute(
                        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                         WHERE backend_type LIKE 'backlog_cleanup%'",
                    )
                    .unwrap(),
                "kill" => cluster.kill(client.query_one(pid, &[]).unwrap().get(0)),
                "crash" => cluster.crash(),
                _ => {}
            }
            let (mut same, done) = run.join().unwrap();
            let failure = done.expect_err("interrupted");
            until(&cluster, "SELECT state = 'interrupted' AND pid IS NULL FROM backlog_cleanup.progress");
            let mut client = cluster.connect();
            let last = "SELECT backlog_cleanup_status_json() -> 'lastRun' ->> 'state' = 'interrupted'";
            assert!(truth(&mut client, last), "{case}");
            let removed = balance(&mut client, 400);
            if interruption != "timeout" {
                assert_eq!(removed, 10 * workers, "{case}");
            }
            // What the workers were about is over in a moment, and nothing but that is in the way.
            until(&cluster, "SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type LIKE 'backlog_cleanup%'");
            let survives = matches!(interruption, "cancel" | "timeout" | "worker");
            if survives {
                let expected = if interruption == "worker" { "55000" } else { "57014" };
                assert_eq!(refused(Err(failure)).0, expected, "{case}");
                same.batch_execute("CALL backlog_cleanup_run(mode => 'emergency')").unwrap();
            } else {
                client.batch_execute("CALL backlog_cleanup_run(mode => 'emergency')").unwrap();
            }
            assert_eq!(balance(&mut client, 400), 400, "{case}");
            let states = "SELECT string_agg(state, ',' ORDER BY id) = 'interrupted,completed'
                                 AND bool_and(finished_at IS NOT NULL) FROM backlog_cleanup.run";
            assert!(truth(&mut client, states), "{case}");
            for state in ["run_cutoff", "run_part", "run_batch"] {
                assert_eq!(number(&mut client, &format!("SELECT count(*) FROM backlog_cleanup.{state}")), 0);
            }
        }
    }
}

#[test]
fn while_it_pauses_it_shows_its_progress_holds_nothing_and_keeps_others_out() {
    let cluster = Cluster::start("default_transaction_isolation = 'repeatable read'\nmax_worker_processes = 16\n");
    let mut client = cluster.platform();
    fail(&mut client, 400);
    for workers in [1, 2] {
        let run = start(
            &cluster,
            &format!(
                "CALL backlog_cleanup_run(mode => 'emergency', batch_size => 10, pause => '1 hour', workers => {workers})"
            ),
        );
        until(
            &cluster,
            &format!(
                "SELECT state = 'running' AND pid IS NOT NULL AND removed = 10 * {workers} AND batches = {workers}
                        AND share_done BETWEEN 0 AND 0.9 AND rows_per_second > 0 AND waiting_for IS NULL
                 FROM backlog_cleanup.progress"
            ),
        );
        until(
            &cluster,
            "SELECT count(*) > 0 AND bool_and(backend_xmin IS NULL AND backend_xid IS NULL) FROM pg_stat_activity
             WHERE pid <> pg_backend_pid() AND (query LIKE 'CALL%' OR backend_type LIKE 'backlog_cleanup%')",
        );
        until(&cluster, "SELECT count(*) = 0 FROM pg_locks WHERE relation IS NOT NULL AND pid <> pg_backend_pid()");
        for second in ["SELECT backlog_cleanup_failed_generations()", "CALL backlog_cleanup_run()"] {
            let (sqlstate, message, _) = refused(client.batch_execute(second));
            assert_eq!(sqlstate, "55P03");
            assert!(message.contains("\"generations\""), "{message}");
        }
        client.batch_execute("SELECT pg_cancel_backend(pid) FROM backlog_cleanup.progress").unwrap();
        assert_eq!(refused(run.join().unwrap().1).0, "57014");
        until(&cluster, "SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type LIKE 'backlog_cleanup%'");
    }
    report(&mut client, "mode => 'emergency', batch_size => 10, workers => 2");
    assert_eq!(balance(&mut client, 400), 400);
}

#[test]
fn a_locked_row_is_gone_round_and_counted_as_skipped() {
    let cluster = Cluster::start("");
    let mut client = cluster.platform();
    fail(&mut client, 400);
    client.batch_execute("UPDATE backlog_cleanup.target SET lock_timeout = '50 ms'").unwrap();
    let mut other = cluster.connect();
    other
        .batch_execute(
            "BEGIN; SELECT FROM generations WHERE id IN (17, 18) FOR KEY SHARE; UPDATE generations SET prompt = 'x' WHERE id = 333",
        )
        .unwrap();
    let first = report(&mut client, "mode => 'emergency', batch_size => 100");
    assert_eq!(field(&mut client, &first, "skippedCount"), "3");
    assert_eq!(ids(&mut client), [17, 18, 333]);
    assert_eq!(balance(&mut client, 400), 397);
    other.batch_execute("COMMIT").unwrap();
    let second = report(&mut client, "mode => 'emergency'");
    assert_eq!(field(&mut client, &second, "removedCount"), "3");
}

#[test]
fn rows_that_a_trigger_or_a_foreign_key_holds_are_kept_back_and_the_rest_goes() {
    let cluster = Cluster::start("");
    let mut client = cluster.platform();
    fail(&mut client, 400);
    client
        .batch_execute(
            "CREATE FUNCTION veto() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
             CREATE TRIGGER veto BEFORE DELETE ON generations FOR EACH ROW WHEN (OLD.id IN (5, 205))
             EXECUTE FUNCTION veto();
             CREATE TABLE restricting (id int REFERENCES generations ON DELETE RESTRICT);
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
        assert_eq!(field(&mut client, &report, "keptBackCount"), "6");
        assert_eq!(field(&mut client, &report, "state"), "completed");
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
    fail(&mut client, 400);
    client
        .batch_execute(
            "CREATE ROLE the_owner; GRANT ALL ON SCHEMA public TO the_owner; ALTER TABLE generations OWNER TO the_owner;
             CREATE TABLE seen (who name); GRANT INSERT ON seen TO PUBLIC;
             CREATE FUNCTION see() RETURNS trigger LANGUAGE plpgsql AS
                 'BEGIN INSERT INTO public.seen VALUES (current_user); RETURN NULL; END';
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
    fail(&mut client, 100);
    client.batch_execute("UPDATE backlog_cleanup.target SET lock_timeout = '0'").unwrap();
    let mut other = cluster.connect();
    other
        .batch_execute("SET deadlock_timeout = '1h'; BEGIN; SELECT FROM generations WHERE id = 50 FOR UPDATE")
        .unwrap();
    let run = start(&cluster, "CALL backlog_cleanup_run(mode => 'emergency', batch_size => 60)");
    until(&cluster, "SELECT count(*) > 0 FROM pg_locks WHERE NOT granted");
    other.batch_execute("SELECT FROM generations WHERE id = 1 FOR UPDATE; COMMIT").unwrap();
    run.join().unwrap().1.unwrap();
    assert_eq!(balance(&mut client, 100), 100);
    until(&cluster, "SELECT deadlocks = 1 FROM pg_stat_database WHERE datname = 'postgres'");

    fail(&mut client, 100);
    client
        .batch_execute(
            "CREATE SEQUENCE failures;
             CREATE FUNCTION conflict() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public AS $$
                 BEGIN
                     IF nextval('failures') <= 3 THEN
                         RAISE EXCEPTION USING ERRCODE = 'serialization_failure', MESSAGE = 'a conflict';
                     END IF;
                     RETURN OLD;
                 END $$;
             CREATE TRIGGER conflict BEFORE DELETE ON generations FOR EACH ROW EXECUTE FUNCTION conflict()",
        )
        .unwrap();
    report(&mut client, "mode => 'emergency', batch_size => 60");
    assert_eq!(balance(&mut client, 200), 200);

    fail(&mut client, 100);
    client.batch_execute("ALTER SEQUENCE failures RESTART WITH -1000000 MINVALUE -1000000").unwrap();
    let (sqlstate, message, _) = refused(client.batch_execute("CALL backlog_cleanup_run(mode => 'emergency')"));
    assert_eq!((sqlstate.as_str(), message.as_str()), ("40001", "a conflict"));
    assert_eq!(number(&mut client, "SELECT 1000000 + last_value FROM failures"), 5);
    assert_eq!(balance(&mut client, 300), 200);
}

#[test]
fn limits_are_exact_and_arguments_are_checked() {
    let cluster = Cluster::start("");
    let mut client = cluster.platform();
    fail(&mut client, 400);
    let stopped = report(&mut client, "mode => 'emergency', batch_size => 30, max_rows => 100");
    assert_eq!(field(&mut client, &stopped, "state"), "stopped");
    assert_eq!(field(&mut client, &stopped, "removedCount"), "100");
    assert_eq!(balance(&mut client, 400), 100);
    // Of 300 rows that are ranked in one pass, the first ten.
    client.batch_execute("UPDATE backlog_cleanup.policy SET keep = 0").unwrap();
    let stopped = report(&mut client, "max_rows => 10");
    assert_eq!(field(&mut client, &stopped, "state"), "stopped");
    assert_eq!(field(&mut client, &stopped, "cleanedUpGenerations"), "10");
    assert_eq!(balance(&mut client, 400), 110);

    let stopped =
        report(&mut client, "mode => 'emergency', batch_size => 30, max_duration => '1 s', pause => '1 hour'");
    assert_eq!(field(&mut client, &stopped, "state"), "stopped");
    client.batch_execute("UPDATE backlog_cleanup.target SET throttle_query = 'SELECT 1'").unwrap();
    let stopped = report(&mut client, "mode => 'emergency', batch_size => 30, max_duration => '1 s'");
    assert_eq!(field(&mut client, &stopped, "removedCount"), "0");
    assert_eq!(balance(&mut client, 400), 140);

    client.batch_execute("UPDATE backlog_cleanup.target SET throttle_query = NULL").unwrap();
    let completed = report(&mut client, "mode => 'emergency', batch_size => 1000, pause => '1 hour'");
    assert_eq!(field(&mut client, &completed, "state"), "completed");

    for (arguments, expected) in [
        ("target => NULL", "22004"),
        ("target => 'none'", "42704"),
        ("mode => NULL", "22004"),
        ("mode => 'gentle'", "22023"),
        ("batch_size => 0", "22023"),
        ("batch_size => 1000001", "22023"),
        ("pause => NULL", "22004"),
        ("pause => '-1 s'", "22023"),
        ("pause => '2 days'", "22023"),
        ("max_duration => '0'", "22023"),
        ("max_rows => 0", "22023"),
        ("workers => NULL", "22004"),
        ("workers => 0", "22023"),
        ("workers => 65", "22023"),
        ("workers => 2, max_rows => 1", "22023"),
        ("recipe_id => 'x'", "22P02"),
    ] {
        let (sqlstate, message, _) = refused(client.batch_execute(&format!("CALL backlog_cleanup_run({arguments})")));
        assert_eq!(sqlstate, expected, "{arguments}: {message}");
        assert!(!message.contains('\n'));
    }
    let throttle = "UPDATE backlog_cleanup.target SET throttle_query = 'SELECT nothing'";
    assert_eq!(refused(client.batch_execute(throttle)).0, "42703");
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
        fail(&mut client, 100);
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
        let run = start(&cluster, "CALL backlog_cleanup_run(mode => 'emergency', batch_size => 30)");
        until(&cluster, &format!("SELECT waiting_for LIKE '{reason}' FROM backlog_cleanup.progress"));
        assert_eq!(
            number(
                &mut client,
                "SELECT count(*) FROM pg_locks WHERE relation = 'generations'::regclass AND mode LIKE 'Row%'"
            ),
            0
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
fn what_changes_while_it_pauses_is_looked_at_again() {
    let cluster = Cluster::start("");
    let mut client = cluster.platform();
    client.batch_execute("CREATE FUNCTION load() RETURNS text LANGUAGE sql AS 'SELECT NULL'").unwrap();
    client.batch_execute("UPDATE backlog_cleanup.target SET throttle_query = 'SELECT public.load()'").unwrap();
    for (change, left, state) in [
        ("UPDATE generations SET status = 'pending' WHERE id % 2 = 0", 45, "completed"),
        ("UPDATE generations SET updated_at = now() AT TIME ZONE 'UTC' WHERE id % 2 = 0", 45, "completed"),
        ("TRUNCATE generations", 0, "completed"),
        ("ALTER TABLE generations ALTER id TYPE text USING id::text", 90, "55000"),
        ("ALTER TABLE generations RENAME TO elsewhere", 90, "42P01"),
    ] {
        client
            .batch_execute("TRUNCATE generations RESTART IDENTITY; UPDATE backlog_cleanup.policy SET keep = 0")
            .unwrap();
        fail(&mut client, 100);
        let run = start(&cluster, "CALL backlog_cleanup_run(batch_size => 10, pause => '1 s')");
        until(&cluster, "SELECT removed = 10 FROM backlog_cleanup.progress");
        client.batch_execute(change).unwrap();
        let (_, done) = run.join().unwrap();
        let became = done.map_or_else(|failure| refused(Err(failure)).0, |()| "completed".to_owned());
        assert_eq!(became, state, "{change}");
        if change.contains("RENAME") {
            client.batch_execute("ALTER TABLE elsewhere RENAME TO generations").unwrap();
        }
        let rows = number(&mut client, "SELECT count(*) FROM generations");
        assert!(rows >= left && rows <= left + 10, "{change}: {rows}");
        client.batch_execute("CALL backlog_cleanup_run()").unwrap();
        let settled = if state == "42P01" { 0 } else { left / 45 * 50 };
        assert!(number(&mut client, "SELECT count(*) FROM generations") <= settled, "{change}");
        if change.contains("TYPE") {
            client.batch_execute("ALTER TABLE generations ALTER id TYPE int USING id::int").unwrap();
        }
    }
}

#[test]
fn each_page_of_a_large_table_is_read_once() {
    let cluster = Cluster::start("shared_buffers = 2MB\nautovacuum = off\n");
    let mut client = cluster.platform();
    // Failed rows on each page, which go in batches of more pages than shared_buffers has.
    client
        .batch_execute(
            "INSERT INTO generations (user_id, recipe_id, prompt, status, updated_at)
             SELECT 'system_backlog', 1, repeat('x', 700), CASE WHEN i % 4 = 0 THEN 'failed' ELSE 'completed' END,
                    now() AT TIME ZONE 'UTC' - interval '2 days' - interval '1 second' * i
             FROM generate_series(1, 15000) i",
        )
        .unwrap();
    client.batch_execute("VACUUM ANALYZE generations").unwrap();
    let index: String = client.query_one("SELECT backlog_cleanup_index_sql()", &[]).unwrap().get(0);
    client.batch_execute(&index).unwrap();
    let pages = number(&mut client, "SELECT pg_relation_size('generations') / 8192");
    assert!(pages > 5 * 256, "several times shared_buffers");
    drop(client);
    for mode in ["regular", "emergency"] {
        // A session's counts are in the statistics at its end.
        let alone = "SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'client backend'";
        until(&cluster, alone);
        cluster
            .connect()
            .batch_execute("UPDATE backlog_cleanup.policy SET keep = 700; SELECT pg_stat_reset()")
            .unwrap();
        report(&mut cluster.connect(), &format!("mode => '{mode}', batch_size => 1000"));
        until(&cluster, alone);
        let counts = "SELECT heap_blks_read, idx_blks_read FROM pg_statio_user_tables WHERE relname = 'generations'";
        let counts = cluster.connect().query_one(counts, &[]).unwrap();
        let (heap, index): (i64, i64) = (counts.get(0), counts.get(1));
        assert!(
            heap >= pages * 3 / 4 && heap <= pages + 50,
            "{mode}: {heap} reads of {pages} pages, {index} of indexes"
        );
    }
}

#[test]
fn with_too_few_workers_it_carries_on_and_says_so() {
    // One slot is the logical replication launcher's.
    for (slots, got) in [(0, 0), (2, 1)] {
        let cluster = Cluster::start(&format!("max_worker_processes = {slots}\n"));
        fail(&mut cluster.platform(), 100);
        let (sender, notices) = std::sync::mpsc::channel();
        let mut client = cluster.connect_with_notices(sender);
        let report = report(&mut client, "workers => 2, batch_size => 10");
        assert_eq!(field(&mut client, &report, "workers"), got.to_string());
        let said: Vec<String> = notices.try_iter().map(|(message, _)| message).collect();
        assert_eq!(said, [format!("run 1 got {got} of 2 background workers")]);
        assert_eq!(balance(&mut client, 100), 60);
    }
}

#[test]
fn an_operator_needs_nothing_on_the_platforms_tables() {
    let cluster = Cluster::start("max_worker_processes = 16\n");
    let mut client = cluster.platform();
    fail(&mut client, 400);
    client.batch_execute("CREATE ROLE operator; CREATE ROLE person LOGIN IN ROLE operator").unwrap();
    let mut person = postgres::Config::new();
    person.host(cluster.socket()).user("person").dbname("postgres");
    let mut person = person.connect(postgres::NoTls).unwrap();
    person.batch_execute("SET ROLE operator").unwrap();
    assert_eq!(refused(person.batch_execute("CALL backlog_cleanup_run()")).0, "42501");
    client.batch_execute("SELECT backlog_cleanup_grant('operator', 'operator')").unwrap();
    for arguments in ["batch_size => 10", "mode => 'emergency', batch_size => 10, workers => 2"] {
        person.batch_execute(&format!("CALL backlog_cleanup_run({arguments})")).unwrap();
    }
    assert_eq!(balance(&mut client, 400), 400);
    assert_eq!(number(&mut client, "SELECT count(*) FROM backlog_cleanup.run WHERE requested_by = 'operator'"), 2);
}

#[test]
fn status_warns_of_a_referencing_column_without_an_index_until_the_hint_is_typed() {
    let cluster = Cluster::start("");
    let mut client = cluster.platform();
    client
        .batch_execute(
            "CREATE TABLE comments (\"Generation\" int REFERENCES generations, other int REFERENCES generations);
             CREATE INDEX ON comments (other) WHERE other IS NOT NULL",
        )
        .unwrap();
    let warnings = "SELECT warning ->> 'message', warning ->> 'hint'
                    FROM jsonb_array_elements(backlog_cleanup_status_json() -> 'warnings') warning";
    let rows = client.query(warnings, &[]).unwrap();
    assert_eq!(rows.len(), 1);
    let (message, hint): (String, String) = (rows[0].get(0), rows[0].get(1));
    assert_eq!(message, "public.comments (\"Generation\") references public.generations and has no index");
    client.batch_execute(&hint).unwrap();
    assert!(client.query(warnings, &[]).unwrap().is_empty());
}

#[test]
fn a_run_that_is_asked_to_stop_ends_between_two_batches_and_the_next_finishes_the_job() {
    let cluster = Cluster::start("max_worker_processes = 16\n");
    let mut client = cluster.platform();
    fail(&mut client, 400);
    for workers in [1, 2] {
        let call = format!(
            "CALL backlog_cleanup_run(mode => 'emergency', batch_size => 5, pause => '0.2 s', workers => {workers})"
        );
        let run = start(&cluster, &call);
        until(&cluster, "SELECT batches > 0 FROM backlog_cleanup.progress");
        assert!(truth(&mut client, "SELECT backlog_cleanup_stop(run_id) FROM backlog_cleanup.progress"));
        run.join().unwrap().1.expect("it ends as a run does");
        let last = "SELECT state = 'stopped' AND finished_at IS NOT NULL AND removed BETWEEN 5 AND 350
                    FROM backlog_cleanup.run ORDER BY id DESC LIMIT 1";
        assert!(truth(&mut client, last), "{workers} workers");
    }
    assert!(!truth(&mut client, "SELECT backlog_cleanup_stop(max(id)) FROM backlog_cleanup.run"));
    assert_eq!(refused(client.batch_execute("SELECT backlog_cleanup_stop(0)")).0, "42704");
    assert_eq!(refused(client.batch_execute("SELECT backlog_cleanup_stop(NULL)")).0, "22004");
    report(&mut client, "mode => 'emergency'");
    assert_eq!(balance(&mut client, 400), 400);
}
