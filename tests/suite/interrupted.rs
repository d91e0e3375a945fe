//! A run that is cut off, asked to stop, or finds the table changed after a pause.

use std::thread;
use std::time::{Duration, Instant};

use cluster::{
    Cluster, JOBS, fail, fail_in_any_order, last_state, number, numbers, refused, start_run, truth, until, until_true,
    value,
};

use crate::batched::{balance, report};
use crate::random::{Random, setting};

#[test]
fn wherever_it_is_interrupted_the_books_balance_and_the_next_run_finishes_the_job() {
    let cluster = Cluster::start("max_worker_processes = 16\n");
    fail_in_any_order(&mut cluster.platform(), 400);
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
            let run = cluster.in_background(&format!(
                "CALL backlog_cleanup_run(mode => 'emergency', batch_size => 10, pause => '1 hour', workers => {workers})"
            ));
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
                "kill" => assert!(cluster.kill(value(&mut client, pid))),
                "crash" => cluster.crash(),
                _ => {}
            }
            let (mut same, done) = run.join().unwrap();
            let failure = done.expect_err("interrupted");
            until(&cluster, "SELECT state = 'interrupted' AND pid IS NULL FROM backlog_cleanup.progress");
            let mut client = cluster.connect();
            assert_eq!(last_state(&mut client).as_deref(), Some("interrupted"), "{case}");
            let removed = balance(&mut client, 400);
            match interruption {
                "timeout" => (),
                // The server starts again, and its last batches have not waited for the disk.
                "kill" | "crash" => assert!(removed <= 10 * workers, "{case}: {removed}"),
                _ => assert_eq!(removed, 10 * workers, "{case}"),
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
fn a_run_whose_workers_are_at_work_ends_at_once_and_is_summed_up() {
    let cluster = Cluster::start("max_worker_processes = 16\n");
    cluster.connect().batch_execute(JOBS).unwrap();
    for how in ["cancel", "timeout"] {
        let (told, notices) = std::sync::mpsc::channel();
        let mut session = cluster.connect_with_notices(told);
        session
            .batch_execute("TRUNCATE job, ledger, backlog_cleanup.run CASCADE; INSERT INTO job (id) SELECT generate_series(1, 60000)")
            .unwrap();
        if how == "timeout" {
            session.batch_execute("SET statement_timeout = '2 s'").unwrap();
        }
        let run = thread::spawn(move || {
            let done = session.batch_execute("CALL backlog_cleanup_run('t', batch_size => 50, workers => 2)");
            (session, done, Instant::now())
        });
        let mut cancelled = Instant::now() + Duration::from_secs(2);
        if how == "cancel" {
            until(&cluster, "SELECT count(*) > 9 FROM backlog_cleanup.run_batch");
            cluster.connect().batch_execute("SELECT pg_cancel_backend(pid) FROM backlog_cleanup.progress").unwrap();
            cancelled = Instant::now();
        }
        let (mut session, done, ended) = run.join().unwrap();
        assert_eq!(refused(done).0, "57014", "{how}");
        assert!(ended.saturating_duration_since(cancelled) < Duration::from_secs(2), "{how}");
        assert_eq!(notices.try_iter().collect::<Vec<_>>(), [], "{how}");
        let books = "
            SELECT r.removed, (SELECT 60000 - count(*) FROM job), (SELECT sum(amount) FROM ledger),
                   (SELECT sum(cleaned_count)::bigint FROM backlog_cleanup.run_recipe WHERE run_id = r.id),
                   (SELECT count(*) FROM backlog_cleanup.run_batch)
            FROM backlog_cleanup.run r WHERE state = 'interrupted' AND error_sqlstate = '57014'";
        let [removed, gone, booked, summed_up, working_state] = numbers(&mut session, books);
        assert_eq!((gone, booked, summed_up, working_state), (removed, removed, removed, 0), "{how}");
        session.batch_execute("RESET statement_timeout").unwrap();
        session.batch_execute("CALL backlog_cleanup_run('t', max_rows => 1)").unwrap();
    }
}

#[test]
fn whenever_a_run_at_full_speed_is_cancelled_the_history_says_so() {
    let cluster = Cluster::start("");
    let mut client = cluster.platform();
    fail_in_any_order(&mut client, 20_000);
    let mut random = Random(setting("SEED", 7));
    for round in 1..=60 {
        let run = cluster.in_background("CALL backlog_cleanup_run(batch_size => 3, pause => '0')");
        until_true(
            &mut client,
            "SELECT count(*) = 1 FROM backlog_cleanup.progress WHERE state = 'running' AND batches > 0",
        );
        let pid: i32 = value(&mut client, "SELECT pid FROM backlog_cleanup.progress");
        thread::sleep(Duration::from_micros(random.below(20_000)));
        client.execute("SELECT pg_cancel_backend($1)", &[&pid]).unwrap();
        assert_eq!(refused(run.join().unwrap().1).0, "57014", "round {round}");
        let last = "SELECT concat_ws(' ', state, error_sqlstate) FROM backlog_cleanup.run ORDER BY id DESC LIMIT 1";
        assert_eq!(value::<String>(&mut client, last), "interrupted 57014", "round {round}");
        balance(&mut client, 20_000);
    }
}

#[test]
fn an_early_run_that_is_cancelled_while_it_waits_is_in_the_history() {
    let cluster = Cluster::start("");
    let mut client = cluster.platform();
    fail(&mut client, 1, 60);
    client
        .batch_execute(
            "UPDATE backlog_cleanup.target SET adaptive = true, adaptive_min_rows = 10, batch_size = 1, pause = '60 s';
             SELECT backlog_cleanup_tick()",
        )
        .unwrap();
    until_true(&mut client, "SELECT coalesce(sum(removed), 0) > 0 FROM backlog_cleanup.run");
    let early = "FROM pg_stat_activity WHERE backend_type = 'backlog_cleanup early run'";
    client.batch_execute(&format!("SELECT pg_cancel_backend(pid) {early}")).unwrap();
    until_true(&mut client, &format!("SELECT count(*) = 0 {early}"));
    let last = "SELECT concat_ws(' ', state, error_sqlstate) FROM backlog_cleanup.run";
    assert_eq!(value::<String>(&mut client, last), "interrupted 57014");
    balance(&mut client, 60);
}

#[test]
fn what_changes_while_it_pauses_is_looked_at_again() {
    let cluster = Cluster::start("");
    let mut client = cluster.platform();
    client
        .batch_execute(
            "CREATE FUNCTION load() RETURNS text LANGUAGE sql AS 'SELECT NULL';
             UPDATE backlog_cleanup.target SET throttle_query = 'SELECT public.load()';
             UPDATE backlog_cleanup.policy SET keep = 0",
        )
        .unwrap();
    // The change, the rows that the run leaves, what becomes of it, and the rows that the next one leaves.
    for (change, left, state, settled) in [
        ("UPDATE generations SET status = 'pending' WHERE id % 2 = 0", 25, "completed", 25),
        ("UPDATE generations SET updated_at = now() AT TIME ZONE 'UTC' WHERE id % 2 = 0", 25, "completed", 25),
        ("TRUNCATE generations", 0, "completed", 0),
        ("ALTER TABLE generations ALTER id TYPE text USING id::text", 50, "55000", 0),
        ("ALTER TABLE generations RENAME TO elsewhere", 50, "42P01", 0),
        ("UPDATE backlog_cleanup.target SET failure_type_column = 'status'", 50, "55000", 0),
    ] {
        client.batch_execute("TRUNCATE generations RESTART IDENTITY").unwrap();
        fail_in_any_order(&mut client, 100);
        let run = cluster.in_background("CALL backlog_cleanup_run(batch_size => 50, pause => '1 s')");
        until(&cluster, "SELECT removed = 50 FROM backlog_cleanup.progress");
        client.batch_execute(change).unwrap();
        let (_, done) = run.join().unwrap();
        let became = done.map_or_else(|failure| refused(Err(failure)).0, |()| "completed".to_owned());
        assert_eq!(became, state, "{change}");
        if change.contains("RENAME") {
            client.batch_execute("ALTER TABLE elsewhere RENAME TO generations").unwrap();
        }
        assert_eq!(number(&mut client, "SELECT count(*) FROM generations"), left, "{change}");
        client.batch_execute("CALL backlog_cleanup_run()").unwrap();
        assert_eq!(number(&mut client, "SELECT count(*) FROM generations"), settled, "{change}");
        if change.contains("TYPE") {
            client.batch_execute("ALTER TABLE generations ALTER id TYPE int USING id::int").unwrap();
        }
    }
}

#[test]
fn a_run_that_is_asked_to_stop_ends_between_two_batches_and_the_next_finishes_the_job() {
    let cluster = Cluster::start("max_worker_processes = 16\n");
    let mut client = cluster.platform();
    fail_in_any_order(&mut client, 400);
    for workers in [1, 2] {
        let call = format!(
            "CALL backlog_cleanup_run(mode => 'emergency', batch_size => 5, pause => '0.2 s', workers => {workers})"
        );
        let run = cluster.in_background(&call);
        until(&cluster, "SELECT batches > 0 FROM backlog_cleanup.progress");
        assert!(truth(&mut client, "SELECT backlog_cleanup_stop(run_id) FROM backlog_cleanup.progress"));
        run.join().unwrap().1.expect("it ends as a run does");
        let last = "SELECT state = 'stopped' AND finished_at IS NOT NULL AND removed BETWEEN 5 AND 350
                           AND stop_requested_by = 'postgres'
                    FROM backlog_cleanup.run ORDER BY id DESC LIMIT 1";
        assert!(truth(&mut client, last), "{workers} workers");
    }
    assert!(!truth(&mut client, "SELECT backlog_cleanup_stop(max(id)) FROM backlog_cleanup.run"));
    assert_eq!(refused(client.batch_execute("SELECT backlog_cleanup_stop(0)")).0, "42704");
    assert_eq!(refused(client.batch_execute("SELECT backlog_cleanup_stop(NULL)")).0, "22004");
    report(&mut client, "mode => 'emergency'");
    assert_eq!(balance(&mut client, 400), 400);
}

#[test]
fn batches_that_a_savepoint_undoes_are_done_again() {
    let cluster = Cluster::start("");
    let mut client = cluster.platform();
    fail(&mut client, 1, 200);
    client.batch_execute(&start_run(30)).unwrap();
    let next = "SELECT backlog_cleanup.next_batch(max(id)) IS NULL FROM backlog_cleanup.run";
    client.batch_execute(&format!("BEGIN; SAVEPOINT here; {next}; {next}; {next}; ROLLBACK TO here; COMMIT")).unwrap();
    while !truth(&mut client, next) {}
    client.batch_execute("SELECT backlog_cleanup.finish_run(max(id)) FROM backlog_cleanup.run").unwrap();
    assert_eq!(number(&mut client, "SELECT count(*) FROM generations"), 10);
}

#[test]
fn a_stop_in_an_open_transaction_delays_no_other_run() {
    let cluster = Cluster::start("");
    let mut client = cluster.platform();
    fail_in_any_order(&mut client, 100);
    let mut gone = cluster.connect();
    gone.batch_execute(&start_run(4)).unwrap();
    drop(gone);
    until(&cluster, "SELECT NOT EXISTS (SELECT FROM pg_locks WHERE classid = 'backlog_cleanup.target'::regclass)");
    let mut stops = cluster.connect();
    stops.batch_execute("BEGIN; SELECT backlog_cleanup_stop(max(id)) FROM backlog_cleanup.run").unwrap();
    client.batch_execute("SET statement_timeout = '10 s'; SELECT backlog_cleanup_emergency()").unwrap();
    stops.batch_execute("COMMIT").unwrap();
    client.batch_execute("SELECT backlog_cleanup_emergency()").unwrap();
    assert_eq!(number(&mut client, "SELECT count(*) FROM backlog_cleanup.run WHERE state = 'running'"), 0);
}

#[test]
fn a_session_that_ends_with_a_run_open_gives_its_target_back() {
    let cluster = Cluster::start("");
    fail_in_any_order(&mut cluster.platform(), 100);
    for ending in ["disconnect", "terminate"] {
        let mut client = cluster.connect();
        let pid: i32 = value(&mut client, "SELECT pg_backend_pid()");
        client.batch_execute(&start_run(4)).unwrap();
        if ending == "terminate" {
            cluster.connect().batch_execute(&format!("SELECT pg_terminate_backend({pid})")).unwrap();
        }
        drop(client);
        until(&cluster, &format!("SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE pid = {pid})"));
        let held = "SELECT EXISTS (SELECT FROM pg_locks WHERE classid = 'backlog_cleanup.target'::regclass)";
        assert!(!truth(&mut cluster.connect(), held), "{ending}");
        cluster.connect().batch_execute("SELECT backlog_cleanup_failed_generations()").unwrap();
    }
}

#[test]
fn a_run_in_one_transaction_that_is_cancelled_while_it_waits_changes_nothing() {
    let cluster = Cluster::start("");
    let mut client = cluster.platform();
    fail(&mut client, 1, 15);
    client.batch_execute("UPDATE backlog_cleanup.target SET lock_timeout = '0'").unwrap();
    client.batch_execute("BEGIN; UPDATE generations SET status = 'pending' WHERE id = 1").unwrap();
    let run = cluster.in_background("SELECT backlog_cleanup_emergency()");
    until(&cluster, "SELECT count(pg_cancel_backend(pid)) > 0 FROM pg_locks WHERE NOT granted");
    assert_eq!(refused(run.join().unwrap().1).0, "57014");
    client.batch_execute("COMMIT").unwrap();
    assert_eq!(balance(&mut client, 15), 0);
}

#[test]
fn a_run_in_one_transaction_is_all_there_or_not_at_all_after_a_crash() {
    let cluster = Cluster::start("fsync = on\n");
    let mut client = cluster.platform();
    fail(&mut client, 1, 15);
    client.batch_execute("BEGIN; SELECT backlog_cleanup_emergency()").unwrap();
    cluster.crash();
    let mut client = cluster.connect();
    assert_eq!(balance(&mut client, 15), 0);
    client.batch_execute("SELECT backlog_cleanup_failed_generations()").unwrap();
    cluster.crash();
    assert_eq!(balance(&mut cluster.connect(), 15), 5);
}
