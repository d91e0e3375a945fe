//! A run and another session, each race both ways round: who comes first, and whether it commits.

use std::sync::Arc;
use std::thread::{self, JoinHandle};

use cluster::{
    Cluster, JOBS, SEE, balance, column, fail, number, own_by, refused, start_run, truth, until_true, value,
};
use postgres::Client;

const RUN: &str = "SELECT backlog_cleanup_failed_generations()";
const BATCHES: &str = "CALL backlog_cleanup_run()";
const NEXT: &str = "SELECT backlog_cleanup.next_batch(max(id)) IS NULL FROM backlog_cleanup.run";
const FINISH: &str = "SELECT backlog_cleanup.finish_run(max(id)) ->> 'state' FROM backlog_cleanup.run";

/// What else may happen to a row that a run is about to remove: retried, claimed, failed once more.
const CHANGES: [&str; 3] =
    ["status = 'pending'", "user_id = 'somebody'", "updated_at = now() AT TIME ZONE 'UTC' - interval '1 minute'"];

struct Race {
    cluster: Arc<Cluster>,
    database: &'static str,
    other: Client,
    run: Client,
}

impl Race {
    fn in_database(database: &'static str) -> Race {
        let cluster = Cluster::shared("max_prepared_transactions = 10\ndeadlock_timeout = 10ms\n");
        let other = cluster.platform_in(database);
        let run = cluster.connect_to(database);
        let mut race = Race { cluster, database, other, run };
        race.fill();
        race
    }

    /// Thirty failed rows of two recipes, all expired: ten of each stay, and ids 1 to 5 and 16 to 20 go.
    fn fill(&mut self) {
        self.other
            .batch_execute(
                "TRUNCATE generations, credit_transactions RESTART IDENTITY; DELETE FROM backlog_cleanup.run",
            )
            .unwrap();
        fail(&mut self.other, 1, 15);
        fail(&mut self.other, 2, 15);
    }

    fn connect(&self) -> Client {
        self.cluster.connect_to(self.database)
    }

    /// Lets a session of its own run a statement that has to wait, and returns when it does.
    fn waiting(&self, statement: &str) -> JoinHandle<Result<(), postgres::Error>> {
        let mut session = self.connect();
        let process: i32 = value(&mut session, "SELECT pg_backend_pid()");
        let statement = statement.to_owned();
        let work = thread::spawn(move || session.batch_execute(&statement));
        until_true(&mut self.connect(), &format!("SELECT cardinality(pg_blocking_pids({process})) > 0"));
        work
    }

    /// The rows that are there. All others are in the books.
    fn rows(&self) -> i64 {
        30 - balance(&mut self.connect(), 30)
    }

    fn exists(&self, id: i32) -> bool {
        truth(&mut self.connect(), &format!("SELECT EXISTS (SELECT FROM generations WHERE id = {id})"))
    }

    fn start(&mut self) {
        self.run.batch_execute(&start_run(4)).unwrap();
        self.run.batch_execute(NEXT).unwrap();
    }

    fn finish(&mut self) -> String {
        until_true(&mut self.run, NEXT);
        value(&mut self.run, FINISH)
    }
}

#[test]
fn a_change_that_comes_first_saves_its_row_if_it_commits() {
    let mut race = Race::in_database("change_first");
    for change in CHANGES {
        for run in [RUN, BATCHES] {
            for (ending, is_saved) in [("COMMIT", true), ("ROLLBACK", false)] {
                race.fill();
                race.other.batch_execute(&format!("BEGIN; UPDATE generations SET {change} WHERE id = 1")).unwrap();
                let waiting = race.waiting(run);
                race.other.batch_execute(ending).unwrap();
                waiting.join().unwrap().unwrap();
                assert_eq!(
                    (race.exists(1), race.rows()),
                    (is_saved, 20 + i64::from(is_saved)),
                    "{change} {run} {ending}"
                );
            }
        }
    }
}

#[test]
fn a_change_that_comes_second_finds_no_row_or_the_row_as_it_was() {
    let mut race = Race::in_database("change_second");
    for change in CHANGES {
        for (ending, is_saved) in [("COMMIT", false), ("ROLLBACK", true)] {
            for (run, removed) in [(RUN, 10), (NEXT, 4)] {
                race.fill();
                if run == NEXT {
                    race.run.batch_execute(&start_run(4)).unwrap();
                }
                race.run.batch_execute(&format!("BEGIN; {run}")).unwrap();
                let waiting = race.waiting(&format!("UPDATE generations SET {change} WHERE id = 1"));
                race.run.batch_execute(ending).unwrap();
                waiting.join().unwrap().unwrap();
                let rows = if is_saved { 30 } else { 30 - removed };
                assert_eq!((race.exists(1), race.rows()), (is_saved, rows), "{change} {ending} {run}");
                match (run, ending) {
                    (NEXT, "COMMIT") => assert_eq!((race.finish(), race.rows()), ("completed".into(), 20)),
                    // A batch that is rolled back ends its run.
                    _ => race.run.batch_execute(RUN).unwrap(),
                }
                assert_eq!(race.exists(1), is_saved, "{change} {ending} {run}");
            }
        }
    }
}

#[test]
fn a_table_that_changes_hands_while_a_run_waits_is_not_used_as_its_old_owner() {
    let mut race = Race::in_database("owner");
    race.other.batch_execute(SEE).unwrap();
    race.other
        .batch_execute(
            "CREATE ROLE heir; GRANT ALL ON SCHEMA public TO heir;
             CREATE TRIGGER see BEFORE DELETE ON generations FOR EACH ROW EXECUTE FUNCTION see()",
        )
        .unwrap();
    // Whoever has waited for the table reads the target again; another table that has changed meanwhile is an error.
    for (table, call, expected) in [
        ("generations", RUN, "completed"),
        ("generations", "SELECT backlog_cleanup_status_json()", "completed"),
        ("generations", "SELECT backlog_cleanup_failures()", "completed"),
        ("users", "SELECT backlog_cleanup_status_json()", "40001"),
        ("credit_transactions", "SELECT backlog_cleanup_books()", "40001"),
    ] {
        race.other.batch_execute(&format!("ALTER TABLE {table} OWNER TO postgres")).unwrap();
        race.other.batch_execute(&format!("BEGIN; ALTER TABLE {table} OWNER TO heir")).unwrap();
        let waiting = race.waiting(call);
        race.other.batch_execute("COMMIT").unwrap();
        assert_eq!(ending(waiting.join().unwrap()), expected, "{table} {call}");
    }
    assert_eq!(column::<String>(&mut race.other, "SELECT DISTINCT who::text FROM seen"), ["heir"]);
}

#[test]
fn of_two_runs_the_second_is_refused_in_either_form_until_the_first_is_over() {
    let mut race = Race::in_database("two_runs");
    let is_refused = |second: &mut Client| {
        for run in [RUN, BATCHES, "SELECT backlog_cleanup_emergency()"] {
            let (sqlstate, message, _) = refused(second.batch_execute(run));
            assert_eq!(sqlstate, "55P03", "{run}");
            assert!(message.contains("\"generations\""), "{message}");
        }
        second.batch_execute("SELECT backlog_cleanup_emergency(dry_run => true)").unwrap();
    };
    race.start();
    is_refused(&mut race.other);
    assert_eq!(race.finish(), "completed");
    race.fill();
    race.other.batch_execute(BATCHES).unwrap();
}

#[test]
fn a_batched_run_in_a_block_that_catches_errors_is_refused_and_holds_nothing() {
    let mut race = Race::in_database("caught");
    let call = "DO $$ BEGIN CALL backlog_cleanup_run(); EXCEPTION WHEN OTHERS THEN RAISE NOTICE '%', SQLERRM; END $$";
    race.run.batch_execute(call).unwrap();
    race.other.batch_execute(RUN).unwrap();
    assert_eq!(race.rows(), 20);
}

#[test]
fn a_run_keeps_the_rules_that_it_started_with() {
    let mut race = Race::in_database("rules");
    const CHANGE: &str = "UPDATE backlog_cleanup.policy SET keep = 0";
    const BACK: &str = "UPDATE backlog_cleanup.policy SET keep = 10, enabled = true";
    // Not committed yet: the run does not know of it. Meanwhile it is not in the way either.
    race.other.batch_execute(&format!("BEGIN; {CHANGE}")).unwrap();
    race.run.batch_execute(RUN).unwrap();
    race.other.batch_execute("COMMIT").unwrap();
    assert_eq!(race.rows(), 20);
    for change in [CHANGE, "UPDATE backlog_cleanup.policy SET enabled = false"] {
        race.other.batch_execute(BACK).unwrap();
        race.fill();
        race.start();
        race.other.batch_execute(change).unwrap();
        assert_eq!((race.finish().as_str(), race.rows()), ("completed", 20), "{change}");
    }
}

#[test]
fn a_batched_run_ends_where_its_target_is_read_in_another_way() {
    let mut race = Race::in_database("target_changes");
    for change in [
        "ALTER TABLE generations ALTER id DROP DEFAULT, ALTER id TYPE text",
        "ALTER TABLE generations ALTER id TYPE integer USING id::integer",
        "ALTER TABLE generations ALTER recipe_id TYPE text",
        "ALTER TABLE generations ALTER recipe_id TYPE integer USING recipe_id::integer",
        "UPDATE backlog_cleanup.target SET failed_at_column = 'created_at'",
        "UPDATE backlog_cleanup.target SET time_zone = 'Pacific/Kiritimati'",
    ] {
        // Literals, which every type takes; all of one age, so that the ids decide.
        let rows: Vec<String> = (1..=30)
            .map(|id| format!("('{id}', 'system_backlog', '{}', '', 'failed', '2020-01-01', '2020-01-01')", id % 2))
            .collect();
        race.other
            .batch_execute(&format!(
                "TRUNCATE generations, credit_transactions; DELETE FROM backlog_cleanup.run;
                 INSERT INTO generations (id, user_id, recipe_id, prompt, status, updated_at, created_at) VALUES {}",
                rows.join(", ")
            ))
            .unwrap();
        race.start();
        race.other.batch_execute(change).unwrap();
        let (sqlstate, message, _) = refused(race.run.batch_execute(NEXT));
        assert_eq!(sqlstate, "55000", "{change}: {message}");
        assert!(message.contains("\"generations\""), "{message}");
        assert_eq!(race.rows(), 26, "{change}");
        // An error is told before its transaction is over.
        race.run.batch_execute("").unwrap();
        race.other.batch_execute(RUN).unwrap();
        assert_eq!(race.rows(), 20, "{change}");
    }
}

/// What changes the table as a whole.
const REBUILDS: [&str; 7] = [
    "DROP TABLE generations",
    "ALTER TABLE generations DROP COLUMN failure_reason",
    "ALTER TABLE generations ALTER id TYPE bigint",
    "TRUNCATE generations",
    "CREATE INDEX ON generations (failure_reason)",
    // These are in no transaction of somebody else.
    "VACUUM FULL generations",
    "CREATE INDEX CONCURRENTLY ON generations (failure_reason)",
];

/// What a run is that finds the table rebuilt: its SQLSTATE, `completed` where it succeeds.
fn outcome(rebuild: &str) -> &'static str {
    match rebuild {
        _ if rebuild.starts_with("DROP") => "42P01",
        _ if rebuild.contains("DROP COLUMN") => "42703",
        _ => "completed",
    }
}

fn ending(result: Result<(), postgres::Error>) -> String {
    if result.is_ok() { "completed".into() } else { refused(result).0 }
}

#[test]
fn a_rebuild_that_comes_first_is_waited_for_no_longer_than_lock_timeout() {
    let mut race = Race::in_database("rebuild_first");
    for rebuild in &REBUILDS[..4] {
        race.other.batch_execute("UPDATE backlog_cleanup.target SET lock_timeout = '100 ms'").unwrap();
        race.fill();
        race.other.batch_execute(&format!("BEGIN; {rebuild}")).unwrap();
        for run in [RUN, BATCHES, "SELECT backlog_cleanup_emergency()"] {
            let (sqlstate, message, _) = refused(race.run.batch_execute(run));
            assert_eq!(sqlstate, "55P03", "{rebuild}: {message}");
            assert!(message.contains("\"generations\""), "{message}");
        }
        race.other.batch_execute("ROLLBACK; UPDATE backlog_cleanup.target SET lock_timeout = '0'").unwrap();
        race.other.batch_execute(&format!("BEGIN; {rebuild}")).unwrap();
        let waiting = race.waiting(RUN);
        race.other.batch_execute("ROLLBACK").unwrap();
        waiting.join().unwrap().unwrap();
        assert_eq!(race.rows(), 20, "{rebuild}");
    }
}

#[test]
fn a_run_that_has_waited_for_a_rebuild_finds_the_table_as_it_is_then() {
    for (database, rebuild) in ["waited_0", "waited_1", "waited_2", "waited_3", "waited_4"].into_iter().zip(REBUILDS) {
        let mut race = Race::in_database(database);
        race.other.batch_execute(&format!("BEGIN; {rebuild}")).unwrap();
        let waiting = race.waiting(RUN);
        race.other.batch_execute("COMMIT").unwrap();
        assert_eq!(ending(waiting.join().unwrap()), outcome(rebuild), "{rebuild}");
        if !matches!(rebuild, "DROP TABLE generations" | "TRUNCATE generations") {
            assert_eq!(race.rows(), if outcome(rebuild) == "completed" { 20 } else { 30 }, "{rebuild}");
        }
    }
}

#[test]
fn a_run_waits_for_vacuum_full_at_work_and_goes_on_beside_an_index_that_is_built_concurrently() {
    let mut race = Race::in_database("at_work");
    let mut gate = race.connect();
    race.other
        .batch_execute(
            "CREATE FUNCTION gate(id integer) RETURNS integer IMMUTABLE LANGUAGE plpgsql
             AS 'BEGIN PERFORM pg_advisory_xact_lock_shared(1); RETURN id; END';
             CREATE INDEX gated ON generations (gate(id));
             UPDATE backlog_cleanup.target SET lock_timeout = '100 ms'",
        )
        .unwrap();
    let (close, open) = ("SELECT pg_advisory_lock(1)", "SELECT pg_advisory_unlock(1)");
    gate.batch_execute(close).unwrap();
    let rebuild = race.waiting("VACUUM FULL generations");
    for run in [RUN, BATCHES] {
        assert_eq!(refused(race.run.batch_execute(run)).0, "55P03", "{run}");
    }
    gate.batch_execute(open).unwrap();
    rebuild.join().unwrap().unwrap();

    race.other.batch_execute("UPDATE backlog_cleanup.target SET lock_timeout = '0'").unwrap();
    gate.batch_execute(close).unwrap();
    let rebuild = race.waiting("VACUUM FULL generations");
    let run = race.waiting(RUN);
    gate.batch_execute(open).unwrap();
    rebuild.join().unwrap().unwrap();
    run.join().unwrap().unwrap();
    assert_eq!(race.rows(), 20);

    race.other.batch_execute("DROP INDEX gated").unwrap();
    for run in [RUN, BATCHES] {
        race.fill();
        gate.batch_execute(close).unwrap();
        let build = race.waiting("CREATE INDEX CONCURRENTLY gated ON generations (gate(id))");
        race.run.batch_execute(run).unwrap();
        gate.batch_execute(open).unwrap();
        build.join().unwrap().unwrap();
        assert_eq!(race.rows(), 20, "{run}");
        race.other.batch_execute("DROP INDEX gated").unwrap();
    }
}

#[test]
fn a_rebuild_waits_for_a_run_in_a_transaction() {
    let mut race = Race::in_database("rebuild_second");
    for rebuild in REBUILDS {
        for (end, rows) in [("ROLLBACK", 30), ("COMMIT", 20)] {
            race.fill();
            race.run.batch_execute(&format!("BEGIN; {RUN}")).unwrap();
            let is_alone = rebuild.starts_with("VACUUM") || rebuild.contains("CONCURRENTLY");
            let waiting = race.waiting(&if is_alone { rebuild.into() } else { format!("BEGIN; {rebuild}; ROLLBACK") });
            race.run.batch_execute(end).unwrap();
            waiting.join().unwrap().unwrap();
            assert_eq!(race.rows(), rows, "{rebuild}");
        }
    }
}

#[test]
fn a_rebuild_between_two_batches_leaves_the_books_right() {
    let databases = ["between_0", "between_1", "between_2", "between_3", "between_4", "between_5", "between_6"];
    for (database, rebuild) in databases.into_iter().zip(REBUILDS) {
        let mut race = Race::in_database(database);
        race.start();
        race.other.batch_execute(rebuild).unwrap();
        let is_retyped = rebuild.contains("TYPE");
        if is_retyped || outcome(rebuild) != "completed" {
            let expected = if is_retyped { "55000" } else { outcome(rebuild) };
            assert_eq!(refused(race.run.batch_execute(NEXT)).0, expected, "{rebuild}");
        } else {
            assert_eq!(race.finish(), "completed", "{rebuild}");
        }
        assert_eq!(ending(race.run.batch_execute(RUN)), outcome(rebuild), "{rebuild}");
        if !matches!(rebuild, "DROP TABLE generations" | "TRUNCATE generations") {
            assert_eq!(race.rows(), if outcome(rebuild) == "completed" { 20 } else { 26 }, "{rebuild}");
        }
    }
}

#[test]
fn what_leaves_the_target_between_two_batches_is_left_alone() {
    let mut race = Race::in_database("leaves");
    race.other
        .batch_execute(
            "ALTER TABLE generations RENAME TO old; CREATE TABLE generations (LIKE old) PARTITION BY LIST (recipe_id);
             DELETE FROM old WHERE recipe_id = 2; ALTER TABLE generations ATTACH PARTITION old FOR VALUES IN (1);
             CREATE TABLE two PARTITION OF generations FOR VALUES IN (2);
             INSERT INTO generations (id, user_id, recipe_id, prompt, status, type, is_public, is_published, download_count,
                                      like_count, credits_refunded, retry_count, max_retries, recovery_checked, updated_at)
             SELECT id + 15, user_id, 2, prompt, status, type, is_public, is_published, download_count, like_count,
                    credits_refunded, retry_count, max_retries, recovery_checked, updated_at FROM old",
        )
        .unwrap();
    race.start();
    assert_eq!(race.rows(), 26);
    race.other
        .batch_execute("ALTER TABLE generations DETACH PARTITION old; ALTER TABLE generations DETACH PARTITION two")
        .unwrap();
    assert_eq!(race.finish(), "completed");
    race.other
        .batch_execute(
            "ALTER TABLE generations ATTACH PARTITION old FOR VALUES IN (1);
             ALTER TABLE generations ATTACH PARTITION two FOR VALUES IN (2)",
        )
        .unwrap();
    assert_eq!(race.rows(), 26);
    race.run.batch_execute(BATCHES).unwrap();
    assert_eq!(race.rows(), 20);
}

#[test]
fn a_caller_whose_snapshot_is_older_than_a_change_fails_and_changes_nothing() {
    let mut race = Race::in_database("isolation");
    for level in ["REPEATABLE READ", "SERIALIZABLE"] {
        for change in CHANGES {
            race.fill();
            // The change comes first, and its row is in the snapshot of before.
            race.run
                .batch_execute(&format!("BEGIN ISOLATION LEVEL {level}; SELECT count(*) FROM generations"))
                .unwrap();
            race.other.batch_execute(&format!("UPDATE generations SET {change} WHERE id = 1")).unwrap();
            assert_eq!(refused(race.run.batch_execute(RUN)).0, "40001", "{level}, {change}");
            race.run.batch_execute("ROLLBACK").unwrap();
            assert_eq!(race.rows(), 30);
            // The run comes first, and the change of the same row fails.
            race.fill();
            race.other
                .batch_execute(&format!("BEGIN ISOLATION LEVEL {level}; SELECT count(*) FROM generations"))
                .unwrap();
            race.run.batch_execute(&format!("BEGIN ISOLATION LEVEL {level}; {RUN}; COMMIT")).unwrap();
            let change = format!("UPDATE generations SET {change} WHERE id = 1");
            assert_eq!(refused(race.other.batch_execute(&change)).0, "40001", "{level}, {change}");
            race.other.batch_execute("ROLLBACK").unwrap();
            assert_eq!(race.rows(), 20);
        }
        race.fill();
        race.run.batch_execute(&format!("SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL {level}")).unwrap();
        race.run.batch_execute("CALL backlog_cleanup_run(batch_size => 4)").unwrap();
        assert_eq!(race.rows(), 20, "{level}");
    }
}

#[test]
fn a_prepared_transaction_that_holds_a_row_is_gone_round() {
    let mut race = Race::in_database("prepared");
    race.other.batch_execute("UPDATE backlog_cleanup.target SET lock_timeout = '100 ms'").unwrap();
    for (end, saved) in [("COMMIT", 1), ("ROLLBACK", 0)] {
        race.fill();
        let hold = "BEGIN; UPDATE generations SET status = 'pending' WHERE id = 1; PREPARE TRANSACTION 'held'";
        race.other.batch_execute(hold).unwrap();
        for run in [RUN, BATCHES] {
            race.run.batch_execute(run).unwrap();
            assert_eq!(race.rows(), 21, "{run}");
        }
        assert_eq!(number(&mut race.run, "SELECT sum(skipped) FROM backlog_cleanup.run"), 2);
        race.other.batch_execute(&format!("{end} PREPARED 'held'")).unwrap();
        race.run.batch_execute(RUN).unwrap();
        assert_eq!(race.rows(), 20 + saved, "{end}");
    }
}

#[test]
fn in_a_deadlock_either_side_may_lose_and_a_run_that_does_changes_nothing() {
    let mut race = Race::in_database("deadlock");
    race.other.batch_execute("UPDATE backlog_cleanup.target SET lock_timeout = '0'").unwrap();
    for patient in ["other", "run"] {
        race.fill();
        let mut run = race.connect();
        for (name, session) in [("other", &mut race.other), ("run", &mut run)] {
            let timeout = if name == patient { "1min" } else { "1s" };
            session.batch_execute(&format!("SET deadlock_timeout = '{timeout}'")).unwrap();
        }
        race.other.batch_execute("BEGIN; UPDATE generations SET prompt = 'held' WHERE id = 20").unwrap();
        let process: i32 = value(&mut run, "SELECT pg_backend_pid()");
        let run = thread::spawn(move || run.batch_execute(RUN));
        let blocked = format!("SELECT cardinality(pg_blocking_pids({process})) > 0");
        until_true(&mut race.connect(), &blocked);
        // The run has removed row 1 by now and waits for row 20. Who looks for deadlocks only later loses none.
        let other = race.other.batch_execute("UPDATE generations SET prompt = 'held' WHERE id = 1");
        let other = ending(other);
        race.other.batch_execute("COMMIT").unwrap();
        let run = ending(run.join().unwrap());
        match (other.as_str(), run.as_str()) {
            ("40P01", "completed") => assert_eq!(race.rows(), 20),
            ("completed", "40P01") => assert_eq!(race.rows(), 30),
            endings => panic!("{endings:?}"),
        }
    }
}

#[test]
fn a_stop_that_waits_until_the_run_has_ended_says_that_it_stops_nothing() {
    let mut race = Race::in_database("stop_waits");
    race.run.batch_execute("CALL backlog_cleanup_run()").unwrap();
    race.other.batch_execute("UPDATE backlog_cleanup.run SET state = 'running'").unwrap();
    race.other.batch_execute("BEGIN; UPDATE backlog_cleanup.run SET state = 'completed'").unwrap();
    let waiting =
        race.waiting("DO $$ BEGIN ASSERT NOT backlog_cleanup_stop((SELECT max(id) FROM backlog_cleanup.run)); END $$");
    race.other.batch_execute("COMMIT").unwrap();
    waiting.join().unwrap().unwrap();
}

#[test]
fn a_trigger_cannot_start_the_run_that_it_belongs_to_once_more() {
    let cluster = Cluster::start("");
    let mut client = cluster.platform();
    client.batch_execute("CREATE ROLE app; SELECT backlog_cleanup_grant('app', 'operator')").unwrap();
    own_by(&mut client, "app");
    fail(&mut client, 1, 20);
    client
        .batch_execute(
            "CREATE FUNCTION again() RETURNS trigger LANGUAGE plpgsql
             AS 'BEGIN PERFORM backlog_cleanup_emergency(); RETURN OLD; END'; ALTER FUNCTION again OWNER TO app;
             CREATE TRIGGER again BEFORE DELETE ON generations FOR EACH ROW EXECUTE FUNCTION again();
             SELECT backlog_cleanup_emergency()",
        )
        .unwrap();
    let last = "SELECT kept_back = 20 AND kept_back_sqlstate = '55P03' OR skipped = 20 FROM backlog_cleanup.run";
    assert!(truth(&mut client, last));
    assert_eq!(number(&mut client, "SELECT count(*) FROM backlog_cleanup.run"), 1);
}

#[test]
fn a_row_that_a_change_of_any_column_takes_from_a_run_survives_by_position_and_by_key() {
    let cluster = Cluster::start("max_worker_processes = 16\n");
    let mut client = cluster.connect();
    client
        .batch_execute(&format!(
            "{JOBS};
             ALTER TABLE job OWNER TO postgres; ALTER TABLE job ADD worker text DEFAULT 'w', ADD pinned boolean DEFAULT false;
             {}
             CREATE FOREIGN TABLE away (id int, owner text, queue text, state text, at timestamptz, error text, worker text,
                                        pinned boolean) SERVER here OPTIONS (table_name 'job');
             UPDATE backlog_cleanup.target SET ledger_table = NULL, recipe_columns = '{{queue,worker}}', condition = '(NOT pinned)',
                    statuses = '{{failed,cancelled}}' WHERE name = 't';
             SELECT backlog_cleanup_set_policy(max_age => '30 days', status => 'cancelled', target => 't'),
                    backlog_cleanup_set_policy(max_age => '30 days', failure_type => 'slow', target => 't'),
                    backlog_cleanup_set_policy('{{\"queue\": \"slow\", \"worker\": \"w\"}}', max_age => '30 days', target => 't'),
                    backlog_cleanup_set_policy('{{\"queue\": \"a\", \"worker\": \"slow\"}}', max_age => '30 days', target => 't')",
            cluster.as_server("here", "postgres")
        ))
        .unwrap();
    let leaves_scope = ["owner = 'somebody'", "state = 'retried'", "pinned = true", "pinned = NULL"];
    let has_another_policy = ["state = 'cancelled'", "error = 'slow'", "queue = 'slow'", "worker = 'slow'"];
    let runs = [
        "SELECT backlog_cleanup_failed_generations('t')",
        "CALL backlog_cleanup_run('t', batch_size => 4)",
        "SELECT backlog_cleanup_emergency('t')",
        "CALL backlog_cleanup_run('t', 'emergency', batch_size => 4)",
    ];
    for table in ["job", "away"] {
        for are_holds in [false, true] {
            client
                .batch_execute(&format!(
                    "UPDATE backlog_cleanup.target SET generations_table = 'public.{table}' WHERE name = 't';
                     UPDATE backlog_cleanup.policy SET enabled = {} WHERE target = 't' AND max_age = '30 days'",
                    !are_holds
                ))
                .unwrap();
            for change in leaves_scope.iter().filter(|_| !are_holds).chain(&has_another_policy) {
                for run in runs {
                    let is_emergency = run.contains("emergency");
                    if is_emergency && !are_holds && has_another_policy.contains(change) {
                        continue;
                    }
                    // The ids decide, and 1 to 5 go.
                    client.batch_execute("TRUNCATE job; INSERT INTO job (id) SELECT generate_series(1, 15)").unwrap();
                    let mut other = cluster.connect();
                    other.batch_execute(&format!("BEGIN; UPDATE job SET {change} WHERE id = 1")).unwrap();
                    let waiting = cluster.in_background(run);
                    let waits =
                        "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE cardinality(pg_blocking_pids(pid)) > 0)";
                    until_true(&mut client, waits);
                    other.batch_execute("COMMIT").unwrap();
                    let ended = waiting.join().unwrap().1;
                    // postgres_fdw is in REPEATABLE READ there: the run may end, and the next one finds the row as it is.
                    if table == "away" && ended.is_err() {
                        assert_eq!(refused(ended).0, "40001", "{change} {run}");
                        client.batch_execute(run).unwrap();
                    } else {
                        ended.unwrap();
                    }
                    let left: Vec<i32> = column(&mut client, "SELECT id FROM job ORDER BY id");
                    let newest = if is_emergency { 16..16 } else { 6..16 };
                    let expected: Vec<i32> = std::iter::once(1).chain(newest).collect();
                    assert_eq!(left, expected, "{table}: {change} ({are_holds}) {run}");
                }
            }
        }
    }
}

#[test]
fn a_batched_run_ends_where_a_foreign_table_stands_for_another_one() {
    let cluster = Cluster::start("");
    let mut client = cluster.connect();
    // Of `two` all rows would stay. Another database has rows under the same name.
    client
        .batch_execute(&format!(
            "CREATE EXTENSION backlog_cleanup; CREATE ROLE other LOGIN SUPERUSER; CREATE SCHEMA elsewhere; {}
             CREATE TABLE one (id int PRIMARY KEY, owner text, queue text, state text, at timestamptz, error text);
             CREATE TABLE two (LIKE one INCLUDING ALL); CREATE TABLE elsewhere.one (LIKE one INCLUDING ALL);
             CREATE TABLE job (id int, owner text, queue text, state text, at timestamptz, error text) PARTITION BY LIST (owner);
             CREATE FOREIGN TABLE far PARTITION OF job FOR VALUES IN ('w') SERVER loop OPTIONS (schema_name 'public', table_name 'one');
             INSERT INTO backlog_cleanup.target (name, generations_table, recipes_table, users_table, ledger_table, account_column,
                                                 recipe_column, status_column, failed_at_column, failure_type_column, account)
             VALUES ('t', 'public.job', NULL, NULL, NULL, 'owner', 'queue', 'state', 'at', 'error', 'w')",
            cluster.as_server("loop", "postgres")
        ))
        .unwrap();
    client.batch_execute("CREATE DATABASE another").unwrap();
    let fill = |days: i32, rows: i32, table: &str| {
        format!(
            "INSERT INTO {table} SELECT i, 'w', 'q' || i % 4, 'failed', now() - interval '{days} days' - i * interval '1 minute'
             FROM generate_series(1, {rows}) i"
        )
    };
    cluster
        .connect_to("another")
        .batch_execute(&format!(
            "CREATE TABLE one (id int PRIMARY KEY, owner text, queue text, state text, at timestamptz, error text); {}",
            fill(30, 20, "one")
        ))
        .unwrap();
    for (change, is_another) in [
        ("ALTER FOREIGN TABLE far OPTIONS (SET table_name 'two')", true),
        ("ALTER FOREIGN TABLE far ALTER at OPTIONS (ADD column_name 'at')", true),
        ("ALTER FOREIGN TABLE far ALTER at OPTIONS (DROP column_name)", true),
        // The schema is the one here where no option has it.
        ("ALTER FOREIGN TABLE far SET SCHEMA elsewhere", false),
        ("ALTER FOREIGN TABLE far OPTIONS (DROP schema_name)", true),
        ("ALTER FOREIGN TABLE far SET SCHEMA elsewhere", true),
        ("ALTER SERVER loop OPTIONS (SET dbname 'another')", true),
        ("ALTER USER MAPPING FOR postgres SERVER loop OPTIONS (SET user 'other')", true),
        (
            "DROP USER MAPPING FOR postgres SERVER loop; CREATE USER MAPPING FOR PUBLIC SERVER loop OPTIONS (user 'postgres')",
            true,
        ),
        (
            "CREATE USER MAPPING FOR other SERVER loop OPTIONS (user 'other'); GRANT USAGE ON FOREIGN SERVER loop TO PUBLIC",
            false,
        ),
    ] {
        client
            .batch_execute(&format!(
                "DELETE FROM backlog_cleanup.run; TRUNCATE one, two; {}; {};
                 ALTER FOREIGN TABLE IF EXISTS elsewhere.far SET SCHEMA public;
                 ALTER FOREIGN TABLE far OPTIONS (SET table_name 'one'); ALTER SERVER loop OPTIONS (SET dbname 'postgres');
                 DROP USER MAPPING IF EXISTS FOR PUBLIC SERVER loop; DROP USER MAPPING IF EXISTS FOR postgres SERVER loop;
                 CREATE USER MAPPING FOR postgres SERVER loop OPTIONS (user 'postgres')",
                fill(9, 400, "one"),
                fill(30, 20, "two")
            ))
            .unwrap();
        // The run before is over when its session is.
        let alone =
            "SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'client backend' AND datname = 'postgres'";
        until_true(&mut client, alone);
        let mut run = cluster.connect();
        run.batch_execute(&start_run(50).replace("generations", "t")).unwrap();
        run.batch_execute(NEXT).unwrap();
        let left = "SELECT (SELECT count(*) FROM one) * 1000 + (SELECT count(*) FROM two)";
        let before = number(&mut client, left);
        assert!((40_020..400_020).contains(&before), "{before}");
        client.batch_execute(change).unwrap();
        let next = run.batch_execute(NEXT);
        if is_another {
            let (sqlstate, message, hint) = refused(next);
            assert_eq!(sqlstate, "55000", "{change}: {message}");
            assert!(message.contains("where a foreign table has its rows") && hint.contains("'t'"), "{message} {hint}");
            assert_eq!(number(&mut client, left), before, "{change}");
        } else {
            next.unwrap_or_else(|failure| panic!("{change}: {failure:?}"));
            assert!(number(&mut client, left) < before, "{change}");
        }
        let there = number(&mut cluster.connect_to("another"), "SELECT count(*) FROM one");
        assert_eq!(there, 20, "{change}");
    }
}
