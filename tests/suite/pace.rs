//! A batched run that is told no pause gives way to others, and waits for the disk only where somebody relies on it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use cluster::{Cluster, balance, fail, number, numbers, truth, value};
use postgres::Client;

/// Ends the thread that writes beside a test, also when the test fails.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// How many batches removed rows, and how many rows the largest did.
fn batches(client: &mut Client, call: &str) -> [i64; 2] {
    client.batch_execute("TRUNCATE generations, credit_transactions; DELETE FROM backlog_cleanup.run").unwrap();
    fail(client, 1, 6000);
    client.batch_execute(call).unwrap();
    numbers(client, "SELECT count(*), max(amount)::bigint FROM credit_transactions")
}

#[test]
fn a_run_goes_at_full_speed_while_nobody_else_writes_and_gives_way_while_others_do() {
    let cluster = Cluster::start("autovacuum = off\nmax_worker_processes = 16\n");
    let mut client = cluster.platform();
    client.batch_execute("UPDATE backlog_cleanup.policy SET keep = 0; CREATE TABLE other (id int)").unwrap();
    let run = "CALL backlog_cleanup_run(batch_size => 3000)";
    // A batch ends with a page.
    let full = |[_, largest]: [i64; 2]| (2900..=3000).contains(&largest);
    assert!(full(batches(&mut client, run)));
    // Its own subtransactions, which are rolled back where a row stays, are not others.
    client
        .batch_execute(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION USING message = OLD.id; END';
             CREATE TRIGGER refuse BEFORE DELETE ON generations FOR EACH ROW WHEN (OLD.id % 1000 = 0) EXECUTE FUNCTION refuse()",
        )
        .unwrap();
    assert!(full(batches(&mut client, run)));
    client.batch_execute("DROP TRIGGER refuse ON generations").unwrap();
    let (mut other, is_over) = (cluster.connect(), AtomicBool::new(false));
    thread::scope(|scope| {
        let _end = End(&is_over);
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                other.batch_execute("INSERT INTO other VALUES (1)").unwrap();
                thread::sleep(Duration::from_millis(5));
            }
        });
        let [many, largest] = batches(&mut client, run);
        let pause: Option<String> = value(&mut client, "SELECT pause::text FROM backlog_cleanup.run");
        // The first batch may begin before others were seen.
        assert!(many >= 4 && pause.is_none(), "{many} {largest}");
        let beside = "SELECT max(amount)::bigint FROM (SELECT amount FROM credit_transactions ORDER BY created_at OFFSET 1) later";
        assert!(number(&mut client, beside) <= 1000);
        // What is said is kept: a batch size as the largest, a pause as it is; and workers are for speed.
        assert!(batches(&mut client, "CALL backlog_cleanup_run(batch_size => 300)")[1] <= 300);
        assert!(full(batches(&mut client, "CALL backlog_cleanup_run(batch_size => 3000, pause => '0')")));
        assert!(full(batches(&mut client, "CALL backlog_cleanup_run(batch_size => 3000, workers => 2)")));
        client.batch_execute("UPDATE backlog_cleanup.target SET pause = '1 ms'").unwrap();
        assert!(full(batches(&mut client, run)));
    });
}

#[test]
fn a_batched_run_waits_for_the_disk_at_its_end_and_what_its_report_says_survives_a_crash() {
    let cluster = Cluster::start("autovacuum = off\nfsync = on\nmax_worker_processes = 16\n");
    let mut client = cluster.platform();
    let synced = "SELECT pg_stat_force_next_flush()::text = '' AND wal_sync >= 0, wal_sync FROM pg_stat_wal";
    let syncs = |client: &mut Client| -> i64 { client.query_one(synced, &[]).unwrap().get(1) };
    for workers in [1, 2] {
        fail(&mut client, 1, 2010);
        let before = syncs(&mut client);
        client
            .batch_execute(&format!("CALL backlog_cleanup_run(batch_size => 10, pause => '0', workers => {workers})"))
            .unwrap();
        assert!(truth(&mut client, "SELECT current_setting('synchronous_commit') = 'on'"));
        let [batches, seconds] = numbers(
            &mut client,
            "SELECT batches, ceil(extract(epoch FROM finished_at - started_at))::bigint FROM backlog_cleanup.run ORDER BY id DESC LIMIT 1",
        );
        // The WAL writer comes by five times a second.
        let during = syncs(&mut client) - before;
        assert!(batches >= 200 && during < 20 + 6 * seconds, "{workers}: {during} in {seconds} s");
        cluster.crash();
        client = cluster.reconnect();
        let state = "SELECT state || ' ' || removed FROM backlog_cleanup.run ORDER BY id DESC LIMIT 1";
        assert_eq!(
            value::<String>(&mut client, state),
            format!("completed {}", if workers == 1 { 2000 } else { 2010 })
        );
        balance(&mut client, 2010 * workers);
    }
}
