//! Rows for which an expression of the target fails stay, and stop nothing.

use cluster::{Cluster, findings, number, refused, value};
use postgres::Client;

use super::{JOB, RUNS, run};

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
        client.batch_execute(fix).unwrap();
        assert_ne!(findings(&mut client, "rows")[0].0, "fail", "{fix}");
        set(&mut client, key, as_before);
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
