//! What stands around a call in the command of a job is told beforehand, as pg_cron does it then: its background workers know
//! no COMMIT, its connections are those of any client.

use cluster::{Cluster, JOBS, PG_CRON, findings_of, number, until_true};

/// Why it has no effect in a background worker and over a connection, or that it has one. `@` is a number of its own.
const COMMANDS: &[(&str, Option<&str>, Option<&str>)] = &[
    // Statements around a call.
    ("PREPARE x AS SELECT f; EXECUTE x", None, None),
    ("PREPARE x AS SELECT f", UNREACHED, UNREACHED),
    ("PREPARE x AS SELECT f; PREPARE y AS SELECT 1; EXECUTE y", UNREACHED, UNREACHED),
    ("PREPARE x AS SELECT f; EXPLAIN ANALYZE EXECUTE x", None, None),
    ("DROP TABLE IF EXISTS made@; CREATE TABLE made@ AS SELECT f", None, None),
    ("DROP TABLE IF EXISTS made@; SELECT f AS report INTO made@", None, None),
    ("CREATE TEMP TABLE made AS SELECT f WITH NO DATA", Some("WITH NO DATA"), Some("WITH NO DATA")),
    ("CREATE TABLE IF NOT EXISTS job AS SELECT f", Some("IF NOT EXISTS"), Some("IF NOT EXISTS")),
    ("CREATE TABLE job AS SELECT f", THERE, THERE),
    ("SELECT f INTO job", THERE, THERE),
    ("CREATE TABLE job AS SELECT 1; SELECT f", THERE, THERE),
    ("COPY (SELECT f) TO '/dev/null'", None, None),
    ("EXPLAIN ANALYZE SELECT f", None, None),
    ("EXPLAIN (ANALYZE off) SELECT f", EXPLAINED, EXPLAINED),
    ("EXPLAIN (ANALYZE 0, ANALYZE 1) SELECT f", None, None),
    ("EXPLAIN SELECT f", EXPLAINED, EXPLAINED),
    ("DECLARE c CURSOR FOR SELECT f; FETCH c", None, None),
    ("DECLARE c CURSOR FOR SELECT f; MOVE ALL c", None, None),
    ("DECLARE c CURSOR FOR SELECT f", UNREACHED, UNREACHED),
    ("DECLARE c CURSOR WITH HOLD FOR SELECT f", None, None),
    (r#"SELECT U&"\0062acklog_cleanup_failed_generations"('t@')"#, None, None),
    (r#"SELECT public.U&"!0062acklog_cleanup_failed_generations" UESCAPE '!' ('t@')"#, None, None),
    // Transactions.
    ("BEGIN; SELECT f", ROLLED_BACK, Some("no COMMIT follows its BEGIN")),
    ("BEGIN; SELECT f; COMMIT", ROLLED_BACK, None),
    ("BEGIN; SELECT f; COMMIT; BEGIN; SELECT 1", ROLLED_BACK, None),
    ("SELECT f; BEGIN", ROLLED_BACK, Some("no COMMIT follows its BEGIN")),
    ("SELECT f; COMMIT", None, None),
    ("SELECT f; ROLLBACK", ROLLED_BACK, ROLLED_BACK),
    ("ROLLBACK; SELECT f", ROLLED_BACK, None),
    ("BEGIN; SAVEPOINT a; SELECT f; ROLLBACK TO a; COMMIT", ROLLED_BACK, ROLLED_BACK),
    ("BEGIN; SELECT f; SAVEPOINT a; SELECT 1; ROLLBACK TO a; COMMIT", ROLLED_BACK, None),
    ("BEGIN READ ONLY; SELECT f; COMMIT", ROLLED_BACK, READ_ONLY),
    ("BEGIN READ WRITE; SELECT f; COMMIT", ROLLED_BACK, None),
    ("CALL r", None, None),
    ("BEGIN; CALL r; COMMIT", BESIDE, BESIDE),
    ("COMMIT; CALL r", BESIDE, BESIDE),
    ("SELECT 1; DO $$BEGIN PERFORM f; COMMIT; END$$", BESIDE, BESIDE),
    ("SELECT f; VACUUM job", Some("beside VACUUM"), Some("beside VACUUM")),
    ("SELECT f; REINDEX TABLE CONCURRENTLY job", Some("beside REINDEX"), Some("beside REINDEX")),
    ("CREATE INDEX CONCURRENTLY ON job (at); SELECT f", Some("beside CREATE INDEX"), Some("beside CREATE INDEX")),
    ("SELECT f; ALTER SYSTEM RESET work_mem", Some("beside ALTER SYSTEM"), Some("beside ALTER SYSTEM")),
    ("SELECT r", Some("it is a procedure"), Some("it is a procedure")),
    ("CALL f", Some("it is no procedure"), Some("it is no procedure")),
    // Settings.
    ("SET search_path = pg_catalog; SELECT f", NOT_FOUND, NOT_FOUND),
    ("SET LOCAL search_path = ''; SELECT f", NOT_FOUND, NOT_FOUND),
    ("SELECT set_config('search_path', 'pg_catalog, \"Public\"', false); SELECT f", NOT_FOUND, NOT_FOUND),
    ("SELECT set_config('search_path', 'pg_catalog, Public', false); SELECT f", None, None),
    ("SET search_path = pg_catalog, public; SELECT f", None, None),
    ("SET search_path = pg_catalog; RESET search_path; SELECT f", None, None),
    ("SET search_path = pg_catalog; SELECT public.f", None, None),
    ("SET transaction_read_only = on; SELECT f", READ_ONLY, READ_ONLY),
    ("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY; SELECT f", None, None),
    ("SET default_transaction_read_only = on; COMMIT; SELECT f", None, READ_ONLY),
    ("SET ROLE app; SELECT public.f", MAY_NOT, MAY_NOT),
    ("SET ROLE app; RESET ROLE; SELECT f", None, None),
    ("SET ROLE ops; SELECT public.f", None, None),
    ("SET ROLE nobody; SELECT f", Some("does not exist"), Some("does not exist")),
    ("SET SESSION AUTHORIZATION app; SELECT public.f", MAY_NOT, MAY_NOT),
];

const UNREACHED: Option<&str> = Some("nothing executes or fetches it");
const THERE: Option<&str> = Some("makes table \"job\", or beside it: the table is there the next time");
const EXPLAINED: Option<&str> = Some("EXPLAIN without ANALYZE");
const ROLLED_BACK: Option<&str> = Some("is rolled back");
const READ_ONLY: Option<&str> = Some("a read-only transaction");
const BESIDE: Option<&str> = Some("beside other statements, with which it is one transaction");
const NOT_FOUND: Option<&str> = Some("sets a search_path without public");
const MAY_NOT: Option<&str> = Some("may not run it");

#[test]
fn what_stands_around_a_call_is_told_as_pg_cron_does_it() {
    for in_worker in [true, false] {
        let settings = format!(
            "{PG_CRON}cron.use_background_workers = {in_worker}\nmax_worker_processes = 100\ncron.max_running_jobs = 90\n"
        );
        let cluster = Cluster::start(&settings);
        let mut client = cluster.connect();
        client.batch_execute("CREATE EXTENSION pg_cron").unwrap();
        client.batch_execute(JOBS).unwrap();
        client
            .batch_execute(
                "CREATE ROLE ops; SELECT backlog_cleanup_grant('ops', 'operator'); SELECT backlog_cleanup_unschedule()",
            )
            .unwrap();
        let mut wrong: Vec<(String, String)> = Vec::new();
        for (place, (command, in_workers, over_connections)) in COMMANDS.iter().enumerate() {
            client
                .batch_execute(&format!(
                    "CREATE TABLE job{place} (LIKE job INCLUDING ALL); ALTER TABLE job{place} OWNER TO app;
                     INSERT INTO backlog_cleanup.target (name, generations_table, recipes_table, users_table, ledger_table, account_column,
                                                         recipe_column, status_column, failed_at_column, failure_type_column, account)
                     VALUES ('t{place}', 'public.job{place}', NULL, NULL, NULL, 'owner', 'queue', 'state', 'at', 'error', 'w')"
                ))
                .unwrap();
            let command = command
                .replace("SELECT f", "SELECT backlog_cleanup_failed_generations('t@')")
                .replace("PERFORM f", "PERFORM backlog_cleanup_failed_generations('t@')")
                .replace("public.f", "public.backlog_cleanup_failed_generations('t@')")
                .replace("CALL r", "CALL backlog_cleanup_run('t@')")
                .replace("SELECT r", "SELECT backlog_cleanup_run('t@')")
                .replace("CALL f", "CALL backlog_cleanup_failed_generations('t@')")
                .replace('@', &place.to_string());
            client.execute("SELECT cron.schedule($1, '0 2 1 1 *', $2)", &[&format!("j{place}"), &command]).unwrap();
            let why = if in_worker { in_workers } else { over_connections };
            let found = findings_of(&mut client, &format!("t{place}"), "job");
            assert_eq!(found.len(), 1, "{command}: {found:?}");
            let (status, detail, fix) = &found[0];
            let is_told = why.is_none_or(|why| status == "fail" && detail.contains(why));
            if !is_told || fix.is_some() || why.is_none() && status != "ok" {
                wrong.push((command.clone(), detail.clone()));
            }
            if !in_worker {
                let _ = cluster.connect().batch_execute(&command);
            }
        }
        if in_worker {
            client.batch_execute("SELECT cron.alter_job(jobid, schedule => '* * * * *') FROM cron.job").unwrap();
            until_true(
                &mut client,
                "SELECT count(DISTINCT jobid) = (SELECT count(*) FROM cron.job) FROM cron.job_run_details
                 WHERE status IN ('succeeded', 'failed')",
            );
            client.batch_execute("SELECT cron.alter_job(jobid, schedule => '0 2 1 1 *') FROM cron.job").unwrap();
        }
        for (place, (command, in_workers, over_connections)) in COMMANDS.iter().enumerate() {
            let runs = format!("SELECT count(*) FROM backlog_cleanup.run WHERE target = 't{place}'");
            let why = if in_worker { in_workers } else { over_connections };
            if (number(&mut client, &runs) > 0) != why.is_none() {
                wrong.push(((*command).to_owned(), "it is not so".into()));
            }
        }
        assert_eq!(wrong, [], "in a background worker: {in_worker}");
        // What the doctor says to type mends it.
        let explained = COMMANDS.iter().position(|(command, ..)| *command == "EXPLAIN SELECT f").unwrap();
        let explained = format!("t{explained}");
        let broken = findings_of(&mut client, &explained, "job").remove(0).1;
        client.batch_execute(broken.split_once(", and type ").unwrap().1).unwrap();
        assert_eq!(findings_of(&mut client, &explained, "job")[0].0, "ok");
    }
}
