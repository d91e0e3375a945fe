use std::net::TcpListener;

use postgres::Client;

use crate::cluster::{Cluster, pg_config};
use crate::installed::folder;
use crate::value;

/// A coordinator of Citus and its two workers, in the database `postgres`, each with its metadata.
pub struct Nodes {
    pub coordinator: Cluster,
    pub workers: [Cluster; 2],
}

/// Tables are small, and so are their numbers of shards. A shard moves by logical replication.
const CITUS: &str = "shared_preload_libraries = 'citus'\nwal_level = logical\nmax_worker_processes = 32\n\
                     citus.shard_count = 4\ncitus.node_conninfo = 'sslmode=prefer'\ncitus.local_hostname = '127.0.0.1'\n";

impl Nodes {
    /// Starts the nodes, whose configurations get these lines, too. `None`, and said, where the server has no Citus.
    pub fn start(settings: &str) -> Option<Nodes> {
        if !folder(&pg_config(), "--sharedir").join("extension/citus.control").exists() {
            println!("skipped: Citus is not installed");
            return None;
        }
        let [coordinator, first, second] = [(); 3].map(|()| {
            let node = Cluster::start_on_port(free_port(), &format!("{CITUS}{settings}"));
            node.connect().batch_execute("CREATE EXTENSION citus").expect("Citus");
            node
        });
        let nodes = Nodes { coordinator, workers: [first, second] };
        let mut client = nodes.coordinator.connect();
        let host = |node: &Cluster| format!("'127.0.0.1', {}", node.port());
        let [first, second] = nodes.workers.each_ref().map(host);
        let coordinator = host(&nodes.coordinator);
        client
            .batch_execute(&format!(
                "SELECT citus_set_coordinator_host({coordinator});
                 SELECT citus_add_node({first}), citus_add_node({second})"
            ))
            .expect("the nodes");
        Some(nodes)
    }

    /// The platform's tables, empty, and the extension, on the coordinator alone.
    pub fn platform(&self) -> Client {
        let mut client = self.coordinator.connect();
        client.batch_execute("SET citus.enable_ddl_propagation = off").expect("a setting");
        let mut client = crate::platform_of(client);
        client.batch_execute("RESET citus.enable_ddl_propagation").expect("a setting");
        client
    }

    /// Whether the coordinator has shards of new tables, too.
    pub fn put_shards_on_coordinator(&self, shall: bool) {
        let port = self.coordinator.port();
        let set = format!("SELECT citus_set_node_property('127.0.0.1', {port}, 'shouldhaveshards', {shall})");
        self.coordinator.connect().batch_execute(&set).expect("a property");
    }

    /// Ends what a node that failed has left prepared, as Citus does every minute.
    pub fn recover(&self) {
        let _: i32 = value(&mut self.coordinator.connect(), "SELECT recover_prepared_transactions()");
    }
}

/// A port of 127.0.0.1 that nobody has now.
fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address").port()
}
