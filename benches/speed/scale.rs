use std::process::Command;
use std::time::Duration;

use plotters::prelude::*;
use postgres::Client;

use crate::outage::{Outage, SETTINGS, execute, time, warm};
use crate::peak::Peak;
use crate::report::{Table, file};
use crate::{median, rounds, size};
use cluster::Cluster;

/// Cost per removed row, and memory, from 100,000 removed rows to 5,000,000, or 20,000,000 by SCALE; beside it what a plain DELETE
/// costs, ten rows per recipe more. Both compress full-page images. The goals: a cost within 25 %, and 64 MB.
///
/// The largest table has no room beside its copy, so each is measured in place, in a transaction that is rolled back; VACUUM then
/// makes its pages all-visible again.
pub fn measure() -> Vec<Table> {
    let rounds = rounds();
    let largest = size("SCALE", 5_000_000);
    // The log of one transaction of each size has room, and a timed checkpoint does not come between.
    let cluster = Cluster::start(&format!(
        "{SETTINGS}max_connections = 20\nmax_wal_size = 14GB\nwal_compression = lz4\ncheckpoint_timeout = 1d\n"
    ));
    let (mut points, mut plain_per_row) = (Vec::new(), Vec::new());
    for removed in
        [100_000, 300_000, 1_000_000, 5_000_000, 20_000_000].into_iter().filter(|removed| *removed <= largest)
    {
        let database = format!("scale_{removed}");
        // 54 % of the rows are the account's, failed and expired; ten of each recipe stay.
        Outage { rows: (removed + 20_000) * 100 / 54, recipes: 2_000, failed: 1.0 }.load(&cluster, &database);
        execute(&cluster, &database, "DROP TABLE removable");
        execute(&cluster, &database, "VACUUM ANALYZE generations");
        let (mut times, mut memory, mut went) = (Vec::new(), 0.0_f64, 0_i64);
        let mut plain = Vec::new();
        // What takes a moment is measured more often.
        for _ in 0..rounds * (1_000_000 / removed).clamp(1, 5) {
            let mut client = settled(&cluster, &database);
            let pid: i32 = client.query_one("SELECT pg_backend_pid()", &[]).expect("a process").get(0);
            let idle = anonymous(pid);
            client.batch_execute("BEGIN").expect("a transaction");
            let peak = Peak::of(Duration::from_millis(5), move || anonymous(pid) - idle);
            times.push(time(&mut client, include_str!("../regular.sql")));
            memory = memory.max(peak.stop());
            went = client.query_one("SELECT removed FROM backlog_cleanup.run", &[]).expect("a run").get(0);
            undo(client);
            let mut client = settled(&cluster, &database);
            let failed = "SELECT count(*) FROM generations WHERE user_id = 'system_backlog' AND status = 'failed'";
            let failed: i64 = client.query_one(failed, &[]).expect("a count").get(0);
            client.batch_execute("BEGIN").expect("a transaction");
            plain.push(time(&mut client, include_str!("../emergency_floor.sql")) * 1000.0 / failed as f64);
            undo(client);
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
                    format!("{:.1}", memory / 1024.0),
                ]
            })
            .collect(),
    }]
}

/// A table that is read into memory, and whose dirty pages are on the disk: what is measured writes gigabytes of its own.
fn settled(cluster: &Cluster, database: &str) -> Client {
    let client = warm(cluster, database, "generations");
    assert!(Command::new("sync").status().expect("sync runs").success());
    client
}

/// Makes the table as it was.
fn undo(mut client: Client) {
    for statement in ["ROLLBACK", "VACUUM generations"] {
        client.batch_execute(statement).expect("the rows are there again");
    }
}

/// Anonymous memory of a process in kB.
fn anonymous(pid: i32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("Linux tells");
    let line = status.lines().find(|line| line.starts_with("RssAnon:")).expect("the line");
    line.split_whitespace().nth(1).and_then(|kilobytes| kilobytes.parse().ok()).expect("a number")
}

/// The curve: microseconds per removed row over rows removed.
fn draw(points: &[(i64, f64, f64)]) {
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
        .build_cartesian_2d((50_000.0..30_000_000.0).log_scale(), 0.0..top)
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
