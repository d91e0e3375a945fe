//! Every fix of the doctor is one statement that works as it stands, and the check is ok afterwards.

use std::collections::BTreeSet;

use cluster::{Cluster, JOBS, PG_CRON, column, create_index, refused, until_true, value};
use postgres::Client;

/// Does a problem's fixes, each alone as \gexec does it, until the check has no problem, and restarts the server where a fix says so.
fn mend(cluster: &Cluster, mut client: Client, check: &str, harm: &str) -> Client {
    // A fix can have a second statement behind it, such as a reload.
    for _ in 0..3 {
        let fixes = "SELECT fix FROM backlog_cleanup_doctor('t') WHERE check_name = $1 AND status <> 'ok'";
        let fixes: Vec<Option<String>> = client.query(fixes, &[&check]).unwrap().iter().map(|row| row.get(0)).collect();
        if fixes.is_empty() {
            return client;
        }
        for fix in fixes {
            let fix = fix.unwrap_or_else(|| panic!("{harm}: {check} has a problem without a fix"));
            client.batch_execute(&fix).unwrap_or_else(|failure| panic!("{harm}: {fix}: {failure:?}"));
            if fix.ends_with("restart the server") {
                cluster.restart();
                client = cluster.connect();
            }
            if fix == "SELECT pg_reload_conf()" {
                until_true(&mut client, "SELECT current_setting('autovacuum') = 'on'");
            }
        }
    }
    panic!("{harm}: {check} is not ok after its fixes");
}

#[test]
fn every_fix_of_every_check_works_as_it_stands_and_the_check_is_ok_afterwards() {
    let cluster = Cluster::start(&format!(
        "{PG_CRON}wal_level = logical\nmax_worker_processes = 8\nmax_prepared_transactions = 2\n"
    ));
    let mut client = cluster.connect();
    client.batch_execute("CREATE EXTENSION pg_cron").unwrap();
    client.batch_execute(JOBS).unwrap();
    client
        .batch_execute(
            "SELECT backlog_cleanup_unschedule();
             CREATE ROLE evil; GRANT CREATE ON SCHEMA public TO evil; GRANT TRIGGER ON job TO evil;
             DELETE FROM backlog_cleanup.target WHERE name = 'generations'",
        )
        .unwrap();
    let mut seen = BTreeSet::new();
    for (check, harm) in [
        ("index", "SELECT 1"),
        ("overdue", "SELECT 1"),
        ("job", "SELECT 1"),
        ("job", "SELECT cron.alter_job(jobid, active => false) FROM cron.job"),
        ("job", "UPDATE cron.job SET database = 'prod'"),
        ("job_user", "UPDATE cron.job SET username = 'gone'"),
        ("target", "UPDATE backlog_cleanup.target SET recipe_name_column = 'title'"),
        ("policy", "DELETE FROM backlog_cleanup.policy"),
        ("policy", "INSERT INTO backlog_cleanup.policy (target, recipe_id, status) VALUES ('t', 'a', NULL), ('t', 'a', 'failed')"),
        ("rows", "DELETE FROM backlog_cleanup.policy WHERE status IS NOT NULL; UPDATE backlog_cleanup.target SET statuses = '{Failed}'"),
        ("rows", "UPDATE backlog_cleanup.target SET statuses = '{failed,gone}'; SELECT backlog_cleanup_failed_generations('t')"),
        ("index", "DROP INDEX job_queue_at_id_idx"),
        ("index", "UPDATE pg_index SET indisvalid = false WHERE indexrelid = (SELECT max(indexrelid) FROM pg_index WHERE indrelid = 'job'::regclass)"),
        ("references", "CREATE TABLE child (id int PRIMARY KEY, job int REFERENCES job ON DELETE CASCADE);
                        CREATE TABLE grandchild (child int REFERENCES child)"),
        ("foreign_keys", "ALTER TABLE child DISABLE TRIGGER ALL"),
        ("replica_identity", "ALTER TABLE job REPLICA IDENTITY NOTHING; CREATE PUBLICATION p FOR TABLE job, child"),
        ("deferred_constraints", "ALTER TABLE child ALTER CONSTRAINT child_job_fkey DEFERRABLE INITIALLY DEFERRED"),
        ("privileges", "REVOKE DELETE ON job FROM app"),
        ("dead_rows", "CREATE PUBLICATION none; INSERT INTO job (id) SELECT generate_series(1001, 30000);
                       ALTER TABLE job SET (autovacuum_enabled = false); DELETE FROM job WHERE id > 1000;
                       SELECT pg_stat_force_next_flush()"),
        ("autovacuum", "SELECT 1"),
        ("autovacuum", "ALTER SYSTEM SET autovacuum = off"),
        ("autovacuum", "ALTER DATABASE postgres SET track_counts = off; ALTER ROLE ALL SET track_counts = off;
                        ALTER ROLE app SET track_counts = 'no'; ALTER ROLE app IN DATABASE postgres SET track_counts = 'false'"),
        ("timeouts", "SELECT backlog_cleanup_failed_generations('t'); ALTER ROLE postgres SET statement_timeout = '30s';
                      UPDATE backlog_cleanup.run SET finished_at = started_at + interval '20 s'"),
        ("lost_jobs", "SELECT cron.schedule('lost', '0 2 * * *', 'SELECT backlog_cleanup_failed_generations()')"),
        ("replication_slots", "SELECT pg_create_logical_replication_slot('abandoned', 'pgoutput')"),
        ("access", "GRANT EXECUTE ON FUNCTION backlog_cleanup_emergency TO PUBLIC; GRANT SELECT ON backlog_cleanup.run TO PUBLIC;
                    GRANT CREATE ON SCHEMA public TO PUBLIC;
                    CREATE FUNCTION backlog_cleanup_emergency() RETURNS jsonb LANGUAGE sql AS 'SELECT NULL::jsonb'"),
        ("tick", "SELECT backlog_cleanup_schedule_tick();
                  SELECT cron.alter_job(jobid, active => false) FROM cron.job WHERE jobname = 'backlog-cleanup-tick'"),
        ("deliveries", "INSERT INTO backlog_cleanup.alert_channel (name, kind, seen_at) VALUES ('gone', 'slack', now() - interval '1 hour')"),
        ("job_time_zone", "SELECT 'ALTER SYSTEM'"),
        ("pg_cron", "DROP EXTENSION pg_cron"),
        ("pg_cron", "ALTER SYSTEM SET shared_preload_libraries = auto_explain"),
    ] {
        client.batch_execute(harm).unwrap_or_else(|failure| panic!("{harm}: {failure:?}"));
        if harm.contains("ALTER SYSTEM") {
            if check == "job_time_zone" {
                // A setting that only later versions of pg_cron know.
                cluster.set("cron.timezone = 'Europe/Berlin'");
            }
            cluster.restart();
            client = cluster.connect();
        }
        let is_ill = format!(
            "SELECT EXISTS (SELECT FROM backlog_cleanup_doctor('t') WHERE check_name = '{check}' AND status <> 'ok')"
        );
        until_true(&mut client, &is_ill);
        client = mend(&cluster, client, check, harm);
        seen.insert(check.to_owned());
    }
    // Where somebody has to decide, there is no fix, and the detail says what.
    for (check, harm) in [
        (
            "account",
            "CREATE TABLE users (id text); ALTER TABLE users OWNER TO app;
                     UPDATE backlog_cleanup.target SET users_table = 'public.users'",
        ),
        ("failed_at", "UPDATE job SET at = NULL WHERE id = (SELECT min(id) FROM job)"),
        (
            "referenced",
            "CREATE TABLE kept (job int REFERENCES job); ALTER TABLE kept OWNER TO app;
             INSERT INTO kept SELECT min(id) FROM job WHERE state = 'failed'",
        ),
        ("owner", "ALTER TABLE job OWNER TO postgres"),
        ("ledger", "INSERT INTO ledger (user_id, amount, type) VALUES ('w', 7, 'backlog_cleanup')"),
        (
            "kept_back",
            "UPDATE backlog_cleanup.run SET kept_back = 3, kept_back_row = '7', kept_back_message = 'no', kept_back_sqlstate = 'P0001'
             WHERE id = (SELECT max(id) FROM backlog_cleanup.run)",
        ),
        (
            "last_run",
            "UPDATE backlog_cleanup.run SET state = 'failed', error_message = 'no', error_sqlstate = 'P0001'
             WHERE id = (SELECT max(id) FROM backlog_cleanup.run)",
        ),
        ("ledger_row", "ALTER TABLE ledger ADD CHECK (type = 'purchase') NOT VALID"),
        // What may be there to protect rows.
        ("triggers", "CREATE RULE never AS ON DELETE TO job DO INSTEAD NOTHING"),
        ("triggers", "CREATE RULE hold AS ON DELETE TO job WHERE OLD.id = 40 DO INSTEAD NOTHING"),
        ("row_security", "ALTER TABLE job ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY"),
        (
            "others",
            "CREATE FUNCTION veto() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'; ALTER FUNCTION veto OWNER TO evil;
             CREATE TRIGGER theirs BEFORE DELETE ON job FOR EACH ROW EXECUTE FUNCTION veto()",
        ),
    ] {
        client.batch_execute(&format!("BEGIN; {harm}")).unwrap();
        let row = "SELECT fix, detail FROM backlog_cleanup_doctor('t') WHERE check_name = $1 AND status <> 'ok'";
        let row = client.query_one(row, &[&check]).unwrap_or_else(|failure| panic!("{check}: {failure:?}"));
        assert_eq!(row.get::<_, Option<String>>(0), None, "{check}: {}", row.get::<_, String>(1));
        client.batch_execute("ROLLBACK").unwrap();
        seen.insert(check.to_owned());
    }
    // Those that other tests look at, what takes an hour, and what only Citus has.
    seen.extend(
        [
            "statuses",
            "scheduler",
            "job_login",
            "job_runs",
            "transactions",
            "version",
            "workers",
            "nodes",
            "names",
            "partitions",
        ]
        .map(str::to_owned),
    );
    let all: Vec<String> = column(&mut client, "SELECT DISTINCT check_name FROM backlog_cleanup_doctor('t')");
    assert_eq!(seen, all.into_iter().collect());
}

#[test]
fn background_workers_that_are_all_in_use_are_doubled_by_the_fix() {
    let cluster = Cluster::start("max_worker_processes = 1\n");
    let mut client = cluster.connect();
    client.batch_execute(JOBS).unwrap();
    let is_ill = "SELECT status = 'warn' FROM backlog_cleanup_doctor('t') WHERE check_name = 'workers'";
    until_true(&mut client, is_ill);
    mend(&cluster, client, "workers", "one background worker");
}

#[test]
fn an_extension_of_an_earlier_version_is_updated_by_the_fix() {
    let cluster = Cluster::start("");
    let mut client = cluster.connect();
    client.batch_execute("CREATE EXTENSION backlog_cleanup VERSION '0.2.0'").unwrap();
    let version = |column: &str| format!("SELECT {column} FROM backlog_cleanup_doctor() WHERE check_name = 'version'");
    let fix: String = value(&mut client, &version("fix"));
    client.batch_execute(&fix).unwrap();
    assert_eq!(value::<String>(&mut client, &version("status")), "ok");
}

#[test]
fn the_table_in_the_docs_has_every_check() {
    let cluster = Cluster::start("");
    let mut client = cluster.platform();
    create_index(&mut client, "generations");
    let docs = include_str!("../../docs/doctor.md");
    let rows = docs.lines().filter(|line| line.starts_with("| `"));
    let listed: Vec<String> = rows.map(|row| row.split('`').nth(1).unwrap().to_owned()).collect();
    let mut checks: Vec<String> = column(&mut client, "SELECT check_name FROM backlog_cleanup_doctor()");
    checks.dedup();
    assert_eq!(listed, checks);
}

#[test]
fn no_fix_and_no_hint_of_a_run_means_another_table_or_takes_a_protection_away() {
    let cluster = Cluster::start("");
    let mut client = cluster.connect();
    client.batch_execute(JOBS).unwrap();
    client
        .batch_execute(
            "CREATE TABLE events_1 (LIKE job INCLUDING ALL); CREATE TABLE events_2 (LIKE job INCLUDING ALL);
             INSERT INTO events_2 (id) SELECT generate_series(1, 100);
             CREATE TABLE users (id text); INSERT INTO users VALUES ('w');
             UPDATE backlog_cleanup.target SET generations_table = 'public.events_1', users_table = 'public.users' WHERE name = 't';
             CREATE TABLE saved AS TABLE backlog_cleanup.target",
        )
        .unwrap();
    for harm in [
        "DROP TABLE events_1",
        "ALTER TABLE events_1 RENAME at TO failed_at; ALTER TABLE events_1 ADD at2 timestamptz DEFAULT now() - interval '9 days'",
        "DROP TABLE users",
        "DROP TABLE ledger CASCADE",
        "ALTER TABLE ledger RENAME amount TO amounts",
        "ALTER TABLE job RENAME queue TO queues",
        "UPDATE backlog_cleanup.policy SET enabled = false WHERE target = 't'",
    ] {
        client.batch_execute(&format!("BEGIN; {harm}; SAVEPOINT harmed")).unwrap();
        let fixes =
            "SELECT fix FROM backlog_cleanup_doctor('t') WHERE check_name IN ('target', 'policy') AND fix IS NOT NULL";
        let mut typed: Vec<String> = column(&mut client, fixes);
        if let Err(failure) = client.batch_execute("SELECT backlog_cleanup_failed_generations('t')") {
            typed.extend(failure.as_db_error().and_then(|failure| failure.hint()).map(str::to_owned));
        }
        client.batch_execute("ROLLBACK TO harmed").unwrap();
        for statement in typed {
            client.batch_execute(&statement).unwrap_or_else(|failure| panic!("{harm}: {statement}: {failure:?}"));
        }
        let is_as_it_was = "SELECT to_jsonb(t) = (SELECT to_jsonb(saved) FROM saved WHERE name = 't') FROM backlog_cleanup.target t WHERE name = 't'";
        assert!(value::<bool>(&mut client, is_as_it_was), "{harm}");
        client.batch_execute("ROLLBACK").unwrap();
    }
    // What is written is corrected, but no limit is lifted.
    client
        .batch_execute("UPDATE backlog_cleanup.target SET max_rows_per_run = 50, max_share = 30 WHERE name = 't'")
        .unwrap();
    for wrong in [
        "max_rows_per_run = 0",
        "max_share = -1",
        "max_rows = 0",
        "max_duration = '-1 s'",
        "max_transaction_age = '0'",
        "run_between = '{01:00}'",
        "throttle_query = 'SELECT 1 / 0'",
        "ledger_table = 'public.legder'",
    ] {
        let column = wrong.split(' ').next().unwrap();
        let (_, _, hint) =
            refused(client.batch_execute(&format!("UPDATE backlog_cleanup.target SET {wrong} WHERE name = 't'")));
        client.batch_execute(&hint).unwrap_or_else(|failure| panic!("{wrong}: {hint}: {failure:?}"));
        assert!(!hint.contains(&format!("{column} = NULL")), "{wrong}: {hint}");
    }
    // Nor is a table guessed that the statement does not name: the one of that name may be another team's, and the one in another schema ours.
    client
        .batch_execute(
            "CREATE SCHEMA ops; CREATE TABLE events (LIKE job INCLUDING ALL); ALTER TABLE events_1 SET SCHEMA ops;
             CREATE TABLE ops.job (LIKE job INCLUDING ALL); ALTER TABLE job RENAME TO jobs",
        )
        .unwrap();
    for (write, there, hint) in [
        (
            "batch_size = 9",
            "the tables of such a name are ops.events_1, public.events_2",
            "SELECT oid::regclass FROM pg_class",
        ),
        (
            "generations_table = 'public.job'",
            "the tables of such a name are ops.job, public.jobs",
            "SELECT oid::regclass FROM pg_class",
        ),
        (
            "generations_table = 'events_1'",
            "there is ops.events_1",
            "UPDATE backlog_cleanup.target SET generations_table = 'ops.events_1' WHERE",
        ),
    ] {
        let write = format!("UPDATE backlog_cleanup.target SET {write} WHERE name = 't'");
        let failure = client.batch_execute(&write).unwrap_err();
        let error = failure.as_db_error().unwrap();
        assert_eq!(error.detail(), Some(there), "{write}");
        assert!(error.hint().unwrap().starts_with(hint), "{write}: {error:?}");
    }
    client.batch_execute("DROP TABLE events_2").unwrap();
    let (_, _, hint) =
        refused(client.batch_execute("UPDATE backlog_cleanup.target SET batch_size = 9 WHERE name = 't'"));
    assert!(hint.starts_with("SELECT oid::regclass FROM pg_class"), "{hint}");
}

#[test]
fn a_row_that_somebody_has_pinned_is_there_after_all_fixes_and_a_run() {
    let cluster = Cluster::start("");
    let mut client = cluster.connect();
    client.batch_execute(JOBS).unwrap();
    client
        .batch_execute("CREATE ROLE evil; GRANT CREATE ON SCHEMA public TO evil; GRANT TRIGGER ON job TO evil")
        .unwrap();
    for (pin, check, status) in [
        ("CREATE RULE hold AS ON DELETE TO job WHERE OLD.id = 40 DO INSTEAD NOTHING", "triggers", "warn"),
        ("CREATE RULE hold AS ON DELETE TO job DO INSTEAD NOTHING", "triggers", "fail"),
        (
            "SET ROLE evil; CREATE FUNCTION veto() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
             CREATE TRIGGER veto BEFORE DELETE ON job FOR EACH ROW WHEN (OLD.id = 40) EXECUTE FUNCTION veto(); RESET ROLE",
            "others",
            "warn",
        ),
        (
            "CREATE POLICY hold ON job USING (id <> 40); ALTER TABLE job ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY",
            "row_security",
            "fail",
        ),
    ] {
        client.batch_execute(&format!("BEGIN; {pin}")).unwrap();
        let found = "SELECT status, detail FROM backlog_cleanup_doctor('t') WHERE check_name = $1";
        let found = client.query_one(found, &[&check]).unwrap();
        let (found, detail): (String, String) = (found.get(0), found.get(1));
        assert!(found == status && detail.contains("decide"), "{pin}: {found}: {detail}");
        let fixes = "SELECT fix FROM backlog_cleanup_doctor('t') WHERE fix IS NOT NULL AND fix !~ 'CONCURRENTLY|SYSTEM|EXTENSION|failed_generations'";
        for fix in column::<String>(&mut client, fixes) {
            client.batch_execute(&fix).unwrap_or_else(|failure| panic!("{pin}: {fix}: {failure:?}"));
        }
        client.batch_execute("SAVEPOINT typed").unwrap();
        if client.batch_execute("SELECT backlog_cleanup_failed_generations('t')").is_err() {
            client.batch_execute("ROLLBACK TO typed").unwrap();
        }
        assert!(value::<bool>(&mut client, "SELECT count(*) = 1 FROM job WHERE id = 40"), "{pin}");
        client.batch_execute("ROLLBACK").unwrap();
    }
}
