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
        let root = env!("CARGO_MANIFEST_DIR");
        cluster.program("createdb", &[database]);
        let psql = |file: &str, variables: &[String]| {
            let variables = variables.iter().flat_map(|variable| ["-v", variable]);
            let arguments = ["-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", database].into_iter().chain(variables);
            let file = format!("{root}/{file}");
            cluster.program("psql", &arguments.chain(["-f", &file]).collect::<Vec<_>>());
        };
        psql("demo/platform.sql", &[]);
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
        psql("demo/outage.sql", &variables);
        for index in &indexes {
            client.batch_execute(&index.get::<_, String>(1)).expect("an index comes back");
        }
        psql("benches/prepare.sql", &[]);
    }
}

/// Adds the partial index to a database.
pub fn index(cluster: &Cluster, database: &str) {
    let mut client = cluster.connect_to(database);
    let index: String = client.query_one("SELECT backlog_cleanup_index_sql()", &[]).expect("a statement").get(0);
    client.batch_execute(&index).expect("the index is built");
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
    let mut client = cluster.connect_to("measured");
    client
        .batch_execute(
            // A scan of a table that is larger than a quarter of the buffers would leave nothing of it there.
            "SELECT pg_prewarm('generations');
             SELECT sum(pg_prewarm(indexrelid)) FROM pg_index WHERE indrelid = 'generations'::regclass;
             SET jit = off; SELECT count(id) FROM generations WHERE prompt > ''; RESET jit; CHECKPOINT",
        )
        .expect("read into memory");
    client
}

/// Milliseconds that statements take.
pub fn time(client: &mut Client, statements: &str) -> f64 {
    let started = Instant::now();
    client.batch_execute(statements).expect("the statements run");
    started.elapsed().as_secs_f64() * 1000.0
}
