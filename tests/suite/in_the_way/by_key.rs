//! Rows of another server.

use cluster::{Cluster, column, number};
use postgres::Client;

use super::{JOB, RUNS, all, run};

/// The target `t` as a foreign table of `cluster`, whose rows are those of `job` on the server `remote`.
fn far_away(cluster: &Cluster, remote: &Cluster) -> (Client, Client) {
    let (mut far, mut client) = (remote.connect(), cluster.platform());
    far.batch_execute(JOB.split("INSERT INTO backlog_cleanup.target").next().unwrap()).unwrap();
    let (columns, target) = JOB.split_once("INSERT INTO job").unwrap();
    let columns = columns.replace("CREATE TABLE", "CREATE FOREIGN TABLE").replace(" PRIMARY KEY", "");
    let target = &target[target.find("INSERT INTO backlog_cleanup.target").unwrap()..];
    client
        .batch_execute(&format!(
            "{} {} SERVER remote; {target}",
            remote.as_server("remote", "postgres"),
            columns.trim_end().trim_end_matches(';')
        ))
        .unwrap();
    far.batch_execute("CREATE TABLE saved AS TABLE job").unwrap();
    (far, client)
}

#[test]
fn a_row_of_a_foreign_table_is_kept_back_alone() {
    let (remote, cluster) = (Cluster::start(""), Cluster::start("max_worker_processes = 16\n"));
    let (mut far, mut client) = far_away(&cluster, &remote);
    far.batch_execute("CREATE TABLE holding (job int REFERENCES job)").unwrap();
    client.batch_execute("SELECT FROM backlog_cleanup_set_policy('b', target => 't')").unwrap();
    for call in RUNS {
        far.batch_execute("TRUNCATE job CASCADE; INSERT INTO job TABLE saved; INSERT INTO holding VALUES (40), (41)")
            .unwrap();
        let all = if call.contains("emergency") { 100 } else { 90 };
        let (removed, kept_back, sqlstate, _, row) = run(&mut client, call);
        assert_eq!((removed, kept_back), (all - 2, 2), "{call}");
        assert_eq!((sqlstate.as_deref(), row.as_deref()), (Some("23503"), Some("40")), "{call}");
        let kept = "SELECT sum(failed_count - cleaned_count)::bigint FROM backlog_cleanup.run_recipe
                    WHERE run_id = (SELECT max(id) FROM backlog_cleanup.run)";
        assert_eq!(number(&mut client, kept), 100 - removed, "{call}");
        let of_policies = "SELECT sum(kept_back)::bigint FROM backlog_cleanup.run_policy
                           WHERE run_id = (SELECT max(id) FROM backlog_cleanup.run)";
        assert_eq!(number(&mut client, of_policies), 2, "{call}");
    }
    let said = "SELECT status FROM backlog_cleanup_doctor('t')
                WHERE check_name = 'triggers' AND detail LIKE '%of the server behind public.job are not seen%'";
    assert_eq!(column::<String>(&mut client, said), ["ok"]);
}

#[test]
fn a_row_that_is_locked_on_another_server_is_waited_for_no_longer_than_the_doctors_fix_says() {
    let (remote, cluster) = (Cluster::start(""), Cluster::start("max_worker_processes = 16\n"));
    let (mut far, mut client) = far_away(&cluster, &remote);
    client.batch_execute("UPDATE backlog_cleanup.target SET lock_timeout = '300 ms' WHERE name = 't'").unwrap();
    let found =
        "SELECT status || ' ' || coalesce(fix, '') FROM backlog_cleanup_doctor('t') WHERE check_name = 'timeouts'";
    let fix = "ALTER SERVER remote OPTIONS (ADD options '-c lock_timeout=300ms')";
    assert_eq!(column::<String>(&mut client, found), [format!("warn {fix}")]);
    for (options, said) in [
        ("-c work_mem=8MB", "warn "),
        ("-c lock_timeout=0", "warn "),
        ("-c lock_timeout=5s --lock-timeout=0ms -c deadlock_timeout=1s", "warn "),
        ("-clock_timeout=0 -c lock_timeout=5s", "ok "),
    ] {
        client.batch_execute(&format!("BEGIN; ALTER SERVER remote OPTIONS (ADD options '{options}')")).unwrap();
        assert_eq!(column::<String>(&mut client, found), [said], "{options}");
        client.batch_execute("ROLLBACK").unwrap();
    }
    client.batch_execute(fix).unwrap();
    assert_eq!(column::<String>(&mut client, found), ["ok "]);
    far.batch_execute("BEGIN; SELECT FROM job WHERE id = 50 FOR UPDATE").unwrap();
    client.batch_execute("SET statement_timeout = '20s'; SELECT backlog_cleanup_failed_generations('t')").unwrap();
    assert_eq!(number(&mut client, "SELECT removed FROM backlog_cleanup.run"), 89);
    far.batch_execute("ROLLBACK").unwrap();
}

#[test]
fn a_run_by_key_ends_where_the_other_server_writes_rows_again() {
    let (remote, cluster) = (Cluster::start(""), Cluster::start("max_worker_processes = 16\n"));
    let (mut far, mut client) = far_away(&cluster, &remote);
    far.batch_execute(
        "CREATE SEQUENCE again START 1000;
         CREATE FUNCTION again() RETURNS trigger LANGUAGE plpgsql AS $$
             BEGIN INSERT INTO public.job SELECT nextval('public.again'), (OLD).owner, (OLD).queue, (OLD).state, (OLD).at; RETURN NULL; END $$;
         CREATE TRIGGER again AFTER DELETE ON job FOR EACH ROW EXECUTE FUNCTION again();
         CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RAISE EXCEPTION 'no'; END$$;
         CREATE TRIGGER refuse BEFORE DELETE ON job FOR EACH ROW WHEN (OLD.id = 40) EXECUTE FUNCTION refuse()",
    )
    .unwrap();
    for call in RUNS {
        far.batch_execute("TRUNCATE job; INSERT INTO job TABLE saved; ALTER SEQUENCE again RESTART").unwrap();
        client.batch_execute("TRUNCATE credit_transactions").unwrap();
        client.batch_execute(call).unwrap();
        assert!(number(&mut client, "SELECT sum(amount) FROM credit_transactions") <= all(call), "{call}");
        assert_eq!(number(&mut far, "SELECT count(*) FROM job WHERE id < 1000"), 100 - all(call) + 1, "{call}");
    }
}

#[test]
fn a_row_that_a_trigger_of_the_other_server_changes_instead_is_kept_back() {
    let (remote, cluster) = (Cluster::start(""), Cluster::start("max_worker_processes = 16\n"));
    let (mut far, mut client) = far_away(&cluster, &remote);
    far.batch_execute(
        "CREATE FUNCTION soft() RETURNS trigger LANGUAGE plpgsql AS
             $$BEGIN UPDATE public.job SET state = 'deleted' WHERE id = OLD.id; RETURN NULL; END$$;
         CREATE TRIGGER soft BEFORE DELETE ON job FOR EACH ROW WHEN (OLD.id % 3 = 0) EXECUTE FUNCTION soft()",
    )
    .unwrap();
    for call in RUNS {
        far.batch_execute("TRUNCATE job; INSERT INTO job TABLE saved").unwrap();
        let (removed, kept_back, _, message, _) = run(&mut client, call);
        let changed = all(call) / 3;
        assert_eq!((removed, kept_back), (all(call) - changed, changed), "{call}: {message:?}");
    }
}

#[test]
fn rows_by_key_are_given_up_once() {
    let (remote, cluster) = (Cluster::start(""), Cluster::start("max_worker_processes = 16\n"));
    let (mut far, mut client) = far_away(&cluster, &remote);
    far.batch_execute(
        "INSERT INTO job (id, at) SELECT i, now() - interval '9 days' FROM generate_series(101, 4000) i;
         CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RAISE EXCEPTION 'no'; END$$;
         CREATE TRIGGER refuse BEFORE DELETE ON job FOR EACH ROW WHEN (OLD.id > 50) EXECUTE FUNCTION refuse()",
    )
    .unwrap();
    for call in [RUNS[0], RUNS[3]] {
        let (removed, kept_back, ..) = run(&mut client, call);
        let given_up = number(&mut client, "SELECT given_up FROM backlog_cleanup.run ORDER BY id DESC LIMIT 1");
        assert!(
            given_up > 0 && given_up < kept_back && removed + kept_back <= 4000,
            "{call}: {removed} {kept_back} {given_up}"
        );
    }
}

#[test]
fn a_statement_by_key_removes_a_bounded_number_of_rows() {
    let (remote, cluster) = (Cluster::start(""), Cluster::start(""));
    let (mut far, mut client) = far_away(&cluster, &remote);
    far.batch_execute(
        "INSERT INTO job (id, at) SELECT i, now() - interval '9 days' FROM generate_series(101, 250000) i;
         DROP TABLE saved; CREATE TABLE saved AS TABLE job; CREATE TABLE statement (rows bigint);
         CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$
             BEGIN INSERT INTO public.statement SELECT count(*) FROM gone HAVING count(*) > 0; RETURN NULL; END $$;
         CREATE TRIGGER note AFTER DELETE ON job REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION note()",
    )
    .unwrap();
    for call in [RUNS[0], RUNS[1], "CALL backlog_cleanup_run('t', batch_size => 200000)"] {
        far.batch_execute("TRUNCATE job, statement; INSERT INTO job TABLE saved; ANALYZE job").unwrap();
        let all = if call.contains("emergency") { 250_000 } else { 249_990 };
        assert_eq!(run(&mut client, call).0, all, "{call}");
        let statements = column::<i64>(&mut far, "SELECT rows FROM statement");
        assert_eq!(statements, [100_000, 100_000, all - 200_000], "{call}");
    }
}

#[test]
fn rows_of_a_recipe_whose_id_is_shortened_go_by_key_too() {
    let (remote, cluster) = (Cluster::start(""), Cluster::start("max_worker_processes = 16\n"));
    let (mut far, mut client) = far_away(&cluster, &remote);
    for call in RUNS {
        far.batch_execute(
            "TRUNCATE job; INSERT INTO job TABLE saved; UPDATE job SET queue = repeat('a', 2000) || id % 2",
        )
        .unwrap();
        let all = if call.contains("emergency") { 100 } else { 80 };
        assert_eq!(run(&mut client, call).0, all, "{call}");
        let each = "SELECT string_agg(DISTINCT cleaned_count::text, ', ') FROM backlog_cleanup.run_recipe
                    WHERE run_id = (SELECT max(id) FROM backlog_cleanup.run)";
        assert_eq!(column::<String>(&mut client, each), [(all / 2).to_string()], "{call}");
    }
}

#[test]
fn of_rows_by_key_whose_id_has_two_columns_only_those_that_cannot_go_stay() {
    let (remote, cluster) = (Cluster::start(""), Cluster::start("max_worker_processes = 16\n"));
    let (mut far, mut client) = far_away(&cluster, &remote);
    // All of one time: the ids decide, and another order of their columns would keep other rows.
    far.batch_execute(
        "UPDATE job SET queue = 100 - id / 10, at = '2020-01-01';
         TRUNCATE saved; INSERT INTO saved TABLE job; CREATE TABLE holding (job int REFERENCES job)",
    )
    .unwrap();
    client
        .batch_execute(
            "UPDATE backlog_cleanup.target SET recipe_column = NULL, id_columns = '{queue,id}' WHERE name = 't'",
        )
        .unwrap();
    for call in RUNS {
        far.batch_execute("TRUNCATE job CASCADE; INSERT INTO job TABLE saved; INSERT INTO holding VALUES (40), (41)")
            .unwrap();
        let (removed, kept_back, sqlstate, _, row) = run(&mut client, call);
        assert_eq!((removed, kept_back), (all(call) - 2, 2), "{call}");
        let first = r#"{"id": 40, "queue": "96"}"#;
        assert_eq!((sqlstate.as_deref(), row.as_deref()), (Some("23503"), Some(first)), "{call}");
        let newest = if call.contains("emergency") { 0..0 } else { 10..20 };
        let left: Vec<i32> = newest.chain([40, 41]).collect();
        assert_eq!(column::<i32>(&mut far, "SELECT id FROM job ORDER BY id"), left, "{call}");
    }
}

#[test]
fn a_row_of_a_foreign_table_that_takes_rows_of_another_one_along_stays() {
    let cluster = Cluster::start("");
    let mut client = cluster.connect();
    client
        .batch_execute(&format!(
            "CREATE EXTENSION backlog_cleanup; {}
             CREATE TABLE remote (id int PRIMARY KEY, owner text, queue text, state text, at timestamptz, error text);
             CREATE TABLE job (id int, owner text, queue text, state text, at timestamptz, error text) PARTITION BY LIST (queue);
             CREATE TABLE here PARTITION OF job FOR VALUES IN ('b');
             CREATE FOREIGN TABLE far PARTITION OF job FOR VALUES IN ('a') SERVER loop OPTIONS (table_name 'remote');
             CREATE FUNCTION take() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN DELETE FROM here WHERE id = 1000; RETURN OLD; END';
             CREATE TRIGGER take BEFORE DELETE ON far FOR EACH ROW WHEN (OLD.id = 3) EXECUTE FUNCTION take();
             INSERT INTO backlog_cleanup.target (name, generations_table, recipes_table, users_table, ledger_table, account_column,
                                                 recipe_column, status_column, failed_at_column, failure_type_column, account)
             VALUES ('t', 'public.job', NULL, NULL, NULL, 'owner', 'queue', 'state', 'at', 'error', 'w')",
            cluster.as_server("loop", "postgres")
        ))
        .unwrap();
    for (call, rows) in [
        ("SELECT backlog_cleanup_emergency('t')", 20),
        ("SELECT backlog_cleanup_failed_generations('t')", 10),
        ("CALL backlog_cleanup_run('t', batch_size => 4)", 10),
    ] {
        client
            .batch_execute(
                "TRUNCATE remote, here; INSERT INTO here VALUES (1000, 'w', 'b', 'completed', now() - interval '9 days');
                 INSERT INTO remote SELECT i, 'w', 'a', 'failed', now() - interval '9 days' + i * interval '1 minute'
                 FROM generate_series(1, 20) i",
            )
            .unwrap();
        client.batch_execute(call).unwrap();
        let there = "SELECT count(*) FROM job WHERE id IN (3, 1000)";
        assert_eq!(number(&mut client, there), 2, "{call}");
        let run = "SELECT concat_ws(' ', removed, kept_back, kept_back_sqlstate, kept_back_row)
                   FROM backlog_cleanup.run ORDER BY id DESC LIMIT 1";
        assert_eq!(column::<String>(&mut client, run), [format!("{} 1 27000 3", rows - 1)], "{call}");
    }
}
