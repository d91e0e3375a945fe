use cluster::{Cluster, balance, fail, number, refused, start_run, truth, until, value};
use postgres::Client;

const NEXT: &str = "SELECT backlog_cleanup.next_batch(max(id)) IS NULL FROM backlog_cleanup.run";
const FINISH: &str = "SELECT backlog_cleanup.finish_run(max(id)) FROM backlog_cleanup.run";
const REPEATABLE: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1 FROM pg_class LIMIT 1";

/// A table with two children of a hundred old failures each, and its target `root`.
const ROOT: &str = "
    CREATE TABLE root (id int, user_id text, recipe_id int, status text, updated_at timestamptz, failure_reason text);
    CREATE TABLE leaf1 () INHERITS (root);
    CREATE TABLE leaf2 () INHERITS (root);
    INSERT INTO leaf1 SELECT i, 'system_backlog', 1, 'failed', now() - interval '2 days', '' FROM generate_series(1, 100) i;
    INSERT INTO leaf2 SELECT i, 'system_backlog', 2, 'failed', now() - interval '2 days', '' FROM generate_series(1, 100) i;
    INSERT INTO backlog_cleanup.target (name, generations_table, recipes_table) VALUES ('root', 'public.root', NULL)";

const CALLS: [&str; 2] =
    ["SELECT backlog_cleanup_emergency('root')", "SELECT backlog_cleanup_failed_generations('root')"];

/// A batched run on `root` by hand.
fn start_on_root(mode: &str) -> String {
    start_run(30).replace("generations", "root").replace("regular", mode)
}

fn leaf2(client: &mut Client) -> i64 {
    number(client, "SELECT count(*) FROM leaf2")
}

fn finish(client: &mut Client) {
    while !truth(client, NEXT) {}
    client.batch_execute(FINISH).unwrap();
}

#[test]
fn rows_of_a_table_that_has_left_the_target_stay_whatever_the_caller_has_seen() {
    let cluster = Cluster::start("");
    let mut other = cluster.platform();
    other.batch_execute(ROOT).unwrap();
    for call in CALLS {
        let mut run = cluster.connect();
        run.batch_execute(REPEATABLE).unwrap();
        other.batch_execute("ALTER TABLE leaf2 NO INHERIT root").unwrap();
        assert_eq!(refused(run.batch_execute(call)).0, "40001", "{call}");
        run.batch_execute("ROLLBACK").unwrap();
        assert_eq!(number(&mut other, "SELECT count(*) FROM leaf1") + leaf2(&mut other), 200, "{call}");
        // A status reads what there is now.
        run.batch_execute(REPEATABLE).unwrap();
        assert_eq!(number(&mut run, "SELECT sum(failed_count) FROM backlog_cleanup_status('root')"), 100);
        run.batch_execute("ROLLBACK").unwrap();
        other.batch_execute("ALTER TABLE leaf2 INHERIT root").unwrap();
    }
    for mode in ["regular", "emergency"] {
        let mut run = cluster.connect();
        run.batch_execute(&start_on_root(mode)).unwrap();
        run.batch_execute(REPEATABLE).unwrap();
        other.batch_execute("ALTER TABLE leaf2 NO INHERIT root").unwrap();
        assert_eq!(refused(run.batch_execute(NEXT)).0, "40001", "{mode}");
        run.batch_execute("ROLLBACK").unwrap();
        assert_eq!(leaf2(&mut other), 100, "{mode}");
        other.batch_execute("ALTER TABLE leaf2 INHERIT root").unwrap();
    }
}

#[test]
fn rows_of_a_table_that_leaves_the_target_while_the_run_waits_for_another_stay() {
    let cluster = Cluster::start("");
    let mut other = cluster.platform();
    other.batch_execute(ROOT).unwrap();
    for call in CALLS {
        other.batch_execute("BEGIN; LOCK TABLE leaf1; ALTER TABLE leaf2 NO INHERIT root").unwrap();
        let run = cluster.in_background(call);
        until(&cluster, "SELECT count(*) > 0 FROM pg_locks WHERE NOT granted");
        other.batch_execute("COMMIT").unwrap();
        run.join().unwrap().1.unwrap();
        assert_eq!(leaf2(&mut other), 100, "{call}");
        other.batch_execute("ALTER TABLE leaf2 INHERIT root").unwrap();
    }
}

#[test]
fn rows_of_a_partition_whose_detach_is_pending_stay() {
    let cluster = Cluster::start("");
    let mut other = cluster.platform();
    other
        .batch_execute(
            "CREATE TABLE job (id int, user_id text, recipe_id int, status text, updated_at timestamptz, failure_reason text)
                 PARTITION BY LIST (recipe_id);
             CREATE TABLE job_old PARTITION OF job FOR VALUES IN (1);
             CREATE TABLE job_new PARTITION OF job FOR VALUES IN (2);
             INSERT INTO job SELECT i, 'system_backlog', 1 + i % 2, 'failed', now() - interval '2 days', ''
                 FROM generate_series(1, 600) i;
             INSERT INTO backlog_cleanup.target (name, generations_table, recipes_table) VALUES ('job', 'public.job', NULL)",
        )
        .unwrap();
    let mut reader = cluster.connect();
    reader.batch_execute("BEGIN; SELECT count(*) FROM job").unwrap();
    other.batch_execute("SET statement_timeout = '200ms'").unwrap();
    assert_eq!(refused(other.batch_execute("ALTER TABLE job DETACH PARTITION job_old CONCURRENTLY")).0, "57014");
    other.batch_execute("RESET statement_timeout").unwrap();
    reader.batch_execute("COMMIT").unwrap();
    assert_eq!(number(&mut other, "SELECT count(*) FROM job"), 300);
    assert_eq!(number(&mut other, "SELECT sum(failed_count) FROM backlog_cleanup_status('job')"), 300);
    for call in [
        "SELECT backlog_cleanup_failed_generations('job')",
        "CALL backlog_cleanup_run('job')",
        "SELECT backlog_cleanup_emergency('job')",
        "CALL backlog_cleanup_run('job', 'emergency')",
    ] {
        other.batch_execute(call).unwrap();
        assert_eq!(number(&mut other, "SELECT count(*) FROM job_old"), 300, "{call}");
    }
    assert_eq!(number(&mut other, "SELECT count(*) FROM job_new"), 0);
}

#[test]
fn a_leaf_that_a_trigger_of_another_changes_in_the_middle_of_a_run_is_not_misread() {
    let cluster = Cluster::start("");
    let mut client = cluster.platform();
    client.batch_execute(ROOT).unwrap();
    client
        .batch_execute(
            "CREATE FUNCTION change() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                 ALTER TABLE public.leaf2 NO INHERIT public.root;
                 ALTER TABLE public.leaf2 ALTER recipe_id TYPE text;
                 RETURN NULL;
             END $$;
             CREATE TRIGGER change AFTER DELETE ON leaf1 FOR EACH STATEMENT EXECUTE FUNCTION change()",
        )
        .unwrap();
    for call in CALLS {
        assert_eq!(refused(client.batch_execute(call)).0, "40001", "{call}");
        assert_eq!(number(&mut client, "SELECT count(*) FROM root"), 200, "{call}");
    }
}

#[test]
fn a_vacuum_that_cuts_the_table_off_between_two_batches_is_no_error() {
    let cluster = Cluster::start("autovacuum = off\n");
    for (database, tail) in [("vacuum_half", "id > 2500"), ("vacuum_all", "true")] {
        let mut client = cluster.platform_in(database);
        client
            .batch_execute(
                "INSERT INTO generations (user_id, recipe_id, prompt, status, updated_at)
                 SELECT 'system_backlog', 1, repeat('x', 700), 'failed', now() AT TIME ZONE 'UTC' - interval '2 days'
                 FROM generate_series(1, 5000)",
            )
            .unwrap();
        client.batch_execute(&start_run(1000)).unwrap();
        truth(&mut client, NEXT);
        let left = number(&mut client, "SELECT count(*) FROM generations");
        client.batch_execute(&format!("DELETE FROM generations WHERE {tail}")).unwrap();
        client.batch_execute("VACUUM generations").unwrap();
        let by_hand = left - number(&mut client, "SELECT count(*) FROM generations");
        finish(&mut client);
        // The ten that were to stay are among the rows that are gone by hand.
        assert_eq!(balance(&mut client, 5000 - by_hand), 5000 - by_hand, "DELETE ... WHERE {tail}");
    }
}

#[test]
fn a_batched_run_removes_no_more_rows_than_were_ranked() {
    let cluster = Cluster::start("max_worker_processes = 16\n");
    for (database, after) in [("older_inserted", ""), ("older_rewritten", "VACUUM FULL generations")] {
        let mut client = cluster.platform_in(database);
        client.batch_execute("UPDATE backlog_cleanup.target SET max_rows_per_run = 200").unwrap();
        fail(&mut client, 1, 160);
        fail(&mut client, 2, 60);
        client.batch_execute(&start_run(50)).unwrap();
        truth(&mut client, NEXT);
        client
            .batch_execute(
                "INSERT INTO generations (user_id, recipe_id, prompt, status, updated_at)
                 SELECT 'system_backlog', 1 + i % 2, '', 'failed', now() AT TIME ZONE 'UTC' - interval '9 days'
                 FROM generate_series(1, 2000) i",
            )
            .unwrap();
        client.batch_execute(after).unwrap();
        finish(&mut client);
        assert_eq!(balance(&mut client, 2220), 200, "{database}");
        for (recipe, ranked) in [("1", 150), ("2", 50)] {
            let cleaned = format!("SELECT cleaned_count FROM backlog_cleanup.run_recipe WHERE recipe_id = '{recipe}'");
            assert_eq!(number(&mut client, &cleaned), ranked, "{database}");
        }
    }
    // Whoever of several processes comes first.
    let mut client = cluster.platform();
    fail(&mut client, 1, 400);
    let run = cluster.in_background("CALL backlog_cleanup_run(batch_size => 10, pause => '100 ms', workers => 3)");
    until(&cluster, "SELECT removed >= 30 FROM backlog_cleanup.progress");
    client
        .batch_execute(
            "INSERT INTO generations (user_id, recipe_id, prompt, status, updated_at)
             SELECT 'system_backlog', 1, '', 'failed', now() AT TIME ZONE 'UTC' - interval '9 days'
             FROM generate_series(1, 2000) i",
        )
        .unwrap();
    client.batch_execute("VACUUM FULL generations").unwrap();
    run.join().unwrap().1.unwrap();
    assert_eq!(balance(&mut client, 2400), 390);
}

#[test]
fn a_batched_run_ends_where_its_ranks_are_those_of_other_rows_in_every_process() {
    let cluster = Cluster::start("max_worker_processes = 16\n");
    for (place, change) in [
        "UPDATE backlog_cleanup.target SET account = 'other'",
        "UPDATE backlog_cleanup.target SET statuses = '{completed}', completed_status = '{failed}'",
        "UPDATE backlog_cleanup.target SET time_zone = 'Asia/Tokyo'",
        "UPDATE backlog_cleanup.target SET recipe_column = 'like_count'",
        "UPDATE backlog_cleanup.target SET id_column = 'retry_count'",
        "ALTER TABLE generations ALTER recipe_id TYPE bigint",
        "ALTER TABLE generations DROP recipe_id; ALTER TABLE generations ADD recipe_id integer DEFAULT 1",
        "ALTER TABLE generations RENAME TO old; CREATE TABLE generations (LIKE old)",
    ]
    .into_iter()
    .enumerate()
    {
        for workers in [1, 2] {
            let mut client = cluster.platform_in(&format!("read_{place}_{workers}"));
            client.batch_execute("INSERT INTO users (id) VALUES ('other')").unwrap();
            fail(&mut client, 1, 200);
            client.batch_execute("UPDATE generations SET user_id = 'other' WHERE id > 100").unwrap();
            let mut session = cluster.connect_to(&format!("read_{place}_{workers}"));
            let call = format!("CALL backlog_cleanup_run(batch_size => 10, pause => '300 ms', workers => {workers})");
            let run = std::thread::spawn(move || session.batch_execute(&call));
            while number(&mut client, "SELECT coalesce(max(removed), 0) FROM backlog_cleanup.run") < 10 * workers {}
            client.batch_execute(change).unwrap();
            let (sqlstate, message, hint) = refused(run.join().unwrap());
            assert_eq!(sqlstate, "55000", "{change}: {message}");
            assert!(hint.contains("CALL backlog_cleanup_run("), "{hint}");
            let of_other = "SELECT count(*) FROM (SELECT user_id FROM generations) g WHERE user_id = 'other'";
            if !change.contains("RENAME") {
                assert_eq!(number(&mut client, of_other), 100, "{change}");
            }
        }
    }
}

#[test]
fn an_old_snapshot_removes_nothing_under_a_policy_that_has_changed_since() {
    let cluster = Cluster::start("");
    let mut other = cluster.platform();
    fail(&mut other, 1, 960);
    for change in [
        "UPDATE backlog_cleanup.policy SET enabled = false",
        "UPDATE backlog_cleanup.policy SET keep = 100",
        "UPDATE backlog_cleanup.policy SET max_age = '9 days'",
        "UPDATE backlog_cleanup.target SET account = 'nobody', users_table = NULL",
    ] {
        let mut run = cluster.connect();
        run.batch_execute(REPEATABLE).unwrap();
        other.batch_execute(change).unwrap();
        let (sqlstate, _, hint) = refused(run.batch_execute("SELECT backlog_cleanup_failed_generations()"));
        assert_eq!((sqlstate.as_str(), hint.as_str()), ("40001", "ROLLBACK"), "{change}");
        run.batch_execute("ROLLBACK").unwrap();
        assert_eq!(balance(&mut other, 960), 0);
    }
    // What this transaction has changed itself is no other ground.
    let mut run = cluster.connect();
    run.batch_execute(REPEATABLE).unwrap();
    run.batch_execute(
        "UPDATE backlog_cleanup.policy SET enabled = true, keep = 10, max_age = '24 hours';
         UPDATE backlog_cleanup.target SET account = 'system_backlog';
         SELECT backlog_cleanup_failed_generations(); COMMIT",
    )
    .unwrap();
    assert_eq!(balance(&mut other, 960), 950);
}

#[test]
fn chosen_recipe_ids_cost_no_more_than_others() {
    let cluster = Cluster::start("");
    let mut client = cluster.platform();
    // Multiples of the inverse of the golden ratio in 64 bits shared one bucket in 0.2.
    client
        .batch_execute(
            "ALTER TABLE generations ALTER recipe_id TYPE bigint;
             INSERT INTO generations (user_id, recipe_id, prompt, status, updated_at)
             SELECT 'system_backlog',
                    (CASE WHEN product >= 9223372036854775808 THEN product - 18446744073709551616 ELSE product END)::bigint,
                    '', 'failed', now() AT TIME ZONE 'UTC' - interval '2 days'
             FROM (SELECT mod(i * 17428512612931826493::numeric, 18446744073709551616) AS product
                   FROM generate_series(1, 120000) i) chosen",
        )
        .unwrap();
    let milliseconds: i64 = {
        let started = std::time::Instant::now();
        let _: i64 = value(&mut client, "SELECT count(*) FROM backlog_cleanup_status()");
        started.elapsed().as_millis() as i64
    };
    assert!(milliseconds < 4000, "{milliseconds} ms");
}

#[test]
fn a_leaf_that_a_trigger_of_another_rewrites_in_the_same_transaction_loses_no_row() {
    let cluster = Cluster::start("");
    let mut client = cluster.platform();
    client.batch_execute(ROOT).unwrap();
    client
        .batch_execute(
            "CREATE INDEX up ON leaf2 (id);
             UPDATE leaf2 SET updated_at = now() - interval '2 days' - interval '1 minute' * (100 - id);
             CREATE FUNCTION rewrite() RETURNS trigger LANGUAGE plpgsql
             AS 'BEGIN CLUSTER leaf2 USING up; RETURN NULL; END';
             CREATE TRIGGER rewrite BEFORE DELETE ON leaf1 FOR EACH STATEMENT EXECUTE FUNCTION rewrite()",
        )
        .unwrap();
    for call in CALLS {
        assert_eq!(refused(client.batch_execute(call)).0, "40001", "{call}");
        assert_eq!(leaf2(&mut client), 100, "{call}");
    }
}

#[test]
fn a_leaf_whose_columns_change_their_names_between_two_batches_loses_no_other_row() {
    let cluster = Cluster::start("");
    let mut client = cluster.platform();
    client.batch_execute(ROOT).unwrap();
    client.batch_execute("ALTER TABLE root ADD other int; UPDATE root SET other = id").unwrap();
    client.batch_execute(&start_on_root("regular")).unwrap();
    client
        .batch_execute(
            "BEGIN; ALTER TABLE leaf2 NO INHERIT root; ALTER TABLE leaf2 RENAME recipe_id TO tmp;
             ALTER TABLE leaf2 RENAME other TO recipe_id; ALTER TABLE leaf2 RENAME tmp TO other;
             ALTER TABLE leaf2 INHERIT root; COMMIT",
        )
        .unwrap();
    let mut refusal = None;
    while refusal.is_none() && number(&mut client, "SELECT count(*) FROM leaf1") > 0 {
        refusal = client.batch_execute(NEXT).err();
    }
    assert_eq!(refused(Err(refusal.unwrap())).0, "55000");
    assert_eq!(leaf2(&mut client), 100);
}

#[test]
fn children_in_another_sessions_memory_are_passed_over() {
    let cluster = Cluster::start("");
    let mut client = cluster.platform();
    client.batch_execute(ROOT).unwrap();
    let mut other = cluster.connect();
    other.batch_execute("CREATE TEMP TABLE theirs () INHERITS (root); INSERT INTO theirs TABLE leaf1").unwrap();
    client.batch_execute("SELECT * FROM backlog_cleanup_status('root')").unwrap();
    client.batch_execute(CALLS[0]).unwrap();
    assert_eq!(leaf2(&mut client), 0);
    assert_eq!(number(&mut other, "SELECT count(*) FROM theirs"), 100);
}
