//! Locks that a level may not hold, or not for long.

use cluster::{number as count, refused, start_run};

use super::{database, found};

#[test]
fn an_admin_that_locks_the_targets_does_not_stop_a_run_for_ever() {
    let (cluster, mut client) = database("locked_targets");
    let mut admin = cluster.connect_to("locked_targets");
    admin.batch_execute("SET ROLE adm; BEGIN; LOCK TABLE backlog_cleanup.target").unwrap();
    client.batch_execute("SET statement_timeout = '20 s'").unwrap();
    for call in ["SELECT backlog_cleanup_emergency('t')", "SELECT * FROM backlog_cleanup_status('t')"] {
        assert_eq!(refused(client.batch_execute(call)).0, "55P03", "{call}");
    }
}

#[test]
fn a_transaction_that_has_run_a_cleanup_is_not_prepared() {
    let (_cluster, mut client) = database("prepared");
    for call in ["SELECT backlog_cleanup_emergency('t')", "SELECT backlog_cleanup_failed_generations('t')"] {
        client.batch_execute(&format!("SET ROLE op; BEGIN; {call}")).unwrap();
        let (sqlstate, message, _) = refused(client.batch_execute("PREPARE TRANSACTION 'mine'"));
        assert_eq!(
            (sqlstate.as_str(), message.as_str()),
            ("0A000", "cannot PREPARE a transaction that has run a cleanup")
        );
        client.batch_execute("ROLLBACK; RESET ROLE").unwrap();
    }
    // Nor one with a part of a batched run, or that stops a run.
    for part in ["next_batch(max(id))", "finish_run(max(id))", "backlog_cleanup_stop(max(id))"] {
        let part = if part.contains("stop") { part.to_owned() } else { format!("backlog_cleanup.{part}") };
        client.batch_execute(&start_run(10).replace("generations", "t")).unwrap();
        client.batch_execute(&format!("BEGIN; SELECT {part} FROM backlog_cleanup.run")).unwrap();
        assert_eq!(refused(client.batch_execute("PREPARE TRANSACTION 'mine'")).0, "0A000", "{part}");
        // Its session's lock is released by the error.
        client.batch_execute("ROLLBACK").unwrap();
    }
    // One that only looked can be prepared, and holds no table.
    for statement in ["BEGIN", "SELECT backlog_cleanup_emergency('t', dry_run => true)", "PREPARE TRANSACTION 'looked'"]
    {
        client.batch_execute(statement).unwrap();
    }
    assert_eq!(count(&mut client, "SELECT count(*) FROM pg_locks WHERE relation = 'job'::regclass"), 0);
    client.batch_execute("ROLLBACK PREPARED 'looked'").unwrap();
    client.batch_execute("SELECT backlog_cleanup_emergency('t')").unwrap();
    assert_eq!(count(&mut client, "SELECT count(*) FROM job"), 0);
    assert_eq!(found(&mut client, "transactions").0, "ok");
}

#[test]
fn a_restore_waits_for_no_advisory_lock() {
    let (cluster, mut client) = database("stalled");
    let mut stranger = cluster.connect_to("stalled");
    stranger
        .batch_execute("SET ROLE mon; SELECT pg_advisory_lock('backlog_cleanup.target'::regclass::oid::bigint)")
        .unwrap();
    client
        .batch_execute(
            "SET lock_timeout = '5 s'; SET xmloption = content; SET check_function_bodies = off;
             INSERT INTO backlog_cleanup.target (name, generations_table) VALUES ('restored', 'public.not_there');
             INSERT INTO backlog_cleanup.policy (target, keep) VALUES ('restored', 3)",
        )
        .unwrap();
}

#[test]
fn what_only_looks_holds_no_table_past_its_statement() {
    let (_cluster, mut client) = database("let_go");
    client
        .batch_execute(
            "CREATE TABLE users (id text); INSERT INTO users VALUES ('w');
             CREATE TABLE recipes (id text, name text);
             UPDATE backlog_cleanup.target SET ledger_table = 'public.ledger', users_table = 'public.users',
                    recipes_table = 'public.recipes' WHERE name = 't';
             SELECT backlog_cleanup_failed_generations('t')",
        )
        .unwrap();
    client.batch_execute("SET ROLE mon; BEGIN").unwrap();
    for call in [
        "backlog_cleanup_status('t')",
        "backlog_cleanup_status_json('t')",
        "backlog_cleanup_failures('t')",
        "backlog_cleanup_books('t')",
        "backlog_cleanup_doctor('t')",
        "backlog_cleanup_run_details((SELECT max(id) FROM backlog_cleanup.run))",
        "backlog_cleanup_index_sql('t')",
    ] {
        client.batch_execute(&format!("SELECT * FROM {call}")).unwrap();
        let held = "SELECT coalesce(string_agg(DISTINCT relation::regclass::text, ', '), '') FROM pg_locks
                    JOIN pg_class c ON c.oid = relation
                    WHERE pid = pg_backend_pid() AND c.relnamespace = 'public'::regnamespace";
        assert_eq!(client.query_one(held, &[]).unwrap().get::<_, String>(0), "", "{call}");
    }
    // What an admin writes is checked, and let go.
    client.batch_execute("ROLLBACK; RESET ROLE; SET ROLE adm; BEGIN").unwrap();
    client.batch_execute("UPDATE backlog_cleanup.target SET batch_size = 9 WHERE name = 't'").unwrap();
    let held = "SELECT count(*) FROM pg_locks WHERE pid = pg_backend_pid() AND relation = 'public.job'::regclass";
    assert_eq!(count(&mut client, held), 0);
}
