//! What keeps a batch from its rows: locks, triggers, foreign keys, deadlocks, the governor.

use cluster::{Cluster, SEE, column, fail, fail_in_any_order, number, refused, truth, until, value, veto};
use postgres::Client;

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

/// The table of a target `t`: 100 failed rows of one recipe, of which a regular run removes the 90 oldest.
const JOB: &str = "
    CREATE TABLE job (id int PRIMARY KEY, owner text DEFAULT 'w', queue text DEFAULT 'a', state text DEFAULT 'failed',
                      at timestamptz, error text);
    INSERT INTO job (id, at) SELECT id, now() - interval '9 days' + id * interval '1 minute' FROM generate_series(1, 100) id;
    INSERT INTO backlog_cleanup.target (name, generations_table, recipes_table, users_table, ledger_table, account_column,
                                        recipe_column, status_column, failed_at_column, failure_type_column, account)
    VALUES ('t', 'public.job', NULL, NULL, 'public.credit_transactions', 'owner', 'queue', 'state', 'at', 'error', 'w')";

/// The runs of `t`, in one transaction, in batches, by workers.
const RUNS: [&str; 6] = [
    "SELECT backlog_cleanup_failed_generations('t')",
    "SELECT backlog_cleanup_emergency('t')",
    "CALL backlog_cleanup_run('t', batch_size => 10)",
    "CALL backlog_cleanup_run('t', 'emergency', batch_size => 10)",
    "CALL backlog_cleanup_run('t', batch_size => 10, workers => 2)",
    "CALL backlog_cleanup_run('t', 'emergency', batch_size => 10, workers => 2)",
];

/// Does a run of `t`. Returns the rows removed and kept back, and the first reason: SQLSTATE, message, id. Panics unless
/// history, ledger and table say the same.
fn run(client: &mut Client, call: &str) -> (i64, i64, Option<String>, Option<String>, Option<String>) {
    let rows = number(client, "SELECT count(*) FROM job");
    client.batch_execute("TRUNCATE credit_transactions").unwrap();
    let report: serde_json::Value =
        client.query_one(call, &[]).unwrap_or_else(|failure| panic!("{call}: {:?}", failure.as_db_error())).get(0);
    let last = "SELECT removed, kept_back, kept_back_sqlstate, kept_back_message, kept_back_row
                FROM backlog_cleanup.run ORDER BY id DESC LIMIT 1";
    let last = client.query_one(last, &[]).unwrap();
    let (removed, kept_back) = (last.get(0), last.get(1));
    assert_eq!(rows - number(client, "SELECT count(*) FROM job"), removed, "{call}: {report}");
    assert_eq!(number(client, "SELECT sum(amount) FROM credit_transactions"), removed, "{call}");
    assert_eq!(report["keptBackCount"], kept_back, "{call}");
    assert_eq!(report["keptBackReason"].is_null(), kept_back == 0, "{call}: {report}");
    (removed, kept_back, last.get(2), last.get(3), last.get(4))
}

#[test]
fn whatever_one_row_meets_it_alone_is_kept_back_and_its_reason_is_told() {
    let cluster = Cluster::start("max_worker_processes = 16\n");
    let mut client = cluster.platform();
    client.batch_execute(JOB).unwrap();
    client
        .batch_execute(
            "CREATE TABLE saved AS TABLE job;
             CREATE FUNCTION meet() RETURNS trigger LANGUAGE plpgsql AS
                 $$BEGIN RAISE EXCEPTION USING ERRCODE = TG_ARGV[0], MESSAGE = 'met'; END$$;
             CREATE FUNCTION modify() RETURNS trigger LANGUAGE plpgsql AS
                 $$BEGIN UPDATE public.job SET error = 'x' WHERE id = OLD.id; RETURN OLD; END$$;
             CREATE FUNCTION calculate() RETURNS trigger LANGUAGE plpgsql AS
                 $$BEGIN PERFORM 1 / (OLD.id - 40); RETURN OLD; END$$;
             CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS
                 $$BEGIN LOCK TABLE public.locked IN EXCLUSIVE MODE NOWAIT; RETURN OLD; END$$;
             CREATE TABLE other (job int)",
        )
        .unwrap();
    let reference = |action: &str| {
        (
            format!("ALTER TABLE other ADD FOREIGN KEY (job) REFERENCES job {action}; INSERT INTO other VALUES (40)"),
            "DROP TABLE other; CREATE TABLE other (job int)".to_owned(),
        )
    };
    let trigger = |function: &str| {
        let when = if function == "calculate()" { "" } else { "WHEN (OLD.id = 40)" };
        let create = format!("CREATE TRIGGER t BEFORE DELETE ON job FOR EACH ROW {when} EXECUTE FUNCTION {function}");
        (create, "DROP TRIGGER t ON job".to_owned())
    };
    let is_18 = truth(&mut client, "SELECT current_setting('server_version_num')::int >= 180000");
    let restrict = if is_18 { "23001" } else { "23503" };
    let mut cases = vec![
        ("23503", reference("")),
        (restrict, reference("ON DELETE RESTRICT")),
        ("23503", reference("DEFERRABLE INITIALLY DEFERRED")),
        (
            "23502",
            (
                "ALTER TABLE other ALTER job SET NOT NULL, ADD FOREIGN KEY (job) REFERENCES job ON DELETE SET NULL;
                 INSERT INTO other VALUES (40)"
                    .to_owned(),
                reference("").1,
            ),
        ),
        (
            "23514",
            (
                "ALTER TABLE other ADD CHECK (job IS NOT NULL), ADD FOREIGN KEY (job) REFERENCES job ON DELETE SET NULL;
                 INSERT INTO other VALUES (40)"
                    .to_owned(),
                reference("").1,
            ),
        ),
        ("27000", trigger("modify()")),
        ("22012", trigger("calculate()")),
    ];
    let raised = [
        "P0001", "23001", "0A000", "22003", "2F003", "42501", "42P01", "54001", "55000", "55P03", "P0004", "UR001",
        "XX001", "XX002",
    ];
    let meets: Vec<String> = raised.iter().map(|sqlstate| format!("meet('{sqlstate}')")).collect();
    cases.extend(raised.iter().zip(&meets).map(|(sqlstate, meet)| (*sqlstate, trigger(meet))));
    for (sqlstate, (create, drop)) in &cases {
        for call in RUNS {
            client.batch_execute(&format!("TRUNCATE job, other; INSERT INTO job TABLE saved; {create}")).unwrap();
            let (removed, kept_back, reason, message, row) = run(&mut client, call);
            let all = if call.contains("emergency") { 100 } else { 90 };
            assert_eq!((removed, kept_back), (all - 1, 1), "{sqlstate}, {call}");
            let told = (reason.as_deref(), row.as_deref());
            assert_eq!(told, (Some(*sqlstate), Some("40")), "{create}, {call}: {message:?}");
            client.batch_execute(drop).unwrap();
        }
    }
}

#[test]
fn what_is_not_about_a_row_ends_the_run() {
    let cluster = Cluster::start("");
    let mut client = cluster.platform();
    client.batch_execute(JOB).unwrap();
    client
        .batch_execute(
            "CREATE FUNCTION meet() RETURNS trigger LANGUAGE plpgsql AS
                 $$BEGIN RAISE EXCEPTION USING ERRCODE = TG_ARGV[0], MESSAGE = 'met'; END$$",
        )
        .unwrap();
    for sqlstate in ["57014", "57P01", "53100", "53200", "08006", "40001", "40P01", "58030", "XX000", "25006"] {
        client
            .batch_execute(&format!(
                "CREATE OR REPLACE TRIGGER t BEFORE DELETE ON job FOR EACH ROW WHEN (OLD.id = 40) EXECUTE FUNCTION meet('{sqlstate}')"
            ))
            .unwrap();
        for call in &RUNS[..2] {
            assert_eq!(refused(client.batch_execute(call)).0, sqlstate, "{call}");
        }
        assert_eq!(number(&mut client, "SELECT count(*) FROM job"), 100);
    }
    client
        .batch_execute(
            "DROP TRIGGER t ON job; CREATE ROLE the_owner; GRANT ALL ON SCHEMA public TO the_owner;
             ALTER TABLE job OWNER TO the_owner; REVOKE DELETE ON job FROM the_owner",
        )
        .unwrap();
    for call in &RUNS[..4] {
        assert_eq!(refused(client.batch_execute(call)).0, "42501", "{call}");
    }
}

#[test]
fn a_rule_that_keeps_a_row_keeps_no_other_and_archives_each_once() {
    let cluster = Cluster::start("max_worker_processes = 16\n");
    let mut client = cluster.platform();
    client.batch_execute(JOB).unwrap();
    client.batch_execute("CREATE TABLE saved AS TABLE job; CREATE TABLE archive (LIKE job)").unwrap();
    let hold = "CREATE RULE hold AS ON DELETE TO job WHERE OLD.id = 40 DO INSTEAD NOTHING";
    let archive = "CREATE RULE keep AS ON DELETE TO job DO ALSO INSERT INTO archive SELECT OLD.*;
                   CREATE FUNCTION veto() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
                   CREATE TRIGGER veto BEFORE DELETE ON job FOR EACH ROW WHEN (OLD.id = 40) EXECUTE FUNCTION veto()";
    let move_away = "CREATE RULE soft AS ON DELETE TO job WHERE OLD.id = 40
                     DO INSTEAD UPDATE job SET state = 'hidden' WHERE id = OLD.id";
    for (rule, drop) in [
        (hold, "DROP RULE hold ON job"),
        (move_away, "DROP RULE soft ON job"),
        (archive, "DROP RULE keep ON job; DROP TRIGGER veto ON job; DROP FUNCTION veto"),
    ] {
        for call in RUNS {
            client.batch_execute(&format!("TRUNCATE job, archive; INSERT INTO job TABLE saved; {rule}")).unwrap();
            let (removed, kept_back, _, _, row) = run(&mut client, call);
            let all = if call.contains("emergency") { 100 } else { 90 };
            assert_eq!((removed, kept_back, row.as_deref()), (all - 1, 1, Some("40")), "{rule}, {call}");
            if rule == archive {
                let archived = "SELECT count(*) * 1000 + count(DISTINCT id) FROM archive WHERE id <> 40";
                assert_eq!(number(&mut client, archived), removed * 1001, "{call}");
                assert_eq!(number(&mut client, "SELECT count(*) FROM archive WHERE id = 40"), 0, "{call}");
            }
            client.batch_execute(drop).unwrap();
        }
    }
}

/// Rows in chains: each but the first `step` references the one `step` before it.
fn chain(client: &mut Client, step: i32) {
    client
        .batch_execute(&format!(
            "ALTER TABLE job ADD parent int REFERENCES job;
             UPDATE job SET parent = id - {step} WHERE id > {step}; CREATE INDEX ON job (parent)"
        ))
        .unwrap();
}

#[test]
fn rows_that_rows_of_the_same_run_reference_go_with_them() {
    let cluster = Cluster::start("max_worker_processes = 16\n");
    let mut client = cluster.platform();
    client.batch_execute(JOB).unwrap();
    chain(&mut client, 20);
    client.batch_execute("CREATE TABLE saved AS TABLE job").unwrap();
    for order in ["id", "id DESC", "md5(id::text)"] {
        for call in RUNS {
            client
                .batch_execute(&format!("TRUNCATE job; INSERT INTO job SELECT * FROM saved ORDER BY {order}"))
                .unwrap();
            // The ten newest stay, and hold what they reference.
            let right = if call.contains("emergency") { (100, 0) } else { (50, 40) };
            let (removed, kept_back, sqlstate, ..) = run(&mut client, call);
            assert_eq!((removed, kept_back), right, "{order}, {call}");
            assert_eq!(sqlstate.as_deref(), (kept_back > 0).then_some("23503"), "{order}, {call}");
        }
    }
}

#[test]
fn chains_through_partitions_go_in_one_run() {
    let cluster = Cluster::start("max_worker_processes = 16\n");
    let mut client = cluster.platform();
    client
        .batch_execute(&JOB.replace("error text)", "error text) PARTITION BY HASH (id)").replace(
            "INSERT INTO job",
            "CREATE TABLE job_0 PARTITION OF job FOR VALUES WITH (MODULUS 2, REMAINDER 0) PARTITION BY HASH (id);
             CREATE TABLE job_00 PARTITION OF job_0 FOR VALUES WITH (MODULUS 4, REMAINDER 0);
             CREATE TABLE job_01 PARTITION OF job_0 FOR VALUES WITH (MODULUS 4, REMAINDER 2);
             CREATE TABLE job_1 PARTITION OF job FOR VALUES WITH (MODULUS 2, REMAINDER 1);
             INSERT INTO job",
        ))
        .unwrap();
    chain(&mut client, 20);
    client.batch_execute("CREATE TABLE saved AS TABLE job").unwrap();
    for call in RUNS {
        client.batch_execute("TRUNCATE job; INSERT INTO job TABLE saved").unwrap();
        let right = if call.contains("emergency") { (100, 0) } else { (50, 40) };
        let (removed, kept_back, ..) = run(&mut client, call);
        assert_eq!((removed, kept_back), right, "{call}");
    }
}

#[test]
fn a_pass_takes_what_another_row_held_in_the_pass_before() {
    let cluster = Cluster::start("max_worker_processes = 16\n");
    let mut client = cluster.platform();
    client.batch_execute(JOB).unwrap();
    // No foreign key says that row 7 waits for row 60, and 60 for 61.
    client
        .batch_execute(
            "CREATE TABLE saved AS TABLE job;
             CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS $$
                 BEGIN
                     IF EXISTS (SELECT FROM public.job WHERE id = CASE OLD.id WHEN 7 THEN 60 ELSE 61 END) THEN
                         RAISE 'not yet';
                     END IF;
                     RETURN OLD;
                 END $$;
             CREATE TRIGGER wait BEFORE DELETE ON job FOR EACH ROW WHEN (OLD.id IN (7, 60)) EXECUTE FUNCTION wait()",
        )
        .unwrap();
    for call in RUNS {
        client.batch_execute("TRUNCATE job; INSERT INTO job TABLE saved").unwrap();
        let all = if call.contains("emergency") { 100 } else { 90 };
        let (removed, kept_back, ..) = run(&mut client, call);
        assert_eq!((removed, kept_back), (all, 0), "{call}");
    }
}

#[test]
fn a_row_among_thousands_is_found_by_few_statements_and_a_table_that_refuses_all_is_given_up() {
    let cluster = Cluster::start("");
    let mut client = cluster.platform();
    client.batch_execute(JOB).unwrap();
    client
        .batch_execute(
            "INSERT INTO job (id, at) SELECT id, now() - interval '9 days' FROM generate_series(101, 20000) id;
             CREATE SEQUENCE statements;
             CREATE FUNCTION count_up() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS
                 $$BEGIN PERFORM nextval('public.statements'); RETURN NULL; END$$;
             CREATE TRIGGER count BEFORE DELETE ON job FOR EACH STATEMENT EXECUTE FUNCTION count_up();
             CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RAISE 'refused'; END$$;
             CREATE TRIGGER refuse BEFORE DELETE ON job FOR EACH ROW WHEN (OLD.id = 777) EXECUTE FUNCTION refuse()",
        )
        .unwrap();
    let (removed, kept_back, ..) = run(&mut client, RUNS[0]);
    assert_eq!((removed, kept_back), (19_989, 1));
    // About 2 log n for the row, and one more when it is tried again.
    assert!(number(&mut client, "SELECT last_value FROM statements") < 40);
    client
        .batch_execute(
            "INSERT INTO job (id, at) SELECT id, now() - interval '9 days' FROM generate_series(20001, 40000) id;
             DROP TRIGGER refuse ON job;
             CREATE TRIGGER refuse BEFORE DELETE ON job FOR EACH ROW EXECUTE FUNCTION refuse();
             ALTER SEQUENCE statements RESTART",
        )
        .unwrap();
    let message: String =
        client.query_one("SELECT backlog_cleanup_failed_generations('t') ->> 'message'", &[]).unwrap().get(0);
    assert!(message.contains("20001 rows were kept back; gave up on "), "{message}");
    assert!(number(&mut client, "SELECT last_value FROM statements") < 2_500);
    let left =
        "SELECT kept_back = 20001 AND given_up > 15000 AND kept_back_sqlstate = 'P0001' AND kept_back_row IS NOT NULL
                FROM backlog_cleanup.run ORDER BY id DESC LIMIT 1";
    assert!(truth(&mut client, left));
}

#[test]
fn a_rehearsal_tells_what_a_run_would_do_and_leaves_nothing_but_a_sequence() {
    let cluster = Cluster::start("");
    let mut client = cluster.platform();
    client.batch_execute(JOB).unwrap();
    client
        .batch_execute(
            "CREATE SEQUENCE fired;
             CREATE FUNCTION count_up() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS
                 $$BEGIN PERFORM nextval('public.fired'); RETURN OLD; END$$;
             CREATE TRIGGER count AFTER DELETE ON job FOR EACH ROW EXECUTE FUNCTION count_up();
             CREATE TABLE holding (job int REFERENCES job); INSERT INTO holding VALUES (40)",
        )
        .unwrap();
    for (call, all, count) in [
        ("backlog_cleanup_failed_generations('t', rehearse => true)", 90, "cleanedUpGenerations"),
        ("backlog_cleanup_emergency('t', rehearse => true)", 100, "removedCount"),
    ] {
        let report: serde_json::Value = client.query_one(&format!("SELECT {call}"), &[]).unwrap().get(0);
        assert_eq!((&report[count], &report["keptBackCount"]), (&(all - 1).into(), &1.into()), "{report}");
        assert!(field(&report, "keptBackReason").starts_with("row 40: update or delete on table"), "{report}");
        assert!(
            report["runId"].is_null() && report["dryRun"] == true && report["walBytes"].as_i64() > Some(1000),
            "{report}"
        );
        assert!(field(&report, "message").contains("triggers ran"), "{report}");
    }
    let written = "SELECT (SELECT count(*) FROM backlog_cleanup.run) + (SELECT count(*) FROM credit_transactions)
                        + (SELECT 100 - count(*) FROM job)";
    assert_eq!(number(&mut client, written), 0);
    assert!(number(&mut client, "SELECT last_value FROM fired") >= 188);
    for function in ["failed_generations", "emergency"] {
        let both = format!("SELECT backlog_cleanup_{function}('t', dry_run => true, rehearse => true)");
        assert_eq!(refused(client.batch_execute(&both)).0, "22023");
        // It takes its target as a run does, and gives it back.
        let mut other = cluster.connect();
        other.batch_execute("BEGIN; SELECT backlog_cleanup_emergency('t')").unwrap();
        let rehearsal = format!("SELECT backlog_cleanup_{function}('t', rehearse => true)");
        assert_eq!(refused(client.batch_execute(&rehearsal)).0, "55P03");
        other.batch_execute("ROLLBACK").unwrap();
        client.batch_execute(&format!("BEGIN; {rehearsal}")).unwrap();
        other.batch_execute("BEGIN; SELECT backlog_cleanup_emergency('t'); ROLLBACK").unwrap();
        client.batch_execute("COMMIT").unwrap();
    }
}

#[test]
fn the_doctor_warns_of_rows_that_the_last_run_has_kept_back() {
    let cluster = Cluster::start("");
    let mut client = cluster.platform();
    client.batch_execute(JOB).unwrap();
    client.batch_execute("CREATE TABLE holding (job int REFERENCES job); INSERT INTO holding VALUES (40)").unwrap();
    let finding = "SELECT status || ': ' || detail || ' -> ' || coalesce(fix, '') FROM backlog_cleanup_doctor('t')
                   WHERE check_name = 'kept_back'";
    run(&mut client, RUNS[0]);
    let found: Vec<String> = column(&mut client, finding);
    let [found] = &found[..] else { panic!("{found:?}") };
    assert!(found.starts_with("warn: run 1 has kept back 1 rows: row 40: update or delete"), "{found}");
    assert!(found.ends_with("(23503) -> "), "{found}");
    client.batch_execute("TRUNCATE holding").unwrap();
    run(&mut client, RUNS[0]);
    assert!(column::<String>(&mut client, finding)[0].starts_with("ok"));
    // What is lost of a row stays lost: somebody has to see to it.
    client
        .batch_execute(
            "INSERT INTO job (id, at) VALUES (40, '2001-01-01');
             CREATE FUNCTION lost() RETURNS trigger LANGUAGE plpgsql AS
                 $$BEGIN RAISE 'missing chunk number 0' USING ERRCODE = 'data_corrupted'; END$$;
             CREATE TRIGGER lost BEFORE DELETE ON job FOR EACH ROW EXECUTE FUNCTION lost()",
        )
        .unwrap();
    run(&mut client, RUNS[0]);
    let found: Vec<String> = column(&mut client, finding);
    assert!(
        found[0].starts_with("fail: run 3 has kept back 1 rows: row 40: missing chunk number 0 (XX001)"),
        "{found:?}"
    );
}

/// The target `t` as a foreign table of `cluster`, whose rows are those of `job` on the server `remote`.
fn far_away(cluster: &Cluster, remote: &Cluster) -> (Client, Client) {
    let (mut far, mut client) = (remote.connect(), cluster.platform());
    far.batch_execute(JOB.split("INSERT INTO backlog_cleanup.target").next().unwrap()).unwrap();
    let (columns, target) = JOB.split_once("INSERT INTO job").unwrap();
    let columns = columns.replace("CREATE TABLE", "CREATE FOREIGN TABLE").replace(" PRIMARY KEY", "");
    let target = &target[target.find("INSERT INTO backlog_cleanup.target").unwrap()..];
    client
        .batch_execute(&format!(
            "CREATE EXTENSION postgres_fdw;
             CREATE SERVER remote FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '{}', dbname 'postgres');
             CREATE USER MAPPING FOR postgres SERVER remote OPTIONS (user 'postgres');
             {} SERVER remote; {target}",
            remote.socket(),
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
    }
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
fn a_run_that_needs_too_much_memory_says_that_smaller_batches_need_less() {
    let cluster = Cluster::start("max_locks_per_transaction = 10\nmax_connections = 10\nmax_worker_processes = 2\n");
    let mut client = cluster.platform();
    client.batch_execute(JOB).unwrap();
    client
        .batch_execute(
            "INSERT INTO job (id, at) SELECT i, now() - interval '9 days' FROM generate_series(1001, 20000) i;
             CREATE FUNCTION locks() RETURNS trigger LANGUAGE plpgsql AS
                 $$BEGIN PERFORM pg_advisory_xact_lock(OLD.id); RETURN OLD; END$$;
             CREATE TRIGGER locks BEFORE DELETE ON job FOR EACH ROW EXECUTE FUNCTION locks()",
        )
        .unwrap();
    for (call, batch_size) in [
        ("SELECT backlog_cleanup_failed_generations('t')", 1000),
        ("CALL backlog_cleanup_run('t', batch_size => 5000)", 500),
    ] {
        let (sqlstate, message, hint) = refused(client.batch_execute(call));
        assert_eq!((sqlstate.as_str(), message.as_str()), ("53200", "out of shared memory"), "{call}");
        client.batch_execute(&hint).unwrap();
        let set = "SELECT batch_size::bigint FROM backlog_cleanup.target WHERE name = 't'";
        assert_eq!(number(&mut client, set), batch_size, "{call}");
    }
    client.batch_execute("CALL backlog_cleanup_run('t', batch_size => 100)").unwrap();
    assert_eq!(number(&mut client, "SELECT count(*) FROM job"), 10);
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
fn a_rule_that_deletes_as_many_rows_of_another_table_keeps_all_back() {
    let cluster = Cluster::start("");
    let mut client = cluster.platform();
    client.batch_execute(JOB).unwrap();
    client
        .batch_execute(
            "CREATE TABLE other AS SELECT id FROM job;
             CREATE RULE instead AS ON DELETE TO job DO INSTEAD DELETE FROM other WHERE id = OLD.id",
        )
        .unwrap();
    for call in RUNS {
        run(&mut client, call);
        assert_eq!(number(&mut client, "SELECT count(*) FROM job"), 100, "{call}");
        assert_eq!(number(&mut client, "SELECT sum(removed) FROM backlog_cleanup.run"), 0, "{call}");
    }
}

/// The rows of `t` that a regular run of `call` removes, of its 100, or an emergency run.
fn all(call: &str) -> i64 {
    if call.contains("emergency") { 100 } else { 90 }
}

#[test]
fn a_row_that_a_trigger_removes_itself_is_counted() {
    let cluster = Cluster::start("max_worker_processes = 16\n");
    let mut client = cluster.platform();
    client.batch_execute(JOB).unwrap();
    client
        .batch_execute(
            "CREATE TABLE saved AS TABLE job;
             CREATE FUNCTION itself() RETURNS trigger LANGUAGE plpgsql AS $$
                 BEGIN
                     IF pg_trigger_depth() = 2 OR OLD.id % 3 > 0 THEN RETURN OLD; END IF;
                     UPDATE job SET error = repeat('x', 3000) WHERE id = OLD.id; DELETE FROM job WHERE id = OLD.id; RETURN NULL;
                 END $$;
             CREATE TRIGGER itself BEFORE DELETE ON job FOR EACH ROW EXECUTE FUNCTION itself()",
        )
        .unwrap();
    for call in RUNS {
        client.batch_execute("TRUNCATE job; INSERT INTO job TABLE saved").unwrap();
        let (removed, kept_back, ..) = run(&mut client, call);
        assert_eq!((removed, kept_back), (all(call), 0), "{call}");
    }
}

#[test]
fn a_row_that_takes_others_along_stays() {
    let cluster = Cluster::start("max_worker_processes = 16\n");
    let mut client = cluster.platform();
    client.batch_execute(JOB).unwrap();
    // Row 1000 is completed, 100 among the newest; the trigger's own errors, which it catches, count for nothing.
    client
        .batch_execute(
            "SET track_counts = off; INSERT INTO job (id, state) VALUES (1000, 'completed');
             ALTER TABLE job ADD parent int; UPDATE job SET parent = 30 WHERE id IN (100, 1000);
             CREATE TABLE saved AS TABLE job;
             CREATE FUNCTION take() RETURNS trigger LANGUAGE plpgsql AS $$
                 BEGIN
                     BEGIN DELETE FROM job WHERE id = 99; PERFORM 1 / 0; EXCEPTION WHEN division_by_zero THEN NULL; END;
                     DELETE FROM job WHERE parent = OLD.id; RETURN NULL;
                 END $$;
             CREATE FUNCTION take_all() RETURNS trigger LANGUAGE plpgsql AS $$
                 BEGIN DELETE FROM job USING gone WHERE job.parent = gone.id; RETURN NULL; END $$",
        )
        .unwrap();
    for (ways, of_foreign_key) in [
        ("CREATE TRIGGER take AFTER DELETE ON job FOR EACH ROW EXECUTE FUNCTION take()", false),
        (
            "CREATE TRIGGER take AFTER DELETE ON job REFERENCING OLD TABLE AS gone FOR EACH STATEMENT
             WHEN (pg_trigger_depth() = 0) EXECUTE FUNCTION take_all()",
            false,
        ),
        ("ALTER TABLE job ADD CONSTRAINT take FOREIGN KEY (parent) REFERENCES job ON DELETE CASCADE", true),
    ] {
        client.batch_execute(ways).unwrap();
        for call in RUNS {
            client.batch_execute("TRUNCATE job; INSERT INTO job TABLE saved").unwrap();
            let (removed, kept_back, sqlstate, message, row) = run(&mut client, call);
            let there = "SELECT count(*) FROM job WHERE id IN (30, 1000)";
            assert_eq!(number(&mut client, there), 2, "{ways}, {call}: {message:?}");
            assert_eq!((removed, kept_back), (all(call) - 1, 1), "{ways}, {call}: {message:?}");
            assert_eq!(
                (sqlstate.as_deref(), row.as_deref()),
                (Some("27000"), Some("30")),
                "{ways}, {call}: {message:?}"
            );
        }
        let drop = if of_foreign_key { "ALTER TABLE job DROP CONSTRAINT take" } else { "DROP TRIGGER take ON job" };
        client.batch_execute(drop).unwrap();
    }
}

#[test]
fn rows_that_the_run_itself_moves_go() {
    let cluster = Cluster::start("max_worker_processes = 16\n");
    let mut client = cluster.platform();
    client.batch_execute(JOB).unwrap();
    client
        .batch_execute(
            "INSERT INTO job (id, at, error) SELECT i, now() - interval '9 days', repeat('x', 300) FROM generate_series(1001, 3000) i;
             ALTER TABLE job SET (fillfactor = 40); ALTER TABLE job ADD other int; CREATE INDEX ON job (other);
             UPDATE job SET other = CASE WHEN id % 2 = 0 THEN id - 1 ELSE id + 1 END; CREATE TABLE saved AS TABLE job;
             CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS $$
                 BEGIN UPDATE job SET other = NULL, error = error || 'y' WHERE id = OLD.id + 1000; RETURN NULL; END $$",
        )
        .unwrap();
    for (way, drop) in [
        ("CREATE TRIGGER touch AFTER DELETE ON job FOR EACH ROW EXECUTE FUNCTION touch()", "DROP TRIGGER touch ON job"),
        (
            "ALTER TABLE job ADD CONSTRAINT touch FOREIGN KEY (other) REFERENCES job ON DELETE SET NULL",
            "ALTER TABLE job DROP CONSTRAINT touch",
        ),
    ] {
        client.batch_execute(way).unwrap();
        for (call, was_updated) in RUNS.into_iter().flat_map(|call| [(call, false), (call, true)]) {
            client.batch_execute("TRUNCATE job; INSERT INTO job SELECT * FROM saved ORDER BY md5(id::text)").unwrap();
            if was_updated {
                // Then their positions are those of heap-only tuples.
                for statement in ["VACUUM FULL job", "UPDATE job SET queue = queue", "VACUUM job"] {
                    client.batch_execute(statement).unwrap();
                }
            }
            let (removed, kept_back, _, message, _) = run(&mut client, &call.replace("=> 10,", "=> 100,"));
            assert_eq!((removed, kept_back), (all(call) + 2000, 0), "{way}, {call}, {was_updated}: {message:?}");
        }
        client.batch_execute(drop).unwrap();
    }
}

#[test]
fn rows_that_a_trigger_of_another_table_gives_another_rank_before_their_turn_stay() {
    let cluster = Cluster::start("");
    let mut client = cluster.platform();
    client.batch_execute(JOB).unwrap();
    client
        .batch_execute(
            "CREATE TABLE part () INHERITS (job) WITH (fillfactor = 50); CREATE TABLE saved AS TABLE job;
             CREATE FUNCTION change() RETURNS trigger LANGUAGE plpgsql AS
                 $$BEGIN EXECUTE 'UPDATE part SET ' || TG_ARGV[0]; RETURN OLD; END$$",
        )
        .unwrap();
    for change in ["queue = id", "at = at + interval ''2 minutes'' * (1000 - id)"] {
        for call in [RUNS[0], RUNS[2]] {
            client
                .batch_execute(&format!(
                    "TRUNCATE job; INSERT INTO job TABLE saved;
                     INSERT INTO part SELECT 200 + id, owner, 'b', state, at FROM saved WHERE id <= 40;
                     CREATE TRIGGER change BEFORE DELETE ON job FOR EACH ROW WHEN (OLD.id = 1) EXECUTE FUNCTION change('{change}')"
                ))
                .unwrap();
            let (removed, kept_back, ..) = run(&mut client, call);
            assert_eq!((removed, kept_back), (90, 0), "{change}, {call}");
            assert_eq!(number(&mut client, "SELECT count(*) FROM part"), 40, "{change}, {call}");
            client.batch_execute("DROP TRIGGER change ON job").unwrap();
        }
    }
}

#[test]
fn a_guard_against_many_rows_at_once_and_a_refused_row_keep_back_that_row() {
    let cluster = Cluster::start("max_worker_processes = 16\n");
    let mut client = cluster.platform();
    client.batch_execute(JOB).unwrap();
    client
        .batch_execute(
            "INSERT INTO job (id, at) SELECT i, now() - interval '9 days' FROM generate_series(101, 5000) i;
             CREATE FUNCTION guard() RETURNS trigger LANGUAGE plpgsql AS $$
                 BEGIN IF (SELECT count(*) FROM gone) > 5 THEN RAISE EXCEPTION 'too many'; END IF; RETURN NULL; END $$;
             CREATE TRIGGER guard AFTER DELETE ON job REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION guard()",
        )
        .unwrap();
    veto(&mut client, "job", "OLD.id = 7");
    let (removed, kept_back, .., row) = run(&mut client, RUNS[0]);
    assert_eq!((removed, kept_back, row.as_deref()), (4989, 1, Some("7")));
}

#[test]
fn rows_whose_recipe_a_transaction_changes_that_began_before_a_batched_run_stay() {
    let cluster = Cluster::start("");
    let mut client = cluster.platform();
    client.batch_execute(JOB).unwrap();
    // With room on its page a row stays there when it is updated, and the page's LSN is from before the ranks.
    for statement in ["ALTER TABLE job SET (fillfactor = 40)", "VACUUM FULL job"] {
        client.batch_execute(statement).unwrap();
    }
    let mut other = cluster.connect();
    other.batch_execute("BEGIN; UPDATE job SET queue = id WHERE id > 40").unwrap();
    let start = r#"SELECT backlog_cleanup.start_run('{"target": "t", "mode": "regular", "batch_size": 1000, "pause": "0",
                                                      "workers": 1, "force": false}')"#;
    let run = number(&mut client, start);
    other.batch_execute("COMMIT").unwrap();
    client.batch_execute(&format!("SELECT backlog_cleanup.next_batch({run})")).unwrap();
    assert_eq!(number(&mut client, "SELECT count(*) FROM job"), 60);
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

#[test]
fn a_row_that_a_trigger_changes_instead_is_kept_back() {
    let cluster = Cluster::start("max_worker_processes = 16\n");
    let mut client = cluster.platform();
    client.batch_execute(JOB).unwrap();
    client
        .batch_execute(
            "CREATE TABLE saved AS TABLE job;
             CREATE FUNCTION soft() RETURNS trigger LANGUAGE plpgsql AS
                 $$BEGIN UPDATE job SET state = 'deleted' WHERE id = OLD.id; RETURN NULL; END$$;
             CREATE TRIGGER soft BEFORE DELETE ON job FOR EACH ROW WHEN (OLD.id % 3 = 0) EXECUTE FUNCTION soft()",
        )
        .unwrap();
    for call in RUNS {
        client.batch_execute("TRUNCATE job; INSERT INTO job TABLE saved").unwrap();
        let (removed, kept_back, _, message, _) = run(&mut client, call);
        let changed = all(call) / 3;
        assert_eq!((removed, kept_back), (all(call) - changed, changed), "{call}: {message:?}");
    }
}

#[test]
fn rows_kept_back_are_counted_once_however_many_passes_meet_them() {
    let cluster = Cluster::start("max_worker_processes = 16\n");
    let mut client = cluster.platform();
    client.batch_execute(JOB).unwrap();
    client
        .batch_execute(
            "INSERT INTO job (id, at) SELECT i, now() - interval '9 days' FROM generate_series(101, 6000) i;
             CREATE TABLE saved AS TABLE job;
             CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS $$
                 BEGIN
                     IF OLD.id % 3 = 0 OR OLD.id > TG_ARGV[0]::int THEN RAISE 'no'; END IF;
                     UPDATE job SET error = 't' WHERE id IN (OLD.id + 1, OLD.id + 3000) AND id % 3 = 0; RETURN OLD;
                 END $$",
        )
        .unwrap();
    for most in [6000, 300] {
        client
            .batch_execute(&format!(
                "CREATE OR REPLACE TRIGGER touch BEFORE DELETE ON job FOR EACH ROW EXECUTE FUNCTION touch({most})"
            ))
            .unwrap();
        for (size, stop) in [(20, false), (300, false), (10_000, false), (300, true)] {
            client.batch_execute("TRUNCATE job; INSERT INTO job TABLE saved").unwrap();
            let call = format!(
                "CALL backlog_cleanup_run('t', batch_size => {size}, pause => '{} ms')",
                if stop { 20 } else { 0 }
            );
            let stopping = stop.then(|| {
                cluster.in_background(
                    "DO $$BEGIN
                         LOOP
                             PERFORM backlog_cleanup_stop(run_id) FROM backlog_cleanup.run_part WHERE pass = 2 AND steps_done > 0;
                             EXIT WHEN FOUND; PERFORM pg_sleep(0.005); COMMIT;
                         END LOOP;
                     END$$",
                )
            });
            let (removed, kept_back, ..) = run(&mut client, &call);
            let given_up = number(&mut client, "SELECT given_up FROM backlog_cleanup.run ORDER BY id DESC LIMIT 1");
            // A run that was stopped has not looked again for rows that its own code has moved.
            let least = if stop { 5900 } else { 5990 };
            assert!(
                (least..=5990).contains(&(removed + kept_back)),
                "{most}, {call}: {removed} {kept_back} {given_up}"
            );
            assert!((0..=kept_back).contains(&given_up), "{most}, {call}: {given_up}");
            if let Some(stopping) = stopping {
                stopping.join().unwrap().1.unwrap();
            }
        }
    }
}

#[test]
fn an_emergency_run_removes_no_more_rows_than_there_were() {
    let cluster = Cluster::start("max_worker_processes = 16\n");
    let mut client = cluster.platform();
    client.batch_execute(JOB).unwrap();
    client
        .batch_execute(
            "INSERT INTO job (id, state) SELECT i, 'completed' FROM generate_series(1001, 2000) i; CREATE TABLE saved AS TABLE job;
             CREATE SEQUENCE again START 10000;
             CREATE FUNCTION again() RETURNS trigger LANGUAGE plpgsql AS $$
                 BEGIN
                     INSERT INTO job (id) VALUES (nextval('again')); UPDATE job SET state = 'failed' WHERE id = OLD.id + 1500;
                     RETURN NULL;
                 END $$;
             CREATE TRIGGER again AFTER DELETE ON job FOR EACH ROW EXECUTE FUNCTION again(); GRANT ALL ON SEQUENCE again TO PUBLIC",
        )
        .unwrap();
    for call in RUNS.into_iter().filter(|call| call.contains("emergency")) {
        client.batch_execute("TRUNCATE job; INSERT INTO job TABLE saved; TRUNCATE credit_transactions").unwrap();
        client.batch_execute(call).unwrap();
        // A batch also takes what has failed since, up to the end of the table as it was.
        let removed = number(&mut client, "SELECT sum(amount) FROM credit_transactions");
        assert!(if call.starts_with("CALL") { removed < 1000 } else { removed == 100 }, "{call}: {removed}");
        assert_eq!(number(&mut client, "SELECT count(*) FROM job WHERE id <= 100"), 0, "{call}");
    }
}

#[test]
fn rows_that_can_go_are_found_among_many_that_cannot() {
    let cluster = Cluster::start("max_worker_processes = 16\n");
    let mut client = cluster.platform();
    client.batch_execute(JOB).unwrap();
    client
        .batch_execute(
            "INSERT INTO job (id, at) SELECT i, now() - interval '9 days' FROM generate_series(101, 12000) i;
             CREATE TABLE saved AS TABLE job; CREATE TABLE pin (job int REFERENCES job); CREATE INDEX ON pin (job)",
        )
        .unwrap();
    for pinned in ["id <= 4000 OR id % 20 = 0", "id % 6 > 0"] {
        for call in
            [RUNS[0], RUNS[1], "CALL backlog_cleanup_run('t', batch_size => 1000)", "CALL backlog_cleanup_run('t')"]
        {
            client
                .batch_execute(&format!(
                    "TRUNCATE job, pin; INSERT INTO job TABLE saved; INSERT INTO pin SELECT id FROM job WHERE {pinned}"
                ))
                .unwrap();
            let pins = format!("SELECT count(*) FROM saved WHERE ({pinned}) AND id NOT BETWEEN 91 AND 100");
            let held = number(&mut client, &pins)
                + if call.contains("emergency") {
                    number(
                        &mut client,
                        &format!("SELECT count(*) FROM saved WHERE ({pinned}) AND id BETWEEN 91 AND 100"),
                    )
                } else {
                    0
                };
            let (removed, kept_back, ..) = run(&mut client, call);
            // The last few that could go may be given up.
            assert!(
                (held..=held + removed / 100).contains(&kept_back),
                "{pinned}, {call}: {removed} {kept_back} {held}"
            );
        }
    }
}

#[test]
fn rows_that_hold_each_other_through_another_table_go() {
    let cluster = Cluster::start("max_worker_processes = 16\n");
    let mut client = cluster.platform();
    client.batch_execute(JOB).unwrap();
    client
        .batch_execute(
            "INSERT INTO job (id, at) SELECT i, now() - interval '9 days' + i * interval '1 minute' FROM generate_series(101, 3000) i;
             CREATE TABLE attempt (id int PRIMARY KEY, job int REFERENCES job ON DELETE CASCADE); CREATE INDEX ON attempt (job);
             ALTER TABLE job ADD repeats int REFERENCES attempt; CREATE INDEX ON job (repeats);
             INSERT INTO attempt SELECT id, id FROM job; UPDATE job SET repeats = id - 100 WHERE id > 100;
             CREATE TABLE saved AS TABLE job; CREATE TABLE saved_attempt AS TABLE attempt",
        )
        .unwrap();
    for call in [RUNS[0], "CALL backlog_cleanup_run('t', batch_size => 500)"] {
        client
            .batch_execute(
                "ALTER TABLE job DROP CONSTRAINT job_repeats_fkey; TRUNCATE job CASCADE; INSERT INTO job TABLE saved;
                 INSERT INTO attempt TABLE saved_attempt; ALTER TABLE job ADD FOREIGN KEY (repeats) REFERENCES attempt",
            )
            .unwrap();
        // The ten newest stay, and hold what they repeat.
        let (removed, kept_back, ..) = run(&mut client, call);
        assert_eq!((removed, kept_back), (2700, 290), "{call}");
    }
}

#[test]
fn where_every_row_is_refused_each_batch_soon_tries_little() {
    let cluster = Cluster::start("");
    let mut client = cluster.platform();
    client.batch_execute(JOB).unwrap();
    client
        .batch_execute(
            "INSERT INTO job (id, at) SELECT i, now() - interval '9 days' FROM generate_series(1001, 9000) i;
             CREATE SEQUENCE tries;
             CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql
             AS 'BEGIN PERFORM nextval(''tries''); RAISE EXCEPTION ''no''; END';
             CREATE TRIGGER refuse BEFORE DELETE ON job FOR EACH ROW EXECUTE FUNCTION refuse(); GRANT ALL ON SEQUENCE tries TO PUBLIC",
        )
        .unwrap();
    client.batch_execute("CALL backlog_cleanup_run('t', batch_size => 100)").unwrap();
    assert!(number(&mut client, "SELECT last_value FROM tries") < 10_000);
    assert!(truth(&mut client, "SELECT given_up > 5000 AND removed = 0 FROM backlog_cleanup.run"));
}

#[test]
fn the_doctor_tells_what_a_run_passes_over_or_takes_along() {
    let cluster = Cluster::start("");
    let mut client = cluster.platform();
    client.batch_execute(JOB).unwrap();
    let found = "SELECT status || ' ' || split_part(detail, ':', 1) FROM backlog_cleanup_doctor('t') WHERE check_name = 'triggers'";
    for (harm, tells) in [
        ("ALTER TABLE job ADD parent int REFERENCES job ON DELETE CASCADE", "warn foreign key job_parent_fkey of public.job to itself"),
        (
            "CREATE FUNCTION seen() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'; CREATE TABLE part () INHERITS (job);
             CREATE TRIGGER seen AFTER DELETE ON job FOR EACH STATEMENT EXECUTE FUNCTION seen()",
            "fail statement trigger \"seen\" of \"public.job\" would not fire",
        ),
        (
            "CREATE TABLE part () INHERITS (job); CREATE RULE hold AS ON DELETE TO job DO INSTEAD NOTHING",
            "fail rule \"hold\" of \"public.job\" would not apply",
        ),
    ] {
        client.batch_execute(&format!("BEGIN; {harm}")).unwrap();
        let all: Vec<String> = column(&mut client, found);
        assert!(all.iter().any(|problem| problem.starts_with(tells)), "{harm}: {all:?}");
        client.batch_execute("ROLLBACK").unwrap();
    }
}
