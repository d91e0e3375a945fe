use crate::outage::{Outage, SETTINGS, copy, execute, fresh, index, time};
use crate::report::Table;
use crate::{median, rounds, size};
use cluster::Cluster;

/// Regular runs while a share of the heap pages is not all-visible, chosen at random or in a row: with our index, without it, and the
/// floor. A page loses its bit to a DELETE that is rolled back.
pub fn measure() -> Vec<Table> {
    const REGULAR: &str = include_str!("../regular.sql");
    const FLOOR: &str = include_str!("../floor.sql");
    let cluster = Cluster::start(SETTINGS);
    let rounds = rounds();
    Outage { rows: size("ROWS", 1_000_000), recipes: size("RECIPES", 2_000), failed: 0.7 }.load(&cluster, "plain");
    execute(&cluster, "plain", "VACUUM ANALYZE");
    copy(&cluster, "indexed", "plain");
    index(&cluster, "indexed");
    let mut rows = Vec::new();
    for (kind, block) in [("random", "abs(hashint4(block)::bigint)"), ("clusters", "block / 100")] {
        for share in [0, 25, 50, 75, 100] {
            let mut times = [Vec::new(), Vec::new(), Vec::new()];
            for _ in 0..rounds {
                let variants = [("indexed", REGULAR), ("plain", REGULAR), ("indexed", FLOOR)];
                for ((database, statements), times) in variants.into_iter().zip(&mut times) {
                    let mut client = fresh(&cluster, database);
                    let clear = format!(
                        "BEGIN; DELETE FROM generations WHERE ctid = ANY (ARRAY(
                             SELECT format('(%s,1)', block)::tid FROM generate_series(0, {LAST_BLOCK}) block WHERE {block} % 100 < {share}));
                         ROLLBACK"
                    );
                    client.batch_execute(&clear).expect("the bits are cleared");
                    client.batch_execute("CHECKPOINT").expect("a checkpoint");
                    times.push(time(&mut client, statements));
                }
            }
            let [ours, without, floor] = times.map(median);
            rows.push(vec![
                format!("{} %, {kind}", 100 - share),
                format!("{ours:.0}"),
                format!("{without:.0}"),
                format!("{floor:.0}"),
                format!("{:.2}", ours / floor),
                format!("{:.2}", ours / without),
            ]);
        }
    }
    vec![Table {
        title: format!("Regular run, by how many pages are all-visible (median of {rounds})"),
        columns: vec!["all-visible", "with our index, ms", "without, ms", "floor, ms", "to the floor", "to without"],
        rows,
    }]
}

const LAST_BLOCK: &str = "(pg_relation_size('generations') / current_setting('block_size')::int)::int - 1";
