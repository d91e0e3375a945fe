//! What others do while a run is at work: retries, locks, triggers on shards, shards that move, nodes that fail.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use cluster::{Nodes, column, number, until_holds, value};

use super::{BY_ACCOUNT, BY_ID, BY_RECIPE, DISTRIBUTIONS, PARTITIONED, REFERENCE, books, fill, make, must_stay, there};
use crate::random::{Random, setting};

const ROWS: i64 = 6000;

const CALLS: [&str; 3] = [
    "SELECT backlog_cleanup_failed_generations('kind')",
    "CALL backlog_cleanup_run('kind', batch_size => 200)",
    "CALL backlog_cleanup_run('kind', 'emergency', batch_size => 200, workers => 2)",
];

#[test]
fn a_row_that_is_retried_while_a_run_is_at_work_survives() {
    let Some(nodes) = Nodes::start("") else { return };
    let mut client = nodes.platform();
    for distribution in DISTRIBUTIONS {
        for call in CALLS {
            make(&mut client, distribution);
            fill(&mut client, ROWS, 30);
            let stays = must_stay(&mut client, call.contains("emergency"));
            let is_over = Arc::new(AtomicBool::new(false));
            let retry = |seed: u64| {
                let (mut session, is_over) = (nodes.coordinator.connect(), is_over.clone());
                thread::spawn(move || {
                    let (mut random, mut retried) = (Random(seed), BTreeSet::new());
                    while !is_over.load(Ordering::Relaxed) {
                        let id = 1 + random.below(ROWS as u64) as i64;
                        let retry = format!(
                            "UPDATE kind SET status = 'pending', failure_reason = NULL WHERE id = {id} AND status = 'failed'"
                        );
                        if session.execute(&retry, &[]).is_ok_and(|rows| rows == 1) {
                            retried.insert(id);
                        }
                    }
                    retried
                })
            };
            let sessions = [retry(1), retry(2)];
            thread::sleep(Duration::from_millis(50));
            let ended = client.batch_execute(call);
            is_over.store(true, Ordering::Relaxed);
            let retried: BTreeSet<i64> = sessions.into_iter().flat_map(|session| session.join().unwrap()).collect();
            ended.unwrap_or_else(|failure| panic!("{}, {call}: {:?}", distribution.0, failure.as_db_error()));
            let there = there(&mut client);
            let lost: Vec<&i64> = retried.difference(&there).collect();
            assert!(lost.is_empty(), "{}, {call}: {lost:?} of {} retried", distribution.0, retried.len());
            assert!(stays.is_subset(&there), "{}, {call}: rows too many", distribution.0);
            books(&mut client, ROWS);
            println!("{}, {call}: {} retried rows survived", distribution.0, retried.len());
        }
    }
}

#[test]
fn a_locked_row_stays_alone_and_is_waited_for_no_longer_than_lock_timeout() {
    let Some(nodes) = Nodes::start("") else { return };
    let mut client = nodes.platform();
    for distribution in DISTRIBUTIONS {
        for call in CALLS {
            make(&mut client, distribution);
            client
                .batch_execute("UPDATE backlog_cleanup.target SET lock_timeout = '300 ms' WHERE name = 'kind'")
                .unwrap();
            fill(&mut client, 1000, 5);
            let mut stays = must_stay(&mut client, call.contains("emergency"));
            let locked = (1..=1000).find(|id| !stays.contains(id)).unwrap();
            let mut other = nodes.coordinator.connect();
            other
                .batch_execute(&format!("BEGIN; UPDATE kind SET failure_reason = 'held' WHERE id = {locked}"))
                .unwrap();
            let started = Instant::now();
            let ended = client.batch_execute(call);
            let took = started.elapsed();
            other.batch_execute("ROLLBACK").unwrap();
            ended.unwrap_or_else(|failure| panic!("{}, {call}: {:?}", distribution.0, failure.as_db_error()));
            assert!(took < Duration::from_secs(60), "{}, {call}: {took:?}", distribution.0);
            if distribution.0 == REFERENCE.0 {
                // Citus lets one transaction at a time write such a table.
                assert_eq!(books(&mut client, 1000), 0, "{call}");
                continue;
            }
            stays.insert(locked);
            assert_eq!(there(&mut client), stays, "{}, {call}", distribution.0);
            let left = "SELECT skipped + kept_back FROM backlog_cleanup.run ORDER BY id DESC LIMIT 1";
            assert_eq!(number(&mut client, left), 1, "{}, {call}", distribution.0);
            books(&mut client, 1000);
            println!("{}, {call}: {took:?}", distribution.0);
        }
    }
}

#[test]
fn a_row_that_a_trigger_of_a_shard_refuses_stays_alone_with_the_reason() {
    let Some(nodes) = Nodes::start("citus.enable_unsafe_triggers = on\n") else { return };
    let mut client = nodes.platform();
    client
        .batch_execute(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
                 $$BEGIN IF OLD.id IN (7, 8) THEN RAISE EXCEPTION 'row % is wanted', OLD.id; END IF; RETURN OLD; END$$",
        )
        .unwrap();
    // Citus refuses triggers of reference tables.
    for distribution in [BY_ID, BY_RECIPE, BY_ACCOUNT, PARTITIONED] {
        for call in CALLS {
            make(&mut client, distribution);
            client
                .batch_execute("CREATE TRIGGER refuse BEFORE DELETE ON kind FOR EACH ROW EXECUTE FUNCTION refuse()")
                .unwrap();
            fill(&mut client, 1000, 5);
            let mut stays = must_stay(&mut client, call.contains("emergency"));
            let refused = [7, 8].into_iter().filter(|id| stays.insert(*id)).count() as i64;
            client
                .batch_execute(call)
                .unwrap_or_else(|failure| panic!("{}, {call}: {:?}", distribution.0, failure.as_db_error()));
            assert_eq!(there(&mut client), stays, "{}, {call}", distribution.0);
            let last = "FROM backlog_cleanup.run ORDER BY id DESC LIMIT 1";
            assert_eq!(number(&mut client, &format!("SELECT kept_back {last}")), refused, "{}, {call}", distribution.0);
            let reason: String = value(&mut client, &format!("SELECT kept_back_message {last}"));
            assert!(reason.contains("is wanted"), "{}, {call}: {reason}", distribution.0);
            books(&mut client, 1000);
        }
        println!("{}: kept back alone", distribution.0);
    }
}

#[test]
fn no_batch_has_more_rows_than_batch_size() {
    let Some(nodes) = Nodes::start("") else { return };
    let mut client = nodes.platform();
    for distribution in DISTRIBUTIONS {
        for (mode, workers) in [("regular", 1), ("regular", 2), ("emergency", 1), ("emergency", 2)] {
            make(&mut client, distribution);
            fill(&mut client, ROWS, 30);
            let stays = must_stay(&mut client, mode == "emergency");
            let call = format!("CALL backlog_cleanup_run('kind', '{mode}', batch_size => 250, workers => {workers})");
            client
                .batch_execute(&call)
                .unwrap_or_else(|failure| panic!("{}, {call}: {:?}", distribution.0, failure.as_db_error()));
            assert_eq!(there(&mut client), stays, "{}, {call}", distribution.0);
            let largest = "SELECT max(amount) FROM credit_transactions";
            let (largest, batches) =
                (number(&mut client, largest), number(&mut client, "SELECT count(*) FROM credit_transactions"));
            assert!(largest <= 250, "{}, {call}: {largest} rows in a batch", distribution.0);
            println!("{}, {mode}, {workers} workers: {batches} batches, at most {largest} rows", distribution.0);
        }
    }
}

#[test]
fn shards_that_move_while_a_run_is_at_work_lose_exactly_the_right_rows() {
    let Some(nodes) = Nodes::start("") else { return };
    let mut client = nodes.platform();
    for distribution in [BY_ID, BY_RECIPE] {
        for call in CALLS {
            make(&mut client, distribution);
            fill(&mut client, ROWS, 30);
            let stays = must_stay(&mut client, call.contains("emergency"));
            let is_over = Arc::new(AtomicBool::new(false));
            let (mut session, over) = (nodes.coordinator.connect(), is_over.clone());
            let moves = thread::spawn(move || {
                let mut moved = 0;
                while !over.load(Ordering::Relaxed) {
                    let shards = "SELECT p.shardid, n.nodename, n.nodeport, o.nodename, o.nodeport
                                  FROM pg_dist_shard s JOIN pg_dist_placement p USING (shardid) JOIN pg_dist_node n USING (groupid),
                                       pg_dist_node o
                                  WHERE logicalrelid = 'kind'::regclass AND o.groupid NOT IN (0, n.groupid) ORDER BY random() LIMIT 1";
                    let row = session.query_one(shards, &[]).unwrap();
                    let (shard, from, from_port, to, to_port): (i64, &str, i32, &str, i32) =
                        (row.get(0), row.get(1), row.get(2), row.get(3), row.get(4));
                    let mode = if moved % 2 == 0 { "block_writes" } else { "force_logical" };
                    let shard_moves = format!(
                        "SELECT citus_move_shard_placement({shard}, '{from}', {from_port}, '{to}', {to_port}, '{mode}')"
                    );
                    moved += i32::from(session.batch_execute(&shard_moves).is_ok());
                }
                moved
            });
            let slowly = call.replace("batch_size => 200", "batch_size => 200, pause => '100 ms'");
            let ended = client.batch_execute(&slowly);
            is_over.store(true, Ordering::Relaxed);
            let moved = moves.join().unwrap();
            let said =
                ended.as_ref().map_or_else(|failure| format!("{:?}", failure.as_db_error()), |()| "completed".into());
            assert!(stays.is_subset(&there(&mut client)), "{}, {call}: rows too many", distribution.0);
            books(&mut client, ROWS);
            client.batch_execute(call).unwrap();
            assert_eq!(there(&mut client), stays, "{}, {call}", distribution.0);
            books(&mut client, ROWS);
            println!("{}, {call}: {moved} shards moved, {said}", distribution.0);
        }
    }
}

/// ROUNDS says how many there are, SEED which.
#[test]
fn the_books_balance_and_the_next_run_finishes_whenever_a_node_stops() {
    let Some(nodes) = Nodes::start("") else { return };
    let mut client = nodes.platform();
    let (rounds, mut random) = (setting("ROUNDS", 12), Random(setting("SEED", 7)));
    let kinds = [BY_ID, BY_RECIPE, REFERENCE, PARTITIONED];
    for round in 0..rounds {
        let (distribution, call) = (kinds[(round % 4) as usize], CALLS[(round / 4 % 3) as usize]);
        make(&mut client, distribution);
        fill(&mut client, ROWS, 30);
        let stays = must_stay(&mut client, call.contains("emergency"));
        let (node, moment) = (&nodes.workers[random.below(2) as usize], random.below(1000));
        let run =
            nodes.coordinator.in_background(&call.replace("batch_size => 200", "batch_size => 200, pause => '10 ms'"));
        // So many batches in, if there are some.
        let (is_batched, removed) = (call.starts_with("CALL"), random.below(3000) as i64);
        let done = "SELECT coalesce(max(removed), 0) FROM backlog_cleanup.progress";
        until_holds(|| !is_batched || run.is_finished() || number(&mut client, done) >= removed);
        thread::sleep(Duration::from_millis(if is_batched { moment / 50 } else { moment }));
        node.stop();
        let (session, ended) = run.join().unwrap();
        drop(session);
        node.start_again();
        until_holds(|| {
            nodes.recover();
            all_answer(&nodes)
        });
        // A session keeps connections to nodes that are gone, and one that meets such a connection fails.
        client = nodes.coordinator.connect();
        assert!(stays.is_subset(&there(&mut client)), "round {round}, {}, {call}: rows too many", distribution.0);
        let gone = books(&mut client, ROWS);
        client
            .batch_execute(call)
            .unwrap_or_else(|failure| panic!("round {round}, {}, {call}: {:?}", distribution.0, failure.as_db_error()));
        assert_eq!(there(&mut client), stays, "round {round}, {}, {call}", distribution.0);
        books(&mut client, ROWS);
        let said = ended.map_or_else(
            |failure| {
                failure
                    .as_db_error()
                    .map_or(failure.to_string(), |error| format!("{} {}", error.code().code(), error.message()))
            },
            |()| "completed".into(),
        );
        println!(
            "round {round}, {}, {call}: {gone} of {} rows gone, {said}",
            distribution.0,
            ROWS - stays.len() as i64
        );
    }
}

/// Whether each node answers, and has nothing prepared.
fn all_answer(nodes: &Nodes) -> bool {
    let prepared = "SELECT result FROM run_command_on_workers('SELECT count(*) FROM pg_prepared_xacts') WHERE success";
    column::<String>(&mut nodes.coordinator.connect(), prepared) == ["0", "0"]
}
