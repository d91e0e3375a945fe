use crate::outage::{Outage, SETTINGS, copy, execute, fresh, index, time};
use crate::report::Table;
use crate::{median, rounds, size};
use cluster::Cluster;

/// Variants (name, statements) on one database; the first is ours.
pub struct Comparison {
    pub title: &'static str,
    pub database: &'static str,
    /// Where the loop runs, which has no index of ours.
    pub without_index: &'static str,
    pub variants: &'static [(&'static str, &'static str)],
}

pub const LOOP: (&str, &str) = ("PL/pgSQL loop over the recipes", include_str!("../loop.sql"));
const REGULAR: &[(&str, &str)] = &[
    ("backlog_cleanup_failed_generations()", include_str!("../regular.sql")),
    ("plain DELETE by known tuple ids (the floor)", include_str!("../floor.sql")),
    ("one statement with row_number()", include_str!("../window.sql")),
    LOOP,
];
const STALE: &[(&str, &str)] = &[REGULAR[0], REGULAR[1], REGULAR[2]];
const EMERGENCY: &[(&str, &str)] = &[
    ("backlog_cleanup_emergency()", include_str!("../emergency.sql")),
    ("plain DELETE ... WHERE (the floor)", include_str!("../emergency_floor.sql")),
];
const STATUS: &[(&str, &str)] = &[
    ("backlog_cleanup_status()", include_str!("../status.sql")),
    ("backlog_cleanup_status_json()", "SELECT backlog_cleanup_status_json()"),
    ("six separate counts", include_str!("../status_counts.sql")),
    ("six separate counts per recipe", include_str!("../status_counts_per_recipe.sql")),
];
const COMPARISONS: &[Comparison] = &[
    Comparison { title: "Regular run, no index of ours", database: "plain", without_index: "plain", variants: REGULAR },
    Comparison {
        title: "Regular run, with our index on our side",
        database: "indexed",
        without_index: "plain",
        variants: REGULAR,
    },
    // The loop is left out, which the planner then gives a sequential scan per recipe: two minutes for 100,000 rows.
    Comparison {
        title: "Regular run, statistics from before the flood",
        database: "stale",
        without_index: "stale",
        variants: STALE,
    },
    Comparison {
        title: "Emergency run, no index of ours",
        database: "plain",
        without_index: "plain",
        variants: EMERGENCY,
    },
    Comparison {
        title: "Emergency run, with our index on both sides",
        database: "indexed",
        without_index: "indexed",
        variants: EMERGENCY,
    },
    Comparison {
        title: "Status, after the flood, before a VACUUM",
        database: "flooded",
        without_index: "flooded",
        variants: STATUS,
    },
    Comparison { title: "Status, no index of ours", database: "plain", without_index: "plain", variants: STATUS },
    Comparison { title: "Status, with our index", database: "indexed", without_index: "plain", variants: STATUS },
];

pub fn measure() -> Vec<Table> {
    let cluster = Cluster::start(SETTINGS);
    Outage { rows: size("ROWS", 1_000_000), recipes: size("RECIPES", 2_000), failed: 0.7 }.load(&cluster, "flooded");
    copy(&cluster, "plain", "flooded");
    execute(&cluster, "plain", "VACUUM ANALYZE");
    copy(&cluster, "indexed", "plain");
    index(&cluster, "indexed");
    // The planner's figures are those of an empty table.
    copy(&cluster, "stale", "flooded");
    execute(
        &cluster,
        "stale",
        "DELETE FROM pg_statistic WHERE starelid = 'generations'::regclass;
         UPDATE pg_class SET reltuples = 0, relpages = 0, relallvisible = 0 WHERE oid = 'generations'::regclass",
    );
    COMPARISONS.iter().map(|comparison| compare(&cluster, comparison)).collect()
}

/// Medians of the variants, measured in turn.
pub fn compare(cluster: &Cluster, comparison: &Comparison) -> Table {
    let rounds = rounds();
    let mut times = vec![Vec::new(); comparison.variants.len()];
    for _ in 0..rounds {
        for ((name, statements), times) in comparison.variants.iter().zip(&mut times) {
            let database = if *name == LOOP.0 { comparison.without_index } else { comparison.database };
            times.push(time(&mut fresh(cluster, database), statements));
        }
    }
    let medians: Vec<f64> = times.into_iter().map(median).collect();
    let rows = comparison.variants.iter().zip(&medians);
    Table {
        title: format!("{} (median of {rounds})", comparison.title),
        columns: vec!["", "ms", "ratio to ours"],
        rows: rows
            .map(|((name, _), median)| {
                vec![(*name).into(), format!("{median:.0}"), format!("{:.2}", median / medians[0])]
            })
            .collect(),
    }
}
