//! `make bench`: the runs beside their peers and the floor, on the same outage, each from the same state.
//!
//! Every measurement starts from a fresh copy of one database, read into memory, after a CHECKPOINT, so that full-page
//! images count for everybody. The tables show medians, and ratios of medians of one session.

#[path = "../tests/cluster/mod.rs"]
mod cluster;

use std::fmt::Write as _;
use std::time::Instant;

use cluster::Cluster;

/// A table of the results: its title, its variants (name, statements), and the one that the others are compared with.
struct Comparison {
    title: &'static str,
    database: &'static str,
    variants: &'static [(&'static str, &'static str)],
}

const REGULAR: &[(&str, &str)] = &[
    ("backlog_cleanup_failed_generations()", include_str!("regular.sql")),
    ("plain DELETE by known tuple ids (the floor)", include_str!("floor.sql")),
    ("one statement with row_number()", include_str!("window.sql")),
    ("PL/pgSQL loop, one DELETE per recipe", include_str!("loop.sql")),
];
const EMERGENCY: &[(&str, &str)] = &[
    ("backlog_cleanup_emergency()", include_str!("emergency.sql")),
    ("plain DELETE ... WHERE (the floor)", include_str!("emergency_floor.sql")),
];
const STATUS: &[(&str, &str)] = &[
    ("backlog_cleanup_status()", include_str!("status.sql")),
    ("six separate counts", include_str!("status_counts.sql")),
];
const COMPARISONS: &[Comparison] = &[
    Comparison { title: "Regular run, no index of ours", database: "plain", variants: REGULAR },
    Comparison { title: "Regular run, with our index", database: "indexed", variants: REGULAR },
    Comparison { title: "Emergency run", database: "plain", variants: EMERGENCY },
    Comparison { title: "Status", database: "plain", variants: STATUS },
];

fn main() {
    let number = |name: &str, default: &str| std::env::var(name).unwrap_or_else(|_| default.to_owned());
    let (rows, recipes) = (number("ROWS", "1000000"), number("RECIPES", "2000"));
    let rounds: usize = number("ROUNDS", "5").parse().expect("ROUNDS is a number");
    let cluster = Cluster::start("shared_buffers = 2GB\nmax_wal_size = 16GB\nautovacuum = off\nfsync = on\n");
    load(&cluster, &rows, &recipes);

    let mut report = format!("{rows} rows, {recipes} recipes, median of {rounds} rounds\n");
    for comparison in COMPARISONS {
        let mut times = vec![Vec::new(); comparison.variants.len()];
        for _ in 0..rounds {
            for (variant, times) in comparison.variants.iter().zip(&mut times) {
                times.push(measure(&cluster, comparison.database, variant.1));
            }
        }
        let medians: Vec<f64> = times.iter_mut().map(|times| median(times)).collect();
        write!(report, "\n{}\n\n| | ms | ratio |\n|---|---:|---:|\n", comparison.title).expect("a string takes it");
        for ((name, _), median) in comparison.variants.iter().zip(&medians) {
            writeln!(report, "| {name} | {median:.0} | {:.2} |", median / medians[0]).expect("a string takes it");
        }
    }
    println!("{report}");
}

fn load(cluster: &Cluster, rows: &str, recipes: &str) {
    let root = env!("CARGO_MANIFEST_DIR");
    cluster.program("createdb", &["plain"]);
    let psql = |database: &str, arguments: &[&str]| {
        cluster.program("psql", &[&["-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", database], arguments].concat())
    };
    let (rows, recipes) = (format!("rows={rows}"), format!("recipes={recipes}"));
    psql("plain", &["-f", &format!("{root}/demo/platform.sql")]);
    let shape = ["-v", &rows, "-v", &recipes, "-v", "failed=0.7", "-v", "days=10"];
    psql("plain", &[&shape[..], &["-f", &format!("{root}/demo/outage.sql")]].concat());
    psql("plain", &["-f", &format!("{root}/benches/prepare.sql")]);
    cluster.program("createdb", &["-T", "plain", "-S", "file_copy", "indexed"]);
    let index = psql("indexed", &["-At", "-c", "SELECT backlog_cleanup_index_sql()"]);
    psql("indexed", &["-c", index.trim()]);
}

/// Milliseconds of the statements on a fresh copy of a database.
fn measure(cluster: &Cluster, database: &str, statements: &str) -> f64 {
    let mut admin = cluster.connect();
    admin.batch_execute("DROP DATABASE IF EXISTS measured WITH (FORCE)").expect("the last copy goes");
    admin.batch_execute(&format!("CREATE DATABASE measured TEMPLATE {database} STRATEGY file_copy")).expect("a copy");
    let mut client = cluster.connect_to("measured");
    client.batch_execute("SELECT count(id) FROM generations WHERE prompt > ''; CHECKPOINT").expect("read into memory");
    let started = Instant::now();
    client.batch_execute(statements).expect("the statements run");
    started.elapsed().as_secs_f64() * 1000.0
}

fn median(times: &mut [f64]) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}
