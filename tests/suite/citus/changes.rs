//! A table that becomes distributed, or ceases to be, around a run.

use std::time::Duration;

use cluster::{Nodes, refused, until_true};
use postgres::Client;

use super::{BY_ACCOUNT, BY_ID, BY_RECIPE, Distribution, REFERENCE, SINGLE_SHARD, books, fill, make, must_stay, there};

const ROWS: i64 = 4000;

const PLAIN: Distribution = ("plain", "CREATE TABLE kind (COLUMNS, PRIMARY KEY (id, recipe_id))");

/// What makes a plain table another one. A primary key has the column that it is distributed by.
const DISTRIBUTE: [&str; 6] = [
    "SELECT create_distributed_table('kind', 'id')",
    "SELECT create_distributed_table('kind', 'recipe_id')",
    "ALTER TABLE kind DROP CONSTRAINT kind_pkey; SELECT create_distributed_table('kind', 'user_id')",
    "SELECT create_reference_table('kind')",
    "SELECT create_distributed_table('kind', NULL)",
    "SELECT citus_add_local_table_to_metadata('kind')",
];

/// Runs in batches, lets `change` happen after the first of them, and then runs once more.
fn survive(nodes: &Nodes, client: &mut Client, before: Distribution, change: &str, is_emergency: bool) {
    let (mode, what) = (if is_emergency { "emergency" } else { "regular" }, format!("{}, {change}", before.0));
    make(client, before);
    fill(client, ROWS, 20);
    let stays = must_stay(client, is_emergency);
    let call = format!("CALL backlog_cleanup_run('kind', '{mode}', batch_size => 300");
    let run = nodes.coordinator.in_background(&format!("{call}, pause => '300 ms')"));
    until_true(
        client,
        "SELECT coalesce((SELECT removed > 0 FROM backlog_cleanup.progress WHERE target = 'kind'), false)",
    );
    client.batch_execute(change).unwrap_or_else(|failure| panic!("{what}: {failure:?}"));
    let (_, ended) = run.join().unwrap();
    let lost: Vec<i64> = stays.difference(&there(client)).copied().collect();
    assert!(lost.is_empty(), "{what}: {} rows too many", lost.len());
    let gone = books(client, ROWS);
    match &ended {
        Ok(()) => assert_eq!(there(client), stays, "{what}: a run that has completed has left rows"),
        Err(failure) => {
            let error = failure.as_db_error().unwrap();
            assert_ne!(error.code().code(), "XX000", "{what}: {error}");
            assert!(!error.message().is_empty());
        }
    }
    client
        .batch_execute(&format!("{call})"))
        .unwrap_or_else(|failure| panic!("{what}, the next run: {:?}", failure.as_db_error()));
    assert_eq!(there(client), stays, "{what}: the next run finishes");
    assert_eq!(books(client, ROWS), ROWS - stays.len() as i64, "{what}");
    println!("{what}, {mode}: {} after {gone} of {} rows", said(&ended), ROWS - stays.len() as i64);
}

fn said(ended: &Result<(), postgres::Error>) -> String {
    match ended {
        Ok(()) => "completed".into(),
        Err(failure) => {
            let error = failure.as_db_error().unwrap();
            format!("{} {}", error.code().code(), error.message())
        }
    }
}

#[test]
fn a_table_that_becomes_distributed_between_two_batches_loses_no_row_too_many_and_the_next_run_finishes() {
    let Some(nodes) = Nodes::start("") else { return };
    let mut client = nodes.platform();
    for change in DISTRIBUTE {
        survive(&nodes, &mut client, PLAIN, change, false);
    }
    survive(&nodes, &mut client, PLAIN, DISTRIBUTE[0], true);
}

#[test]
fn a_table_that_is_no_longer_distributed_loses_no_row_too_many_and_the_next_run_finishes() {
    let Some(nodes) = Nodes::start("") else { return };
    let mut client = nodes.platform();
    for before in [BY_ID, BY_RECIPE, BY_ACCOUNT, REFERENCE, SINGLE_SHARD] {
        survive(&nodes, &mut client, before, "SELECT undistribute_table('kind')", false);
    }
    survive(&nodes, &mut client, BY_ID, "SELECT undistribute_table('kind')", true);
    survive(&nodes, &mut client, BY_ID, "SELECT alter_distributed_table('kind', shard_count => 6)", false);
}

#[test]
fn a_plain_table_that_is_written_anew_between_two_batches_is_finished() {
    let Some(nodes) = Nodes::start("") else { return };
    let mut client = nodes.platform();
    for change in ["VACUUM FULL kind", "CLUSTER kind USING kind_pkey", "ALTER TABLE kind ALTER recipe_id TYPE bigint"] {
        survive(&nodes, &mut client, PLAIN, change, false);
        if !change.starts_with("CLUSTER") {
            survive(&nodes, &mut client, BY_ID, change, false);
        }
    }
}

/// The session waits for what has not been committed, and then reads what the table is.
#[test]
fn a_run_that_begins_while_a_table_becomes_distributed_removes_no_row_too_many() {
    let Some(nodes) = Nodes::start("") else { return };
    let mut client = nodes.platform();
    for distribute in DISTRIBUTE {
        for call in [
            "SELECT backlog_cleanup_failed_generations('kind')",
            "CALL backlog_cleanup_run('kind', batch_size => 300)",
            "SELECT backlog_cleanup_emergency('kind')",
        ] {
            make(&mut client, PLAIN);
            fill(&mut client, ROWS, 20);
            let stays = must_stay(&mut client, call.contains("emergency"));
            let mut other = nodes.coordinator.connect();
            other.batch_execute(&format!("BEGIN; {distribute}")).unwrap();
            let run = nodes.coordinator.in_background(call);
            std::thread::sleep(Duration::from_millis(500));
            other.batch_execute("COMMIT").unwrap();
            let (_, ended) = run.join().unwrap();
            let lost = stays.difference(&there(&mut client)).count();
            assert_eq!(lost, 0, "{distribute}, {call}: rows too many");
            books(&mut client, ROWS);
            client
                .batch_execute(call)
                .unwrap_or_else(|failure| panic!("{distribute}, {call}: {:?}", failure.as_db_error()));
            assert_eq!(there(&mut client), stays, "{distribute}, {call}: the next run finishes");
            println!("{distribute}, {call}: {}", said(&ended));
        }
    }
}

/// A columnar table can lose no rows.
#[test]
fn a_columnar_table_is_refused_when_the_target_is_written() {
    let Some(nodes) = Nodes::start("") else { return };
    let mut client = nodes.platform();
    client.batch_execute("CREATE EXTENSION citus_columnar").unwrap();
    for distribute in ["", "SELECT create_distributed_table('kind', 'id')"] {
        let create = format!("CREATE TABLE kind ({}) USING columnar; {distribute}", super::COLUMNS);
        client.batch_execute(&create).unwrap();
        let write = "INSERT INTO backlog_cleanup.target (name, generations_table, recipes_table) VALUES ('kind', 'public.kind', NULL)";
        let (sqlstate, message, hint) = refused(client.batch_execute(write));
        assert_eq!(sqlstate, "0A000", "{message}");
        assert!(message.contains("access method \"columnar\""), "{message}");
        client.batch_execute(&hint).unwrap_or_else(|failure| panic!("{hint}: {failure:?}"));
        client.batch_execute(write).unwrap();
        client.batch_execute("DELETE FROM backlog_cleanup.target WHERE name = 'kind'; DROP TABLE kind").unwrap();
    }
}
