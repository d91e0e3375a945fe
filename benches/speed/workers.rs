use std::sync::Barrier;
use std::thread;

use postgres::Client;

use crate::outage::{LZ4, Outage, SETTINGS, execute, fresh, index, time};
use crate::report::Table;
use crate::{median, rounds, size};
use cluster::Cluster;

/// Every heap page is in the log since the checkpoint, so that what is measured writes no full-page image.
const LOG_PAGES: &str = "
    BEGIN; DELETE FROM generations WHERE ctid = ANY (ARRAY(
        SELECT format('(%s,1)', block)::tid
        FROM generate_series(0, pg_relation_size('generations') / current_setting('block_size')::int - 1) block));
    ROLLBACK";

/// What two workers gain over one process, and two plain DELETEs, each of half of the known positions, over one: the machine's limit.
/// Both compress full-page images with lz4. The goal is a ratio of 0.85.
pub fn measure() -> Vec<Table> {
    // Only what is asked for is a checkpoint.
    let cluster = Cluster::start(&format!("{SETTINGS}checkpoint_timeout = 1d\n"));
    let (rows, rounds) = (size("WORKERS_ROWS", 2_000_000), rounds());
    Outage { rows, recipes: size("RECIPES", 2_000), failed: 0.7 }.load(&cluster, "indexed");
    index(&cluster, "indexed");
    execute(&cluster, "indexed", "VACUUM ANALYZE");
    let middle = "SELECT percentile_disc(0.5) WITHIN GROUP (ORDER BY tid)::text FROM removable";
    let middle: String = cluster.connect_to("indexed").query_one(middle, &[]).expect("a position").get(0);
    let delete = |half: &str| {
        format!("DELETE FROM generations WHERE ctid = ANY (ARRAY(SELECT tid FROM removable WHERE tid {half}))")
    };
    let whole = [include_str!("../floor.sql").to_owned()];
    let halves = [delete(&format!("< '{middle}'")), delete(&format!(">= '{middle}'"))];
    let run = |workers: i32| [format!("CALL backlog_cleanup_run(workers => {workers}, pause => '0')")];
    let sides: [&[String]; 4] = [&run(1), &run(2), &whole, &halves];
    let mut table = Vec::new();
    for (state, is_logged) in [("after a CHECKPOINT", false), ("without", true)] {
        let mut times = [const { Vec::new() }; 4];
        for _ in 0..rounds {
            for (statements, times) in sides.iter().zip(&mut times) {
                let mut client = fresh(&cluster, "indexed");
                if is_logged {
                    client.batch_execute(LOG_PAGES).expect("the pages are logged");
                    client.batch_execute("VACUUM generations").expect("a vacuum");
                }
                times.push(together(&cluster, statements));
            }
        }
        let [one, two, whole, halves] = times.map(median);
        let (ours, limit) = (one / two, whole / halves);
        let cells = [one, two, whole, halves].map(|ms| format!("{ms:.0}"));
        let ratios = [ours, limit, ours / limit].map(|ratio| format!("{ratio:.2}"));
        table.push([vec![state.to_owned()], cells.into(), ratios.into()].concat());
    }
    vec![Table {
        title: format!("Two workers against one, {rows} rows, lz4 on both sides (median of {rounds})"),
        columns: vec![
            "",
            "one process, ms",
            "two workers, ms",
            "one DELETE, ms",
            "two DELETEs, ms",
            "speed-up of the run",
            "speed-up of the DELETE",
            "ratio of the two",
        ],
        rows: table,
    }]
}

/// Milliseconds until the last of these statements ends, each in a session of its own.
fn together(cluster: &Cluster, statements: &[String]) -> f64 {
    let connect = |statement| {
        let mut client: Client = cluster.connect_to("measured");
        client.batch_execute(LZ4).expect("a setting");
        (client, statement)
    };
    let sessions: Vec<_> = statements.iter().map(connect).collect();
    let barrier = Barrier::new(sessions.len());
    thread::scope(|scope| {
        let times = sessions.into_iter().map(|(mut client, statement)| {
            let barrier = &barrier;
            scope.spawn(move || {
                barrier.wait();
                time(&mut client, statement)
            })
        });
        let times: Vec<_> = times.collect();
        times.into_iter().map(|time| time.join().expect("a session ends")).fold(0.0, f64::max)
    })
}
