//! What is written is obeyed or refused, and the extension's own state holds: renamed schemas and roles, publications, histories
//! that something has broken.

use std::sync::mpsc;

use cluster::{Cluster, column, fail, number, refused, truth, value};
use postgres::Client;

/// A target `t` on a table of the public reports' shape: a hundred failed rows, nine days old.
const JOBS: &str = "
    CREATE TABLE job (id int PRIMARY KEY, owner text DEFAULT 'w', queue text DEFAULT 'a', state text DEFAULT 'failed',
                      at timestamptz DEFAULT now() - interval '9 days', error text);
    INSERT INTO backlog_cleanup.target (name, generations_table, recipes_table, users_table, ledger_table, account_column,
        recipe_column, status_column, failed_at_column, failure_type_column, account)
    VALUES ('t', 'public.job', NULL, NULL, NULL, 'owner', 'queue', 'state', 'at', 'error', 'w');
    INSERT INTO job (id) SELECT generate_series(1, 100)";

fn with_jobs(cluster: &Cluster) -> Client {
    let mut client = cluster.connect();
    client.batch_execute("CREATE EXTENSION backlog_cleanup").unwrap();
    client.batch_execute(JOBS).unwrap();
    client
}

/// What the doctor says of a check: its status, what it found, and the fix.
fn finding(client: &mut Client, target: &str, check: &str) -> (String, String, Option<String>) {
    let row = client
        .query_one(
            "SELECT status, detail, fix FROM backlog_cleanup_doctor($1) WHERE check_name = $2",
            &[&target, &check],
        )
        .unwrap();
    (row.get(0), row.get(1), row.get(2))
}

#[test]
fn a1_a_policy_that_no_run_obeys_is_refused_when_it_is_written() {
    let cluster = Cluster::start("");
    let mut client = with_jobs(&cluster);
    for write in [
        "INSERT INTO backlog_cleanup.policy (target, recipe_id, max_age, keep) VALUES ('t', 'a', '30 days', 1000)",
        "INSERT INTO backlog_cleanup.policy (target, failure_type, enabled) VALUES ('t', 'timeout', false)",
        "UPDATE backlog_cleanup.policy SET recipe_id = 'a' WHERE target = 't'",
        "COPY backlog_cleanup.policy (target, recipe_id) FROM PROGRAM 'printf ''t\\ta\\n'''",
    ] {
        let (sqlstate, message, hint) = refused(client.batch_execute(write));
        assert_eq!(sqlstate, "0A000", "{write}: {message}");
        client.batch_execute(&hint).unwrap_or_else(|failure| panic!("{hint}: {failure:?}"));
    }
    client.batch_execute("UPDATE backlog_cleanup.policy SET keep = 10, max_age = '1 day', enabled = true").unwrap();

    // What an earlier version has let in is obeyed by nobody, and nobody is silent about it.
    client
        .batch_execute(
            "ALTER TABLE backlog_cleanup.policy DISABLE TRIGGER check_policy;
             INSERT INTO backlog_cleanup.policy (target, recipe_id, keep) VALUES ('t', 'a', 1000);
             ALTER TABLE backlog_cleanup.policy ENABLE TRIGGER check_policy;
             UPDATE backlog_cleanup.target SET name = 'renamed' WHERE name = 't'",
        )
        .unwrap();
    let (status, _, fix) = finding(&mut client, "renamed", "policy");
    let fix = fix.expect("a fix");
    assert_eq!(status, "fail");
    let (notices, heard) = mpsc::channel();
    let mut listening = cluster.connect_with_notices(notices);
    for run in
        ["SELECT backlog_cleanup_failed_generations('renamed', dry_run => true)", "CALL backlog_cleanup_run('renamed')"]
    {
        listening.batch_execute(run).unwrap();
        assert_eq!(heard.try_recv().expect("a warning").1, fix, "{run}");
    }
    client.batch_execute(&fix).unwrap();
    assert_eq!(finding(&mut client, "renamed", "policy").0, "ok");
}

#[test]
fn b5_a_group_key_has_any_length_and_two_thousand_of_them_are_no_matter() {
    let cluster = Cluster::start("max_worker_processes = 16\n");
    let mut client = with_jobs(&cluster);
    client
        .batch_execute(
            "TRUNCATE job;
             INSERT INTO job (id, queue)
             SELECT i, CASE WHEN i > 6000 THEN 'short' ELSE
                        (SELECT string_agg(md5(g::text || i % 2000), '') FROM generate_series(1, 90) g) END
             FROM generate_series(1, 6020) i;
             UPDATE backlog_cleanup.policy SET keep = 1 WHERE target = 't';
             CREATE TABLE saved AS TABLE job",
        )
        .unwrap();
    for run in [
        "SELECT backlog_cleanup_failed_generations('t')",
        "CALL backlog_cleanup_run('t', batch_size => 500)",
        "CALL backlog_cleanup_run('t', batch_size => 500, workers => 2)",
    ] {
        client.batch_execute("TRUNCATE job; INSERT INTO job TABLE saved").unwrap();
        client.batch_execute(run).unwrap();
        assert_eq!(number(&mut client, "SELECT count(*) FROM job"), 2001, "{run}");
        let recipes =
            "SELECT count(*) FROM backlog_cleanup.run_recipe WHERE run_id = (SELECT max(id) FROM backlog_cleanup.run)";
        assert_eq!(number(&mut client, recipes), 2001, "{run}");
    }
    client.batch_execute("CALL backlog_cleanup_run('t', mode => 'emergency')").unwrap();
    assert_eq!(number(&mut client, "SELECT count(*) FROM job"), 0);
}

#[test]
fn b5_whatever_the_rows_of_an_interrupted_run_hold_the_next_run_starts() {
    let cluster = Cluster::start("");
    let mut client = cluster.platform();
    for breakage in [
        "UPDATE backlog_cleanup.run_batch SET removed = '{9223372036854775807,9223372036854775807}', recipe_ids = '{1,1}'",
        "UPDATE backlog_cleanup.run_batch SET removed = '{}'",
        "UPDATE backlog_cleanup.run_batch SET recipe_ids = '{NULL,no number}'",
        "UPDATE backlog_cleanup.run_cutoff SET failed = -1, failed_at = 'infinity', id = 'no number', removable = NULL",
        "DELETE FROM backlog_cleanup.run_cutoff",
        "DELETE FROM backlog_cleanup.run_part",
        "DELETE FROM backlog_cleanup.run_batch",
        "DELETE FROM backlog_cleanup.run WHERE state = 'running'",
        "UPDATE backlog_cleanup.run SET state = 'completed' WHERE state = 'running'",
        "UPDATE backlog_cleanup.run SET started_at = '-infinity', reading = '7', batch_size = NULL WHERE state = 'running'",
        "UPDATE backlog_cleanup.run SET cutoff = 'infinity', removed = -9223372036854775808 WHERE state = 'running'",
        "INSERT INTO backlog_cleanup.run_recipe SELECT id, '1', 1, 1 FROM backlog_cleanup.run",
        "ALTER TABLE backlog_cleanup.run_recipe ADD CONSTRAINT filled CHECK (failed_count <> 20) NOT VALID",
        "ALTER TABLE backlog_cleanup.run ADD CONSTRAINT as_it_was CHECK (state <> 'interrupted') NOT VALID",
        "CREATE FUNCTION veto() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE ''no''; END';
         CREATE TRIGGER veto BEFORE DELETE ON backlog_cleanup.run_part FOR EACH ROW EXECUTE FUNCTION veto()",
    ] {
        client.batch_execute("TRUNCATE generations; DELETE FROM backlog_cleanup.run").unwrap();
        fail(&mut client, 1, 20);
        let mut other = cluster.connect();
        other.batch_execute(&cluster::start_run(4)).unwrap();
        other.batch_execute("SELECT backlog_cleanup.next_batch(max(id)) FROM backlog_cleanup.run").unwrap();
        drop(other);
        cluster::until(&cluster, "SELECT count(*) = 0 FROM pg_locks WHERE locktype = 'object'");
        client.batch_execute(breakage).unwrap();
        client
            .batch_execute("SELECT backlog_cleanup_failed_generations()")
            .unwrap_or_else(|failure| panic!("{breakage}: {failure:?}"));
        client.batch_execute("ALTER TABLE backlog_cleanup.run_recipe DROP CONSTRAINT IF EXISTS filled").unwrap();
        client.batch_execute("CALL backlog_cleanup_run()").unwrap_or_else(|failure| panic!("{breakage}: {failure:?}"));
        assert_eq!(number(&mut client, "SELECT count(*) FROM generations"), 10, "{breakage}");
        client
            .batch_execute(
                "ALTER TABLE backlog_cleanup.run DROP CONSTRAINT IF EXISTS as_it_was;
                 DROP FUNCTION IF EXISTS veto CASCADE; UPDATE backlog_cleanup.run SET started_at = now()",
            )
            .unwrap();
    }
}

#[test]
fn c1_state_can_be_published_and_the_history_pruned() {
    let cluster = Cluster::start("wal_level = logical\n");
    let mut client = cluster.platform();
    fail(&mut client, 1, 15);
    client
        .batch_execute(
            "ALTER TABLE generations REPLICA IDENTITY FULL; CREATE PUBLICATION everything FOR ALL TABLES;
             UPDATE backlog_cleanup.policy SET keep = 5;
             UPDATE backlog_cleanup.target SET batch_size = 4",
        )
        .unwrap();
    client.batch_execute("CALL backlog_cleanup_run()").unwrap();
    client.batch_execute("SELECT backlog_cleanup_failed_generations()").unwrap();
    let no_identity = "SELECT c.oid::regclass::text FROM pg_class c
        WHERE c.relnamespace = 'backlog_cleanup'::regnamespace AND c.relkind = 'r' AND c.relreplident <> 'f'
          AND NOT EXISTS (SELECT FROM pg_index WHERE indrelid = c.oid AND indisprimary)";
    assert_eq!(column::<String>(&mut client, no_identity), [""; 0]);
    client.batch_execute("DELETE FROM backlog_cleanup.run WHERE finished_at < now() + interval '1 hour'").unwrap();
    for child in ["run", "run_recipe", "run_batch", "run_part", "run_cutoff"] {
        assert_eq!(number(&mut client, &format!("SELECT count(*) FROM backlog_cleanup.{child}")), 0, "{child}");
    }
    assert_eq!(number(&mut client, "SELECT sum(removed)::bigint FROM backlog_cleanup.total"), 10);
}

#[test]
fn c2_the_extensions_schema_can_be_renamed() {
    let cluster = Cluster::start("max_worker_processes = 16\n");
    let mut client = cluster.connect();
    client.batch_execute(include_str!("../../demo/platform.sql")).unwrap();
    client
        .batch_execute(
            "CREATE SCHEMA ext; CREATE EXTENSION backlog_cleanup SCHEMA ext;
             CREATE ROLE chief; SELECT ext.backlog_cleanup_grant('chief', 'admin');
             ALTER SCHEMA ext RENAME TO \"E 2\"; SET search_path = public, \"E 2\"; SET ROLE chief;
             UPDATE backlog_cleanup.target SET batch_size = 9;
             UPDATE backlog_cleanup.policy SET keep = 3; RESET ROLE",
        )
        .unwrap();
    fail(&mut client, 1, 15);
    client.batch_execute("CALL backlog_cleanup_run(batch_size => 4, workers => 2)").unwrap();
    assert_eq!(number(&mut client, "SELECT count(*) FROM generations"), 3);
    for call in ["failed_generations()", "emergency()", "status_json()", "doctor()", "grant('chief', 'monitor')"] {
        client.batch_execute(&format!("SELECT backlog_cleanup_{call}")).unwrap();
    }
}

#[test]
fn c3_a_role_that_has_named_a_target_can_be_renamed_dumped_and_dropped() {
    let cluster = Cluster::start("");
    let mut client = cluster.platform();
    client
        .batch_execute(
            "CREATE ROLE alice; GRANT USAGE, CREATE ON SCHEMA public TO alice; GRANT SELECT ON generations TO alice;
             SELECT backlog_cleanup_grant('alice', 'admin');
             SET ROLE alice; CREATE TABLE job (LIKE generations INCLUDING ALL);
             INSERT INTO backlog_cleanup.target (name, generations_table, recipes_table, users_table, ledger_table)
             VALUES ('jobs', 'public.job', NULL, NULL, NULL); RESET ROLE;
             ALTER ROLE alice RENAME TO \"Alice B\"",
        )
        .unwrap();
    let named_by = "SELECT named_by::text FROM backlog_cleanup.target WHERE name = 'jobs'";
    assert_eq!(value::<String>(&mut client, named_by), "Alice B");
    client.batch_execute("SELECT backlog_cleanup_failed_generations('jobs')").unwrap();
    assert_eq!(refused(client.batch_execute("UPDATE backlog_cleanup.target SET named_by = 'nobody'")).0, "42704");

    let dump = tempfile::tempdir().unwrap();
    let file = dump.path().join("dump");
    let file = file.to_str().unwrap();
    cluster.program("pg_dump", &["-Fc", "--no-owner", "--no-privileges", "-f", file, "postgres"]);
    for (roles, outcome) in [("CREATE ROLE \"Alice B\"", "works"), ("CREATE ROLE alice", "42501")] {
        let restored = Cluster::start("");
        let mut client = restored.connect();
        client.batch_execute(roles).unwrap();
        restored.program("pg_restore", &["-e", "-d", "postgres", "--no-owner", file]);
        client.batch_execute("GRANT USAGE ON SCHEMA public TO PUBLIC").unwrap();
        let owner = roles.trim_start_matches("CREATE ROLE ");
        client.batch_execute(&format!("ALTER TABLE job OWNER TO {owner}")).unwrap();
        let run = client.batch_execute("SELECT backlog_cleanup_failed_generations('jobs')");
        if outcome == "works" {
            run.unwrap()
        } else {
            assert_eq!(refused(run).0, outcome)
        }
        client.batch_execute("SELECT backlog_cleanup_failed_generations()").unwrap();
    }

    client
        .batch_execute("REASSIGN OWNED BY \"Alice B\" TO postgres; DROP OWNED BY \"Alice B\"; DROP ROLE \"Alice B\"")
        .unwrap();
    let (sqlstate, message, hint) = refused(client.batch_execute("SELECT backlog_cleanup_failed_generations('jobs')"));
    assert_eq!(sqlstate, "42501");
    assert!(message.contains("does not exist any more"), "{message}");
    client.batch_execute(&hint).unwrap();
    client.batch_execute("SELECT backlog_cleanup_failed_generations('jobs')").unwrap();
}

#[test]
fn d11_an_extension_without_the_platforms_tables_says_what_to_do() {
    let cluster = Cluster::start("");
    let (notices, heard) = mpsc::channel();
    let mut client = cluster.connect_with_notices(notices);
    client.batch_execute("CREATE EXTENSION backlog_cleanup").unwrap();
    let said: Vec<(String, String)> = heard.try_iter().collect();
    let (_, hint) = said.iter().find(|(message, _)| message.contains("public.generations")).expect("a warning");
    client.batch_execute("CREATE TABLE job (LIKE pg_class)").unwrap();
    assert!(hint.starts_with("UPDATE backlog_cleanup.target"), "{hint}");
    assert!(truth(&mut client, "SELECT count(*) = 1 FROM backlog_cleanup.target"));
}
