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

#[test]
fn through_the_index_a_page_is_visited_once_at_most_whatever_the_visibility_map_says() {
    let cluster = Cluster::start("autovacuum = off\nmax_parallel_workers_per_gather = 0\n");
    let mut client = cluster.platform();
    create_index(&mut client, "generations");
    // One recipe's rows are on all pages.
    client
        .batch_execute(
            "INSERT INTO generations (user_id, recipe_id, prompt, status, updated_at)
             SELECT 'system_backlog', i % 100, repeat('x', 300), 'failed', now() AT TIME ZONE 'UTC' - interval '2 days'
             FROM generate_series(1, 5000) i;
             CREATE EXTENSION pg_visibility",
        )
        .unwrap();
    client.batch_execute("VACUUM ANALYZE generations").unwrap();
    let pages = number(&mut client, "SELECT pg_relation_size('generations') / current_setting('block_size')::int");
    let not_all_visible = "SELECT count(*) FROM pg_visibility_map('generations') WHERE NOT all_visible";
    for share in [0, 25, 50, 75, 100] {
        // What is rolled back clears the pages' bits.
        client
            .batch_execute(&format!(
                "BEGIN; DELETE FROM generations WHERE hashint4((ctid::text::point)[0]::int) % 100 + 100 < {share} * 2; ROLLBACK"
            ))
            .unwrap();
        let doubtful = number(&mut client, not_all_visible);
        assert_eq!(doubtful > 0, share > 0);
        let visits = |ranking: &str| {
            let mut client = cluster.connect();
            client
                .batch_execute(&format!(
                    "SELECT pg_stat_reset_single_table_counters('generations'::regclass); SELECT pg_stat_force_next_flush(); {ranking}"
                ))
                .unwrap();
            drop(client);
            until(
                &cluster,
                "SELECT count(*) = 0 FROM pg_stat_activity WHERE state = 'idle' AND query LIKE '%dry_run%'",
            );
            number(
                &mut cluster.connect(),
                "SELECT heap_blks_read + heap_blks_hit FROM pg_statio_user_tables WHERE relname = 'generations'",
            )
        };
        let visited = visits("SELECT backlog_cleanup_failed_generations(dry_run => true)");
        // Planning reads none of them.
        assert!((doubtful..=doubtful + 2).contains(&visited), "{visited} visits to {doubtful} of {pages} pages");
    }
}

#[test]
fn through_the_index_a_run_sees_what_its_snapshot_shows() {
    let cluster = Cluster::start("autovacuum = off\n");
    let mut client = cluster.platform();
    client.batch_execute("ALTER TABLE generations SET (fillfactor = 50)").unwrap();
    create_index(&mut client, "generations");
    fill(&mut client);
    client.batch_execute("VACUUM ANALYZE generations").unwrap();
    // Versions of rows on the same page and elsewhere, retried rows, removed rows, and those of transactions that have not ended or were
    // rolled back.
    client
        .batch_execute(
            "UPDATE generations SET like_count = 1 WHERE id % 3 = 0; UPDATE generations SET like_count = 2 WHERE id % 6 = 0;
             UPDATE generations SET updated_at = updated_at - interval '1 hour' WHERE id % 5 = 0;
             UPDATE generations SET status = 'pending' WHERE id IN (7, 14);
             DELETE FROM generations WHERE id = 11",
        )
        .unwrap();
    client.batch_execute("BEGIN; DELETE FROM generations WHERE id > 40; ROLLBACK").unwrap();
    let mut other = cluster.connect();
    other
        .batch_execute(
            "BEGIN; DELETE FROM generations WHERE id = 12; UPDATE generations SET status = 'pending' WHERE id = 13;
             INSERT INTO generations (user_id, recipe_id, prompt, status, updated_at)
             SELECT 'system_backlog', 1, '', 'failed', '2000-01-01' FROM generate_series(1, 20)",
        )
        .unwrap();
    let report = "SELECT (r ->> 'totalFailedGenerations')::bigint, (r ->> 'cleanedUpGenerations')::bigint
                  FROM backlog_cleanup_failed_generations(dry_run => true) r";
    assert_eq!(numbers(&mut client, report), [42, 32]);
    // In its own transaction, too.
    client
        .batch_execute(
            "BEGIN; UPDATE generations SET status = 'failed' WHERE id = 7; DELETE FROM generations WHERE id < 3",
        )
        .unwrap();
    assert_eq!(numbers(&mut client, report), [41, 31]);
    client.batch_execute("ROLLBACK").unwrap();
    other.batch_execute("ROLLBACK").unwrap();
    let gone = "SELECT array_agg(id ORDER BY id) FROM (SELECT id, row_number() OVER (ORDER BY updated_at DESC, id DESC) AS rank
                FROM generations WHERE status = 'failed') ranked WHERE rank <= 10";
    let stay: Vec<i32> = value(&mut client, gone);
    client.batch_execute("SELECT backlog_cleanup_failed_generations()").unwrap();
    let left: Vec<i32> =
        value(&mut client, "SELECT array_agg(id ORDER BY id) FROM generations WHERE status = 'failed'");
    assert_eq!(left, stay);
}
