//! What status says of a table as it is.

use cluster::{Cluster, numbers, refused};

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
                 UPDATE backlog_cleanup.target SET processing_status = '{word}';
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
