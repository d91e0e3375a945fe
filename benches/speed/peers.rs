use std::time::Duration;

use crate::outage::{Outage, SETTINGS, copy, execute, index, psql, time, warm};
use crate::peak::Peak;
use crate::report::Table;
use crate::runs::LOOP;
use crate::{median, rounds, size};
use cluster::{Cluster, number, value};

/// What removes rows from one table of the outage; the first two are ours, and have our index.
struct Field {
    title: &'static str,
    table: &'static str,
    /// Makes the table from the platform's.
    file: Option<&'static str>,
    peers: &'static [(&'static str, &'static str)],
}

const RUN: (&str, &str) = ("a run in one transaction", include_str!("../regular.sql"));
const BATCHES: (&str, &str) = ("a run in batches", include_str!("../batched.sql"));
const OF_JOBS: (&str, &str) = (RUN.0, "SELECT backlog_cleanup_failed_generations('jobs')");
const BATCHES_OF_JOBS: (&str, &str) = (BATCHES.0, "CALL backlog_cleanup_run('jobs')");
const OLD: (&str, &str) = ("DELETE of what is older than a day, by pg_cron", include_str!("../old.sql"));

const FIELDS: &[Field] = &[
    Field {
        title: "The platform's table",
        table: "generations",
        file: None,
        peers: &[
            RUN,
            BATCHES,
            OLD,
            LOOP,
            ("one statement with row_number()", include_str!("../window.sql")),
            ("batches of 1,000 by key, as pt-archiver", include_str!("../keyed.sql")),
        ],
    },
    Field {
        title: "The platform's table in a partition per day",
        table: "generations",
        file: Some("benches/partitioned.sql"),
        peers: &[
            RUN,
            BATCHES,
            OLD,
            ("DROP TABLE of old partitions, as pg_partman", include_str!("../drop_partitions.sql")),
            ("DETACH of old partitions, as pg_partman", include_str!("../detach_partitions.sql")),
        ],
    },
    Field {
        title: "River's table",
        table: "river_job",
        file: Some("benches/river.sql"),
        peers: &[OF_JOBS, BATCHES_OF_JOBS, ("River's cleaner", include_str!("../river_cleaner.sql"))],
    },
    Field {
        title: "Oban's table",
        table: "oban_jobs",
        file: Some("benches/oban.sql"),
        peers: &[OF_JOBS, BATCHES_OF_JOBS, ("Oban's pruner", include_str!("../oban_pruner.sql"))],
    },
];

/// For as long as the chapter takes, no more rows expire: what removes as many rows as a run has removed the same.
const UNTIL_LATER: &str = "
    DELETE FROM generations
    WHERE updated_at BETWEEN (now() AT TIME ZONE 'UTC') - interval '24 hours' AND (now() AT TIME ZONE 'UTC') - interval '22 hours'";

/// What a user would pick instead, each as the server has it: the WAL of runs is compressed, that of the others is not.
pub fn measure() -> Vec<Table> {
    let cluster = Cluster::start(SETTINGS);
    let rows = size("PEERS_ROWS", 500_000);
    Outage { rows, recipes: size("RECIPES", 2_000), failed: 0.7 }.load(&cluster, "outage");
    execute(&cluster, "outage", UNTIL_LATER);
    FIELDS.iter().map(|field| field.compare(&cluster, rows)).collect()
}

impl Field {
    /// Medians of the peers, measured in turn.
    fn compare(&self, cluster: &Cluster, rows: i64) -> Table {
        copy(cluster, "plain", "outage");
        if let Some(file) = self.file {
            psql(cluster, "plain", file, &[]);
        }
        copy(cluster, "indexed", "plain");
        index(cluster, "indexed");
        for database in ["plain", "indexed"] {
            execute(cluster, database, "VACUUM ANALYZE");
        }
        let mut measured: Vec<_> = self.peers.iter().map(|_| [const { Vec::new() }; 4]).collect();
        for _ in 0..rounds() {
            for (place, measured) in measured.iter_mut().enumerate() {
                for (value, values) in self.measure(cluster, place).into_iter().zip(measured) {
                    values.push(value);
                }
            }
        }
        let medians: Vec<_> = measured.into_iter().map(|measured| measured.map(median)).collect();
        let row = |((name, _), [ms, wal, longest, gone]): (&(&str, &str), &[f64; 4])| {
            vec![
                (*name).to_owned(),
                format!("{ms:.0}"),
                format!("{wal:.0}"),
                format!("{longest:.0}"),
                format!("{gone:.0}"),
                // What removes more than a run has removed the newest, too.
                if *gone > medians[0][3] { "no" } else { "yes" }.to_owned(),
            ]
        };
        Table {
            title: format!("{}, {rows} rows (median of {})", self.title, rounds()),
            columns: vec!["", "ms", "WAL, MB", "longest transaction, ms", "rows gone", "keeps the newest per recipe"],
            rows: self.peers.iter().zip(&medians).map(row).collect(),
        }
    }

    /// Milliseconds of a peer, its WAL in MB, milliseconds of its longest transaction, and the rows that are gone.
    fn measure(&self, cluster: &Cluster, place: usize) -> [f64; 4] {
        const WAL: &str = "pg_current_wal_insert_lsn() - '0/0'";
        const LONGEST: &str = "
            SELECT coalesce(max(extract(epoch FROM clock_timestamp() - xact_start)) * 1000, 0)::float8
            FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()";
        copy(cluster, "measured", if place < 2 { "indexed" } else { "plain" });
        let mut client = warm(cluster, "measured", self.table);
        let count = format!("SELECT count(*) FROM {}", self.table);
        let (before, written) = (number(&mut client, &count), number(&mut client, WAL));
        let mut observer = cluster.connect_to("measured");
        let longest = Peak::of(Duration::from_millis(5), move || value(&mut observer, LONGEST));
        let ms = time(&mut client, self.peers[place].1);
        let longest = longest.stop();
        let wal = (number(&mut client, WAL) - written) as f64 / 1e6;
        [ms, wal, longest, (before - number(&mut client, &count)) as f64]
    }
}
