use std::path::Path;
use std::thread;

use crate::outage::{Outage, SETTINGS, copy, execute};
use crate::report::Table;
use crate::size;
use cluster::Cluster;

/// Seconds of load: long enough that a hundredth of its transactions is more than meet the first look at the table.
const SECONDS: &str = "60";

/// The latency of a load on the same table beside a batched emergency run, and without one before and after it: a machine that
/// is shared has slower minutes.
pub fn measure() -> Vec<Table> {
    let cluster = Cluster::start(&SETTINGS.replace("fsync = off", "fsync = on").replace("autovacuum = off", ""));
    Outage { rows: size("LOAD_ROWS", 2_400_000), recipes: 2_000, failed: 0.7 }.load(&cluster, "plain");
    execute(&cluster, "plain", "VACUUM ANALYZE");
    let runs = [
        ("no pause", ", pause => '0'"),
        ("as it comes", ""),
        ("as it comes, 1,000 rows a second", ", max_rows_per_second => 1000"),
    ];
    let mut before = latency(&cluster, None);
    let mut rows = Vec::new();
    for (name, pace) in runs {
        let beside = latency(&cluster, Some(pace));
        let after = latency(&cluster, None);
        let alone = (before.p99 + after.p99) / 2.0;
        rows.push(vec![
            name.into(),
            format!("{:.2}, {:.2}", before.p50, after.p50),
            format!("{:.2}", beside.p50),
            format!("{:.2}, {:.2}", before.p99, after.p99),
            format!("{:.2}", beside.p99),
            format!("{:.2}", beside.p99 / alone),
            beside.removed.to_string(),
        ]);
        before = after;
    }
    vec![Table {
        title: "Load of 200 transactions per second on the same table, half updates, half inserts".into(),
        columns: vec![
            "the run",
            "p50 before and after, ms",
            "p50 beside it, ms",
            "p99 before and after, ms",
            "p99 beside it, ms",
            "ratio to their mean",
            "rows removed",
        ],
        rows,
    }]
}

/// Latencies of the load in milliseconds, and how many rows a run beside it removed.
struct Latency {
    p50: f64,
    p99: f64,
    removed: i64,
}

/// Measures the load alone, or beside a run at a pace.
fn latency(cluster: &Cluster, pace: Option<&str>) -> Latency {
    copy(cluster, "measured", "plain");
    execute(cluster, "measured", "CHECKPOINT");
    let mut runner = cluster.connect_to("measured");
    let latencies = thread::scope(|scope| {
        let load = scope.spawn(|| latencies(cluster));
        if let Some(pace) = pace {
            // The run goes on for as long as the load does, or until it is done.
            let call = format!("CALL backlog_cleanup_run(mode => 'emergency', max_duration => '59 seconds'{pace})");
            runner.batch_execute(&call).expect("the run runs");
        }
        load.join().expect("the load ends")
    });
    let p = |share: f64| latencies[((latencies.len() - 1) as f64 * share) as usize] / 1000.0;
    let removed = runner.query_one("SELECT coalesce(sum(removed), 0)::bigint FROM backlog_cleanup.run", &[]);
    Latency { p50: p(0.5), p99: p(0.99), removed: removed.expect("a sum").get(0) }
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
