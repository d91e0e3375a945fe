use std::path::Path;
use std::thread;

use crate::cluster::Cluster;
use crate::outage::{Outage, SETTINGS, copy, execute};
use crate::report::Table;
use crate::size;

/// Seconds of load: long enough that a hundredth of its transactions is more than meet the first look at the table.
const SECONDS: &str = "60";

/// The latency of a load on the same table, without a run and beside a batched emergency run.
pub fn measure() -> Vec<Table> {
    let cluster = Cluster::start(&SETTINGS.replace("fsync = off", "fsync = on").replace("autovacuum = off", ""));
    Outage { rows: size("LOAD_ROWS", 2_400_000), recipes: 2_000, failed: 0.7 }.load(&cluster, "plain");
    execute(&cluster, "plain", "VACUUM ANALYZE");
    let runs = [
        ("load alone", None),
        ("load beside the run, no pause", Some("pause => '0'")),
        ("load beside the run, batches of 2,000 with a pause of 20 ms", Some("batch_size => 2000, pause => '20 ms'")),
        ("load beside the run, batches of 500 with a pause of 100 ms", Some("batch_size => 500, pause => '100 ms'")),
        ("load beside the run, batches of 100 with a pause of 20 ms", Some("batch_size => 100, pause => '20 ms'")),
        ("load beside the run, batches of 100 with a pause of 100 ms", Some("batch_size => 100, pause => '100 ms'")),
        ("load beside the run, batches of 100 with a pause of 250 ms", Some("batch_size => 100, pause => '250 ms'")),
        ("load alone, once more", None),
    ];
    let mut rows = Vec::new();
    let mut alone = None;
    for (name, pace) in runs {
        copy(&cluster, "measured", "plain");
        execute(&cluster, "measured", "CHECKPOINT");
        let mut runner = cluster.connect_to("measured");
        let pgbench = thread::scope(|scope| {
            let load = scope.spawn(|| latencies(&cluster));
            if let Some(pace) = pace {
                // The run goes on for as long as the load does, or until it is done.
                let call =
                    format!("CALL backlog_cleanup_run(mode => 'emergency', max_duration => '59 seconds', {pace})");
                runner.batch_execute(&call).expect("the run runs");
            }
            load.join().expect("the load ends")
        });
        let p = |share: f64| pgbench[((pgbench.len() - 1) as f64 * share) as usize] / 1000.0;
        let alone = *alone.get_or_insert(p(0.99));
        let removed = runner.query_one("SELECT coalesce(sum(removed), 0)::bigint FROM backlog_cleanup.run", &[]);
        rows.push(vec![
            name.into(),
            format!("{:.2}", p(0.5)),
            format!("{:.2}", p(0.99)),
            format!("{:.2}", p(0.99) / alone),
            removed.expect("a sum").get::<_, i64>(0).to_string(),
        ]);
    }
    vec![Table {
        title: "Load of 200 transactions per second on the same table, half updates, half inserts".into(),
        columns: vec!["", "p50, ms", "p99, ms", "p99 ratio", "rows removed meanwhile"],
        rows,
    }]
}

/// Microseconds of each transaction of the load, sorted.
fn latencies(cluster: &Cluster) -> Vec<f64> {
    let directory = tempfile::tempdir().expect("a directory");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/load.sql");
    let prefix = directory.path().join("log");
    let prefix = format!("--log-prefix={}", prefix.display());
    let script = script.to_str().expect("UTF-8");
    cluster.program(
        "pgbench",
        &[
            "-n", "-c", "4", "-j", "1", "-R", "200", "-T", SECONDS, "-M", "prepared", "-l", &prefix, "-f", script,
            "measured",
        ],
    );
    let mut latencies = Vec::new();
    for file in std::fs::read_dir(directory.path()).expect("the logs") {
        let log = std::fs::read_to_string(file.expect("a file").path()).expect("a log");
        latencies.extend(log.lines().filter_map(|line| line.split(' ').nth(2)?.parse::<f64>().ok()));
    }
    latencies.sort_by(f64::total_cmp);
    latencies
}
