use std::thread;
use std::time::{Duration, Instant};

use postgres::{Client, NoTls};

use crate::cluster::Cluster;

/// No test waits longer: one that hangs says where.
const PATIENCE: Duration = Duration::from_secs(180);

/// Waits until a condition holds.
#[track_caller]
pub fn until_holds(mut condition: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < PATIENCE, "it never holds");
        thread::sleep(Duration::from_millis(10));
    }
}

/// Waits until a query returns true.
#[track_caller]
pub fn until_true(client: &mut Client, query: &str) {
    let begun = Instant::now();
    while !crate::truth(client, query) {
        assert!(begun.elapsed() < PATIENCE, "never true: {query}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// Waits until a query returns true, in new sessions: also over a restart of the server.
pub fn until(cluster: &Cluster, query: &str) {
    for _ in 0..1200 {
        let answer =
            cluster.configuration("postgres").connect(NoTls).and_then(|mut client| client.query_one(query, &[]));
        if answer.is_ok_and(|row| row.get::<_, Option<bool>>(0) == Some(true)) {
            return;
        }
        thread::sleep(Duration::from_millis(50));
    }
    panic!("never true: {query}");
}
