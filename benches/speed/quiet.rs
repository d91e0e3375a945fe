use crate::outage::{Outage, SETTINGS, copy, execute, index};
use crate::report::Table;
use crate::runs::{Comparison, LOOP, compare};
use crate::size;
use cluster::Cluster;

const NIGHTLY: &[(&str, &str)] = &[("backlog_cleanup_failed_generations()", include_str!("../regular.sql")), LOOP];
const ALONE: &[(&str, &str)] = &[("backlog_cleanup_failed_generations()", include_str!("../regular.sql"))];

/// A quiet night: few failures in a large table, with the index, and nothing or a hundred rows due.
pub fn measure() -> Vec<Table> {
    let cluster = Cluster::start(SETTINGS);
    let rows = size("QUIET_ROWS", 5_000_000);
    Outage { rows, recipes: 20_000, failed: 0.08 }.load(&cluster, "large");
    index(&cluster, "large");
    execute(&cluster, "large", "SELECT backlog_cleanup_failed_generations()");
    // The same failures without the rows that are not failed.
    copy(&cluster, "small", "large");
    execute(
        &cluster,
        "small",
        "DELETE FROM generations WHERE NOT (user_id = 'system_backlog' AND status = 'failed') AND id % 5 <> 0",
    );
    execute(&cluster, "small", "VACUUM FULL generations");
    execute(&cluster, "small", "VACUUM ANALYZE");
    execute(&cluster, "large", "VACUUM ANALYZE");
    copy(&cluster, "due", "large");
    execute(
        &cluster,
        "due",
        "INSERT INTO generations (user_id, recipe_id, prompt, status, updated_at)
         SELECT 'system_backlog', recipe_id, '', 'failed', now() - interval '30 days'
         FROM (SELECT recipe_id FROM generations
               WHERE user_id = 'system_backlog' AND status = 'failed' AND updated_at < now() - interval '26 hours'
               GROUP BY recipe_id HAVING count(*) >= 10 ORDER BY recipe_id LIMIT 100) full_recipes",
    );
    execute(&cluster, "due", "VACUUM ANALYZE");
    for (database, of) in [("large_plain", "large"), ("due_plain", "due")] {
        copy(&cluster, database, of);
        execute(&cluster, database, "DROP INDEX generations_recipe_id_updated_at_id_idx");
    }
    [
        Comparison {
            title: "Quiet night, nothing due",
            database: "large",
            without_index: "large_plain",
            variants: NIGHTLY,
        },
        Comparison {
            title: "Quiet night, a hundred rows due",
            database: "due",
            without_index: "due_plain",
            variants: NIGHTLY,
        },
        Comparison {
            title: "Nothing due, a fifth of the rows that are not failed",
            database: "small",
            without_index: "small",
            variants: ALONE,
        },
    ]
    .iter()
    .map(|comparison| compare(&cluster, comparison))
    .collect()
}
