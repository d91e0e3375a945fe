//! What needs several sessions or many rows: two runs, a retry while a run waits, a standby, a veto among thousands.

mod cluster;

use std::thread;
use std::time::Duration;

use cluster::{Cluster, refused, until_true};

const FAIL: &str = "INSERT INTO generations (user_id, recipe_id, prompt, status, updated_at)
    SELECT 'system_backlog', 1, '', 'failed', now() AT TIME ZONE 'UTC' - interval '2 days' FROM generate_series(1, 15)";

#[test]
fn a_second_run_is_refused_at_once() {
    let cluster = Cluster::start("");
    let mut first = cluster.platform();
    let mut second = cluster.connect();
    first.batch_execute("BEGIN; SELECT backlog_cleanup_failed_generations()").unwrap();
    let (sqlstate, message, _) = refused(second.batch_execute("SELECT backlog_cleanup_emergency()"));
    assert_eq!(sqlstate, "55P03");
    assert!(message.contains("\"generations\""), "{message}");
    second.batch_execute("SELECT backlog_cleanup_emergency(dry_run => true)").unwrap();
    first.batch_execute("ROLLBACK").unwrap();
    second.batch_execute("SELECT backlog_cleanup_emergency()").unwrap();
}

#[test]
fn a_row_that_is_retried_while_the_run_waits_survives() {
    for change in ["status = 'pending'", "user_id = 'somebody'", "updated_at = now() AT TIME ZONE 'UTC'"] {
        let cluster = Cluster::start("");
        let mut platform = cluster.platform();
        platform.batch_execute(FAIL).unwrap();
        platform.batch_execute(&format!("BEGIN; UPDATE generations SET {change} WHERE id = 1")).unwrap();
        let mut runner = cluster.connect();
        let run = thread::spawn(move || {
            let row = runner.query_one("SELECT backlog_cleanup_failed_generations() ->> 'cleanedUpGenerations'", &[]);
            row.unwrap().get::<_, String>(0)
        });
        let mut watcher = cluster.connect();
        let waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted";
        while watcher.query_one(waiting, &[]).unwrap().get::<_, i64>(0) == 0 {
            thread::sleep(Duration::from_millis(10));
        }
        platform.batch_execute("COMMIT").unwrap();
        assert_eq!(run.join().unwrap(), "4", "{change}");
        let survivors = watcher.query_one("SELECT count(*) FROM generations WHERE id = 1", &[]).unwrap();
        assert_eq!(survivors.get::<_, i64>(0), 1, "{change}");
    }
}

#[test]
fn a_run_waits_no_longer_than_lock_timeout_and_changes_nothing() {
    let cluster = Cluster::start("");
    let mut platform = cluster.platform();
    platform.batch_execute(FAIL).unwrap();
    platform.batch_execute("UPDATE backlog_cleanup.target SET lock_timeout = '100 ms'").unwrap();
    platform.batch_execute("BEGIN; UPDATE generations SET status = 'pending' WHERE id = 1").unwrap();
    let mut runner = cluster.connect();
    let (sqlstate, message, _) = refused(runner.batch_execute("SELECT backlog_cleanup_emergency()"));
    assert_eq!(sqlstate, "55P03");
    assert!(message.contains("\"generations\""), "{message}");
    assert_eq!(books(&mut runner), [15, 0, 0]);
}

#[test]
fn a_table_that_changes_hands_while_a_run_waits_is_not_used_as_its_old_owner() {
    let cluster = Cluster::start("");
    let mut platform = cluster.platform();
    platform.batch_execute(FAIL).unwrap();
    platform
        .batch_execute(
            "CREATE ROLE heir; GRANT ALL ON SCHEMA public TO heir;
             CREATE TABLE seen (who name); GRANT INSERT ON seen TO heir;
             CREATE FUNCTION see() RETURNS trigger LANGUAGE plpgsql AS
                 'BEGIN INSERT INTO seen VALUES (current_user); RETURN OLD; END';
             CREATE TRIGGER see BEFORE DELETE ON generations FOR EACH ROW EXECUTE FUNCTION see()",
        )
        .unwrap();
    // Whoever has waited for the table reads the target again; another table that has changed meanwhile is an error.
    for (table, call, expected) in [
        ("generations", "SELECT backlog_cleanup_failed_generations()", "done"),
        ("generations", "SELECT backlog_cleanup_status_json()", "done"),
        ("generations", "SELECT backlog_cleanup_failures()", "done"),
        ("users", "SELECT backlog_cleanup_status_json()", "40001"),
        ("credit_transactions", "SELECT backlog_cleanup_books()", "40001"),
    ] {
        platform.batch_execute(&format!("ALTER TABLE {table} OWNER TO postgres")).unwrap();
        platform.batch_execute(&format!("BEGIN; ALTER TABLE {table} OWNER TO heir")).unwrap();
        let mut runner = cluster.connect();
        let run = thread::spawn(move || runner.batch_execute(call));
        let mut watcher = cluster.connect();
        let waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted";
        while watcher.query_one(waiting, &[]).unwrap().get::<_, i64>(0) == 0 {
            thread::sleep(Duration::from_millis(10));
        }
        platform.batch_execute("COMMIT").unwrap();
        let done = run.join().unwrap().map_or_else(|failure| refused(Err(failure)).0, |()| "done".into());
        assert_eq!(done, expected, "{table} {call}");
    }
    let seen = platform.query("SELECT DISTINCT who::text FROM seen", &[]).unwrap();
    assert_eq!(seen.iter().map(|row| row.get::<_, String>(0)).collect::<Vec<_>>(), ["heir"]);
}

/// Rows of the table, runs in the history, and the ledger's sum.
fn books(client: &mut postgres::Client) -> [i64; 3] {
    let books = "SELECT (SELECT count(*) FROM generations), (SELECT count(*) FROM backlog_cleanup.run),
                        (SELECT coalesce(sum(amount), 0)::bigint FROM credit_transactions)";
    let books = client.query_one(books, &[]).unwrap();
    [0, 1, 2].map(|column| books.get(column))
}

#[test]
fn a_run_that_is_cancelled_while_it_waits_stops_at_once_and_changes_nothing() {
    let cluster = Cluster::start("");
    let mut platform = cluster.platform();
    platform.batch_execute(FAIL).unwrap();
    platform.batch_execute("UPDATE backlog_cleanup.target SET lock_timeout = '0'").unwrap();
    platform.batch_execute("BEGIN; UPDATE generations SET status = 'pending' WHERE id = 1").unwrap();
    let mut runner = cluster.connect();
    let run = thread::spawn(move || refused(runner.batch_execute("SELECT backlog_cleanup_emergency()")).0);
    let mut watcher = cluster.connect();
    let cancel = "SELECT count(pg_cancel_backend(pid)) FROM pg_locks WHERE NOT granted";
    while watcher.query_one(cancel, &[]).unwrap().get::<_, i64>(0) == 0 {
        thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(run.join().unwrap(), "57014");
    assert_eq!(books(&mut watcher), [15, 0, 0]);
}

#[test]
fn the_books_balance_after_a_crash() {
    let cluster = Cluster::start("fsync = on\n");
    let mut client = cluster.platform();
    client.batch_execute(FAIL).unwrap();
    client.batch_execute("BEGIN; SELECT backlog_cleanup_emergency()").unwrap();
    cluster.crash();
    let mut client = cluster.connect();
    assert_eq!(books(&mut client), [15, 0, 0]);
    client.batch_execute("SELECT backlog_cleanup_failed_generations()").unwrap();
    cluster.crash();
    assert_eq!(books(&mut cluster.connect()), [10, 1, 5]);
}

#[test]
fn status_works_on_a_standby_and_a_run_is_refused_there() {
    let cluster = Cluster::start("");
    cluster.platform().batch_execute(FAIL).unwrap();
    let standby = cluster.standby();
    let mut client = standby.connect();
    let failed = "SELECT failed_count, removable_count FROM backlog_cleanup_status()";
    let status = client.query_one(failed, &[]).unwrap();
    assert_eq!((status.get::<_, i64>(0), status.get::<_, i64>(1)), (15, 5));
    client.batch_execute("SELECT backlog_cleanup_status_json()").unwrap();
    client.batch_execute("SELECT backlog_cleanup_failed_generations(dry_run => true)").unwrap();
    assert_eq!(refused(client.batch_execute("SELECT backlog_cleanup_failed_generations()")).0, "25006");
}

#[test]
fn a_vetoed_row_among_thousands_is_kept_and_counted_as_kept() {
    let cluster = Cluster::start("");
    let mut client = cluster.platform();
    client
        .batch_execute(
            "INSERT INTO generations (user_id, recipe_id, prompt, status, updated_at)
             SELECT 'system_backlog', i % 3, '', 'failed', now() AT TIME ZONE 'UTC' - interval '2 days'
             FROM generate_series(1, 120000) i;
             CREATE FUNCTION veto() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
             CREATE TRIGGER veto BEFORE DELETE ON generations FOR EACH ROW WHEN (OLD.id = 60001)
             EXECUTE FUNCTION veto()",
        )
        .unwrap();
    let report =
        "SELECT (detail ->> 'recipeId')::int, (detail ->> 'failedCount')::int, (detail ->> 'cleanedCount')::int
                  FROM jsonb_array_elements(backlog_cleanup_failed_generations() -> 'cleanupDetails') detail
                  ORDER BY 1";
    let report = client.query(report, &[]).unwrap();
    let report: Vec<[i32; 3]> = report.iter().map(|row| [row.get(0), row.get(1), row.get(2)]).collect();
    assert_eq!(
        report,
        [[0, 40000, 39990], [1, 40000, 39990], [2, 40000, 39990]].map(|[recipe, failed, cleaned]| {
            [recipe, failed, if recipe == 60001 % 3 { cleaned - 1 } else { cleaned }]
        })
    );
    let left = client.query_one("SELECT count(*), count(*) FILTER (WHERE id = 60001) FROM generations", &[]).unwrap();
    assert_eq!((left.get::<_, i64>(0), left.get::<_, i64>(1)), (31, 1));
    let ledger = client.query_one("SELECT sum(amount) FROM credit_transactions", &[]).unwrap();
    assert_eq!(ledger.get::<_, i64>(0), 119969);
}

/// What an emergency run of `generations` says to have removed of each recipe.
const REMOVED: &str = "SELECT (detail ->> 'recipeId')::int, (detail ->> 'cleanedCount')::int
                       FROM jsonb_array_elements(backlog_cleanup_emergency() -> 'cleanupDetails') detail ORDER BY 1";

#[test]
fn an_emergency_run_of_many_rows_counts_each_of_them() {
    let cluster = Cluster::start("");
    let mut client = cluster.platform();
    client
        .batch_execute(
            "INSERT INTO generations (user_id, recipe_id, prompt, status)
             SELECT 'system_backlog', nullif(i % 3, 0), '', 'failed' FROM generate_series(1, 140000) i",
        )
        .unwrap();
    let report = client.query(REMOVED, &[]).unwrap();
    let report: Vec<(Option<i32>, i32)> = report.iter().map(|row| (row.get(0), row.get(1))).collect();
    assert_eq!(report, [(Some(1), 46667), (Some(2), 46667), (None, 46666)]);
}

#[test]
fn a_recipe_below_zero_is_told_as_it_is_by_compiled_code_too() {
    let cluster = Cluster::start("jit = on\njit_above_cost = 0\n");
    let mut client = cluster.platform();
    client
        .batch_execute(
            "INSERT INTO generations (user_id, recipe_id, prompt, status) VALUES ('system_backlog', -5, '', 'failed')",
        )
        .unwrap();
    let removed = client.query_one(REMOVED, &[]).unwrap();
    assert_eq!((removed.get::<_, i32>(0), removed.get::<_, i32>(1)), (-5, 1));
}

#[test]
fn a_row_whose_recipe_changes_while_an_emergency_run_waits_for_it_is_counted_as_it_went() {
    let cluster = Cluster::start("");
    let mut client = cluster.platform();
    client
        .batch_execute(
            "INSERT INTO generations (user_id, recipe_id, prompt, status) VALUES ('system_backlog', 1, '', 'failed');
             UPDATE backlog_cleanup.target SET lock_timeout = '1 minute'",
        )
        .unwrap();
    client.batch_execute("BEGIN; UPDATE generations SET recipe_id = 2").unwrap();
    let removed = thread::scope(|scope| {
        let run = scope.spawn(|| cluster.connect().query_one(REMOVED, &[]).map(|row| (row.get(0), row.get(1))));
        until_true(&mut cluster.connect(), "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted)");
        client.batch_execute("COMMIT").unwrap();
        run.join().unwrap()
    });
    assert_eq!(removed.unwrap(), (2, 1));
}

#[test]
fn a_status_that_two_words_name_is_counted_by_both() {
    let cluster = Cluster::start("");
    let mut client = cluster.platform();
    client
        .batch_execute(
            "INSERT INTO generations (user_id, recipe_id, prompt, status)
             VALUES ('system_backlog', 7, '', 'pending'), ('system_backlog', 7, '', 'processing')",
        )
        .unwrap();
    client
        .batch_execute("CREATE COLLATION careless (provider = icu, locale = 'und-u-ks-level2', deterministic = false)")
        .unwrap();
    // The others are another word, which the type or its collation takes for the same.
    for (sql_type, word) in [("text", "pending"), ("character(10)", "pending "), ("text COLLATE careless", "PENDING")] {
        client
            .batch_execute(&format!(
                "ALTER TABLE generations ALTER status TYPE {sql_type};
                 UPDATE backlog_cleanup.target SET processing_status = '{word}'"
            ))
            .unwrap();
        let status = "SELECT total_count, pending_count, processing_count FROM backlog_cleanup_status()";
        let status = client.query_one(status, &[]).unwrap();
        assert_eq!([0, 1, 2].map(|column| status.get::<_, i64>(column)), [2, 1, 1], "{sql_type}");
    }
}

#[test]
fn an_emergency_run_in_a_trigger_of_another_counts_its_own_rows() {
    let cluster = Cluster::start("");
    let mut client = cluster.platform();
    client
        .batch_execute(
            "CREATE TABLE inner_generations (LIKE generations INCLUDING ALL);
             INSERT INTO inner_generations (user_id, recipe_id, prompt, status)
             SELECT 'system_backlog', 7, '', 'failed' FROM generate_series(1, 3);
             INSERT INTO generations (user_id, recipe_id, prompt, status)
             SELECT 'system_backlog', i % 2, '', 'failed' FROM generate_series(1, 10) i;
             INSERT INTO backlog_cleanup.target (name, generations_table) VALUES ('inner', 'public.inner_generations');
             CREATE FUNCTION clean() RETURNS trigger LANGUAGE plpgsql AS
             $$BEGIN PERFORM backlog_cleanup_emergency('inner'); RETURN OLD; END$$;
             CREATE TRIGGER clean BEFORE DELETE ON generations FOR EACH ROW WHEN (OLD.id = 5) EXECUTE FUNCTION clean()",
        )
        .unwrap();
    let report = client.query_one("SELECT (backlog_cleanup_emergency() ->> 'removedCount')::int", &[]).unwrap();
    assert_eq!(report.get::<_, i32>(0), 10);
    let counts = client
        .query(
            "SELECT target, r.recipe_id::int, cleaned_count::int FROM backlog_cleanup.run
                JOIN backlog_cleanup.run_recipe r ON run_id = run.id ORDER BY 1, 2",
            &[],
        )
        .unwrap();
    let counts: Vec<(String, i32, i32)> = counts.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect();
    let expected = [("generations", 0, 5), ("generations", 1, 5), ("inner", 7, 3)];
    assert_eq!(counts, expected.map(|(target, recipe, count)| (target.into(), recipe, count)));
}

#[test]
fn an_emergency_run_does_not_count_as_removed_what_a_rule_makes_something_else_of() {
    let cluster = Cluster::start("");
    let mut client = cluster.platform();
    client
        .batch_execute(
            "INSERT INTO generations (user_id, recipe_id, prompt, status)
             SELECT 'system_backlog', 1, '', 'failed' FROM generate_series(1, 3)",
        )
        .unwrap();
    for action in ["UPDATE generations SET status = 'hidden' WHERE id = OLD.id", "NOTIFY removed", "NOTHING"] {
        client
            .batch_execute(&format!("CREATE OR REPLACE RULE soft AS ON DELETE TO generations DO INSTEAD {action}"))
            .unwrap();
        let refused = refused(client.batch_execute("SELECT backlog_cleanup_emergency()"));
        assert_eq!(refused.0, "0A000", "{action}: {refused:?}");
        let left = client.query_one("SELECT count(*) FROM generations WHERE status = 'failed'", &[]).unwrap();
        assert_eq!(left.get::<_, i64>(0), 3, "{action}");
    }
}
