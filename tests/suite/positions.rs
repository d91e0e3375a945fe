//! How the rows are found that a run removes. A batched run remembers where they are; what is there when it comes to it may
//! be another row.

use cluster::{Cluster, create_index, number, numbers, truth, until, value};
use postgres::Client;

const RUN: &str = "CALL backlog_cleanup_run(batch_size => 18, pause => '2 s')";

/// Failed rows of one recipe, each older than the one before.
fn fill(client: &mut Client) {
    client
        .batch_execute(
            "INSERT INTO generations (user_id, recipe_id, prompt, status, updated_at)
             SELECT 'system_backlog', 1, '', 'failed', now() AT TIME ZONE 'UTC' - interval '2 days' - interval '1 second' * i
             FROM generate_series(1, 45) i",
        )
        .unwrap();
}

#[test]
fn a_row_that_has_taken_the_place_of_another_survives() {
    let cluster = Cluster::start("autovacuum = off\n");
    let mut client = cluster.platform();
    for logged in ["LOGGED", "UNLOGGED"] {
        client
            .batch_execute(&format!(
                "TRUNCATE generations RESTART IDENTITY CASCADE; TRUNCATE credit_transactions;
                 ALTER TABLE generations SET {logged}"
            ))
            .unwrap();
        fill(&mut client);
        let run = cluster.in_background(RUN);
        until(&cluster, "SELECT removed = 18 FROM backlog_cleanup.progress");
        // Row 45 would have gone in the last batch; row 1 is the newest, and stays.
        let place: String = value(&mut client, "SELECT ctid::text FROM generations WHERE id = 45");
        client.batch_execute("DELETE FROM generations WHERE id = 45").unwrap();
        // Free are the places of the first batch and this one; the others are filled.
        client.batch_execute("VACUUM generations").unwrap();
        let moved = "UPDATE generations SET like_count = like_count + 1 WHERE id = 1 RETURNING ctid::text";
        while value::<String>(&mut client, moved) != place {
            client
                .batch_execute("INSERT INTO generations (user_id, prompt, status) VALUES ('user-1', '', 'pending')")
                .unwrap();
        }
        run.join().unwrap().1.unwrap();
        let left = "SELECT count(*) = 10 AND bool_or(id = 1) FROM generations WHERE status = 'failed'";
        assert!(truth(&mut client, left), "{logged}");
        assert_eq!(number(&mut client, "SELECT sum(amount) FROM credit_transactions"), 34, "{logged}");
    }
}

#[test]
fn rows_that_moved_within_their_page_go_beside_one_that_is_locked() {
    let cluster = Cluster::start("autovacuum = off\n");
    let mut client = cluster.platform();
    client.batch_execute("ALTER TABLE generations SET (fillfactor = 40)").unwrap();
    client.batch_execute("UPDATE backlog_cleanup.target SET lock_timeout = '100 ms'").unwrap();
    create_index(&mut client, "generations");
    fill(&mut client);
    client.batch_execute("UPDATE generations SET like_count = 1").unwrap();
    client.batch_execute("VACUUM ANALYZE generations").unwrap();
    let mut other = cluster.connect();
    other.batch_execute("BEGIN; SELECT FROM generations WHERE id = 45 FOR UPDATE").unwrap();
    client.batch_execute("CALL backlog_cleanup_run()").unwrap();
    assert_eq!(numbers(&mut client, "SELECT removed, skipped FROM backlog_cleanup.run"), [34, 1]);
}

#[test]
fn right_after_a_flood_the_table_is_read_whole_whatever_its_statistics_say() {
    let cluster = Cluster::start("autovacuum = off\n");
    let mut client = cluster.platform();
    client
        .batch_execute(
            "ANALYZE generations;
             INSERT INTO generations (user_id, recipe_id, prompt, status)
             SELECT 'system_backlog', i % 3, '', 'failed' FROM generate_series(1, 20000) i;
             SELECT backlog_cleanup_failed_generations(dry_run => true), count(*) FROM backlog_cleanup_status()",
        )
        .unwrap();
    drop(client);
    // Two reads of the whole table, and not one through an index that the planner takes for the shorter way to a few rows.
    until(
        &cluster,
        "SELECT seq_tup_read = 40000 AND idx_scan = 0 FROM pg_stat_user_tables WHERE relname = 'generations'",
    );
}
