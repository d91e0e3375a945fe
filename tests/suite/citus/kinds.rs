//! Every distribution, every way to call a run.

use cluster::{Nodes, number, value};
use postgres::Client;

use crate::property::exactly_the_removable_rows_go_from_distributed_tables;
use crate::random::setting;

use super::{BY_ID, BY_RECIPE, DISTRIBUTIONS, Distribution, books, fill, make, must_stay, there};

const CALLS: [&str; 5] = [
    "SELECT backlog_cleanup_failed_generations('kind')",
    "CALL backlog_cleanup_run('kind', batch_size => 37)",
    "CALL backlog_cleanup_run('kind', batch_size => 37, workers => 2)",
    "SELECT backlog_cleanup_emergency('kind')",
    "CALL backlog_cleanup_run('kind', 'emergency', batch_size => 37, workers => 2)",
];

/// How many recipes a status counts as this query does.
const COUNTED: &str = "
    SELECT count(*) FROM backlog_cleanup_status('kind') s
    JOIN (SELECT recipe_id::text, count(*), count(*) FILTER (WHERE status = 'failed') AS failed,
                 count(*) FILTER (WHERE status = 'pending') AS pending,
                 greatest(count(*) FILTER (WHERE status = 'failed'
                                             AND updated_at < now() AT TIME ZONE 'UTC' - interval '24 hours') - 10, 0) AS removable,
                 min(updated_at) FILTER (WHERE status = 'failed') AT TIME ZONE 'UTC' AS oldest
          FROM scene WHERE user_id = 'system_backlog' GROUP BY recipe_id) k USING (recipe_id)
    WHERE (s.total_count, s.failed_count, s.pending_count, s.removable_count, s.oldest_failed_at)
          IS NOT DISTINCT FROM (k.count, k.failed, k.pending, k.removable, k.oldest)";

/// Of these recipes runs each call; what is said beforehand, goes and is said afterwards agrees.
fn exactly_the_right_rows_go(client: &mut Client, distribution: Distribution, rows: i64, recipes: i64) {
    let (kind, _) = distribution;
    make(client, distribution);
    for call in CALLS {
        fill(client, rows, recipes);
        assert_eq!(number(client, COUNTED), recipes, "{kind}");
        let is_emergency = call.contains("emergency");
        let stays = must_stay(client, is_emergency);
        let goes = rows - stays.len() as i64;
        let field = if is_emergency { "removedCount" } else { "cleanedUpGenerations" };
        let function = if is_emergency { "emergency" } else { "failed_generations" };
        let would = format!("SELECT backlog_cleanup_{function}('kind', dry_run => true) ->> '{field}'");
        assert_eq!(value::<String>(client, &would), goes.to_string(), "{kind}, {would}");
        client.batch_execute(call).unwrap_or_else(|failure| panic!("{kind}, {call}: {:?}", failure.as_db_error()));
        assert_eq!(there(client), stays, "{kind}, {call}");
        assert_eq!(books(client, rows), goes, "{kind}, {call}");
        let per_recipe = "SELECT coalesce(sum(cleaned_count), 0) FROM backlog_cleanup.run_recipe
                          WHERE run_id = (SELECT max(id) FROM backlog_cleanup.run)";
        assert_eq!(number(client, per_recipe), goes, "{kind}, {call}");
        client.batch_execute(call).unwrap();
        assert_eq!(books(client, rows), goes, "{kind}, {call}: a second run removes nothing");
    }
}

#[test]
fn exactly_the_right_rows_go_however_a_table_is_distributed() {
    let Some(nodes) = Nodes::start("") else { return };
    let mut client = nodes.platform();
    for distribution in DISTRIBUTIONS {
        exactly_the_right_rows_go(&mut client, distribution, 1200, 25);
        println!("{}: right", distribution.0);
    }
    nodes.put_shards_on_coordinator(true);
    for distribution in [BY_ID, BY_RECIPE] {
        exactly_the_right_rows_go(&mut client, distribution, 1200, 25);
        println!("{}, shards on the coordinator too: right", distribution.0);
    }
}

/// CASES says how many.
#[test]
fn exactly_the_removable_rows_go_from_random_tables() {
    let Some(nodes) = Nodes::start("") else { return };
    let cases = setting("CASES", 60) as u32;
    exactly_the_removable_rows_go_from_distributed_tables(nodes.platform(), cases);
    println!("{cases} random tables: right");
}

#[test]
fn a_row_is_explained_as_runs_treat_it() {
    let Some(nodes) = Nodes::start("") else { return };
    let mut client = nodes.platform();
    for distribution in DISTRIBUTIONS {
        make(&mut client, distribution);
        fill(&mut client, 300, 3);
        let stays = must_stay(&mut client, false);
        for id in (1..=300).step_by(7) {
            let verdict: String =
                value(&mut client, &format!("SELECT verdict FROM backlog_cleanup_explain('{id}', 'kind')"));
            assert_eq!(verdict == "removable", !stays.contains(&id), "{}, row {id}: {verdict}", distribution.0);
        }
    }
}
