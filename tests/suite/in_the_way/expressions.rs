//! Rows for which an expression of the target fails stay, and stop nothing.

use cluster::{Cluster, findings, number, refused, value};
use postgres::Client;

use super::{JOB, RUNS, all, run};

/// A recipe that row 7 does not have, and rows in which nothing else is wrong.
const ONE_DOCUMENT: &str = r#"
    UPDATE job SET error = '{"queue": "q"}'; UPDATE job SET error = 'not json' WHERE id = 7;
    UPDATE backlog_cleanup.target SET recipe_column = $$(error::json ->> 'queue')$$ WHERE name = 't'"#;

/// The same rows with a document each, but for two of them, and expressions that read it.
const DOCUMENTS: &str = r#"
    DELETE FROM job;
    INSERT INTO job (id, at, error)
    SELECT id, now() - interval '9 days' + id * interval '1 minute',
           CASE WHEN id IN (7, 8) THEN 'not json'
                ELSE format('{"kind": "k", "queue": "q", "state": "failed", "at": %s, "is_ours": "yes"}', 1000 + id) END
    FROM generate_series(1, 100) id"#;
const EXPRESSIONS: [(&str, &str, &str); 5] = [
    ("recipe_column", "(error::json ->> 'queue')", "'queue'"),
    ("status_column", "(error::json ->> 'state')", "'state'"),
    ("failed_at_column", "(to_timestamp((error::json ->> 'at')::float8))", "'at'"),
    ("condition", "(error::json ->> 'is_ours' = 'yes')", "NULL"),
    ("failure_type_column", "(error::json ->> 'kind')", "'error'"),
];

fn database() -> (Cluster, Client) {
    let cluster = Cluster::start("max_worker_processes = 16\n");
    let mut client = cluster.platform();
    client.batch_execute(JOB).unwrap();
    (cluster, client)
}

fn set(client: &mut Client, key: &str, value: &str) {
    client.batch_execute(&format!("UPDATE backlog_cleanup.target SET {key} = {value} WHERE name = 't'")).unwrap();
}

#[test]
fn a_row_for_which_an_expression_fails_is_kept_back_and_the_rest_goes() {
    let (_cluster, mut client) = database();
    for (key, expression, as_before) in EXPRESSIONS {
        set(&mut client, key, &format!("$${expression}$$"));
        let names_it = key == "failure_type_column";
        if names_it {
            client
                .batch_execute("SELECT backlog_cleanup_set_policy(failure_type => 'k', keep => 10, target => 't')")
                .unwrap();
        }
        for call in RUNS {
            client.batch_execute(DOCUMENTS).unwrap();
            let removed = if call.contains("emergency") { 98 } else { 88 };
            let (gone, stayed, sqlstate, message, row) = run(&mut client, call);
            assert_eq!((gone, stayed), (removed, 2), "{key} {call}: {message:?}");
            assert_eq!((sqlstate.as_deref(), row.as_deref()), (Some("22P02"), Some("7")), "{key} {call}");
            let message = message.unwrap();
            assert!(message.contains("fails for row 7: invalid input syntax for type json"), "{key} {call}: {message}");
            assert_eq!(number(&mut client, "SELECT count(*) FROM job WHERE id IN (7, 8)"), 2, "{key} {call}");
        }
        client
            .batch_execute("DELETE FROM backlog_cleanup.policy WHERE target = 't' AND failure_type IS NOT NULL")
            .unwrap();
        set(&mut client, key, as_before);
    }
}

#[test]
fn reports_pass_over_a_row_for_which_an_expression_fails_and_the_doctor_guards_it() {
    let (_cluster, mut client) = database();
    client.batch_execute(DOCUMENTS).unwrap();
    for (key, expression, as_before) in EXPRESSIONS {
        set(&mut client, key, &format!("$${expression}$$"));
        let dry: serde_json::Value =
            client.query_one("SELECT backlog_cleanup_failed_generations('t', dry_run => true)", &[]).unwrap().get(0);
        // Nothing asks for the failure type of a row where no policy names one.
        let kept_back = if key == "failure_type_column" { 0 } else { 2 };
        assert_eq!(dry["keptBackCount"], kept_back, "{key}: {dry}");
        assert_eq!(dry["keptBackReason"].is_string(), kept_back > 0, "{key}: {dry}");
        client.batch_execute("BEGIN").unwrap();
        let real: serde_json::Value =
            client.query_one("SELECT backlog_cleanup_failed_generations('t')", &[]).unwrap().get(0);
        client.batch_execute("ROLLBACK").unwrap();
        for number in ["keptBackCount", "cleanedUpGenerations", "totalFailedGenerations", "policies", "statuses"] {
            assert_eq!(dry[number], real[number], "{key}: {number}");
        }
        if key != "failure_type_column" {
            assert_eq!(dry["cleanedUpGenerations"], 88, "{key}: {dry}");
            assert!(dry["wouldKeepBack"].to_string().contains("2 rows stay: expression"), "{key}: {dry}");
            assert_eq!(
                value::<String>(&mut client, "SELECT verdict FROM backlog_cleanup_explain('8', 't')"),
                "kept back",
                "{key}"
            );
            assert_eq!(number(&mut client, "SELECT sum(failed_count) FROM backlog_cleanup_status('t')"), 98, "{key}");
        }
        for report in [
            "SELECT backlog_cleanup_explain('1', 't')",
            "SELECT backlog_cleanup_failures('t')",
            "SELECT backlog_cleanup_status_json('t')",
            "SELECT backlog_cleanup_simulate(failure_type => 'k', keep => 1, target => 't')",
            "SELECT backlog_cleanup_tick()",
        ] {
            client.batch_execute(report).unwrap_or_else(|failure| panic!("{key} {report}: {failure:?}"));
        }
        let found = findings(&mut client, "rows");
        let [(status, detail, Some(fix))] = &found[..] else { panic!("{key}: {found:?}") };
        assert!(status == "fail" && detail.contains("fails for row 7"), "{key}: {found:?}");
        // It keeps the rows of each policy.
        let named = match key {
            "recipe_column" => "recipe_id => 'q'",
            "status_column" => "status => 'failed'",
            "failure_type_column" => "failure_type => 'k'",
            _ => "keep => 10",
        };
        client.batch_execute(&format!("SELECT backlog_cleanup_set_policy({named}, target => 't')")).unwrap();
        client.batch_execute(fix).unwrap_or_else(|failure| panic!("{fix}: {failure:?}"));
        assert_ne!(findings(&mut client, "rows")[0].0, "fail", "{fix}");
        client
            .batch_execute("DELETE FROM backlog_cleanup.policy WHERE target = 't' AND coalesce(recipe_id, failure_type, status) IS NOT NULL")
            .unwrap();
        set(&mut client, key, as_before);
    }
}

#[test]
fn a_row_whose_value_is_too_long_for_an_expression_is_kept_back() {
    let (_cluster, mut client) = database();
    set(&mut client, "condition", "$$(error !~ 'y')$$");
    for call in [RUNS[0], RUNS[2]] {
        client.batch_execute("TRUNCATE job; INSERT INTO job (id, at, error) SELECT id, now() - interval '9 days', 'x' FROM generate_series(1, 30) id").unwrap();
        // PostgreSQL makes four bytes of each character, and has no memory context of more than a gigabyte.
        client.batch_execute("UPDATE job SET error = repeat('x', 270000000) WHERE id = 7").unwrap();
        let (_, kept_back, sqlstate, ..) = run(&mut client, call);
        assert_eq!((kept_back, sqlstate.as_deref()), (1, Some("XX000")), "{call}");
        assert_eq!(number(&mut client, "SELECT count(*) FROM job WHERE id = 7"), 1, "{call}");
    }
}

/// Takes away the chunks of all values that are stored beside the table, as a damaged disk does.
const LOSE_CHUNKS: &str = "
    SET allow_system_table_mods = on;
    UPDATE pg_class SET relkind = 'r' WHERE oid = (SELECT reltoastrelid FROM pg_class WHERE oid = 'job'::regclass);
    DO $$BEGIN EXECUTE format('DELETE FROM %s', (SELECT reltoastrelid::regclass FROM pg_class WHERE oid = 'job'::regclass)); END$$;
    UPDATE pg_class SET relkind = 't' WHERE oid = (SELECT reltoastrelid FROM pg_class WHERE oid = 'job'::regclass)";

#[test]
fn what_no_expression_reads_of_a_row_may_be_lost() {
    let (_cluster, mut client) = database();
    set(&mut client, "condition", "'(error::int > 0)'");
    client
        .batch_execute(
            "ALTER TABLE job ADD other text; ALTER TABLE job ALTER other SET STORAGE EXTERNAL; CREATE TABLE saved AS TABLE job",
        )
        .unwrap();
    for (call, vacuum) in RUNS.iter().flat_map(|call| [(call, "VACUUM job"), (call, "SELECT 1")]) {
        client.batch_execute("TRUNCATE job; INSERT INTO job (id, at, error) SELECT id, at, '1' FROM saved").unwrap();
        client
            .batch_execute(
                "UPDATE job SET other = repeat('x', 5000) WHERE id = 50; UPDATE job SET error = 'no number' WHERE id = 20",
            )
            .unwrap();
        client.batch_execute(LOSE_CHUNKS).unwrap();
        client.batch_execute(vacuum).unwrap();
        client.batch_execute("SELECT * FROM backlog_cleanup_status('t')").unwrap();
        client.batch_execute("TRUNCATE credit_transactions").unwrap();
        client.batch_execute(call).unwrap_or_else(|failure| panic!("{call} {vacuum}: {failure:?}"));
        // Until VACUUM has been there, a DELETE of row 50 meets chunks that are deleted already.
        let stayed = if vacuum == "SELECT 1" { 2 } else { 1 };
        let last = "SELECT kept_back FROM backlog_cleanup.run ORDER BY id DESC LIMIT 1";
        assert_eq!(number(&mut client, last), stayed, "{call} {vacuum}");
        assert_eq!(number(&mut client, "SELECT count(*) FROM job"), 100 - all(call) + stayed, "{call} {vacuum}");
        assert_eq!(number(&mut client, "SELECT count(*) FROM job WHERE id = 20"), 1, "{call} {vacuum}");
    }
}

#[test]
fn a_lost_value_that_an_expression_reads_keeps_its_row_back_alone() {
    let (_cluster, mut client) = database();
    set(&mut client, "condition", "$$coalesce(lower(error), 'a') <> 'b'$$");
    client.batch_execute("ALTER TABLE job ALTER error SET STORAGE EXTERNAL; CREATE TABLE saved AS TABLE job").unwrap();
    for call in RUNS {
        client.batch_execute("TRUNCATE job; INSERT INTO job (id, at, error) SELECT id, at, '1' FROM saved").unwrap();
        client.batch_execute("UPDATE job SET error = repeat('x', 5000) WHERE id = 50").unwrap();
        client.batch_execute(LOSE_CHUNKS).unwrap();
        client.batch_execute("VACUUM job").unwrap();
        client.batch_execute("SELECT * FROM backlog_cleanup_status('t'); TRUNCATE credit_transactions").unwrap();
        let (_, kept_back, sqlstate, ..) = run(&mut client, call);
        assert_eq!((kept_back, sqlstate.as_deref()), (1, Some("XX001")), "{call}");
        assert_eq!(number(&mut client, "SELECT count(*) FROM job"), 100 - all(call) + 1, "{call}");
    }
}

#[test]
fn a_guarded_expression_compares_as_its_columns_do_and_by_the_labels_of_now() {
    let (_cluster, mut client) = database();
    client
        .batch_execute(
            "ALTER TABLE job ALTER queue TYPE text COLLATE \"und-x-icu\"; UPDATE job SET queue = 'c'; UPDATE job SET queue = 'a' WHERE id = 7;
             CREATE TYPE mood AS ENUM ('bad', 'good');
             ALTER TABLE job ADD m mood DEFAULT 'good'",
        )
        .unwrap();
    let rows = "SELECT sum(failed_count) FROM backlog_cleanup_status('t')";
    // 'a' is before 'B' by the rules of no C locale.
    set(&mut client, "condition", "$$1 / CASE WHEN queue < 'B' THEN 0 ELSE 1 END = 1$$");
    assert_eq!(number(&mut client, rows), 99);
    set(&mut client, "condition", "$$1 / CASE WHEN m = 'bad' THEN 0 ELSE 1 END = 1$$");
    client.batch_execute("UPDATE job SET m = 'bad' WHERE id = 50").unwrap();
    assert_eq!(number(&mut client, rows), 99);
    client
        .batch_execute(
            "ALTER TYPE mood RENAME VALUE 'bad' TO 'x'; ALTER TYPE mood RENAME VALUE 'good' TO 'bad'; ALTER TYPE mood RENAME VALUE 'x' TO 'good';
             UPDATE job SET m = 'good'; UPDATE job SET m = 'bad' WHERE id IN (60, 61)",
        )
        .unwrap();
    assert_eq!(number(&mut client, rows), 98, "in the same session");
}

#[test]
fn an_expression_of_more_columns_than_a_function_has_arguments_is_refused() {
    let (_cluster, mut client) = database();
    client
        .batch_execute(
            "DO $$BEGIN EXECUTE (SELECT 'ALTER TABLE job ' || string_agg('ADD c' || i || ' text', ', ') FROM generate_series(1, 110) i); END$$",
        )
        .unwrap();
    let set = |client: &mut Client, columns: i32| {
        let columns: Vec<String> = (1..=columns).map(|column| format!("c{column}")).collect();
        client.batch_execute(&format!(
            "UPDATE backlog_cleanup.target SET condition = 'coalesce({}, ''1'')::int = 1' WHERE name = 't'",
            columns.join(", ")
        ))
    };
    let (sqlstate, message, _) = refused(set(&mut client, 100));
    assert!(sqlstate == "54023" && message.contains("reads 100 columns, and at most 99"), "{sqlstate} {message}");
    set(&mut client, 99).unwrap();
    client.batch_execute("UPDATE job SET c7 = 'no number' WHERE id = 7").unwrap();
    assert_eq!(number(&mut client, "SELECT sum(failed_count) FROM backlog_cleanup_status('t')"), 99);
}

#[test]
fn a_row_is_kept_back_also_if_code_of_the_run_asks_for_a_report_in_between() {
    let (_cluster, mut client) = database();
    set(&mut client, "condition", "$$(coalesce(error, '1')::int = 1)$$");
    client
        .batch_execute(
            "UPDATE job SET error = NULL, at = now() - interval '9 days' - id * interval '1 minute';
             CREATE TABLE other (LIKE job INCLUDING ALL);
             INSERT INTO backlog_cleanup.target
             SELECT (jsonb_populate_record(t, '{\"name\": \"other\", \"generations_table\": \"public.other\", \"ledger_table\": null}')).*
             FROM backlog_cleanup.target t WHERE name = 't';
             CREATE FUNCTION spoil() RETURNS trigger LANGUAGE plpgsql AS
             $$BEGIN
                 UPDATE public.job SET error = 'no number' WHERE id IN (20, 60, 80) AND error IS NULL AND id <> OLD.id;
                 PERFORM count(*) FROM public.backlog_cleanup_status('other'); RETURN OLD;
             END$$;
             CREATE TRIGGER spoil BEFORE DELETE ON job FOR EACH ROW WHEN (OLD.id IN (50, 70)) EXECUTE FUNCTION spoil();
             CREATE TABLE saved AS TABLE job",
        )
        .unwrap();
    for call in RUNS {
        client.batch_execute("TRUNCATE job; INSERT INTO job TABLE saved").unwrap();
        client.batch_execute(call).unwrap_or_else(|failure| panic!("{call}: {failure:?}"));
        let last = "SELECT state FROM backlog_cleanup.run ORDER BY id DESC LIMIT 1";
        assert_eq!(value::<String>(&mut client, last), "completed", "{call}");
    }
}

#[test]
fn a_row_out_of_scope_is_not_kept_back_although_an_expression_fails_for_it() {
    let (_cluster, mut client) = database();
    // Only if a policy names a failure type does anything read it.
    let policy = "SELECT backlog_cleanup_set_policy(failure_type => 'k', keep => 10, target => 't')";
    for (key, expression, as_before) in EXPRESSIONS {
        client.batch_execute(DOCUMENTS).unwrap();
        set(&mut client, key, &format!("$${expression}$$"));
        client.batch_execute(if key == "failure_type_column" { policy } else { "" }).unwrap();
        client.batch_execute("UPDATE job SET state = 'done' WHERE id = 8").unwrap();
        let verdicts = "SELECT string_agg(id || ' ' || verdict, ', ' ORDER BY id)
                        FROM job, backlog_cleanup_explain(id::text, 't') WHERE id IN (7, 8)";
        // Where its status cannot be read, it may be in scope.
        let of_the_other = if key == "status_column" { "kept back" } else { "out of scope" };
        assert_eq!(value::<String>(&mut client, verdicts), format!("7 kept back, 8 {of_the_other}"), "{key}");
        client.batch_execute("DELETE FROM backlog_cleanup.policy WHERE failure_type IS NOT NULL").unwrap();
        set(&mut client, key, as_before);
    }
}

#[test]
fn reports_pass_over_a_row_out_of_scope_for_which_an_expression_fails() {
    let (_cluster, mut client) = database();
    client.batch_execute(DOCUMENTS).unwrap();
    client
        .batch_execute(
            "UPDATE job SET error = '{\"c\": \"1\"}'; UPDATE job SET state = 'done', error = 'none' WHERE id = 7",
        )
        .unwrap();
    for (key, expression, as_before) in [
        ("failed_at_column", "(to_timestamp((error::json ->> 'c')::float8))", "at"),
        ("failure_type_column", "(error::json ->> 'c')", "error"),
        ("recipe_column", "(error::json ->> 'c')", "queue"),
    ] {
        set(&mut client, key, &format!("$${expression}$$"));
        for report in [
            "SELECT backlog_cleanup_status('t')",
            "SELECT backlog_cleanup_status_json('t')",
            "SELECT backlog_cleanup_failures('t')",
            "SELECT backlog_cleanup_explain('7', 't')",
            "SELECT backlog_cleanup_failed_generations('t', dry_run => true)",
        ] {
            client.batch_execute(report).unwrap_or_else(|failure| panic!("{key} {report}: {failure:?}"));
        }
        set(&mut client, key, &format!("'{as_before}'"));
    }
}

#[test]
fn a_row_for_which_an_expression_begins_to_fail_while_a_run_is_at_work_stays_and_the_rest_goes() {
    let (_cluster, mut client) = database();
    client.batch_execute(DOCUMENTS).unwrap();
    client
        .batch_execute(
            "CREATE TABLE saved AS TABLE job; UPDATE saved SET error = (SELECT error FROM job WHERE id = 20) WHERE error !~ '^{';
             CREATE FUNCTION spoil() RETURNS trigger LANGUAGE plpgsql AS
             $$BEGIN UPDATE job SET error = 'none' WHERE id = OLD.id + 1; RETURN OLD; END$$;
             CREATE TRIGGER spoil BEFORE DELETE ON job FOR EACH ROW WHEN (OLD.id = 5) EXECUTE FUNCTION spoil()",
        )
        .unwrap();
    for (key, expression, as_before) in EXPRESSIONS {
        set(&mut client, key, &format!("$${expression}$$"));
        for call in RUNS {
            client.batch_execute("TRUNCATE job; INSERT INTO job TABLE saved").unwrap();
            client.batch_execute(call).unwrap_or_else(|failure| panic!("{key} {call}: {failure:?}"));
            let left = number(&mut client, "SELECT count(*) FROM job");
            assert!(left <= 12, "{key} {call}: {left}");
            let spoilt = "SELECT count(*) FROM job WHERE id = 6";
            let is_read = key != "failure_type_column" && (key != "failed_at_column" || !call.contains("emergency"));
            assert!(!is_read || number(&mut client, spoilt) == 1, "{key} {call}");
            assert_eq!(number(&mut client, "SELECT difference FROM backlog_cleanup_books('t')"), 0, "{key} {call}");
        }
        set(&mut client, key, as_before);
    }
}

#[test]
fn a_row_of_another_account_for_which_a_cheap_expression_fails_ends_no_run_and_is_told_to_nobody() {
    let (_cluster, mut client) = database();
    client
        .batch_execute(
            "CREATE FUNCTION is_ours(text) RETURNS boolean LANGUAGE plpgsql IMMUTABLE COST 0.1 AS
             $$BEGIN RETURN $1::int > 0; END$$;
             ALTER TABLE job ADD ours text DEFAULT '1'; CREATE TABLE saved AS TABLE job;
             INSERT INTO saved (id, owner, state, at, ours) VALUES (1000, 'other', 'failed', now() - interval '9 days', 'secret');
             UPDATE backlog_cleanup.target SET condition = '(public.is_ours(ours))' WHERE name = 't'",
        )
        .unwrap();
    for call in RUNS {
        client.batch_execute("TRUNCATE job; INSERT INTO job TABLE saved").unwrap();
        client.batch_execute(call).unwrap_or_else(|failure| panic!("{call}: {failure:?}"));
        assert_eq!(number(&mut client, "SELECT count(*) FROM job WHERE owner <> 'other'"), 100 - all(call), "{call}");
    }
    client.batch_execute("TRUNCATE job; INSERT INTO job TABLE saved").unwrap();
    for report in [
        "SELECT backlog_cleanup_status_json('t')::text",
        "SELECT backlog_cleanup_failed_generations('t', dry_run => true)::text",
        "SELECT coalesce(string_agg(f::text, ''), '') FROM backlog_cleanup_failures('t') f",
        "SELECT e::text FROM backlog_cleanup_explain('8', 't') e",
    ] {
        let said: String = value(&mut client, report);
        assert!(!said.contains("secret"), "{report}: {said}");
    }
}

#[test]
fn what_fails_in_a_ledger_or_in_the_names_of_recipes_is_taken_for_no_expressions_failure() {
    let (cluster, mut client) = database();
    client
        .batch_execute(
            "CREATE SEQUENCE calls; CREATE SEQUENCE fired;
             CREATE FUNCTION fails_once() RETURNS boolean LANGUAGE plpgsql AS $$
             BEGIN IF nextval('public.calls') = 1 THEN RAISE EXCEPTION 'closed'; END IF; RETURN true; END $$;
             CREATE VIEW queue_names AS SELECT 'a' AS id, 'A' AS name WHERE public.fails_once();
             CREATE FUNCTION count_it() RETURNS trigger LANGUAGE plpgsql AS
             $$BEGIN PERFORM public.fails_once(); RETURN NEW; END$$;
             CREATE FUNCTION fired() RETURNS trigger LANGUAGE plpgsql AS
             $$BEGIN PERFORM nextval('public.fired'); RETURN OLD; END$$;
             CREATE TRIGGER fired BEFORE DELETE ON job FOR EACH ROW EXECUTE FUNCTION fired();
             UPDATE backlog_cleanup.target SET failure_type_column = '(lower(error))' WHERE name = 't';
             CREATE TABLE saved AS TABLE job",
        )
        .unwrap();
    let (told, notices) = std::sync::mpsc::channel();
    let mut client = cluster.connect_with_notices(told);
    for (makes, removes) in [
        (
            "CREATE TRIGGER count_it BEFORE INSERT ON credit_transactions FOR EACH ROW EXECUTE FUNCTION count_it()",
            "DROP TRIGGER count_it ON credit_transactions",
        ),
        ("UPDATE backlog_cleanup.target SET recipes_table = 'public.queue_names' WHERE name = 't'", "SELECT 1"),
    ] {
        client.batch_execute(makes).unwrap();
        for call in RUNS.iter().filter(|call| !call.contains("workers")) {
            client
                .batch_execute(
                    "TRUNCATE job; INSERT INTO job SELECT * FROM saved;
                     SELECT setval('calls', 1, false), setval('fired', 1, false)",
                )
                .unwrap();
            // Names are only shown.
            if makes.contains("TRIGGER") {
                let (sqlstate, message, _) = refused(client.batch_execute(call));
                assert_eq!((sqlstate.as_str(), message.as_str()), ("P0001", "closed"), "{makes} {call}");
            } else {
                client.batch_execute(call).unwrap();
            }
            let fired = number(&mut client, "SELECT last_value FROM fired");
            assert!(fired <= all(call), "{makes} {call}: each row's trigger once, {fired}");
            client.batch_execute(call).unwrap();
            let said: Vec<String> = notices.try_iter().map(|(message, _)| message).collect();
            assert!(said.iter().all(|message| !message.contains("fails for a row")), "{makes} {call}: {said:?}");
        }
        client.batch_execute(removes).unwrap();
    }
}

#[test]
fn where_the_owner_may_not_call_what_guards_an_expression_the_error_names_it_and_the_row() {
    let (_cluster, mut client) = database();
    client.batch_execute(DOCUMENTS).unwrap();
    let (key, expression, _) = EXPRESSIONS[0];
    set(&mut client, key, &format!("$${expression}$$"));
    client
        .batch_execute(
            "CREATE ROLE app; ALTER TABLE job OWNER TO app;
             REVOKE EXECUTE ON FUNCTION backlog_cleanup_has_value FROM PUBLIC",
        )
        .unwrap();
    for call in RUNS {
        let (sqlstate, message, hint) = refused(client.batch_execute(call));
        assert_eq!(sqlstate, "22P02", "{call}: {message}");
        assert!(message.contains("fails for row 7: invalid input syntax for type json"), "{call}: {message}");
        assert!(
            hint.starts_with("UPDATE backlog_cleanup.target SET recipe_column = '(CASE WHEN error LIKE"),
            "{call}: {hint}"
        );
        assert_eq!(number(&mut client, "SELECT count(*) FROM job"), 100, "{call}");
    }
    // What no condition can guard is shown.
    client.batch_execute("UPDATE job SET queue = id; UPDATE job SET queue = 'x' WHERE id = 7").unwrap();
    set(&mut client, key, "'(queue::int)'");
    let (sqlstate, _, hint) = refused(client.batch_execute(RUNS[0]));
    assert_eq!(sqlstate, "22P02");
    assert_eq!(number(&mut client, &format!("SELECT id::bigint FROM ({hint}) shown")), 7, "{hint}");
}

#[test]
fn where_a_function_raises_what_it_likes_on_a_partition_its_rows_stay() {
    let (_cluster, mut client) = database();
    client
        .batch_execute(
            "CREATE FUNCTION strict_queue(text) RETURNS text IMMUTABLE LANGUAGE plpgsql AS $$
             BEGIN IF $1 = 'bad' THEN RAISE EXCEPTION 'no queue %', $1 USING ERRCODE = 'AB123', DETAIL = 'a detail'; END IF; RETURN $1; END $$;
             ALTER TABLE job RENAME TO other;
             CREATE TABLE job (LIKE other INCLUDING DEFAULTS) PARTITION BY RANGE (id);
             CREATE TABLE low PARTITION OF job FOR VALUES FROM (0) TO (50);
             CREATE TABLE high PARTITION OF job FOR VALUES FROM (50) TO (1000);
             UPDATE backlog_cleanup.target SET recipe_column = '(public.strict_queue(queue))' WHERE name = 't'",
        )
        .unwrap();
    for call in RUNS {
        client.batch_execute("DELETE FROM job; INSERT INTO job SELECT * FROM other; UPDATE job SET queue = 'bad' WHERE id IN (7, 99);
                              UPDATE job SET owner = 'other' WHERE id = 7").unwrap();
        let (gone, stayed, sqlstate, message, row) = run(&mut client, call);
        let removed = if call.contains("emergency") { 98 } else { 88 };
        assert_eq!((gone, stayed), (removed, 1), "{call}: {message:?}");
        assert_eq!((sqlstate.as_deref(), row.as_deref()), (Some("AB123"), Some("99")), "{call}: {message:?}");
    }
}

#[test]
fn a_run_that_leaves_such_a_row_leaves_nothing_in_the_callers_session() {
    let (_cluster, mut client) = database();
    client.batch_execute(ONE_DOCUMENT).unwrap();
    let settings =
        "SELECT concat_ws(' ', current_setting('wal_compression'), current_setting('lock_timeout'), current_user)";
    let before: String = value(&mut client, settings);
    client.batch_execute("BEGIN; SELECT backlog_cleanup_failed_generations('t')").unwrap();
    assert_eq!(value::<String>(&mut client, settings), before);
    client.batch_execute("ROLLBACK").unwrap();
    // PostgreSQL would not let it commit with a snapshot of the run's.
    client.batch_execute("DO $$ BEGIN PERFORM backlog_cleanup_failed_generations('t'); COMMIT; END $$").unwrap();
    assert_eq!(number(&mut client, "SELECT count(*) FROM job"), 11);
}

#[test]
fn a_run_that_begins_again_without_such_a_row_is_in_the_history_once() {
    let (_cluster, mut client) = database();
    // The condition is asked only of rows that have the status, and fails when the rows that stay are counted.
    client
        .batch_execute(
            r#"UPDATE job SET error = '{"state": "failed", "is_ours": true}'; UPDATE job SET error = 'not json' WHERE id = 7;
               CREATE FUNCTION is_ours(text) RETURNS boolean LANGUAGE plpgsql IMMUTABLE COST 100000 AS
               $$BEGIN RETURN ($1::json ->> 'is_ours')::boolean; END$$;
               UPDATE backlog_cleanup.target
               SET status_column = $$(error::json ->> 'state')$$, completed_status = NULL, pending_status = NULL,
                   processing_status = NULL, condition = '(public.is_ours(error))' WHERE name = 't'"#,
        )
        .unwrap();
    let (gone, stayed, ..) = run(&mut client, "CALL backlog_cleanup_run('t', batch_size => 30)");
    assert_eq!((gone, stayed), (89, 1));
    assert_eq!(number(&mut client, "SELECT count(*) FROM backlog_cleanup.run"), 1);
}

#[test]
fn what_a_session_remembers_of_a_row_ends_when_its_columns_change() {
    let (_cluster, mut client) = database();
    client.batch_execute(ONE_DOCUMENT).unwrap();
    client.batch_execute("ALTER TABLE job ADD other text DEFAULT '{}'").unwrap();
    let kept_back = |client: &mut Client| -> String {
        value(client, "SELECT backlog_cleanup_failed_generations('t', dry_run => true) #>> '{wouldKeepBack,0}'")
    };
    assert!(kept_back(&mut client).starts_with("1 row stays: expression"));
    for change in [
        "ALTER TABLE job ALTER error TYPE varchar(100)",
        "ALTER TABLE job RENAME error TO third; ALTER TABLE job RENAME other TO error; ALTER TABLE job RENAME third TO other;
         UPDATE job SET error = 'nor this' WHERE id = 9",
        "ALTER TABLE job DROP other",
    ] {
        client.batch_execute(&format!("BEGIN; {change}; COMMIT")).unwrap();
        let said = kept_back(&mut client);
        assert!(said.starts_with("1 row stays: expression"), "{change}: {said}");
    }
}

#[test]
fn a_timeout_while_such_a_row_is_looked_for_ends_the_run() {
    let (_cluster, mut client) = database();
    client
        .batch_execute(
            r#"UPDATE job SET error = '{"queue": "q"}'; UPDATE job SET error = 'not json' WHERE id = 99;
               CREATE FUNCTION slowly(text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS
               $$BEGIN PERFORM pg_sleep(0.02); RETURN $1::json ->> 'queue'; END$$;
               UPDATE backlog_cleanup.target SET recipe_column = '(public.slowly(error))' WHERE name = 't'"#,
        )
        .unwrap();
    // One pass takes two seconds.
    client.batch_execute("SET statement_timeout = '3 s'").unwrap();
    for call in RUNS {
        let (sqlstate, message, _) = refused(client.batch_execute(call));
        assert_eq!(sqlstate, "57014", "{call}: {message}");
        assert_eq!(number(&mut client, "SELECT count(*) FROM job"), 100, "{call}");
    }
}

#[test]
fn a_timeout_of_which_code_makes_another_error_while_a_run_reads_what_it_removes_ends_the_run() {
    let (_cluster, mut client) = database();
    client
        .batch_execute(
            "CREATE FUNCTION kind(text) RETURNS text LANGUAGE plpgsql IMMUTABLE COST 1 AS
             $$BEGIN PERFORM pg_sleep(0.05); RETURN 'k'; EXCEPTION WHEN query_canceled THEN RAISE EXCEPTION 'mine'; END$$;
             UPDATE job SET error = 'e';
             UPDATE backlog_cleanup.target SET failure_type_column = '(public.kind(error))', fingerprint = false WHERE name = 't';
             SET statement_timeout = '2 s'",
        )
        .unwrap();
    refused(client.batch_execute("SELECT backlog_cleanup_failed_generations('t')"));
    assert_eq!(number(&mut client, "SELECT count(*) FROM job"), 100);
}

#[test]
fn a_row_for_which_recipe_and_status_fail_ends_no_report() {
    let (_cluster, mut client) = database();
    client
        .batch_execute(
            r#"UPDATE job SET error = '{"queue": "q", "state": "failed", "is_ours": true}'; UPDATE job SET error = 'not json' WHERE id = 7;
               UPDATE backlog_cleanup.target
               SET status_column = $$(error::json ->> 'state')$$, completed_status = NULL, pending_status = NULL,
                   processing_status = NULL, recipe_column = $$(error::json ->> 'queue')$$,
                   condition = $$((error::json ->> 'is_ours')::boolean)$$ WHERE name = 't'"#,
        )
        .unwrap();
    for report in [
        "SELECT backlog_cleanup_status('t')",
        "SELECT backlog_cleanup_status_json('t')",
        "SELECT backlog_cleanup_explain('7', 't')",
    ] {
        client.batch_execute(report).unwrap_or_else(|failure| panic!("{report}: {failure:?}"));
    }
    assert_eq!(number(&mut client, "SELECT sum(failed_count) FROM backlog_cleanup_status('t')"), 99);
}

#[test]
fn a_partition_whose_owner_may_not_call_what_guards_an_expression_is_named_by_its_own_error() {
    let (_cluster, mut client) = database();
    client
        .batch_execute(
            "CREATE ROLE app; CREATE ROLE other; ALTER TABLE job RENAME TO plain;
             CREATE TABLE job (LIKE plain INCLUDING DEFAULTS) PARTITION BY RANGE (id);
             CREATE TABLE low PARTITION OF job FOR VALUES FROM (0) TO (50);
             CREATE TABLE high PARTITION OF job FOR VALUES FROM (50) TO (1000);
             INSERT INTO job SELECT * FROM plain; UPDATE job SET error = id; UPDATE job SET error = 'none' WHERE id = 77;
             ALTER TABLE job OWNER TO app; ALTER TABLE low OWNER TO app; ALTER TABLE high OWNER TO other;
             REVOKE EXECUTE ON FUNCTION backlog_cleanup_has_value FROM PUBLIC; GRANT EXECUTE ON FUNCTION backlog_cleanup_has_value TO app;
             UPDATE backlog_cleanup.target SET condition = '((error)::int > 0)' WHERE name = 't'",
        )
        .unwrap();
    for call in RUNS {
        let (sqlstate, message, _) = refused(client.batch_execute(call));
        assert!(sqlstate == "22P02" && message.contains("fails for row 77: invalid input syntax"), "{call}: {message}");
    }
    client.batch_execute("GRANT EXECUTE ON FUNCTION backlog_cleanup_has_value TO other").unwrap();
    assert_eq!(run(&mut client, RUNS[0]).1, 1);
}

#[test]
fn rows_that_cannot_be_read_and_rows_that_a_trigger_changes_are_kept_back_once_each() {
    let (_cluster, mut client) = database();
    set(&mut client, "recipe_column", "$$(error::json ->> 'queue')$$");
    client
        .batch_execute(
            "CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS
                 $$BEGIN UPDATE job SET owner = owner WHERE id = OLD.id; RETURN NULL; END$$;
             CREATE TRIGGER touch BEFORE DELETE ON job FOR EACH ROW WHEN (OLD.id % 3 = 0) EXECUTE FUNCTION touch()",
        )
        .unwrap();
    for call in RUNS {
        client.batch_execute(&DOCUMENTS.replace("DELETE FROM", "TRUNCATE")).unwrap();
        client.batch_execute(call).unwrap();
        let stayed = "SELECT ARRAY[kept_back, unreadable, (SELECT sum(kept_back)::bigint FROM backlog_cleanup.run_policy WHERE run_id = id)]
                      FROM backlog_cleanup.run ORDER BY id DESC LIMIT 1";
        let changed = if call.contains("emergency") { 33 } else { 30 };
        assert_eq!(value::<Vec<i64>>(&mut client, stayed), [changed + 2, 2, changed], "{call}");
    }
}
