use std::thread;
use std::time::Duration;

use postgres::{Client, NoTls};

use crate::cluster::Cluster;

/// Waits until a condition holds.
pub fn until_holds(mut condition: impl FnMut() -> bool) {
    while !condition() {
        thread::sleep(Duration::from_millis(10));
    }
}

/// Waits until a query returns true.
pub fn until_true(client: &mut Client, query: &str) {
    until_holds(|| crate::truth(client, query));
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
