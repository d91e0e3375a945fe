use std::collections::VecDeque;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use crate::outage::{Outage, SETTINGS, copy, execute};
use crate::peak::Peak;
use crate::report::Table;
use crate::size;
use cluster::{Cluster, number, until_holds, value};

/// The latency of a load on the same table beside a batched emergency run, and without one before and after it: a machine that
/// is shared has slower minutes. A standby on the same machine follows; its goal is a lag of less than a second.
pub fn measure() -> Vec<Table> {
    let settings = SETTINGS.replace("fsync = off", "fsync = on").replace("autovacuum = off", "");
    // A checkpoint removes no log that the standby still needs while it copies a database.
    let cluster = Cluster::start(&format!("{settings}wal_keep_size = 8GB\n"));
    let standby = cluster.standby();
    Outage { rows: size("LOAD_ROWS", 2_400_000), recipes: 2_000, failed: 0.7 }.load(&cluster, "plain");
    execute(&cluster, "plain", "VACUUM ANALYZE");
    let runs = [
        ("no pause", ", pause => '0'"),
        ("as it comes", ""),
        ("as it comes, 1,000 rows a second", ", max_rows_per_second => 1000"),
    ];
    let mut before = latency(&cluster, &standby, None);
    let mut rows = Vec::new();
    for (name, pace) in runs {
        let beside = latency(&cluster, &standby, Some(pace));
        let after = latency(&cluster, &standby, None);
        let alone = (before.p99 + after.p99) / 2.0;
        rows.push(vec![
            name.into(),
            format!("{:.2}, {:.2}", before.p50, after.p50),
            format!("{:.2}", beside.p50),
            format!("{:.2}, {:.2}", before.p99, after.p99),
            format!("{:.2}", beside.p99),
            format!("{:.2}", beside.p99 / alone),
            beside.removed.to_string(),
            format!("{:.0}", beside.lag),
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
            "longest lag of the standby, ms",
        ],
        rows,
    }]
}

/// Latencies of the load in milliseconds, how many rows a run beside it removed, and how late the standby was.
struct Latency {
    p50: f64,
    p99: f64,
    removed: i64,
    lag: f64,
}

/// Measures the load alone, or beside a run at a pace.
fn latency(cluster: &Cluster, standby: &Cluster, pace: Option<&str>) -> Latency {
    // Long enough that a hundredth of its transactions is more than meet the first look at the table.
    let seconds = size("LOAD_SECONDS", 60);
    copy(cluster, "measured", "plain");
    execute(cluster, "measured", "CHECKPOINT");
    let mut lag = lag(cluster, standby);
    until_holds(|| lag() == 0.0);
    let mut runner = cluster.connect_to("measured");
    let peak = Peak::of(Duration::from_millis(100), lag);
    let latencies = thread::scope(|scope| {
        let load = scope.spawn(|| latencies(cluster, seconds));
        if let Some(pace) = pace {
            // The run goes on for as long as the load does, or until it is done.
            let longest = seconds - 1;
            let call =
                format!("CALL backlog_cleanup_run(mode => 'emergency', max_duration => '{longest} seconds'{pace})");
            runner.batch_execute(&call).expect("the run runs");
        }
        load.join().expect("the load ends")
    });
    let lag = peak.stop();
    let p = |share: f64| latencies[((latencies.len() - 1) as f64 * share) as usize] / 1000.0;
    let removed = value(&mut runner, "SELECT coalesce(sum(removed), 0)::bigint FROM backlog_cleanup.run");
    Latency { p50: p(0.5), p99: p(0.99), removed, lag }
}

/// Tells how many milliseconds ago the primary had written what the standby has yet to replay. `replay_lag` stays at its last value
/// while a standby hangs.
fn lag(cluster: &Cluster, standby: &Cluster) -> impl FnMut() -> f64 + Send + 'static + use<> {
    let (mut primary, mut standby) = (cluster.connect(), standby.connect());
    let mut ahead = VecDeque::new();
    move || {
        let written = number(&mut primary, "pg_current_wal_lsn() - '0/0'");
        ahead.push_back((Instant::now(), written));
        let replayed = number(&mut standby, "pg_last_wal_replay_lsn() - '0/0'");
        ahead.retain(|(_, written)| *written > replayed);
        ahead.front().map_or(0.0, |(since, _): &(Instant, _)| since.elapsed().as_secs_f64() * 1000.0)
    }
}

/// Microseconds of each transaction of the load, sorted.
fn latencies(cluster: &Cluster, seconds: i64) -> Vec<f64> {
    let directory = tempfile::tempdir().expect("a directory");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/load.sql");
    let prefix = directory.path().join("log");
    let prefix = format!("--log-prefix={}", prefix.display());
    let script = script.to_str().expect("UTF-8");
    cluster.program(
        "pgbench",
        &[
            "-n",
            "-c",
            "4",
            "-j",
            "1",
            "-R",
            "200",
            "-T",
            &seconds.to_string(),
            "-M",
            "prepared",
            "-l",
            &prefix,
            "-f",
            script,
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
