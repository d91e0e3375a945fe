use crate::outage::{LZ4, Outage, SETTINGS, copy, execute, index, psql, time, warm};
use crate::report::Table;
use crate::{median, rounds, size};
use cluster::Cluster;

/// A table whose rows, keys or recipes are not those of the platform.
struct Shape {
    name: &'static str,
    /// How many rows it has for a thousand of the chapter's.
    per_mille: i64,
    /// A type, and the value of row `i`.
    id: (&'static str, &'static str),
    recipe: (&'static str, &'static str),
    payload: &'static str,
    /// Besides that of the key and ours.
    indexes: usize,
    /// The target's recipe, as SQL has it.
    recipe_column: &'static str,
    keep: usize,
}

/// Only the index of the key and ours, and nothing else that is large.
const PLAIN: Shape = Shape {
    name: "1 index",
    per_mille: 1000,
    id: ("bigint", "i"),
    recipe: ("integer", "i * 7919 % 2000"),
    payload: "repeat(md5(i::text), 6)",
    indexes: 0,
    recipe_column: "'recipe'",
    keep: 10,
};

const SHAPES: &[Shape] = &[
    Shape {
        name: "wide rows: a payload of 20 kB",
        per_mille: 20,
        recipe: ("integer", "i * 7919 % 40"),
        payload: "(SELECT string_agg(md5(i || '.' || part), '') FROM generate_series(1, 640) part)",
        ..PLAIN
    },
    PLAIN,
    Shape { name: "20 indexes", indexes: 19, ..PLAIN },
    Shape { name: "the id is a uuid", id: ("uuid", "gen_random_uuid()"), ..PLAIN },
    Shape {
        name: "the group is a text",
        recipe: ("text", "'https://example.org/queues/' || md5((i * 7919 % 2000)::text)"),
        ..PLAIN
    },
    Shape { name: "one group of everything", recipe: ("integer", "1"), recipe_column: "NULL", ..PLAIN },
    Shape {
        name: "a group for every two rows, one stays",
        per_mille: 2000,
        recipe: ("bigint", "i * 7919 % (:rows / 2)"),
        keep: 1,
        ..PLAIN
    },
];

const FLOOR: &str = "DELETE FROM job WHERE ctid = ANY (ARRAY(SELECT tid FROM removable))";
const RUN: &str = "SELECT backlog_cleanup_failed_generations('job')";

/// A run on tables of other shapes, with our index, straight after VACUUM, beside a plain DELETE of exactly the same rows by known
/// positions: once both compress full-page images, once neither does. The goal is a ratio under 1.5 in each.
pub fn measure() -> Vec<Table> {
    let cluster = Cluster::start(SETTINGS);
    let (rows, rounds) = (size("SHAPES_ROWS", 1_000_000), rounds());
    Outage { rows, recipes: size("RECIPES", 2_000), failed: 0.7 }.load(&cluster, "shape");
    let platform = (include_str!("../regular.sql"), include_str!("../floor.sql"));
    let mut table = vec![compare(&cluster, "the platform's own", "generations", platform, rounds)];
    for shape in SHAPES {
        shape.load(&cluster, rows * shape.per_mille / 1000);
        table.push(compare(&cluster, shape.name, "job", (RUN, FLOOR), rounds));
    }
    vec![Table {
        title: format!("A run beside the floor, by the table's shape (median of {rounds})"),
        columns: vec![
            "",
            "rows removed",
            "lz4, ms",
            "floor with lz4, ms",
            "ratio",
            "off, ms",
            "floor with off, ms",
            "ratio with off",
        ],
        rows: table,
    }]
}

impl Shape {
    /// Makes the database `shape` of this shape.
    fn load(&self, cluster: &Cluster, rows: i64) {
        execute(cluster, "postgres", "DROP DATABASE IF EXISTS shape WITH (FORCE)");
        cluster.program("createdb", &["shape"]);
        let variables = [
            format!("rows={rows}"),
            format!("indexes={}", self.indexes),
            format!("keep={}", self.keep),
            format!("id_type={}", self.id.0),
            format!("id={}", self.id.1),
            format!("recipe_type={}", self.recipe.0),
            format!("recipe={}", self.recipe.1.replace(":rows", &rows.to_string())),
            format!("payload={}", self.payload),
            format!("recipe_column={}", self.recipe_column),
        ];
        psql(cluster, "shape", "benches/shape.sql", &variables);
    }
}

/// A row of the table: medians of a run and its floor in the database `shape`, measured in turn.
fn compare(cluster: &Cluster, name: &str, table: &str, (run, floor): (&str, &str), rounds: i64) -> Vec<String> {
    index(cluster, "shape");
    execute(cluster, "shape", "VACUUM ANALYZE");
    let mut times = [const { Vec::new() }; 4];
    for _ in 0..rounds {
        let sides = [(run, "lz4"), (floor, "lz4"), (run, "off"), (floor, "off")];
        for ((statement, compression), times) in sides.into_iter().zip(&mut times) {
            copy(cluster, "measured", "shape");
            let target = format!("UPDATE backlog_cleanup.target SET wal_compression = '{compression}'");
            execute(cluster, "measured", &target);
            let mut client = warm(cluster, "measured", table);
            client.batch_execute(&LZ4.replace("lz4", compression)).expect("a setting");
            times.push(time(&mut client, statement));
        }
    }
    let removed = cluster.connect_to("shape").query_one("SELECT count(*) FROM removable", &[]);
    let removed: i64 = removed.expect("a count").get(0);
    let [lz4, lz4_floor, off, off_floor] = times.map(median);
    vec![
        name.into(),
        removed.to_string(),
        format!("{lz4:.0}"),
        format!("{lz4_floor:.0}"),
        format!("{:.2}", lz4 / lz4_floor),
        format!("{off:.0}"),
        format!("{off_floor:.0}"),
        format!("{:.2}", off / off_floor),
    ]
}
