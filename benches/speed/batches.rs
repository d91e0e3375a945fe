use std::time::Instant;

use postgres::SimpleQueryMessage;

use crate::outage::{Outage, SETTINGS, copy, execute, fresh, index};
use crate::report::Table;
use crate::{median, rounds, size};
use cluster::Cluster;

const VARIANTS: &[(&str, &str)] = &[
    ("one transaction", include_str!("../regular.sql")),
    ("batches of 10,000", include_str!("../batched.sql")),
    ("batches of 10,000, 2 workers", include_str!("../workers.sql")),
];

/// Batched runs beside the single transaction, on a server that flushes at each commit.
pub fn measure() -> Vec<Table> {
    let cluster = Cluster::start(&SETTINGS.replace("fsync = off", "fsync = on"));
    Outage { rows: size("ROWS", 1_000_000), recipes: size("RECIPES", 2_000), failed: 0.7 }.load(&cluster, "plain");
    execute(&cluster, "plain", "VACUUM ANALYZE");
    copy(&cluster, "indexed", "plain");
    index(&cluster, "indexed");
    let rounds = rounds();
    ["plain", "indexed"]
        .map(|database| {
            let mut times = vec![Vec::new(); VARIANTS.len()];
            let mut held = vec![String::new(); VARIANTS.len()];
            for _ in 0..rounds {
                for (place, (_, statements)) in VARIANTS.iter().enumerate() {
                    let mut client = fresh(&cluster, database);
                    let started = Instant::now();
                    let report = client.simple_query(statements).expect("the run runs");
                    times[place].push(started.elapsed().as_secs_f64() * 1000.0);
                    held[place] = p99(&report);
                }
            }
            let medians: Vec<f64> = times.into_iter().map(median).collect();
            Table {
                title: format!(
                    "Batches, {} (median of {rounds})",
                    if database == "plain" { "no index of ours" } else { "with our index" }
                ),
                columns: vec!["", "ms", "throughput", "p99 of a batch, ms"],
                rows: VARIANTS
                    .iter()
                    .zip(medians.iter().zip(held))
                    .map(|((name, _), (ms, held))| {
                        vec![(*name).into(), format!("{ms:.0}"), format!("{:.0} %", medians[0] / ms * 100.0), held]
                    })
                    .collect(),
            }
        })
        .into()
}

/// How long 99 of 100 batches of a run held their locks, by its report; empty for a run in one transaction.
fn p99(report: &[SimpleQueryMessage]) -> String {
    let row =
        report.iter().find_map(|message| if let SimpleQueryMessage::Row(row) = message { row.get(0) } else { None });
    let report: serde_json::Value = row.and_then(|report| serde_json::from_str(report).ok()).unwrap_or_default();
    report["batchMilliseconds"]["p99"].as_f64().map_or(String::new(), |p99| format!("{p99:.0}"))
}
