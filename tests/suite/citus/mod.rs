//! What the extension promises, on tables that a real Citus distributes. Each test says that it is skipped where there is none.

mod changes;
mod coordinator;
mod kinds;
mod others;

use std::collections::BTreeSet;

use cluster::{column, numbers};
use postgres::Client;

/// The platform's own columns, of which any can be the one that a table is distributed by.
const COLUMNS: &str = "id bigint NOT NULL, user_id text NOT NULL, recipe_id int NOT NULL, status text NOT NULL,
    updated_at timestamp NOT NULL, failure_reason text";

/// How a table is distributed, and the statements that make the table `kind`.
type Distribution = (&'static str, &'static str);

const BY_ID: Distribution =
    ("by id", "CREATE TABLE kind (COLUMNS, PRIMARY KEY (id)); SELECT create_distributed_table('kind', 'id')");
const BY_RECIPE: Distribution = (
    "by recipe",
    "CREATE TABLE kind (COLUMNS, PRIMARY KEY (id, recipe_id)); SELECT create_distributed_table('kind', 'recipe_id')",
);
const BY_ACCOUNT: Distribution =
    ("by account", "CREATE TABLE kind (COLUMNS); SELECT create_distributed_table('kind', 'user_id')");
const REFERENCE: Distribution =
    ("reference", "CREATE TABLE kind (COLUMNS, PRIMARY KEY (id)); SELECT create_reference_table('kind')");
const SINGLE_SHARD: Distribution =
    ("single-shard", "CREATE TABLE kind (COLUMNS); SELECT create_distributed_table('kind', NULL)");
const LOCAL: Distribution =
    ("Citus-local", "CREATE TABLE kind (COLUMNS); SELECT citus_add_local_table_to_metadata('kind')");
const PARTITIONED: Distribution = (
    "partitioned and distributed",
    "CREATE TABLE kind (COLUMNS) PARTITION BY RANGE (updated_at);
     CREATE TABLE kind_rest PARTITION OF kind DEFAULT;
     SELECT create_distributed_table('kind', 'id');
     DO $$BEGIN EXECUTE format('CREATE TABLE kind_old PARTITION OF kind FOR VALUES FROM (MINVALUE) TO (%L)',
                               now() AT TIME ZONE 'UTC' - interval '4 days'); END$$",
);

const DISTRIBUTIONS: [Distribution; 7] = [BY_ID, BY_RECIPE, BY_ACCOUNT, REFERENCE, SINGLE_SHARD, LOCAL, PARTITIONED];

/// Makes the table `kind` anew, its plain copy `scene`, and the target `kind`.
fn make(client: &mut Client, (_, statements): Distribution) {
    let create = statements.replace("COLUMNS", COLUMNS);
    client
        .batch_execute(&format!(
            "DELETE FROM backlog_cleanup.target WHERE name = 'kind'; DROP TABLE IF EXISTS kind, scene; CREATE TABLE scene ({COLUMNS});
             {create};
             INSERT INTO backlog_cleanup.target (name, generations_table, recipes_table) VALUES ('kind', 'public.kind', NULL)"
        ))
        .expect("the table");
}

/// Fills both with rows of so many recipes, an eighth of them not failed, a tenth of them not old; forgets the runs before.
fn fill(client: &mut Client, rows: i64, recipes: i64) {
    client
        .batch_execute(&format!(
            "TRUNCATE kind; TRUNCATE scene, credit_transactions; DELETE FROM backlog_cleanup.run;
             INSERT INTO scene
             SELECT i, CASE WHEN i % 17 = 0 THEN 'somebody' ELSE 'system_backlog' END, i % {recipes},
                    CASE WHEN i % 8 = 5 THEN 'pending' ELSE 'failed' END,
                    now() AT TIME ZONE 'UTC' - interval '1 hour' * (i * 7 % 240) - interval '1 millisecond' * i, NULL
             FROM generate_series(1, {rows}) i;
             INSERT INTO kind TABLE scene"
        ))
        .expect("the rows");
}

/// The ids of the rows of `scene` that have to stay, by a window.
fn must_stay(client: &mut Client, is_emergency: bool) -> BTreeSet<i64> {
    let rows: Vec<i64> = column(
        client,
        &format!(
            "SELECT id FROM (
                 SELECT *, updated_at < now() AT TIME ZONE 'UTC' - interval '24 hours' AS is_old,
                        row_number() OVER (PARTITION BY recipe_id, user_id, status ORDER BY updated_at DESC, id DESC)
                        - count(*) FILTER (WHERE updated_at >= now() AT TIME ZONE 'UTC' - interval '24 hours')
                          OVER (PARTITION BY recipe_id, user_id, status) AS rank FROM scene) ranked
             WHERE NOT (user_id = 'system_backlog' AND status = 'failed' AND ({is_emergency} OR is_old AND rank > 10))"
        ),
    );
    rows.into_iter().collect()
}

/// The ids of the rows that are there.
fn there(client: &mut Client) -> BTreeSet<i64> {
    column(client, "SELECT id FROM kind").into_iter().collect()
}

/// How many of `rows` rows are gone. Panics unless the ledger and the history say the same.
fn books(client: &mut Client, rows: i64) -> i64 {
    let books =
        "SELECT (SELECT count(*) FROM kind), (SELECT coalesce(sum(amount), 0)::bigint FROM credit_transactions),
                        (SELECT coalesce(sum(removed), 0)::bigint FROM backlog_cleanup.run WHERE target = 'kind')";
    let [left, ledger, removed] = numbers(client, books);
    assert_eq!((ledger, removed), (rows - left, rows - left), "the ledger and the history");
    rows - left
}
