//! Rows that come to a recipe whose ranks are fixed.

use cluster::{Cluster, number, start_run, truth};

const NEXT: &str = "SELECT backlog_cleanup.next_batch(max(id)) IS NULL FROM backlog_cleanup.run";
const FINISH: &str = "SELECT backlog_cleanup.finish_run(max(id)) FROM backlog_cleanup.run";

/// A table of 500 failures of recipe 1, 500 older ones of recipe 2, and as many of another account and status; its target `job`.
const JOB: &str = "
    DROP TABLE IF EXISTS job, kept CASCADE;
    DELETE FROM backlog_cleanup.target WHERE name = 'job';
    CREATE TABLE job (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, user_id text, recipe_id bigint, status text,
                      updated_at timestamptz, failure_reason text DEFAULT 'x', pad text DEFAULT repeat('x', 200));
    INSERT INTO job (user_id, recipe_id, status, updated_at)
    SELECT user_id, recipe, status, now() - recipe * interval '5 days' - i * interval '1 minute'
    FROM (VALUES ('system_backlog', 1, 'failed'), ('system_backlog', 2, 'failed'), ('system_backlog', 3, 'completed'), ('other', 4, 'failed'))
             AS of (user_id, recipe, status), generate_series(1, 500) i;
    CREATE OR REPLACE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS
        $$BEGIN UPDATE public.job SET pad = 'touched' WHERE id = 490 AND pad <> 'touched'; RETURN OLD; END$$;
    INSERT INTO backlog_cleanup.target (name, generations_table, recipes_table) VALUES ('job', 'public.job', NULL)";

/// The newest ten failures of each recipe as it is now.
const KEPT: &str = "
    CREATE TABLE kept AS SELECT id FROM (
        SELECT id, row_number() OVER (PARTITION BY recipe_id ORDER BY updated_at DESC, id DESC) AS place FROM job
        WHERE user_id = 'system_backlog' AND status = 'failed') ranked WHERE place <= 10";

#[test]
fn the_newest_rows_of_a_recipe_stay_whatever_recipe_they_had_when_a_batched_run_started() {
    let cluster = Cluster::start("");
    let mut client = cluster.platform();
    // A pass over blocks is made by what the run's own code updates, and by another file.
    let looks = "CREATE TRIGGER touch BEFORE DELETE ON job FOR EACH ROW EXECUTE FUNCTION touch()";
    let moves = "UPDATE job SET recipe_id = 3 WHERE recipe_id = 1 AND MORE; UPDATE job SET recipe_id = 1 WHERE recipe_id = 2 AND MORE";
    for (first, then) in [("", ""), (looks, ""), ("", "VACUUM FULL job"), (looks, "VACUUM FULL job")] {
        for more in ["true", "id NOT IN (SELECT id FROM kept)"] {
            client.batch_execute(JOB).unwrap();
            client.batch_execute(KEPT).unwrap();
            client.batch_execute(first).unwrap();
            client.batch_execute(&start_run(100).replace("generations", "job")).unwrap();
            truth(&mut client, NEXT);
            client.batch_execute(&moves.replace("MORE", more)).unwrap();
            client.batch_execute(&format!("DROP TABLE kept; {KEPT}")).unwrap();
            client.batch_execute(then).unwrap();
            while !truth(&mut client, NEXT) {}
            client.batch_execute(FINISH).unwrap();
            let case = format!("{first}; {more}; {then}");
            assert_eq!(
                number(&mut client, "SELECT count(*) FROM kept WHERE id NOT IN (SELECT id FROM job)"),
                0,
                "{case}"
            );
        }
    }
}

#[test]
fn the_newest_rows_stay_whatever_values_a_column_is_rewritten_to_between_two_batches() {
    let cluster = Cluster::start("");
    let mut client = cluster.platform();
    for (column, of_type, value) in [
        ("recipe_id", "bigint", "3 - recipe_id"),
        ("recipe_id", "bigint", "1"),
        ("id", "bigint", "5000 - id"),
        ("user_id", "text", "'system_backlog'"),
        ("user_id", "text", "CASE WHEN id % 20 < 10 THEN user_id ELSE 'other' END"),
        ("status", "text", "'failed'"),
        ("updated_at", "timestamptz", "now() - interval '2 days' - (now() - interval '2 days' - updated_at)"),
        ("updated_at", "timestamptz", "'2020-01-01'::timestamptz + (now() - updated_at)"),
        ("failure_reason", "text", "'y'"),
    ] {
        let rewrite = format!("ALTER TABLE job ALTER {column} TYPE {of_type} USING {value}");
        client.batch_execute(JOB).unwrap();
        client.batch_execute(&start_run(100).replace("generations", "job")).unwrap();
        truth(&mut client, NEXT);
        client.batch_execute(&rewrite).unwrap();
        client.batch_execute(KEPT).unwrap();
        while !truth(&mut client, NEXT) {}
        client.batch_execute(FINISH).unwrap();
        assert_eq!(
            number(&mut client, "SELECT count(*) FROM kept WHERE id NOT IN (SELECT id FROM job)"),
            0,
            "{rewrite}"
        );
    }
}
