//! `make bench`: the runs beside their peers and the floor, on the same outage, each from the same state.
//!
//! Every measurement starts from a fresh copy of one database, or from what a rollback and a VACUUM leave, read into memory,
//! after a CHECKPOINT, so that full-page images count for everybody. Tables show medians, and ratios of medians of one session.
//! `fsync` is off where statements are compared: the disk's flush is the same for all of them, and drowns the rest.
//!
//! Arguments name the chapters to run (`runs quiet scale batches workers load serve tick visibility shapes peers citus`; all without).
//! ROWS, RECIPES and ROUNDS change the size of most; QUIET_ROWS, SCALE, WORKERS_ROWS, LOAD_ROWS, LOAD_SECONDS, SHAPES_ROWS and
//! PEERS_ROWS that of one. Tables go to target/bench as Markdown and JSON, the curve as SVG.

mod batches;
mod citus;
mod load;
mod outage;
mod peak;
mod peers;
mod quiet;
mod report;
mod runs;
mod scale;
mod serve;
mod shapes;
mod tick;
mod visibility;
mod workers;

use std::time::Instant;

use report::Table;

/// A chapter's measurements.
type Measure = fn() -> Vec<Table>;

/// The chapters by their names on the command line.
const CHAPTERS: &[(&str, Measure)] = &[
    ("runs", runs::measure),
    ("quiet", quiet::measure),
    ("scale", scale::measure),
    ("batches", batches::measure),
    ("workers", workers::measure),
    ("citus", citus::measure),
    ("load", load::measure),
    ("serve", serve::measure),
    ("tick", tick::measure),
    ("visibility", visibility::measure),
    ("shapes", shapes::measure),
    ("peers", peers::measure),
];

fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    for (name, measure) in CHAPTERS {
        if wanted.is_empty() || wanted.iter().any(|wanted| wanted == name) {
            let started = Instant::now();
            report::write(name, &measure());
            println!("{name}: {} s\n", started.elapsed().as_secs());
        }
    }
}

/// A size from the environment.
fn size(name: &str, default: i64) -> i64 {
    std::env::var(name).map_or(default, |value| value.parse().expect("a number"))
}

/// How often each variant is measured.
fn rounds() -> i64 {
    size("ROUNDS", 3)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
