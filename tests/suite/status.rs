//! What status says of a table as it is.

use cluster::{Cluster, JOBS, create_index, fail, finding, number, numbers, refused, truth, until, value, veto};

#[test]
fn a_status_that_two_words_name_is_counted_by_both() {
    let cluster = Cluster::start("");
    let mut client = cluster.platform();
    client
        .batch_execute(
            "INSERT INTO generations (user_id, recipe_id, prompt, status)
             VALUES ('system_backlog', 7, '', 'pending'), ('system_backlog', 7, '', 'processing');
             CREATE COLLATION careless (provider = icu, locale = 'und-u-ks-level2', deterministic = false)",
        )
        .unwrap();
    // The others are another word, which the type or its collation takes for the same. It is refused when it is written.
    for (sql_type, word) in [("text", "pending"), ("character(10)", "pending "), ("text COLLATE careless", "PENDING")] {
        client
            .batch_execute(&format!(
                "ALTER TABLE generations ALTER status TYPE {sql_type};
                 ALTER TABLE backlog_cleanup.target DISABLE TRIGGER check_target;
                 UPDATE backlog_cleanup.target SET processing_status = ARRAY['{word}'];
                 ALTER TABLE backlog_cleanup.target ENABLE TRIGGER check_target"
            ))
            .unwrap();
        assert_eq!(refused(client.batch_execute("UPDATE backlog_cleanup.target SET batch_size = 9")).0, "23514");
        let status = "SELECT total_count, pending_count, processing_count FROM backlog_cleanup_status()";
        assert_eq!(numbers(&mut client, status), [2, 1, 1], "{sql_type}");
    }
}

#[test]
fn status_warns_of_a_referencing_column_without_an_index_until_the_hint_is_typed() {
    let cluster = Cluster::start("");
    let mut client = cluster.platform();
    client
        .batch_execute(
            "CREATE TABLE comments (\"Generation\" int REFERENCES generations, other int REFERENCES generations);
             CREATE INDEX ON comments (other) WHERE other IS NOT NULL",
        )
        .unwrap();
    let warnings = "SELECT warning ->> 'message', warning ->> 'hint'
                    FROM jsonb_array_elements(backlog_cleanup_status_json() -> 'warnings') warning";
    let rows = client.query(warnings, &[]).unwrap();
    assert_eq!(rows.len(), 1);
    let (message, hint): (String, String) = (rows[0].get(0), rows[0].get(1));
    assert_eq!(message, "public.comments (\"Generation\") references public.generations and has no index");
    client.batch_execute(&hint).unwrap();
    assert!(client.query(warnings, &[]).unwrap().is_empty());
}

#[test]
fn failures_are_grouped_by_their_first_line_or_message_and_a_selection_takes_what_they_are_called() {
    let cluster = Cluster::start("");
    let mut client = cluster.connect();
    client.batch_execute(JOBS).unwrap();
    client.batch_execute("UPDATE backlog_cleanup.target SET fingerprint = false WHERE name = 't'").unwrap();
    for (sql_type, error, failure_type) in [
        ("text", "E'timeout  \r\n  at line ' || id", "timeout"),
        ("varchar(200)", "E'\n' || repeat('x', 120) || id", &"x".repeat(100)[..]),
        ("jsonb", "jsonb_build_object('message', E'refused\nby ' || id, 'at', id)", "refused"),
        ("json", "json_build_object('at', id, 'error', 'refused')", "refused"),
        (
            "jsonb",
            "jsonb_build_array(jsonb_build_object('error', id), jsonb_build_object('class', 'Timeout'))",
            "Timeout",
        ),
        ("jsonb", "'\"a word\"'::jsonb", "a word"),
    ] {
        client
            .batch_execute(&format!(
                "ALTER TABLE job DROP error, ADD error {sql_type}; UPDATE job SET error = {error} WHERE id <= 60"
            ))
            .unwrap();
        let types = "SELECT failure_type, sum(failed_count)::bigint FROM backlog_cleanup_failures('t', NULL) GROUP BY 1 ORDER BY 2";
        let types: Vec<(String, i64)> =
            client.query(types, &[]).unwrap().iter().map(|row| (row.get(0), row.get(1))).collect();
        assert_eq!(types, [("(none)".to_owned(), 40), (failure_type.to_owned(), 60)], "{sql_type} {error}");
        let selected =
            "SELECT (backlog_cleanup_emergency('t', failure_type => $1, dry_run => true) ->> 'removedCount')::bigint";
        let selected: i64 = client.query_one(selected, &[&failure_type]).unwrap().get(0);
        assert_eq!(selected, 60, "{sql_type} {error}");
    }
}

/// E5: each of 10,000 errors has an id of its own, and all but one are the same error.
#[test]
fn equal_errors_with_ids_are_one_failure_type_that_a_raw_message_and_its_fingerprint_select() {
    let cluster = Cluster::start("");
    let mut client = cluster.connect();
    client.batch_execute(JOBS).unwrap();
    let message = "format('Request %s failed: HTTP 503, retry in %s ms', md5(id::text), id)";
    let kind = "Request # failed: HTTP 503, retry in # ms";
    for (sql_type, error) in [
        ("text", message),
        ("jsonb", "jsonb_build_array(jsonb_build_object('error', MESSAGE))"),
        ("jsonb[]", "ARRAY['{\"error\": \"before\"}', jsonb_build_object('error', MESSAGE)]"),
        ("json[]", "ARRAY['{\"error\": \"before\"}', json_build_object('error', MESSAGE)]"),
        ("text[]", "ARRAY['before', MESSAGE]"),
    ] {
        let error = error.replace("MESSAGE", message);
        client
            .batch_execute(&format!(
                "ALTER TABLE job DROP error, ADD error {sql_type};
                 TRUNCATE job; INSERT INTO job (id) SELECT generate_series(1, 10000);
                 UPDATE job SET error = {error} WHERE id > 1;
                 UPDATE job SET error = replace(({error})::text, '503', '404')::{sql_type} WHERE id = 1"
            ))
            .unwrap();
        // Those that the emergency runs of the round before have removed are in the history, as far as their samples know them.
        let types = "SELECT failure_type, sum(failed_count)::bigint FROM backlog_cleanup_failures('t', NULL)
                     WHERE failed_count > 0 GROUP BY 1 ORDER BY 2";
        let types: Vec<(String, i64)> =
            client.query(types, &[]).unwrap().iter().map(|row| (row.get(0), row.get(1))).collect();
        assert_eq!(types, [(kind.replace("503", "404"), 1), (kind.to_owned(), 9_999)], "{sql_type}");
        let one: String = value(&mut client, &format!("SELECT {message} FROM job WHERE id = 77"));
        for (failure_type, left) in [(one.as_str(), 1), (&kind.replace("503", "404"), 0)] {
            let removed = "SELECT (backlog_cleanup_emergency('t', failure_type => $1) ->> 'removedCount')::bigint";
            let [there] = numbers(&mut client, "SELECT count(*) FROM job");
            let removed: i64 = client.query_one(removed, &[&failure_type]).unwrap().get(0);
            assert_eq!((removed, there - removed), (there - left, left), "{sql_type} {failure_type}");
        }
    }
}

/// The owner of a table has neither the extension's schema in the search path nor, at first, the right to use it.
#[test]
fn a_fingerprint_needs_an_owner_who_may_call_it_and_works_from_a_schema_of_any_name() {
    let cluster = Cluster::start("");
    let mut client = cluster.connect();
    client
        .batch_execute(&format!(
            "CREATE SCHEMA \"Ops, too\"; {}",
            JOBS.replace("CREATE EXTENSION backlog_cleanup", "CREATE EXTENSION backlog_cleanup SCHEMA \"Ops, too\"")
                .split("INSERT INTO backlog_cleanup.target")
                .next()
                .unwrap()
        ))
        .unwrap();
    let target =
        "INSERT INTO backlog_cleanup.target (name, generations_table, recipes_table, users_table, ledger_table,
                                                      account_column, recipe_column, status_column, failed_at_column,
                                                      failure_type_column, account)
                  VALUES ('t', 'public.job', NULL, NULL, NULL, 'owner', 'queue', 'state', 'at', 'error', 'w')";
    let (sqlstate, _, hint) = refused(client.batch_execute(target));
    assert_eq!((sqlstate.as_str(), hint.as_str()), ("42501", "GRANT USAGE ON SCHEMA \"Ops, too\" TO app"));
    client.batch_execute(&target.replace("account)", "account, fingerprint)").replace("'w')", "'w', false)")).unwrap();
    client.batch_execute(&hint).unwrap();
    client
        .batch_execute(
            "UPDATE backlog_cleanup.target SET fingerprint = true WHERE name = 't';
             UPDATE job SET error = 'job ' || id || ' failed'; UPDATE job SET error = 'no 5' WHERE id > 60",
        )
        .unwrap();
    let removed = "SELECT (\"Ops, too\".backlog_cleanup_emergency('t', failure_type => 'job 123456 failed') ->> 'removedCount')::bigint";
    assert_eq!(numbers(&mut client, removed), [60]);
    let rest = "SELECT string_agg(failure_type, ' ') FROM \"Ops, too\".backlog_cleanup_failures('t', NULL) WHERE failed_count > 0";
    assert_eq!(value::<String>(&mut client, rest), "no #");
}

#[test]
fn a_policy_for_a_failure_type_is_for_the_fingerprint_of_the_message_that_it_was_written_with() {
    let cluster = Cluster::start("");
    let mut client = cluster.connect();
    client.batch_execute(JOBS).unwrap();
    client
        .batch_execute(
            "UPDATE job SET error = CASE WHEN id <= 60 THEN 'job ' || id || ' timed out' ELSE 'job ' || id || ' failed' END;
             SELECT backlog_cleanup_set_policy(failure_type => 'job 987654 timed out', enabled => false, target => 't')",
        )
        .unwrap();
    let removed = "SELECT (backlog_cleanup_emergency('t') ->> 'removedCount')::bigint";
    assert_eq!(numbers(&mut client, removed), [40]);
}

#[test]
fn explain_knows_every_row_that_the_last_run_kept_back_and_never_says_that_one_goes_before_it_expires() {
    let cluster = Cluster::start("");
    let mut client = cluster.connect();
    client.batch_execute(JOBS).unwrap();
    veto(&mut client, "job", "OLD.id IN (5, 6)");
    client.batch_execute("SELECT backlog_cleanup_failed_generations('t'); INSERT INTO job (id) VALUES (1000)").unwrap();
    let verdicts = "SELECT string_agg(concat_ws(' ', id, verdict), ', ' ORDER BY id)
                    FROM job, backlog_cleanup_explain(id::text, 't') WHERE id IN (5, 6)";
    assert_eq!(value::<String>(&mut client, verdicts), "5 kept back, 6 kept back");
    // A run of other rows has said nothing of them.
    client.batch_execute("INSERT INTO job (id, queue) VALUES (1001, 'b')").unwrap();
    client.batch_execute("SELECT backlog_cleanup_failed_generations('t', recipe_id => 'b')").unwrap();
    assert_eq!(value::<String>(&mut client, verdicts), "5 kept back, 6 kept back");
    // By the calendar 60 days are less than two months, and more than one of 28 days.
    client
        .batch_execute(
            "SELECT backlog_cleanup_set_policy(max_age => '2 months', max_keep_age => '60 days', target => 't')",
        )
        .unwrap();
    let early = "SELECT count(*) FROM job, backlog_cleanup_explain(id::text, 't') WHERE removable_at < expires_at";
    assert_eq!(number(&mut client, early), 0);
}

#[test]
fn explain_says_that_the_last_run_kept_back_only_what_that_run_has_tried() {
    let cluster = Cluster::start("");
    let mut client = cluster.connect();
    client.batch_execute(JOBS).unwrap();
    client
        .batch_execute(
            "CREATE TABLE child (job int REFERENCES job);
             DELETE FROM job; INSERT INTO job (id, at) SELECT i, now() - interval '1 hour' - i * interval '1 day' FROM generate_series(1, 30) i;
             CREATE TABLE saved AS TABLE job;
             INSERT INTO child VALUES (25), (26)",
        )
        .unwrap();
    let verdicts = "SELECT string_agg(concat_ws(' ', id, left(verdict, 9)), ', ' ORDER BY id)
                    FROM job, backlog_cleanup_explain(id::text, 't') WHERE verdict <> 'kept'";
    let removable = "SELECT sum(removable_now)::bigint FROM backlog_cleanup_simulate(keep => 3, target => 't')";
    for run in ["SELECT backlog_cleanup_failed_generations('t')", "CALL backlog_cleanup_run('t', batch_size => 7)"] {
        let default = "INSERT INTO job TABLE saved ON CONFLICT DO NOTHING;
             DELETE FROM backlog_cleanup.policy WHERE status IS NOT NULL; SELECT backlog_cleanup_set_policy(keep => 10, target => 't')";
        client.batch_execute(default).unwrap();
        client.batch_execute(run).unwrap();
        assert_eq!(value::<String>(&mut client, verdicts), "25 kept back, 26 kept back", "{run}");
        let reason = "SELECT reason LIKE 'the last run kept it back with 1 other; row 2_ has met: %'
                      FROM backlog_cleanup_explain((SELECT 51 - kept_back_row::int FROM backlog_cleanup.run ORDER BY id DESC LIMIT 1)::text, 't')";
        assert!(truth(&mut client, reason), "{run}");
        // Rows that only the policies of now would let go were none of that run's, whichever policy they have now.
        for policy in ["keep => 3", "keep => 3, status => 'failed'"] {
            client.batch_execute(&format!("SELECT backlog_cleanup_set_policy({policy}, target => 't')")).unwrap();
            let expected = "4 removable, 5 removable, 6 removable, 7 removable, 8 removable, 9 removable, 10 removable, 25 kept back, 26 kept back";
            assert_eq!(value::<String>(&mut client, verdicts), expected, "{run}: {policy}");
            assert_eq!(number(&mut client, removable), 9, "{run}: {policy}");
        }
    }
}

#[test]
fn a_status_with_our_index_reads_nothing_of_a_vacuumed_table_and_counts_the_same_as_per_recipe() {
    let cluster = Cluster::start("autovacuum = off\n");
    let mut client = cluster.platform();
    create_index(&mut client, "generations");
    fail(&mut client, 1, 40);
    fail(&mut client, 2, 30);
    client
        .batch_execute(
            "INSERT INTO generations (user_id, recipe_id, prompt, status)
             SELECT 'system_backlog', i % 5, repeat('x', 500),
                    (ARRAY['completed', 'pending', 'processing', 'abandoned', 'waiting'])[1 + i % 5]
             FROM generate_series(1, 5000) i",
        )
        .unwrap();
    client.batch_execute("VACUUM ANALYZE generations").unwrap();
    const SAME: &str = "
        SELECT (s ->> 'totalGenerations')::bigint = sum(total_count) AND (s ->> 'failedGenerations')::bigint = sum(failed_count)
               AND (s ->> 'pendingGenerations')::bigint = sum(pending_count)
               AND (s ->> 'removableGenerations')::bigint = sum(removable_count)
               AND (SELECT sum((status ->> 'count')::bigint) FROM jsonb_array_elements(s -> 'statuses') status) = sum(total_count)
               AND jsonb_array_length(s -> 'statuses') = 6
        FROM backlog_cleanup_status(), backlog_cleanup_status_json() s GROUP BY s";
    assert!(truth(&mut client, SAME));
    client.batch_execute("SELECT pg_stat_reset_single_table_counters('generations'::regclass)").unwrap();
    let mut asks = cluster.connect();
    asks.batch_execute("SELECT backlog_cleanup_status_json()").unwrap();
    drop(asks);
    const READ: &str = "SELECT seq_scan = 0 AND heap_blks_read + heap_blks_hit < 5 AND idx_blks_read + idx_blks_hit > 0
                        FROM pg_stat_user_tables JOIN pg_statio_user_tables USING (relid) WHERE relid = 'generations'::regclass";
    until(&cluster, READ);
    // Right after a flood the table is read, and they still agree.
    fail(&mut client, 3, 2_000);
    client.batch_execute("UPDATE generations SET status = 'pending' WHERE id % 7 = 0").unwrap();
    assert!(truth(&mut client, SAME));
}

#[test]
fn of_a_view_of_any_number_of_recipes_only_the_names_that_are_shown_are_kept() {
    let cluster = Cluster::start("");
    let mut client = cluster.platform();
    fail(&mut client, 1, 3);
    client
        .batch_execute(
            "ALTER TABLE recipes RENAME TO few;
             CREATE VIEW recipes AS SELECT i AS id, 'recipe ' || i || repeat('x', 900) AS name FROM generate_series(1, 500000) i",
        )
        .unwrap();
    let reports = "SELECT * FROM backlog_cleanup_status(); SELECT backlog_cleanup_report()";
    let kilobytes = cluster.memory_for("postgres", "postgres", reports);
    assert!(kilobytes < 200_000, "{kilobytes} kB");
}

#[test]
fn a_ledger_that_is_named_with_its_database_ends_no_books_once_that_has_another_name() {
    let cluster = Cluster::start("");
    let mut client = cluster.platform_in("old");
    client
        .batch_execute(
            "CREATE TABLE ledger (LIKE credit_transactions);
             INSERT INTO backlog_cleanup.target (name, ledger_table) VALUES ('t', 'old.public.ledger'); SELECT backlog_cleanup_failed_generations()",
        )
        .unwrap_or_else(|failure| panic!("{failure:?}"));
    drop(client);
    cluster.connect().batch_execute("ALTER DATABASE old RENAME TO new").unwrap();
    assert_eq!(number(&mut cluster.connect_to("new"), "SELECT difference FROM backlog_cleanup_books()"), 0);
}

#[test]
fn names_that_cannot_be_read_stop_no_run_and_no_report() {
    let cluster = Cluster::start("");
    let mut client = cluster.connect();
    client.batch_execute(JOBS).unwrap();
    client
        .batch_execute(
            "UPDATE job SET queue = id % 2;
             CREATE VIEW recipe AS SELECT g::text AS id, 'x' || 1 / (3 - g) AS name FROM generate_series(0, 5) g; ALTER VIEW recipe OWNER TO app;
             UPDATE backlog_cleanup.target SET recipes_table = 'public.recipe' WHERE name = 't'",
        )
        .unwrap();
    let (status, detail, _) = finding(&mut client, "names");
    assert!(status == "warn" && detail.ends_with("reports have ids instead: division by zero"), "{detail}");
    let names = "SELECT string_agg(r ->> 'recipeName', ' ' ORDER BY 1) FROM jsonb_array_elements(";
    for report in [
        "backlog_cleanup_status_json('t') -> 'recipes'",
        "backlog_cleanup_failed_generations('t', dry_run => true) -> 'cleanupDetails'",
    ] {
        let names: Option<String> = value(&mut client, &format!("{names}{report}) r"));
        assert!(names.as_deref().is_none_or(|names| names == "0 1"), "{report}: {names:?}");
    }
    client.batch_execute("CALL backlog_cleanup_run('t', batch_size => 30)").unwrap();
    let left = "SELECT count(*) FROM job";
    assert_eq!(number(&mut client, left), 20);
    // A row whose expression fails with the same words is kept back behind it, and the rest goes.
    client
        .batch_execute(
            "INSERT INTO job (id, queue) SELECT i, CASE WHEN i = 205 THEN 3 ELSE 1 END FROM generate_series(201, 230) i;
             UPDATE backlog_cleanup.target SET recipe_column = '((1 / (3 - queue::int))::text)' WHERE name = 't'",
        )
        .unwrap();
    client.batch_execute("SELECT backlog_cleanup_failed_generations('t', dry_run => true)").unwrap();
    client.batch_execute("CALL backlog_cleanup_run('t', 'emergency', batch_size => 10)").unwrap();
    assert_eq!(number(&mut client, left), 1);
}

#[test]
fn explain_says_of_a_row_without_a_status_that_it_has_not_finished() {
    let cluster = Cluster::start("");
    let mut client = cluster.connect();
    client.batch_execute(JOBS).unwrap();
    client
        .batch_execute(
            "INSERT INTO job (id, at) VALUES (201, NULL);
             UPDATE backlog_cleanup.target SET status_column = NULL WHERE name = 't'",
        )
        .unwrap();
    let reason = "SELECT verdict || ': ' || reason FROM backlog_cleanup_explain('201', 't')";
    assert_eq!(value::<String>(&mut client, reason), "out of scope: its at is NULL: it has not finished");
    for call in [
        "backlog_cleanup_set_policy(status => 'failed', target => 't')",
        "backlog_cleanup_emergency('t', status => 'failed')",
    ] {
        let (sqlstate, message, _) = refused(client.batch_execute(&format!("SELECT {call}")));
        assert_eq!((&*sqlstate, &*message), ("22023", "target \"t\" has no status_column"), "{call}");
    }
}
