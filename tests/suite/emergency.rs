//! What an emergency run says to have removed: each row once, of the recipe that it had as it went.

use std::thread;

use cluster::{Cluster, number, until_true};
use postgres::Client;

/// Runs it; the recipes with what was removed of each.
fn removed(client: &mut Client) -> Vec<(Option<i32>, i32)> {
    let details = "SELECT (detail ->> 'recipeId')::int, (detail ->> 'cleanedCount')::int
                   FROM jsonb_array_elements(backlog_cleanup_emergency() -> 'cleanupDetails') detail ORDER BY 1";
    client.query(details, &[]).unwrap().iter().map(|row| (row.get(0), row.get(1))).collect()
}

/// Failed rows; `recipe` is an expression of their number.
fn fail(client: &mut Client, recipe: &str, rows: i32) {
    let insert = "INSERT INTO generations (user_id, recipe_id, prompt, status)";
    client
        .batch_execute(&format!(
            "{insert} SELECT 'system_backlog', {recipe}, '', 'failed' FROM generate_series(1, {rows}) i"
        ))
        .unwrap();
}

#[test]
fn each_of_many_rows_is_counted() {
    let cluster = Cluster::start("");
    let mut client = cluster.platform();
    fail(&mut client, "nullif(i % 3, 0)", 140_000);
    assert_eq!(removed(&mut client), [(Some(1), 46_667), (Some(2), 46_667), (None, 46_666)]);
}

#[test]
fn a_recipe_below_zero_is_told_as_it_is_by_compiled_code_too() {
    let cluster = Cluster::start("jit = on\njit_above_cost = 0\n");
    let mut client = cluster.platform();
    fail(&mut client, "-5", 1);
    assert_eq!(removed(&mut client), [(Some(-5), 1)]);
}

#[test]
fn a_row_whose_recipe_changes_while_the_run_waits_for_it_is_counted_as_it_went() {
    let cluster = Cluster::start("");
    let mut client = cluster.platform();
    fail(&mut client, "1", 1);
    client.batch_execute("UPDATE backlog_cleanup.target SET lock_timeout = '1 minute'").unwrap();
    client.batch_execute("BEGIN; UPDATE generations SET recipe_id = 2").unwrap();
    thread::scope(|scope| {
        let run = scope.spawn(|| removed(&mut cluster.connect()));
        until_true(&mut cluster.connect(), "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted)");
        client.batch_execute("COMMIT").unwrap();
        assert_eq!(run.join().unwrap(), [(Some(2), 1)]);
    });
}

#[test]
fn a_run_in_a_trigger_of_another_counts_its_own_rows() {
    let cluster = Cluster::start("");
    let mut client = cluster.platform();
    fail(&mut client, "7", 3);
    client
        .batch_execute(
            "CREATE TABLE inner_generations (LIKE generations INCLUDING ALL);
             INSERT INTO inner_generations TABLE generations;
             TRUNCATE generations RESTART IDENTITY;
             INSERT INTO backlog_cleanup.target (name, generations_table) VALUES ('inner', 'public.inner_generations');
             CREATE FUNCTION clean() RETURNS trigger LANGUAGE plpgsql AS
             $$BEGIN PERFORM backlog_cleanup_emergency('inner'); RETURN OLD; END$$;
             CREATE TRIGGER clean BEFORE DELETE ON generations FOR EACH ROW WHEN (OLD.id = 5) EXECUTE FUNCTION clean()",
        )
        .unwrap();
    fail(&mut client, "i % 2", 10);
    assert_eq!(removed(&mut client), [(Some(0), 5), (Some(1), 5)]);
    let inner = "SELECT cleaned_count FROM backlog_cleanup.run JOIN backlog_cleanup.run_recipe ON run_id = id
                 WHERE target = 'inner'";
    assert_eq!(number(&mut client, inner), 3);
}

#[test]
fn what_a_rule_makes_something_else_of_is_not_counted_as_removed() {
    let cluster = Cluster::start("");
    let mut client = cluster.platform();
    fail(&mut client, "1", 3);
    for action in ["UPDATE generations SET status = 'hidden' WHERE id = OLD.id", "NOTIFY removed", "NOTHING"] {
        client
            .batch_execute(&format!("CREATE OR REPLACE RULE soft AS ON DELETE TO generations DO INSTEAD {action}"))
            .unwrap();
        let kept_back = number(&mut client, "SELECT (backlog_cleanup_emergency() ->> 'keptBackCount')::int");
        assert_eq!(kept_back, 3, "{action}");
        assert_eq!(number(&mut client, "SELECT count(*) FROM generations WHERE status = 'failed'"), 3, "{action}");
    }
}

/// A table of an enum, whose rows up to 5 are failed. Its code swaps the labels at a call of `turn`, or waits there for somebody who does.
const SWAPPED: &str = "
    DROP TABLE IF EXISTS public.job; DROP TYPE IF EXISTS public.state;
    CREATE TYPE public.state AS ENUM ('failed', 'done');
    CREATE TABLE public.job (id int PRIMARY KEY, owner text DEFAULT 'w', queue int DEFAULT 1, state public.state,
                             at timestamptz DEFAULT now() - interval '9 days', error text);
    INSERT INTO job (id, state) SELECT id, CASE WHEN id <= 5 THEN 'failed' ELSE 'done' END::public.state FROM generate_series(1, 100) id;
    ALTER TYPE public.state OWNER TO app; ALTER TABLE public.job OWNER TO app;
    SELECT setval('public.calls', 1, false)";

const SWAP: &str = "
    ALTER TYPE public.state RENAME VALUE 'failed' TO 'x'; ALTER TYPE public.state RENAME VALUE 'done' TO 'failed';
    ALTER TYPE public.state RENAME VALUE 'x' TO 'done'";

#[test]
fn rows_of_another_status_stay_at_whatever_moment_its_label_is_swapped() {
    let cluster = Cluster::start("");
    let mut client = cluster.connect();
    client
        .batch_execute(&format!(
            "CREATE EXTENSION backlog_cleanup; CREATE ROLE app; GRANT USAGE, CREATE ON SCHEMA public TO app; SET ROLE app;
             CREATE SEQUENCE public.calls; CREATE TABLE public.turn (call int, by_itself boolean); INSERT INTO turn VALUES (0, true);
             CREATE FUNCTION public.swap() RETURNS void LANGUAGE plpgsql AS $$
                 BEGIN
                     IF nextval('public.calls') <> (SELECT call FROM public.turn) THEN RETURN; END IF;
                     IF NOT (SELECT by_itself FROM public.turn) THEN PERFORM pg_advisory_xact_lock_shared(7); RETURN; END IF;
                     {SWAP};
                 END $$;
             CREATE FUNCTION public.kind(text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS
                 $$BEGIN PERFORM public.swap(); RETURN 'k'; END$$;
             RESET ROLE; {SWAPPED};
             INSERT INTO backlog_cleanup.target (name, generations_table, recipes_table, users_table, ledger_table, account_column,
                                                 recipe_column, status_column, failed_at_column, failure_type_column, account,
                                                 completed_status, pending_status, processing_status, fingerprint)
             VALUES ('t', 'public.job', NULL, NULL, NULL, 'owner', 'queue', 'state', 'at', '(public.kind(error))', 'w', NULL, NULL, NULL, false)"
        ))
        .unwrap_or_else(|failure| panic!("{failure:?}"));
    for call in ["SELECT backlog_cleanup_emergency('t')", "CALL backlog_cleanup_run('t', 'emergency', batch_size => 2)"]
    {
        client.batch_execute(SWAPPED).unwrap();
        client.batch_execute(call).unwrap();
        let there = "SELECT count(*) FROM job";
        assert_eq!(number(&mut client, there), 95, "{call}");
        let calls = number(&mut client, "SELECT last_value FROM calls");
        assert!(calls >= 5, "{call}: {calls}");
        let mut at_work = false;
        for (turn, by_itself) in (1..=calls).flat_map(|turn| [(turn, true), (turn, false)]) {
            client
                .batch_execute(&format!("{SWAPPED}; UPDATE turn SET (call, by_itself) = ({turn}, {by_itself})"))
                .unwrap();
            let mut other = cluster.connect();
            other.batch_execute("SELECT pg_advisory_lock(7)").unwrap();
            thread::scope(|scope| {
                let run = scope.spawn(|| cluster.connect().batch_execute(call));
                if !by_itself {
                    let waits = "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted)";
                    until_true(&mut client, waits);
                    other.batch_execute(SWAP).unwrap();
                    other.batch_execute("SELECT pg_advisory_unlock(7)").unwrap();
                }
                at_work |= run.join().unwrap().is_err();
            });
            let stays = "SELECT count(*) FROM job WHERE id > 5";
            assert_eq!(number(&mut client, stays), 95, "{call}, call {turn}, {by_itself}");
        }
        assert!(at_work, "{call}");
        client.batch_execute("UPDATE turn SET call = 0").unwrap();
    }
}
