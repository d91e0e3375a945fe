//! Batched runs: what is committed stays and balances, whatever happens, and nobody is kept waiting.

use std::sync::mpsc;

use cluster::{
    Cluster, column, create_index, fail, fail_in_any_order, genuine_errors, number, numbers, refused, until, value,
    with_pg_cron,
};
use postgres::Client;
use serde_json::Value;

/// Runs a batched run in a session; returns its report.
pub fn report(client: &mut Client, arguments: &str) -> Value {
    client.query_one(&format!("CALL backlog_cleanup_run({arguments})"), &[]).unwrap().get(0)
}

/// A field of a report, as text without quotes.
pub fn field(report: &Value, name: &str) -> String {
    let field = &report[name];
    field.as_str().map_or_else(|| field.to_string(), str::to_owned)
}

/// As `cluster::balance`; the recipes that lost rows in runs that are summed up say the same, too.
#[track_caller]
pub fn balance(client: &mut Client, rows: i64) -> i64 {
    let of_recipes = "SELECT bool_and(removed = cleaned AND total_failed >= failed AND recipes_affected >= recipes)
        FROM backlog_cleanup.run, LATERAL (
            SELECT coalesce(sum(cleaned_count), 0) AS cleaned, coalesce(sum(failed_count), 0) AS failed, count(*) AS recipes
            FROM backlog_cleanup.run_recipe WHERE run_id = id) r
        WHERE state <> 'running' AND NOT EXISTS (SELECT FROM backlog_cleanup.run_batch b WHERE b.run_id = id)";
    assert_ne!(value::<Option<bool>>(client, of_recipes), Some(false), "a run and its recipes");
    cluster::balance(client, rows)
}

#[test]
fn what_a_call_does_not_say_of_its_pace_is_the_targets_also_in_the_scheduled_call() {
    let cluster = with_pg_cron();
    let mut client = cluster.platform();
    fail(&mut client, 1, 300);
    let of_run = "SELECT format('%s %s %s %s %s %s %s', batch_size, pause, max_rows_per_second, workers, max_duration, max_rows, removed)
                  FROM backlog_cleanup.run ORDER BY id DESC LIMIT 1";
    client.batch_execute("CALL backlog_cleanup_run(max_rows => 10)").unwrap();
    assert_eq!(value::<String>(&mut client, of_run), "10000   0  10 10");
    client
        .batch_execute(
            "UPDATE backlog_cleanup.target SET batch_size = 7, pause = '1 ms', max_rows_per_second = 2000, max_duration = '1 hour',
                                               max_rows = 20;
             SELECT backlog_cleanup_schedule(batched => true)",
        )
        .unwrap();
    let command: String = value(&mut client, "SELECT command FROM cron.job");
    assert_eq!(command, "CALL public.backlog_cleanup_run()");
    client.batch_execute(&command).unwrap();
    assert_eq!(value::<String>(&mut client, of_run), "7 00:00:00.001 2000 0 01:00:00 20 20");
    client
        .batch_execute(
            "CALL backlog_cleanup_run(batch_size => 9, pause => '2 ms', max_rows_per_second => 3000, max_duration => '2 hours',
                                      max_rows => 30, workers => 1)",
        )
        .unwrap();
    assert_eq!(value::<String>(&mut client, of_run), "9 00:00:00.002 3000 0 02:00:00 30 30");
    assert_eq!(refused(client.batch_execute("CALL backlog_cleanup_run(workers => 2)")).0, "22023");
    assert_eq!(refused(client.batch_execute("CALL backlog_cleanup_run(max_rows_per_second => 0)")).0, "22023");
    for wrong in [
        "pause = '-1 ms'",
        "max_rows_per_second = 0",
        "workers = 0",
        "workers = 65",
        "max_duration = '0'",
        "max_rows = 0",
        "workers = 2",
    ] {
        let (sqlstate, ..) = refused(client.batch_execute(&format!("UPDATE backlog_cleanup.target SET {wrong}")));
        assert!(["23514", "23502"].contains(&sqlstate.as_str()), "{wrong}: {sqlstate}");
    }
    client.batch_execute("UPDATE backlog_cleanup.target SET max_rows = NULL, workers = 2").unwrap();
    client.batch_execute(&command).unwrap();
    assert_eq!(value::<String>(&mut client, of_run), "7 00:00:00.001 2000 2 01:00:00  230");
    assert_eq!(balance(&mut client, 300), 290);
}

#[test]
fn a_rate_is_kept_whatever_the_batch_size_and_workers_share_it() {
    let cluster = Cluster::start("max_worker_processes = 16\n");
    let mut client = cluster.platform();
    client.batch_execute("UPDATE backlog_cleanup.policy SET keep = 0").unwrap();
    for (batch_size, workers) in [(10_000, 1), (10_000, 3), (20, 1)] {
        client.batch_execute("TRUNCATE generations, credit_transactions, backlog_cleanup.run CASCADE").unwrap();
        fail(&mut client, 1, 3000);
        let arguments = format!("batch_size => {batch_size}, max_rows_per_second => 500, workers => {workers}");
        report(&mut client, &arguments);
        assert_eq!(balance(&mut client, 3000), 3000);
        // But for the first piece of a second; a busy machine comes late.
        let rate: f64 = value(
            &mut client,
            "SELECT (removed / extract(epoch FROM finished_at - started_at))::float8 FROM backlog_cleanup.run",
        );
        assert!((420.0..550.0).contains(&rate), "{batch_size}, {workers}: {rate}");
        let in_two_seconds = "
            SELECT max(rows) FROM (SELECT sum(amount) OVER (ORDER BY created_at
                                       RANGE BETWEEN CURRENT ROW AND interval '2 seconds' FOLLOWING) AS rows
                                   FROM credit_transactions WHERE type = 'backlog_cleanup') windows";
        let most = number(&mut client, in_two_seconds);
        assert!(most <= 1250, "{batch_size}, {workers}: {most}");
    }
    // No transaction is open while it waits.
    client.batch_execute("TRUNCATE generations").unwrap();
    fail(&mut client, 1, 10);
    let mut other = cluster.connect();
    let run = std::thread::spawn(move || report(&mut other, "max_rows_per_second => 2"));
    until(&cluster, "SELECT count(*) < 10 FROM generations");
    std::thread::sleep(std::time::Duration::from_millis(100));
    let open = "SELECT count(*) FROM pg_stat_activity WHERE backend_xmin IS NOT NULL AND query LIKE 'CALL%'";
    assert_eq!(number(&mut client, open), 0);
    client.batch_execute("SELECT backlog_cleanup_stop(max(id)) FROM backlog_cleanup.run").unwrap();
    run.join().unwrap();
}

#[test]
fn it_removes_exactly_what_one_transaction_would_with_a_ledger_row_per_batch() {
    // Settings under which the planner would gladly read the table in parallel, in no order.
    let cluster = Cluster::start(
        "max_worker_processes = 16\nmin_parallel_table_scan_size = 0\nparallel_setup_cost = 0\nparallel_tuple_cost = 0\n",
    );
    let mut client = cluster.platform();
    fail_in_any_order(&mut client, 6000);
    client
        .batch_execute(
            "UPDATE generations SET status = 'pending' WHERE id % 7 = 0;
             UPDATE generations SET updated_at = now() AT TIME ZONE 'UTC' WHERE id % 11 = 0;
             CREATE TABLE saved AS TABLE generations; SET enable_indexscan = off; ANALYZE",
        )
        .unwrap();
    for (mode, one_transaction) in [("regular", "failed_generations"), ("emergency", "emergency")] {
        client.batch_execute(&format!("BEGIN; SELECT backlog_cleanup_{one_transaction}()")).unwrap();
        let expected = column::<i32>(&mut client, "SELECT id FROM generations ORDER BY id");
        client.batch_execute("ROLLBACK").unwrap();
        for workers in [1, 2, 4] {
            client
                .batch_execute(
                    "TRUNCATE generations, credit_transactions, backlog_cleanup.run CASCADE;
                     INSERT INTO generations TABLE saved",
                )
                .unwrap();
            let report = report(&mut client, &format!("mode => '{mode}', batch_size => 70, workers => {workers}"));
            assert_eq!(
                column::<i32>(&mut client, "SELECT id FROM generations ORDER BY id"),
                expected,
                "{mode}, {workers}"
            );
            let removed = balance(&mut client, 6000);
            let count = if mode == "regular" { "cleanedUpGenerations" } else { "removedCount" };
            assert_eq!(field(&report, count), removed.to_string());
            assert_eq!(field(&report, "state"), "completed");
            let batches = number(&mut client, "SELECT count(*) FROM credit_transactions WHERE amount BETWEEN 1 AND 70");
            assert_eq!(field(&report, "batches"), batches.to_string());
            assert!(
                batches >= removed / 70 && batches == number(&mut client, "SELECT count(*) FROM credit_transactions")
            );
            assert_eq!(field(&report, "workers"), if workers == 1 { "0".into() } else { workers.to_string() });
            assert_eq!(number(&mut client, "SELECT count(*) FROM backlog_cleanup.run"), 1);
        }
    }
    let again = report(&mut client, "mode => 'emergency'");
    assert_eq!(field(&again, "removedCount"), "0");
}

#[test]
fn it_is_refused_where_it_cannot_commit_and_leaves_nothing() {
    let cluster = Cluster::start("");
    let mut client = cluster.platform();
    fail_in_any_order(&mut client, 100);
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
        assert!(hint.starts_with("COMMIT; -- and CALL it again"), "{hint}");
        client.batch_execute("ROLLBACK").unwrap();
        assert_eq!(number(&mut client, "SELECT count(*) FROM pg_locks WHERE locktype = 'object'"), 0, "{call}");
        assert_eq!(balance(&mut client, 100), 0);
    }
    client.batch_execute("DO 'DECLARE r jsonb; BEGIN CALL backlog_cleanup_run(report => r); END'").unwrap();
    assert_eq!(balance(&mut client, 100), 60);
}

#[test]
fn while_it_pauses_it_shows_its_progress_holds_nothing_and_keeps_others_out() {
    let cluster = Cluster::start("default_transaction_isolation = 'repeatable read'\nmax_worker_processes = 16\n");
    let mut client = cluster.platform();
    fail_in_any_order(&mut client, 400);
    for workers in [1, 2] {
        let run = cluster.in_background(&format!(
            "CALL backlog_cleanup_run(mode => 'emergency', batch_size => 10, pause => '1 hour', workers => {workers})"
        ));
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
fn limits_are_exact_and_arguments_are_checked() {
    let cluster = Cluster::start("");
    let mut client = cluster.platform();
    fail_in_any_order(&mut client, 400);
    let stopped = report(&mut client, "mode => 'emergency', batch_size => 30, max_rows => 100");
    assert_eq!(field(&stopped, "state"), "stopped");
    assert_eq!(field(&stopped, "removedCount"), "100");
    assert_eq!(balance(&mut client, 400), 100);
    // Of 300 rows that are ranked in one pass, the first ten.
    client.batch_execute("UPDATE backlog_cleanup.policy SET keep = 0").unwrap();
    let stopped = report(&mut client, "max_rows => 10");
    assert_eq!(field(&stopped, "state"), "stopped");
    assert_eq!(field(&stopped, "cleanedUpGenerations"), "10");
    assert_eq!(balance(&mut client, 400), 110);

    let stopped =
        report(&mut client, "mode => 'emergency', batch_size => 30, max_duration => '1 s', pause => '1 hour'");
    assert_eq!(field(&stopped, "state"), "stopped");
    client.batch_execute("UPDATE backlog_cleanup.target SET throttle_query = 'SELECT 1'").unwrap();
    let stopped = report(&mut client, "mode => 'emergency', batch_size => 30, max_duration => '1 s'");
    assert_eq!(field(&stopped, "removedCount"), "0");
    assert_eq!(balance(&mut client, 400), 140);

    client.batch_execute("UPDATE backlog_cleanup.target SET throttle_query = NULL").unwrap();
    let completed = report(&mut client, "mode => 'emergency', batch_size => 1000, pause => '1 hour'");
    assert_eq!(field(&completed, "state"), "completed");

    let version = number(&mut client, "SELECT current_setting('server_version_num')");
    for (arguments, expected) in [
        ("target => NULL", "22004"),
        ("target => 'none'", "42704"),
        // Before PostgreSQL 17 no interval is infinite.
        ("max_duration => 'infinity'", if version < 170_000 { "22007" } else { "22023" }),
        ("mode => NULL", "22004"),
        ("mode => 'gentle'", "22023"),
        ("batch_size => 0", "22023"),
        ("batch_size => 1000001", "22023"),
        ("pause => '-1 s'", "22023"),
        ("pause => '2 days'", "22023"),
        ("max_duration => '0'", "22023"),
        ("max_rows => 0", "22023"),
        ("max_rows_per_second => 0", "22023"),
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
    create_index(&mut client, "generations");
    let pages = number(&mut client, "SELECT pg_relation_size('generations') / 8192");
    assert!(pages > 5 * 256, "several times shared_buffers");
    drop(client);
    for mode in ["regular", "emergency"] {
        // A session's counts are in the statistics at its end.
        let alone = "SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'client backend'";
        until(&cluster, alone);
        cluster.connect().batch_execute("UPDATE backlog_cleanup.policy SET keep = 700").unwrap();
        // An emergency run counts first: in the index, where vacuum has marked the pages.
        for statement in ["VACUUM generations", "SELECT pg_stat_reset()"] {
            cluster.connect().batch_execute(statement).unwrap();
            until(&cluster, alone);
        }
        report(&mut cluster.connect(), &format!("mode => '{mode}', batch_size => 1000"));
        until(&cluster, alone);
        let counts = "SELECT heap_blks_read, idx_blks_read FROM pg_statio_user_tables WHERE relname = 'generations'";
        let [heap, index] = numbers(&mut cluster.connect(), counts);
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
        fail_in_any_order(&mut cluster.platform(), 100);
        let (sender, notices) = mpsc::channel();
        let mut client = cluster.connect_with_notices(sender);
        let report = report(&mut client, "workers => 2, batch_size => 10");
        assert_eq!(field(&report, "workers"), got.to_string());
        let said: Vec<(String, String)> = notices.try_iter().collect();
        // A run takes half of the slots at most.
        let more = "ALTER SYSTEM SET max_worker_processes = 4; -- and restart the server".to_owned();
        assert_eq!(said, [(format!("run 1 got {got} of 2 background workers"), more)]);
        assert_eq!(balance(&mut client, 100), 60);
    }
}

#[test]
fn an_operator_needs_nothing_on_the_platforms_tables() {
    let cluster = Cluster::start("max_worker_processes = 16\n");
    let mut client = cluster.platform();
    fail_in_any_order(&mut client, 400);
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
fn a_stop_is_heard_within_two_seconds_in_a_pause_in_the_governor_and_by_workers() {
    for (workers, throttle) in [(1, "NULL"), (2, "NULL"), (1, "$$SELECT 'busy'$$"), (2, "$$SELECT 'busy'$$")] {
        let cluster = Cluster::start("max_worker_processes = 16\n");
        let mut client = cluster.platform();
        fail_in_any_order(&mut client, 200);
        client.batch_execute(&format!("UPDATE backlog_cleanup.target SET throttle_query = {throttle}")).unwrap();
        let call = format!("CALL backlog_cleanup_run(batch_size => 10, pause => '1 hour', workers => {workers})");
        let run = cluster.in_background(&call);
        until(&cluster, &format!("SELECT batches >= {workers} OR waiting_for = 'busy' FROM backlog_cleanup.progress"));
        let asked = std::time::Instant::now();
        assert!(value::<bool>(&mut client, "SELECT backlog_cleanup_stop(run_id) FROM backlog_cleanup.progress"));
        run.join().unwrap().1.unwrap();
        assert!(asked.elapsed().as_secs_f64() < 2.0, "{workers} workers, {throttle}: {:?}", asked.elapsed());
        let ended = "SELECT state || ' for ' || stop_requested_by FROM backlog_cleanup.run";
        assert_eq!(value::<String>(&mut client, ended), "stopped for postgres");
        balance(&mut client, 200);
    }
}

#[test]
fn a_stop_is_heard_within_two_seconds_in_the_midst_of_a_batch() {
    let cluster = Cluster::start("max_worker_processes = 16\n");
    let mut client = cluster.platform();
    client
        .batch_execute(
            "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(0.005); RETURN OLD; END';
             CREATE TRIGGER slow BEFORE DELETE ON generations FOR EACH ROW EXECUTE FUNCTION slow()",
        )
        .unwrap();
    let at_work = "SELECT count(*) FILTER (WHERE wait_event = 'PgSleep') = greatest(1, workers) FROM pg_stat_activity,
                   backlog_cleanup.run WHERE run.state = 'running' GROUP BY workers";
    for (run, (mode, workers)) in (1..).zip([("regular", 1), ("emergency", 1), ("regular", 2), ("regular", 1)]) {
        fail_in_any_order(&mut client, 20_000);
        if run == 4 {
            // Every other row is referenced by the one behind it.
            client
                .batch_execute(
                    "ALTER TABLE generations ADD retry_of int; UPDATE generations SET retry_of = other.id
                     FROM generations other WHERE other.id = generations.id - 1 AND generations.id % 2 = 0;
                     ALTER TABLE generations ADD FOREIGN KEY (retry_of) REFERENCES generations (id); CREATE INDEX ON generations (retry_of)",
                )
                .unwrap();
        }
        let rows = number(&mut client, "SELECT count(*) FROM generations");
        let size = if workers == 1 { 50_000 } else { 8_000 };
        let call = format!("CALL backlog_cleanup_run(mode => '{mode}', batch_size => {size}, workers => {workers})");
        let running = cluster.in_background(&call);
        until(&cluster, at_work);
        std::thread::sleep(std::time::Duration::from_millis(800));
        let asked = std::time::Instant::now();
        assert!(value::<bool>(&mut client, &format!("SELECT backlog_cleanup_stop({run})")));
        running.join().unwrap().1.unwrap();
        assert!(asked.elapsed().as_secs_f64() < 2.0, "{mode}, {workers} workers: {:?}", asked.elapsed());
        let stopped = format!(
            "SELECT state = 'stopped' AND stop_requested_by = 'postgres' AND batches = {workers} AND removed BETWEEN 100 AND 2000
                    AND (kept_back = 0 OR {run} = 4) AND skipped = 0 -- the newest stay, and hold what they reference
             FROM backlog_cleanup.run WHERE id = {run}"
        );
        assert!(value::<bool>(&mut client, &stopped), "{mode}, {workers} workers");
        let gone = rows - number(&mut client, "SELECT count(*) FROM generations");
        assert_eq!(number(&mut client, "SELECT removed FROM backlog_cleanup.run ORDER BY id DESC LIMIT 1"), gone);
        balance(&mut client, 20_000 * run);
    }
}

#[test]
fn a_batch_takes_rows_of_as_many_partitions_as_fit() {
    let cluster = Cluster::start("max_locks_per_transaction = 200\nmax_worker_processes = 16\n");
    let mut client = cluster.platform();
    client
        .batch_execute(
            "DO $$ BEGIN
                 ALTER TABLE generations RENAME TO old;
                 CREATE TABLE generations (LIKE old INCLUDING DEFAULTS) PARTITION BY LIST (recipe_id);
                 FOR recipe IN 1..200 LOOP
                     EXECUTE format('CREATE TABLE part_%s PARTITION OF generations FOR VALUES IN (%s)', recipe, recipe);
                 END LOOP;
             END $$;
             UPDATE backlog_cleanup.policy SET keep = 0",
        )
        .unwrap();
    for (mode, workers) in [("regular", 1), ("emergency", 1), ("regular", 4)] {
        (1..=200).for_each(|recipe| fail(&mut client, recipe, 10));
        let arguments = format!("mode => '{mode}', batch_size => 500, workers => {workers}");
        let report = report(&mut client, &arguments);
        assert_eq!(number(&mut client, "SELECT count(*) FROM generations"), 0, "{mode}");
        let batches: i64 = field(&report, "batches").parse().unwrap();
        assert!((4..4 + 2 * workers).contains(&batches), "{mode}, {workers} workers: {batches} batches");
    }
    // A part that is rolled back is tried alone, and stops only itself.
    (1..=200).for_each(|recipe| fail(&mut client, recipe, 10));
    genuine_errors(&mut client);
    client
        .batch_execute(
            "CREATE TRIGGER refuse BEFORE DELETE ON part_117 FOR EACH ROW EXECUTE FUNCTION meet('40001', 'not now')",
        )
        .unwrap();
    assert_eq!(refused(client.batch_execute("CALL backlog_cleanup_run(batch_size => 500)")).0, "40001");
    let left = "SELECT string_agg(DISTINCT tableoid::regclass::text, ',') LIKE '%part_117%' AND count(*) < 900 FROM generations";
    assert!(value::<bool>(&mut client, left));
}

#[test]
fn an_emergency_run_counts_what_there_is_before_it_removes_any() {
    let cluster = Cluster::start("");
    let mut client = cluster.platform();
    let details = |report: &Value| {
        let of = |recipe: &Value, name: &str| recipe[name].as_i64().unwrap();
        let recipes = report["cleanupDetails"].as_array().unwrap();
        assert!(
            recipes
                .iter()
                .all(|recipe| of(recipe, "failedCount") == of(recipe, "cleanedCount") + of(recipe, "keptCount"))
        );
        let sum = |name| recipes.iter().map(|recipe| of(recipe, name)).sum::<i64>();
        ["failedCount", "cleanedCount", "keptCount"].map(sum)
    };
    fail_in_any_order(&mut client, 4000);
    // One that ends early.
    let few = report(&mut client, "mode => 'emergency', batch_size => 30, max_rows => 1600");
    assert_eq!(details(&few), [4000, 1600, 2400]);
    assert_eq!(number(&mut client, "SELECT total_failed FROM backlog_cleanup.run"), 4000);
    assert_eq!(balance(&mut client, 4000), 1600);
    // After it, the first pages are empty: they are not what is done.
    let run =
        cluster.in_background("CALL backlog_cleanup_run(mode => 'emergency', batch_size => 240, pause => '1 hour')");
    until(
        &cluster,
        "SELECT removed = 240 AND abs(share_done - 0.1) < 0.001 FROM backlog_cleanup.progress WHERE state = 'running'",
    );
    client.batch_execute("SELECT pg_terminate_backend(pid) FROM backlog_cleanup.progress").unwrap();
    run.join().unwrap().1.unwrap_err();
    // Whoever finds it says why it has ended, before and after a run has marked it.
    let why = "SELECT error_message FROM backlog_cleanup.history WHERE run_id = 2 AND state = 'interrupted'";
    let ended = "the session that ran it has ended";
    until(&cluster, "SELECT state = 'interrupted' FROM backlog_cleanup.progress");
    let said = "SELECT backlog_cleanup_status_json() #>> '{lastRun,error}'";
    assert_eq!((value::<String>(&mut client, why), value::<String>(&mut client, said)), (ended.into(), ended.into()));
    // Rows that stay are counted in their recipes.
    cluster::veto(&mut client, "generations", "OLD.id % 10 = 0");
    let kept = report(&mut client, "mode => 'emergency', batch_size => 500");
    let stayed = number(&mut client, "SELECT count(*) FROM generations");
    assert_eq!(details(&kept), [2160, 2160 - stayed, stayed]);
    assert_eq!(field(&kept, "keptBackCount"), stayed.to_string());
    assert_eq!(value::<String>(&mut client, why), ended);
    assert_eq!(value::<String>(&mut client, "SELECT error_message FROM backlog_cleanup.run WHERE id = 2"), ended);
    balance(&mut client, 4000);
}
