//! What status says of a table as it is.

use cluster::{Cluster, JOBS, numbers, refused};

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
