use postgres::Client;

use crate::outage::time;
use crate::report::Table;
use crate::{median, size};
use cluster::{Nodes, value};

const SETTINGS: &str =
    "citus.shard_count = 32\nshared_buffers = 1GB\nmax_wal_size = 8GB\nautovacuum = off\nfsync = off\n";

/// So many rows go, of 200,000.
const REMOVED: i64 = 55_440;

/// What distributes the table, the number of recipes, and how many rows each keeps.
const TABLES: [(&str, &str, i64, i64); 6] = [
    ("by recipe", "recipe_id", 200, 10),
    ("by id", "id", 200, 10),
    ("by account", "user_id", 200, 10),
    ("20,000 recipes, by recipe", "recipe_id", 20_000, 1),
    ("20,000 recipes, by id", "id", 20_000, 1),
    ("20,000 recipes, by account", "user_id", 20_000, 1),
];

/// The floor: one distributed DELETE of exactly the rows that a run removes, by a column that marks them.
const FLOOR: &str = "DELETE FROM kind WHERE goes";
const RUN: &str = "SELECT backlog_cleanup_failed_generations('kind')";
const DRY_RUN: &str = "SELECT backlog_cleanup_failed_generations('kind', dry_run => true)";
const BATCHES: &str = "CALL backlog_cleanup_run('kind', batch_size => 500, pause => '0')";
const STATUS: &str = "SELECT * FROM backlog_cleanup_status('kind')";
const GROUP_BY: &str = "SELECT recipe_id, status, count(*), min(updated_at), max(updated_at) FROM kind
                        WHERE user_id = 'system_backlog' GROUP BY recipe_id, status";

/// Runs and status on a table that a coordinator and two workers of Citus have, beside statements of Citus; nothing where there is no Citus.
pub fn measure() -> Vec<Table> {
    let Some(nodes) = Nodes::start(SETTINGS) else { return Vec::new() };
    let mut client = nodes.platform();
    let rounds = size("ROUNDS", 3);
    let rows = TABLES.map(|(name, column, recipes, keep)| {
        make(&mut client, column, recipes, keep);
        let mut times: [Vec<f64>; 6] = Default::default();
        for _ in 0..rounds {
            // A session plans its first statements anew.
            let measured = [
                anew(&nodes, &[FLOOR]),
                anew(&nodes, &[RUN]),
                anew(&nodes, &[DRY_RUN, RUN]),
                anew(&nodes, &[BATCHES]),
                anew(&nodes, &[STATUS, STATUS]),
                anew(&nodes, &[GROUP_BY, GROUP_BY]),
            ];
            times.iter_mut().zip(measured).for_each(|(times, ms)| times.push(ms));
        }
        let [floor, first, behind, batches, status, group_by] = times.map(median);
        let ms = |ms: f64| format!("{ms:.0}");
        let ratio = |ratio: f64| format!("{ratio:.2}");
        vec![
            name.into(),
            ms(floor),
            ms(first),
            ratio(first / floor),
            ms(behind),
            ratio(behind / floor),
            ms(REMOVED as f64 / batches * 1000.0),
            ms(status),
            ms(group_by),
            ratio(status / group_by),
        ]
    });
    vec![Table {
        title: format!("Tables that Citus distributes, {REMOVED} of 200,000 rows removed (median of {rounds})"),
        columns: vec![
            "",
            "DELETE, ms",
            "a session's first run, ms",
            "ratio",
            "behind a dry run, ms",
            "ratio",
            "batches of 500, rows per second",
            "status, ms",
            "GROUP BY, ms",
            "ratio",
        ],
        rows: rows.into(),
    }]
}

/// Makes the table `kind` anew, its plain copy `scene`, and the target `kind`.
fn make(client: &mut Client, column: &str, recipes: i64, keep: i64) {
    let failed = REMOVED + recipes * keep;
    client
        .batch_execute(&format!(
            "DELETE FROM backlog_cleanup.target WHERE name = 'kind';
             DROP TABLE IF EXISTS kind, scene;
             CREATE TABLE kind (id bigint NOT NULL, user_id text NOT NULL, recipe_id int NOT NULL, status text NOT NULL,
                                updated_at timestamp NOT NULL, failure_reason text, goes boolean NOT NULL);
             SELECT create_distributed_table('kind', '{column}');
             CREATE TABLE scene AS
             SELECT id, user_id, recipe_id, status, updated_at, failure_reason,
                    status = 'failed'
                    AND row_number() OVER (PARTITION BY recipe_id, status ORDER BY updated_at DESC, id DESC) > {keep} AS goes
             FROM (SELECT i AS id, 'system_backlog' AS user_id, i % {recipes} AS recipe_id,
                          CASE WHEN i <= {failed} THEN 'failed' ELSE 'completed' END AS status,
                          now() AT TIME ZONE 'UTC' - interval '2 days' - interval '1 second' * (i * 7 % 864000) AS updated_at,
                          'upstream unavailable' AS failure_reason
                   FROM generate_series(1, 200000) i) made
             ORDER BY id * 7919 % 200003;
             INSERT INTO backlog_cleanup.target (name, generations_table, recipes_table) VALUES ('kind', 'public.kind', NULL);
             SELECT backlog_cleanup_set_policy(keep => {keep}, target => 'kind')"
        ))
        .expect("the table");
}

/// Milliseconds that the last of some statements takes in a session of its own, on the table as it was.
fn anew(nodes: &Nodes, statements: &[&str]) -> f64 {
    let mut client = nodes.coordinator.connect();
    client.batch_execute("TRUNCATE kind; INSERT INTO kind TABLE scene").expect("the rows");
    client.batch_execute("VACUUM ANALYZE kind").expect("statistics");
    for node in [&nodes.coordinator, &nodes.workers[0], &nodes.workers[1]] {
        node.connect().batch_execute("CHECKPOINT").expect("a checkpoint");
    }
    let mut client = nodes.coordinator.connect();
    let ms = statements.iter().map(|statement| time(&mut client, statement)).last().expect("a statement");
    let gone: i64 = value(&mut client, "SELECT (SELECT count(*) FROM scene) - (SELECT count(*) FROM kind)");
    let removes = [FLOOR, RUN, BATCHES].contains(statements.last().expect("a statement"));
    assert_eq!(gone, if removes { REMOVED } else { 0 });
    ms
}
