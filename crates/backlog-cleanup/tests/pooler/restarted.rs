//! The database server comes back, and everything works again.

use cluster::{Cluster, until_holds};

use crate::pgbouncer::{Mode, Pgbouncer};
use crate::server::{ADMIN, BASE, MONITOR, Server, database};

#[test]
fn a_restart_of_the_database_is_over_when_it_is_over() {
    let cluster = Cluster::start("");
    drop(database(&cluster, "behind"));
    let pooler = Pgbouncer::start(&cluster, Mode::Transaction);
    let mut servers = vec![Server::start(&cluster, "behind", &[])];
    servers.extend(pooler.iter().map(|pooler| Server::start_behind(pooler.host(), "behind", &[])));
    for server in &servers {
        assert_eq!(server.get(ADMIN, "/").status, 200);
    }
    cluster.restart();
    for server in &servers {
        until_holds(|| server.get(MONITOR, &format!("{BASE}/status")).status == 200);
        until_holds(|| server.get(ADMIN, "/").status == 200);
    }
    if let Some(pooler) = pooler {
        until_holds(|| pooler.run(&["status"]).code == 0);
    }
}
