//! Any table of jobs: expressions in place of columns, no recipe, no failure type, a condition, and the index that serves each.

use std::thread;

use cluster::{Cluster, JOBS, column, create_index, finding, number, numbers, refused, until_true, value, veto};
use postgres::Client;

/// A table as Oban has it, with two rows in three that are final, and the same rows with the columns that the expressions mean. The
/// targets `shape` and `plain` differ in nothing else.
const OBAN: &str = "
    CREATE EXTENSION backlog_cleanup;
    CREATE TYPE state AS ENUM ('available', 'executing', 'discarded', 'cancelled', 'completed');
    CREATE TABLE oban_jobs (id bigserial PRIMARY KEY, state state NOT NULL, queue text NOT NULL, worker text NOT NULL,
                            errors jsonb[] NOT NULL DEFAULT '{}', args text DEFAULT repeat('x', 200), account text DEFAULT 'all',
                            discarded_at timestamp, cancelled_at timestamp, completed_at timestamp, pinned boolean NOT NULL DEFAULT false);
    INSERT INTO oban_jobs (state, queue, worker, errors, discarded_at, cancelled_at, completed_at, pinned)
    SELECT (ARRAY['discarded', 'cancelled', 'available'])[1 + i % 3]::state, 'q' || i % 2, 'W' || i % 5,
           ARRAY[jsonb '{\"error\": \"first\"}', jsonb_build_object('error', E'** (Error) no ' || i % 4 || E'\\nat line 1')],
           CASE i % 3 WHEN 0 THEN at END, CASE i % 3 WHEN 1 THEN at END, CASE i % 3 WHEN 2 THEN at END, i % 7 = 0
    FROM generate_series(1, 6000) i, LATERAL (SELECT now() AT TIME ZONE 'UTC' - interval '1 minute' * (i * 7919 % 6000)) made (at);
    CREATE TABLE plain AS
    SELECT id, account, queue || '.' || worker AS recipe, CASE WHEN state IN ('discarded', 'cancelled') AND NOT pinned THEN 'failed' END AS status,
           coalesce(discarded_at, cancelled_at, completed_at) AS at, errors[array_upper(errors, 1)] ->> 'error' AS error
    FROM oban_jobs;
    INSERT INTO backlog_cleanup.target (name, generations_table, recipes_table, users_table, ledger_table, account_column, account,
                                        recipe_column, status_column, failed_at_column, failure_type_column, condition)
    VALUES ('plain', 'public.plain', NULL, NULL, NULL, 'account', 'all', 'recipe', 'status', 'at', 'error', NULL),
           ('shape', 'public.oban_jobs', NULL, NULL, NULL, 'account', 'all', '(queue || ''.'' || worker)',
            '(CASE WHEN state IN (''discarded'', ''cancelled'') THEN ''failed'' ELSE '''' END)',
            '(coalesce(discarded_at, cancelled_at, completed_at))', '(errors[array_upper(errors, 1)] ->> ''error'')', 'NOT pinned');
    ANALYZE";

fn database(setup: &str) -> (Cluster, Client) {
    let cluster = Cluster::start("max_worker_processes = 16\n");
    let mut client = cluster.connect();
    client.batch_execute(setup).unwrap();
    (cluster, client)
}

#[test]
fn an_expression_means_what_a_column_with_its_values_would() {
    let (_cluster, mut client) = database(OBAN);
    let same = |client: &mut Client, query: &str| {
        let [plain, shape] = ["plain", "shape"].map(|target| {
            column::<String>(
                client,
                &query.replace("$t", target).replace("$r", if target == "plain" { "plain" } else { "oban_jobs" }),
            )
        });
        assert!(plain == shape && !plain.is_empty(), "{query}: {plain:?} {shape:?}");
    };
    let status = "SELECT (s.recipe_id, s.failed_count, s.removable_count, s.oldest_failed_at)::text FROM backlog_cleanup_status('$t') s ORDER BY 1";
    let failures = "SELECT f::text FROM backlog_cleanup_failures('$t', NULL, 3) f ORDER BY 1";
    let left = "SELECT id::text FROM $r ORDER BY id";
    for run in [
        "SELECT r ->> 'cleanupDetails' FROM backlog_cleanup_failed_generations('$t', dry_run => true) r",
        "SELECT backlog_cleanup_failed_generations('$t', recipe_id => 'q1.W1') ->> 'cleanupDetails'",
        "SELECT backlog_cleanup_failed_generations('$t', failure_type => '** (Error) no 2') ->> 'cleanupDetails'",
        "SELECT backlog_cleanup_emergency('$t', recipe_id => 'q0.W2') ->> 'removedCount'",
    ] {
        for query in [status, failures, run, left] {
            same(&mut client, query);
        }
    }
    for target in ["plain", "shape"] {
        client
            .batch_execute(&format!("CALL backlog_cleanup_run('{target}', batch_size => 100, workers => 2)"))
            .unwrap();
    }
    same(&mut client, left);
    same(&mut client, status);
    assert_eq!(number(&mut client, "SELECT count(*) FROM oban_jobs WHERE pinned"), 857);
    same(&mut client, "SELECT backlog_cleanup_emergency('$t') ->> 'removedCount'");
    same(&mut client, left);
    assert_eq!(number(&mut client, "SELECT count(*) FROM oban_jobs WHERE pinned"), 857);
}

#[test]
fn several_recipe_columns_are_one_recipe_whose_id_is_a_document() {
    let (_cluster, mut client) = database(OBAN);
    client
        .batch_execute(
            "UPDATE backlog_cleanup.target SET recipe_column = NULL, recipe_columns = '{queue,worker}' WHERE name = 'shape';
             UPDATE plain SET recipe = jsonb_build_object('queue', split_part(recipe, '.', 1), 'worker', split_part(recipe, '.', 2))",
        )
        .unwrap();
    let ids: Vec<String> =
        column(&mut client, "SELECT recipe_id FROM backlog_cleanup_status('shape') ORDER BY 1 LIMIT 1");
    assert_eq!(ids, [r#"{"queue": "q0", "worker": "W0"}"#]);
    let one = r#"SELECT backlog_cleanup_failed_generations($1, recipe_id => '{"queue": "q1", "worker": "W3"}') ->> 'cleanupDetails'"#;
    let [plain, shape] =
        ["plain", "shape"].map(|target| value::<String>(&mut client, &one.replace("$1", &format!("'{target}'"))));
    // In JSON it is an object, where the column of `plain` has a text.
    let [mut plain, shape] = [plain, shape].map(|details| serde_json::from_str::<serde_json::Value>(&details).unwrap());
    for detail in plain.as_array_mut().unwrap() {
        detail["recipeId"] = serde_json::from_str(detail["recipeId"].as_str().unwrap()).unwrap();
    }
    assert!(shape[0]["recipeId"] == serde_json::json!({"queue": "q1", "worker": "W3"}) && plain == shape, "{shape}");
    let status = "SELECT backlog_cleanup_status_json('shape') #>> '{recipesWithFailedGenerations,0,recipeId,queue}'";
    assert!(value::<String>(&mut client, status).starts_with('q'));
    for target in ["plain", "shape"] {
        client.batch_execute(&format!("CALL backlog_cleanup_run('{target}', batch_size => 300)")).unwrap();
    }
    let differing =
        "SELECT count(*) FROM plain FULL JOIN oban_jobs o USING (id) WHERE plain.id IS NULL OR o.id IS NULL";
    assert_eq!(number(&mut client, differing), 0);
    for wrong in ["'{}'", "'{NULL}'"] {
        let write = format!("UPDATE backlog_cleanup.target SET recipe_columns = {wrong} WHERE name = 'shape'");
        assert_eq!(refused(client.batch_execute(&write)).0, "23514", "{wrong}");
    }
    let (sqlstate, message, _) = refused(
        client.batch_execute("UPDATE backlog_cleanup.target SET recipe_columns = '{queue,no}' WHERE name = 'shape'"),
    );
    assert_eq!((sqlstate.as_str(), message.contains("column \"no\"")), ("42703", true), "{message}");
}

/// Jobs whose key has two columns; all have failed at the same time, so that the key decides.
const COMPOSITE: &str = "
    CREATE EXTENSION backlog_cleanup;
    CREATE TABLE job (queue text COLLATE \"C\", seq bigint, state text DEFAULT 'failed', at timestamptz DEFAULT '2020-01-01', PRIMARY KEY (seq, queue));
    INSERT INTO job SELECT q, i FROM generate_series(1, 20) i, unnest(ARRAY['a', 'B', 'it''s \"c\"']) q;
    INSERT INTO backlog_cleanup.target (name, generations_table, recipes_table, users_table, ledger_table, account_column, account,
                                        recipe_column, id_columns, status_column, failed_at_column, failure_type_column)
    VALUES ('t', 'public.job', NULL, NULL, NULL, NULL, NULL, NULL, '{seq,queue}', 'state', 'at', NULL)";

#[test]
fn several_id_columns_are_one_id_whose_text_is_a_document() {
    let (_cluster, mut client) = database(COMPOSITE);
    let expected = r#"{17,a} {17,"it's \"c\""} {18,B} {18,a} {18,"it's \"c\""} {19,B} {19,a} {19,"it's \"c\""} {20,B} {20,a} {20,"it's \"c\""}"#;
    let expected: Vec<&str> = expected.split_inclusive('}').map(str::trim).skip(1).collect();
    let left = "SELECT ARRAY[seq::text, queue]::text FROM job ORDER BY seq, queue";
    let explain = |client: &mut Client, id: &str| {
        let explain = format!("SELECT verdict || ' ' || reason FROM backlog_cleanup_explain('{id}', 't')");
        value::<String>(client, &explain)
    };
    let newest = r#"{"seq": 20, "queue": "it''s \"c\""}"#;
    assert_eq!(explain(&mut client, newest), "kept it is among the newest, rank 1 of 10");
    assert_eq!(explain(&mut client, r#"{"queue": "B", "seq": 17}"#), "removable 11 newer ones have expired");
    assert_eq!(
        explain(&mut client, r#"{"seq": 21, "queue": "a"}"#),
        "no such row table public.job has no row with this id"
    );
    for id in ["17", r#"{"seq": 17}"#, r#"{"seq": 17, "queue": "a", "at": 1}"#, r#"{"seq": "x", "queue": "a"}"#, "{"] {
        let call = format!("SELECT backlog_cleanup_explain('{id}', 't')");
        let (sqlstate, message, hint) = refused(client.batch_execute(&call));
        assert_eq!(sqlstate, "22P02", "{id}: {message}");
        client.batch_execute(&hint).unwrap();
    }
    client.batch_execute("CREATE TABLE saved AS TABLE job").unwrap();
    for call in ["SELECT backlog_cleanup_failed_generations('t')", "CALL backlog_cleanup_run('t', batch_size => 7)"] {
        client.batch_execute("TRUNCATE job; INSERT INTO job TABLE saved").unwrap();
        client.batch_execute(call).unwrap();
        assert_eq!(column::<String>(&mut client, left), expected, "{call}");
    }
    veto(&mut client, "job", "OLD.seq = 3 AND OLD.queue = 'B'");
    for call in ["SELECT backlog_cleanup_failed_generations('t')", "CALL backlog_cleanup_run('t', batch_size => 7)"] {
        client.batch_execute("TRUNCATE job; INSERT INTO job TABLE saved").unwrap();
        client.batch_execute(call).unwrap();
        let row: String = value(&mut client, "SELECT kept_back_row FROM backlog_cleanup.run ORDER BY id DESC LIMIT 1");
        assert_eq!(row, r#"{"seq": 3, "queue": "B"}"#, "{call}");
        assert!(explain(&mut client, &row).starts_with("kept back"), "{call}");
    }
}

#[test]
fn all_that_is_wrong_with_id_columns_is_said_at_once() {
    let (_cluster, mut client) = database(COMPOSITE);
    client.batch_execute("ALTER TABLE job ADD doc json, ADD list int[]").unwrap();
    let wrong =
        "UPDATE backlog_cleanup.target SET id_columns = '{seq,no,nor}', condition = '(nothing)' WHERE name = 't'";
    let failure = client.batch_execute(wrong).unwrap_err();
    let message = failure.as_db_error().and_then(|error| error.detail()).unwrap_or_default();
    for part in ["column \"no\"", "column \"nor\"", "\"(nothing)\""] {
        assert!(message.contains(part), "{part}: {message}");
    }
    let wrong = "UPDATE backlog_cleanup.target SET id_columns = '{seq,doc,list}' WHERE name = 't'";
    let failure = client.batch_execute(wrong).unwrap_err();
    let message = failure.as_db_error().and_then(|error| error.detail()).unwrap_or_default();
    assert!(message.contains("column \"doc\"") && message.contains("column \"list\""), "{message}");
    for wrong in ["'{}'", "'{NULL}'"] {
        let write = format!("UPDATE backlog_cleanup.target SET id_columns = {wrong} WHERE name = 't'");
        assert_eq!(refused(client.batch_execute(&write)).0, "23514", "{wrong}");
    }
    client.batch_execute("ALTER TABLE job DROP COLUMN seq").unwrap();
    let found = "SELECT string_agg(detail, ' ') FROM backlog_cleanup_doctor('t') WHERE status <> 'ok'";
    let found: String = value(&mut client, found);
    assert!(found.contains("column \"seq\""), "{found}");
}

#[test]
fn without_a_recipe_all_rows_are_one_group_and_without_a_failure_type_all_have_none() {
    let (_cluster, mut client) = database(JOBS);
    client
        .batch_execute(
            "ALTER TABLE job ALTER at DROP DEFAULT, ALTER at TYPE date USING current_date - id, ALTER queue SET DEFAULT NULL;
             UPDATE job SET queue = id % 3;
             UPDATE backlog_cleanup.target SET recipe_column = NULL, failure_type_column = NULL WHERE name = 't'",
        )
        .unwrap();
    let types: Vec<String> =
        column(&mut client, "SELECT DISTINCT failure_type FROM backlog_cleanup_failures('t', NULL)");
    assert_eq!(types, ["(none)"]);
    for selection in ["failure_type => 'x'", "failure_type => '(none)'", "recipe_id => '1'"] {
        let run = format!("SELECT backlog_cleanup_emergency('t', {selection})");
        assert_eq!(refused(client.batch_execute(&run)).0, "22023", "{selection}");
    }
    let report = "SELECT backlog_cleanup_failed_generations('t', dry_run => true) #>> '{cleanupDetails,0}'";
    let details: String = value(&mut client, report);
    assert!(details.contains("\"recipeId\": null") && details.contains("\"failedCount\": 100"), "{details}");
    client.batch_execute("CALL backlog_cleanup_run('t', batch_size => 7)").unwrap();
    // Those of yesterday are less than 24 hours old, or more, as the clock has it: their midnight is.
    let left: Vec<i32> = column(&mut client, "SELECT id FROM job ORDER BY id");
    assert!(left == (1..=10).collect::<Vec<_>>() || left == (1..=11).collect::<Vec<_>>(), "{left:?}");
    client.batch_execute("SELECT backlog_cleanup_emergency('t')").unwrap();
    assert_eq!(number(&mut client, "SELECT count(*) FROM job"), 0);
}

#[test]
fn a_date_beyond_all_timestamps_never_expires_and_stops_nothing() {
    let (_cluster, mut client) = database(JOBS);
    client
        .batch_execute(
            "ALTER TABLE job ALTER at DROP DEFAULT, ALTER at TYPE date USING current_date - 9;
             UPDATE job SET at = '5874897-12-31' WHERE id = 7; UPDATE job SET at = '-infinity' WHERE id = 8;
             UPDATE job SET at = 'infinity' WHERE id = 9",
        )
        .unwrap();
    for read in [
        "FROM backlog_cleanup_status('t')",
        "backlog_cleanup_status_json('t')",
        "FROM backlog_cleanup_failures('t')",
        "FROM backlog_cleanup_explain('7', 't')",
    ] {
        client.batch_execute(&format!("SELECT {}{read}", if read.starts_with("FROM") { "* " } else { "" })).unwrap();
    }
    client.batch_execute("SELECT backlog_cleanup_failed_generations('t')").unwrap();
    assert_eq!(column::<i32>(&mut client, "SELECT id FROM job WHERE id IN (7, 8, 9) ORDER BY id"), [7, 9]);
    assert_eq!(number(&mut client, "SELECT count(*) FROM job"), 12);
}

#[test]
fn a_row_that_leaves_the_condition_or_its_expression_while_a_run_waits_survives() {
    let (cluster, mut client) = database(JOBS);
    client
        .batch_execute(
            "ALTER TABLE job ADD held boolean NOT NULL DEFAULT false, ADD retried timestamptz;
             UPDATE backlog_cleanup.target SET condition = 'NOT held', failed_at_column = '(coalesce(retried, at))',
                    status_column = '(lower(state))', recipe_column = '(upper(queue))' WHERE name = 't'",
        )
        .unwrap();
    for change in ["held = true", "held = NULL", "retried = now()", "state = 'retried'"] {
        let nullable = if change.contains("NULL") { "DROP" } else { "SET" };
        client.batch_execute(&format!("TRUNCATE job; ALTER TABLE job ALTER held {nullable} NOT NULL")).unwrap();
        for run in [
            "SELECT backlog_cleanup_failed_generations('t')",
            "CALL backlog_cleanup_run('t', batch_size => 4)",
            "SELECT backlog_cleanup_emergency('t')",
            "CALL backlog_cleanup_run('t', mode => 'emergency', batch_size => 4)",
        ] {
            if run.contains("emergency") && change.contains("retried = now") {
                continue;
            }
            client.batch_execute("TRUNCATE job; INSERT INTO job (id) SELECT generate_series(1, 15)").unwrap();
            let mut other = cluster.connect();
            other.batch_execute(&format!("BEGIN; UPDATE job SET {change} WHERE id = 1")).unwrap();
            let mut session = cluster.connect();
            let process: i32 = value(&mut session, "SELECT pg_backend_pid()");
            let waiting = thread::spawn(move || session.batch_execute(run));
            until_true(&mut client, &format!("SELECT cardinality(pg_blocking_pids({process})) > 0"));
            other.batch_execute("COMMIT").unwrap();
            waiting.join().unwrap().unwrap();
            let left = number(&mut client, "SELECT count(*) FROM job WHERE id = 1");
            assert_eq!(left, 1, "{change} {run}");
        }
    }
}

#[test]
fn a_condition_or_an_expression_that_changes_between_two_batches_ends_the_run() {
    let (_cluster, mut client) = database(JOBS);
    client.batch_execute("UPDATE backlog_cleanup.target SET condition = '(id > 0)' WHERE name = 't'").unwrap();
    for (change, back) in [
        ("condition = '(id > 1)'", "condition = '(id > 0)'"),
        ("condition = NULL", "condition = '(id > 0)'"),
        ("recipe_column = '(upper(queue))'", "recipe_column = 'queue'"),
        ("failed_at_column = '(coalesce(at, at))'", "failed_at_column = 'at'"),
    ] {
        let start = cluster::start_run(4).replace("generations", "t");
        client.batch_execute(&start).unwrap();
        let next = "SELECT backlog_cleanup.next_batch(max(id)) FROM backlog_cleanup.run";
        client.batch_execute(next).unwrap();
        client.batch_execute(&format!("UPDATE backlog_cleanup.target SET {change} WHERE name = 't'")).unwrap();
        assert_eq!(refused(client.batch_execute(next)).0, "55000", "{change}");
        client.batch_execute(&format!("UPDATE backlog_cleanup.target SET {back} WHERE name = 't'")).unwrap();
    }
}

/// The doctor's status and detail of the index of `shape`.
fn index(client: &mut Client) -> (String, String) {
    let row = "SELECT status, detail FROM backlog_cleanup_doctor('shape') WHERE check_name = 'index'";
    let row = client.query_one(row, &[]).unwrap();
    (row.get(0), row.get(1))
}

#[test]
fn the_index_of_each_shape_is_all_that_ranking_reads() {
    let (_cluster, mut client) = database(OBAN);
    client.batch_execute("ALTER TABLE oban_jobs ALTER account SET NOT NULL").unwrap();
    let columns = [
        "recipe_column = 'queue', status_column = 'state', statuses = '{discarded}', completed_status = NULL, pending_status = NULL,
         processing_status = NULL, failed_at_column = 'discarded_at', condition = NULL",
        "failed_at_column = '(coalesce(discarded_at, cancelled_at, completed_at))'",
        "recipe_column = '(queue || ''.'' || worker)'",
        "recipe_columns = '{queue,worker}'",
        "condition = '(NOT pinned AND errors[array_upper(errors, 1)] ->> ''error'' LIKE ''**%'')'",
        "recipe_columns = NULL, recipe_column = NULL",
        "status_column = '(lower(worker))', statuses = '{w1,w2,w3}'",
        "id_columns = '{account,id}'",
        "id_columns = '{worker,id}', recipe_columns = '{queue,worker}'",
        "id_columns = '{queue,worker,id}', recipe_columns = '{queue,worker}'",
        "failure_type_column = 'error_kind'",
        "recipe_columns = NULL, recipe_column = '(queue || ''.'' || worker)', failure_type_column = '(lower(error_kind))'",
    ];
    client
        .batch_execute(
            "ALTER TABLE oban_jobs ADD error_kind varchar(40); UPDATE oban_jobs SET error_kind = 'kind ' || id % 3",
        )
        .unwrap();
    let drop = "DO $$ BEGIN EXECUTE (SELECT format('DROP INDEX %s', indexrelid::regclass) FROM pg_index
                                     WHERE indrelid = 'oban_jobs'::regclass AND indpred IS NOT NULL); END $$";
    for change in columns {
        client.batch_execute(&format!("UPDATE backlog_cleanup.target SET {change} WHERE name = 'shape'")).unwrap();
        let policy = if change.contains("error_kind") {
            // An index that was built before a policy named a failure type.
            create_index(&mut client, "shape");
            client.batch_execute("VACUUM (ANALYZE) oban_jobs").unwrap();
            assert_eq!(index(&mut client).0, "ok", "{change}");
            client
                .batch_execute(
                    "SELECT backlog_cleanup_set_policy(failure_type => 'kind #', keep => 3, target => 'shape')",
                )
                .unwrap();
            let without =
                "the partial index is without the failure type, which a policy names; each run scans the whole table";
            assert_eq!(index(&mut client), ("warn".into(), without.into()));
            client.batch_execute(drop).unwrap();
            "SELECT backlog_cleanup_drop_policy(failure_type => 'kind #', target => 'shape')"
        } else {
            "SELECT"
        };
        let missing = index(&mut client);
        assert_eq!(missing.0, "warn", "{change}: {missing:?}");
        create_index(&mut client, "shape");
        client.batch_execute("VACUUM (ANALYZE) oban_jobs").unwrap();
        let there = index(&mut client);
        assert_eq!(there.0, "ok", "{change}: {there:?}");
        for statement in ["SELECT pg_stat_force_next_flush()", "SELECT pg_stat_reset()"] {
            client.batch_execute(statement).unwrap();
        }
        let total = number(
            &mut client,
            "SELECT backlog_cleanup_failed_generations('shape', dry_run => true) ->> 'totalFailedGenerations'",
        );
        client.batch_execute("SELECT pg_stat_force_next_flush()").unwrap();
        let read = "SELECT heap_blks_read + heap_blks_hit FROM pg_statio_user_tables WHERE relname = 'oban_jobs'";
        let blocks = number(&mut client, read);
        assert!(total > 100 && blocks < 10, "{change}: {blocks} blocks of the table for {total} rows");
        client.batch_execute(&format!("{drop}; {policy}")).unwrap();
    }
    // A message may be longer than an index entry can be: no job may fail to be written because of the index.
    client
        .batch_execute(
            "UPDATE backlog_cleanup.target SET failure_type_column = 'args' WHERE name = 'shape';
             SELECT backlog_cleanup_set_policy(failure_type => 'x', keep => 3, target => 'shape')",
        )
        .unwrap();
    create_index(&mut client, "shape");
    let (status, detail) = index(&mut client);
    assert!(
        status == "ok" && detail.contains("what column args reads may be longer than an index can have"),
        "{detail}"
    );
    let incompressible = "(SELECT string_agg(md5(i::text), '') FROM generate_series(1, 1000) i)";
    client.batch_execute(&format!("UPDATE oban_jobs SET args = {incompressible}, state = 'discarded'")).unwrap();
    // Nor because of a status that tells from the message whether there was an error, or of a column that has no order.
    client
        .batch_execute(
            "SELECT backlog_cleanup_drop_policy(failure_type => 'x', target => 'shape'); ALTER TABLE oban_jobs ADD payload json;
             UPDATE backlog_cleanup.target SET status_column = '(CASE WHEN args IS NULL THEN ''completed'' ELSE ''discarded'' END)',
                    statuses = '{completed,discarded}', completed_status = NULL WHERE name = 'shape'",
        )
        .unwrap();
    for change in [
        "failure_type_column = '(lower(args))'",
        "failure_type_column = 'error_kind'",
        "recipe_column = 'payload', failure_type_column = NULL",
    ] {
        client.batch_execute(&format!("UPDATE backlog_cleanup.target SET {change} WHERE name = 'shape'")).unwrap();
        let (status, detail) = index(&mut client);
        assert!(status == "ok" && detail.starts_with("no partial index can have column "), "{change}: {detail}");
        assert_eq!(refused(client.batch_execute("SELECT backlog_cleanup_index_sql('shape')")).0, "0A000");
    }
}

#[test]
fn what_an_expression_reads_in_a_document_is_indexed_as_a_generated_column() {
    let (_cluster, mut client) = database(OBAN);
    client
        .batch_execute(
            "ALTER TABLE oban_jobs ADD document jsonb DEFAULT '{\"queue\": \"q\"}';
             UPDATE backlog_cleanup.target SET recipe_column = '(document ->> ''queue'')', status_column = 'state', statuses = '{discarded}',
                    completed_status = NULL, pending_status = NULL, processing_status = NULL, failed_at_column = 'discarded_at', condition = NULL
             WHERE name = 'shape'",
        )
        .unwrap();
    let (status, detail) = index(&mut client);
    assert!(status == "ok" && detail.starts_with("no partial index can have column document"), "{detail}");
    let (sqlstate, _, hint) = refused(client.batch_execute("SELECT backlog_cleanup_index_sql('shape')"));
    assert_eq!(sqlstate, "0A000");
    client.batch_execute(&hint).unwrap_or_else(|failure| panic!("{hint}: {failure:?}"));
    create_index(&mut client, "shape");
    client.batch_execute("VACUUM (ANALYZE) oban_jobs").unwrap();
    assert_eq!(index(&mut client), ("ok".into(), "the partial index exists and is used".into()));
    // The same of a long text, which a status reads. Where no expression does, the hint is a dry run.
    client
        .batch_execute(
            "UPDATE oban_jobs SET args = repeat('x', 700);
             UPDATE backlog_cleanup.target SET status_column = '(CASE WHEN args IS NULL THEN ''ok'' ELSE ''discarded'' END)', statuses = '{ok,discarded}',
                    recipe_column = 'queue' WHERE name = 'shape'",
        )
        .unwrap();
    let (_, message, hint) = refused(client.batch_execute("SELECT backlog_cleanup_index_sql('shape')"));
    assert!(message.starts_with("no partial index can have column args"), "{message}");
    client.batch_execute(&hint).unwrap_or_else(|failure| panic!("{hint}: {failure:?}"));
    client.batch_execute("DROP INDEX oban_jobs_backlog_cleanup_idx").ok();
    create_index(&mut client, "shape");
    client.batch_execute("UPDATE backlog_cleanup.target SET recipe_column = 'args' WHERE name = 'shape'").unwrap();
    let rows = number(&mut client, "SELECT count(*) FROM oban_jobs");
    let (_, _, hint) = refused(client.batch_execute("SELECT backlog_cleanup_index_sql('shape')"));
    client.batch_execute(&hint).unwrap_or_else(|failure| panic!("{hint}: {failure:?}"));
    assert_eq!(number(&mut client, "SELECT count(*) FROM oban_jobs"), rows, "{hint}");
}

#[test]
fn no_index_is_offered_for_a_label_of_an_enum_that_no_index_can_have() {
    let (_cluster, mut client) = database(JOBS);
    client
        .batch_execute(
            r#"CREATE TYPE "St'ate" AS ENUM ('failed', '{}', '[a]', ' (none)');
               ALTER TABLE job ALTER state DROP DEFAULT, ALTER state TYPE "St'ate" USING state::"St'ate""#,
        )
        .unwrap();
    for (statuses, has_index) in
        [(r#"{failed,"{}"}"#, false), (r#"{"[a]"}"#, false), (r#"{failed," (none)"}"#, false), ("{failed}", true)]
    {
        let set = format!("UPDATE backlog_cleanup.target SET statuses = '{statuses}' WHERE name = 't'");
        client.batch_execute(&set).unwrap();
        let (status, detail, fix) = finding(&mut client, "index");
        if has_index {
            client.batch_execute(&fix.unwrap()).unwrap();
        } else {
            assert!(status == "ok" && fix.is_none() && detail.contains("no partial index can serve"), "{detail}");
            let (sqlstate, _, hint) = refused(client.batch_execute("SELECT backlog_cleanup_index_sql('t')"));
            assert_eq!(sqlstate, "0A000", "{statuses}");
            client.batch_execute(&hint).unwrap();
        }
    }
}

#[test]
fn a_row_without_a_date_has_not_finished() {
    let (_cluster, mut client) = database(JOBS);
    client
        .batch_execute(
            "ALTER TABLE job ALTER at DROP DEFAULT, ALTER at TYPE date USING CASE WHEN id > 20 THEN current_date - 9 END, ADD late date;
             CREATE TABLE saved AS TABLE job;
             UPDATE backlog_cleanup.target SET status_column = NULL WHERE name = 't'",
        )
        .unwrap();
    let counted = "SELECT sum(failed_count) FROM backlog_cleanup_status('t')";
    let explained = "SELECT verdict || ': ' || reason FROM backlog_cleanup_explain('7', 't')";
    for column in ["at", "(COALESCE(late, at))"] {
        client
            .batch_execute(&format!(
                "UPDATE backlog_cleanup.target SET failed_at_column = '{column}' WHERE name = 't'; TRUNCATE job; INSERT INTO job TABLE saved"
            ))
            .unwrap();
        let unfinished = format!("out of scope: its {column} is NULL: it has not finished");
        assert_eq!(value::<String>(&mut client, explained), unfinished);
        assert_eq!(number(&mut client, counted), 80, "{column}");
        for (run, stay) in [
            ("SELECT backlog_cleanup_failed_generations('t')", 30),
            ("CALL backlog_cleanup_run('t', batch_size => 7)", 30),
            ("SELECT backlog_cleanup_emergency('t')", 20),
            ("CALL backlog_cleanup_run('t', 'emergency', batch_size => 7)", 20),
        ] {
            client.batch_execute("TRUNCATE job; INSERT INTO job TABLE saved").unwrap();
            client.batch_execute(run).unwrap();
            let left = "SELECT count(*) FILTER (WHERE id <= 20), count(*) FROM job";
            assert_eq!(numbers(&mut client, left), [20, stay], "{column}: {run}");
        }
    }
    // With a status they have finished, and never expire.
    client
        .batch_execute(
            "TRUNCATE job; INSERT INTO job TABLE saved; UPDATE job SET at = current_date + 9 WHERE id = 50;
             UPDATE backlog_cleanup.target SET status_column = 'state', failed_at_column = 'at' WHERE name = 't'",
        )
        .unwrap();
    assert_eq!(value::<String>(&mut client, explained), "young: its at is NULL, so it never expires");
    let never = "SELECT string_agg(split_part(detail, ' in scope ', 2), '; ' ORDER BY detail) FROM backlog_cleanup_doctor('t') WHERE check_name = 'failed_at'";
    assert_eq!(
        value::<String>(&mut client, never),
        "with a at in the future, which do not expire before that: decide when they failed; \
         without at, which never expire: decide when they failed, or name another column"
    );
}
