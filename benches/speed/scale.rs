use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use plotters::prelude::*;
use postgres::Client;

use crate::outage::{Outage, SETTINGS, fresh, time};
use crate::report::{Table, file};
use crate::{median, size};
use cluster::Cluster;

/// Cost per removed row, and memory, from 100,000 removed rows to 5,000,000; beside it what a plain DELETE costs, ten rows
/// per recipe more.
pub fn measure() -> Vec<Table> {
    let rounds = size("ROUNDS", 3);
    let largest = size("SCALE", 5_000_000);
    let cluster = Cluster::start(&format!("{SETTINGS}max_connections = 20\n"));
    let (mut points, mut plain_per_row) = (Vec::new(), Vec::new());
    for removed in [100_000, 300_000, 1_000_000, 5_000_000].into_iter().filter(|removed| *removed <= largest) {
        let database = format!("scale_{removed}");
        // 54 % of the rows are the account's, failed and expired; ten of each recipe stay.
        Outage { rows: (removed + 20_000) * 100 / 54, recipes: 2_000, failed: 1.0 }.load(&cluster, &database);
        let (mut times, mut memory, mut went) = (Vec::new(), 0, 0_i64);
        let mut plain = Vec::new();
        // What takes a moment is measured more often.
        for _ in 0..rounds * (1_000_000 / removed).clamp(1, 5) {
            let mut client = settled(&cluster, &database);
            let pid: i32 = client.query_one("SELECT pg_backend_pid()", &[]).expect("a process").get(0);
            let peak = Peak::of(pid);
            times.push(time(&mut client, include_str!("../regular.sql")));
            memory = memory.max(peak.stop());
            went = client.query_one("SELECT removed FROM backlog_cleanup.run", &[]).expect("a run").get(0);
            drop(client);
            let mut client = settled(&cluster, &database);
            let failed = "SELECT count(*) FROM generations WHERE user_id = 'system_backlog' AND status = 'failed'";
            let failed: i64 = client.query_one(failed, &[]).expect("a count").get(0);
            plain.push(time(&mut client, include_str!("../emergency_floor.sql")) * 1000.0 / failed as f64);
        }
        points.push((went, median(times), memory));
        plain_per_row.push(median(plain));
        cluster.connect().batch_execute(&format!("DROP DATABASE {database} WITH (FORCE)")).expect("it goes");
    }
    draw(&points);
    vec![Table {
        title: format!("Cost per removed row, one transaction, no index of ours (median of {rounds} or more)"),
        columns: vec![
            "rows removed",
            "ms",
            "µs per row",
            "plain DELETE, µs per row",
            "memory above an idle backend, MB",
        ],
        rows: points
            .iter()
            .zip(&plain_per_row)
            .map(|((went, ms, memory), plain)| {
                let per_row = ms * 1000.0 / *went as f64;
                vec![
                    went.to_string(),
                    format!("{ms:.0}"),
                    format!("{per_row:.2}"),
                    format!("{plain:.2}"),
                    format!("{:.1}", *memory as f64 / 1024.0),
                ]
            })
            .collect(),
    }]
}

/// A fresh copy whose gigabytes are written to the disk: what is measured writes gigabytes of its own.
fn settled(cluster: &Cluster, database: &str) -> Client {
    let client = fresh(cluster, database);
    assert!(Command::new("sync").status().expect("sync runs").success());
    client
}

/// Watches the anonymous memory of a process.
struct Peak {
    stop: std::sync::Arc<AtomicBool>,
    peak: std::sync::Arc<AtomicU64>,
    idle: u64,
    watcher: thread::JoinHandle<()>,
}

impl Peak {
    fn of(pid: i32) -> Peak {
        let (stop, peak) = (std::sync::Arc::new(AtomicBool::new(false)), std::sync::Arc::new(AtomicU64::new(0)));
        let (stopped, seen) = (stop.clone(), peak.clone());
        let watcher = thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                seen.fetch_max(anonymous(pid), Ordering::Relaxed);
                thread::sleep(Duration::from_millis(5));
            }
        });
        Peak { stop, peak, idle: anonymous(pid), watcher }
    }

    /// kB above the start.
    fn stop(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.watcher.join().expect("the watcher ends");
        self.peak.load(Ordering::Relaxed).saturating_sub(self.idle)
    }
}

fn anonymous(pid: i32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("Linux tells");
    let line = status.lines().find(|line| line.starts_with("RssAnon:")).expect("the line");
    line.split_whitespace().nth(1).and_then(|kilobytes| kilobytes.parse().ok()).expect("a number")
}

/// The curve: microseconds per removed row over rows removed.
fn draw(points: &[(i64, f64, u64)]) {
    let path = file("scaling.svg");
    let root = SVGBackend::new(&path, (720, 360)).into_drawing_area();
    root.fill(&WHITE).expect("drawn");
    let curve: Vec<(f64, f64)> =
        points.iter().map(|(went, ms, _)| (*went as f64, ms * 1000.0 / *went as f64)).collect();
    let top = curve.iter().map(|(_, cost)| *cost).fold(0.0, f64::max) * 1.3;
    let mut chart = ChartBuilder::on(&root)
        .caption("Cost of a run per removed row", ("sans-serif", 18))
        .margin(12)
        .margin_right(36)
        .x_label_area_size(40)
        .y_label_area_size(50)
        .build_cartesian_2d((50_000.0..10_000_000.0).log_scale(), 0.0..top)
        .expect("a chart");
    chart
        .configure_mesh()
        .x_desc("rows removed")
        .y_desc("µs per row")
        .light_line_style(TRANSPARENT)
        .x_label_formatter(&|rows| match rows / 1e6 {
            millions if millions >= 1.0 => format!("{millions:.0}M"),
            millions => format!("{:.0}k", millions * 1000.0),
        })
        .y_label_formatter(&|cost| format!("{cost:.1}"))
        .draw()
        .expect("drawn");
    chart.draw_series(LineSeries::new(curve.iter().copied(), BLUE.stroke_width(2))).expect("drawn");
    chart.draw_series(curve.iter().map(|point| Circle::new(*point, 4, BLUE.filled()))).expect("drawn");
    root.present().expect("written");
}
