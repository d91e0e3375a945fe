use std::time::Instant;

use postgres::Client;

use cluster::Cluster;

/// For statements that are compared; a table and its indexes fit into the buffers, those of 9,000,000 rows too.
pub const SETTINGS: &str = "shared_buffers = 10GB\nmax_wal_size = 32GB\nautovacuum = off\nfsync = off\n";

/// An outage in the platform's tables, as the fixture makes it.
pub struct Outage {
    pub rows: i64,
    pub recipes: i64,
    /// The share of rows that failed.
    pub failed: f64,
}

impl Outage {
    /// Makes a database with the outage and the extension. The secondary indexes are built at the end, which is faster.
    pub fn load(&self, cluster: &Cluster, database: &str) {
        cluster.program("createdb", &[database]);
        psql(cluster, database, "demo/platform.sql", &[]);
        let mut client = cluster.connect_to(database);
        let indexes = "SELECT indexname::text, indexdef FROM pg_indexes WHERE indexname LIKE 'idx_generations%'";
        let indexes = client.query(indexes, &[]).expect("the indexes");
        for index in &indexes {
            client.batch_execute(&format!("DROP INDEX {}", index.get::<_, String>(0))).expect("an index goes");
        }
        let variables = [
            format!("rows={}", self.rows),
            format!("recipes={}", self.recipes),
            format!("failed={}", self.failed),
            "days=10".into(),
        ];
        psql(cluster, database, "demo/outage.sql", &variables);
        for index in &indexes {
            client.batch_execute(&index.get::<_, String>(1)).expect("an index comes back");
        }
        psql(cluster, database, "benches/prepare.sql", &[]);
    }
}

/// Runs a file of the sources with variables of psql.
pub fn psql(cluster: &Cluster, database: &str, file: &str, variables: &[String]) {
    let variables = variables.iter().flat_map(|variable| ["-v", variable]);
    let arguments = ["-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", database].into_iter().chain(variables);
    let file = format!("{}/{file}", env!("CARGO_MANIFEST_DIR"));
    cluster.program("psql", &arguments.chain(["-f", &file]).collect::<Vec<_>>());
}

/// Adds the partial index of every target of a database.
pub fn index(cluster: &Cluster, database: &str) {
    let mut client = cluster.connect_to(database);
    let indexes = client.query("SELECT backlog_cleanup_index_sql(name) FROM backlog_cleanup.target", &[]);
    for index in indexes.expect("statements") {
        client.batch_execute(index.get(0)).expect("the index is built");
    }
}

pub fn execute(cluster: &Cluster, database: &str, statements: &str) {
    cluster.connect_to(database).batch_execute(statements).expect("the statements run");
}

pub fn copy(cluster: &Cluster, database: &str, of: &str) {
    execute(cluster, "postgres", &format!("DROP DATABASE IF EXISTS {database} WITH (FORCE)"));
    execute(cluster, "postgres", &format!("CREATE DATABASE {database} TEMPLATE {of} STRATEGY file_copy"));
}

/// A connection to a fresh copy of a database, its table read into memory, after a CHECKPOINT.
pub fn fresh(cluster: &Cluster, database: &str) -> Client {
    copy(cluster, "measured", database);
    warm(cluster, "measured", "generations")
}

/// A connection to a database whose tables and indexes are read into memory, after a CHECKPOINT.
pub fn warm(cluster: &Cluster, database: &str, table: &str) -> Client {
    let mut client = cluster.connect_to(database);
    client
        .batch_execute(&format!(
            // A scan of a table that is larger than a quarter of the buffers would leave nothing of it there. No index has the system
            // column, so that the scan looks at every row.
            "SELECT sum(pg_prewarm(oid)) FROM pg_class WHERE relkind IN ('r', 'i', 't') AND oid >= 16384;
             SET jit = off; SELECT count(tableoid) FROM {table}; RESET jit; CHECKPOINT"
        ))
        .expect("read into memory");
    client
}

/// Has a session compress full-page images as runs do.
pub const LZ4: &str = "SET wal_compression = lz4";

/// Milliseconds that statements take.
pub fn time(client: &mut Client, statements: &str) -> f64 {
    let started = Instant::now();
    client.batch_execute(statements).expect("the statements run");
    started.elapsed().as_secs_f64() * 1000.0
}
