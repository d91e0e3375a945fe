//! Code that removes, moves or changes rows while a run is at work.

use cluster::{Cluster, number, refused, veto};

use super::{JOB, RUNS, all, run};

#[test]
fn a_row_that_a_trigger_removes_itself_is_counted() {
    let cluster = Cluster::start("max_worker_processes = 16\n");
    let mut client = cluster.platform();
    client.batch_execute(JOB).unwrap();
    client
        .batch_execute(
            "CREATE TABLE saved AS TABLE job;
             CREATE FUNCTION itself() RETURNS trigger LANGUAGE plpgsql AS $$
                 BEGIN
                     IF pg_trigger_depth() = 2 OR OLD.id % 3 > 0 THEN RETURN OLD; END IF;
                     UPDATE job SET error = repeat('x', 3000) WHERE id = OLD.id; DELETE FROM job WHERE id = OLD.id; RETURN NULL;
                 END $$;
             CREATE TRIGGER itself BEFORE DELETE ON job FOR EACH ROW EXECUTE FUNCTION itself()",
        )
        .unwrap();
    for call in RUNS {
        client.batch_execute("TRUNCATE job; INSERT INTO job TABLE saved").unwrap();
        let (removed, kept_back, ..) = run(&mut client, call);
        assert_eq!((removed, kept_back), (all(call), 0), "{call}");
    }
}

#[test]
fn a_run_whose_ledger_takes_rows_of_the_target_is_refused() {
    let cluster = Cluster::start("max_worker_processes = 16\n");
    let mut client = cluster.platform();
    client.batch_execute(JOB).unwrap();
    client
        .batch_execute("INSERT INTO job (id, state) VALUES (1000, 'completed'); CREATE TABLE saved AS TABLE job")
        .unwrap();
    for take in ["DELETE FROM public.job WHERE state = 'completed'", "TRUNCATE public.job"] {
        client
            .batch_execute(&format!(
                "CREATE OR REPLACE FUNCTION take() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN {take}; RETURN NEW; END$$;
                 CREATE OR REPLACE TRIGGER take BEFORE INSERT ON credit_transactions FOR EACH ROW EXECUTE FUNCTION take()"
            ))
            .unwrap();
        for call in RUNS {
            client.batch_execute("TRUNCATE job; INSERT INTO job TABLE saved").unwrap();
            let (sqlstate, message, _) = refused(client.batch_execute(call));
            assert!(
                sqlstate == "27000" && message.contains("code of ledger \"public.credit_transactions\" deletes rows"),
                "{call}: {take}: {sqlstate} {message}"
            );
            assert_eq!(number(&mut client, "SELECT count(*) FROM job"), 101, "{call}: {take}");
        }
    }
}

#[test]
fn a_table_that_code_of_the_run_has_made_anew_is_not_truncated_unseen() {
    let cluster = Cluster::start("");
    let mut client = cluster.platform();
    client.batch_execute(JOB).unwrap();
    client
        .batch_execute(
            "ALTER TABLE job RENAME TO saved; UPDATE saved SET state = 'completed' WHERE id = 7;
             CREATE TABLE job (LIKE saved) PARTITION BY RANGE (id);
             CREATE TABLE p1 PARTITION OF job FOR VALUES FROM (0) TO (50); CREATE INDEX p1i ON p1 (id);
             CREATE TABLE p2 PARTITION OF job FOR VALUES FROM (50) TO (1000);
             CREATE FUNCTION rewrite() RETURNS trigger LANGUAGE plpgsql AS
             $$BEGIN IF OLD.id = 60 THEN CLUSTER public.p1 USING p1i; END IF; RETURN OLD; END$$;
             CREATE TRIGGER rewrite AFTER DELETE ON p2 FOR EACH ROW EXECUTE FUNCTION rewrite();
             CREATE FUNCTION take() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN TRUNCATE public.p1; RETURN NEW; END$$;
             CREATE TRIGGER take BEFORE INSERT ON credit_transactions FOR EACH ROW EXECUTE FUNCTION take()",
        )
        .unwrap();
    for call in &RUNS[..4] {
        client.batch_execute("TRUNCATE job; INSERT INTO job TABLE saved").unwrap();
        let (sqlstate, message, _) = refused(client.batch_execute(call));
        assert!(sqlstate == "27000" && message.contains("deletes rows of the target"), "{call}: {sqlstate} {message}");
        assert_eq!(number(&mut client, "SELECT count(*) FROM job WHERE id = 7"), 1, "{call}");
    }
}

#[test]
fn a_row_that_takes_others_along_stays() {
    let cluster = Cluster::start("max_worker_processes = 16\n");
    let mut client = cluster.platform();
    client.batch_execute(JOB).unwrap();
    // Row 1000 is completed, 100 among the newest; the trigger's own errors, which it catches, count for nothing.
    client
        .batch_execute(
            "SET track_counts = off; INSERT INTO job (id, state) VALUES (1000, 'completed');
             ALTER TABLE job ADD parent int; UPDATE job SET parent = 30 WHERE id IN (100, 1000);
             CREATE TABLE saved AS TABLE job;
             CREATE FUNCTION take() RETURNS trigger LANGUAGE plpgsql AS $$
                 BEGIN
                     BEGIN DELETE FROM job WHERE id = 99; PERFORM 1 / 0; EXCEPTION WHEN division_by_zero THEN NULL; END;
                     DELETE FROM job WHERE parent = OLD.id; RETURN NULL;
                 END $$;
             CREATE FUNCTION take_all() RETURNS trigger LANGUAGE plpgsql AS $$
                 BEGIN DELETE FROM job USING gone WHERE job.parent = gone.id; RETURN NULL; END $$",
        )
        .unwrap();
    for (ways, of_foreign_key) in [
        ("CREATE TRIGGER take AFTER DELETE ON job FOR EACH ROW EXECUTE FUNCTION take()", false),
        (
            "CREATE TRIGGER take AFTER DELETE ON job REFERENCING OLD TABLE AS gone FOR EACH STATEMENT
             WHEN (pg_trigger_depth() = 0) EXECUTE FUNCTION take_all()",
            false,
        ),
        ("ALTER TABLE job ADD CONSTRAINT take FOREIGN KEY (parent) REFERENCES job ON DELETE CASCADE", true),
    ] {
        client.batch_execute(ways).unwrap();
        for call in RUNS {
            client.batch_execute("TRUNCATE job; INSERT INTO job TABLE saved").unwrap();
            let (removed, kept_back, sqlstate, message, row) = run(&mut client, call);
            let there = "SELECT count(*) FROM job WHERE id IN (30, 1000)";
            assert_eq!(number(&mut client, there), 2, "{ways}, {call}: {message:?}");
            assert_eq!((removed, kept_back), (all(call) - 1, 1), "{ways}, {call}: {message:?}");
            assert_eq!(
                (sqlstate.as_deref(), row.as_deref()),
                (Some("27000"), Some("30")),
                "{ways}, {call}: {message:?}"
            );
        }
        let drop = if of_foreign_key { "ALTER TABLE job DROP CONSTRAINT take" } else { "DROP TRIGGER take ON job" };
        client.batch_execute(drop).unwrap();
    }
}

#[test]
fn rows_that_the_run_itself_moves_go() {
    let cluster = Cluster::start("max_worker_processes = 16\n");
    let mut client = cluster.platform();
    client.batch_execute(JOB).unwrap();
    client
        .batch_execute(
            "INSERT INTO job (id, at, error) SELECT i, now() - interval '9 days', repeat('x', 300) FROM generate_series(1001, 3000) i;
             ALTER TABLE job SET (fillfactor = 40); ALTER TABLE job ADD other int; CREATE INDEX ON job (other);
             UPDATE job SET other = CASE WHEN id % 2 = 0 THEN id - 1 ELSE id + 1 END; CREATE TABLE saved AS TABLE job;
             CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS $$
                 BEGIN UPDATE job SET other = NULL, error = error || 'y' WHERE id = OLD.id + 1000; RETURN NULL; END $$;
             CREATE FUNCTION touch_later() RETURNS trigger LANGUAGE plpgsql AS $$
                 BEGIN
                     IF OLD.id % 50 = 1 AND EXISTS (SELECT FROM job WHERE id % 50 = 2 AND id > 1000) THEN RETURN NULL; END IF;
                     UPDATE job SET other = NULL WHERE id = OLD.id + 1000; RETURN OLD;
                 END $$",
        )
        .unwrap();
    for (way, drop) in [
        // Some rows go only in a later pass; then a batch looks for more rows than are left.
        (
            "CREATE TRIGGER touch BEFORE DELETE ON job FOR EACH ROW EXECUTE FUNCTION touch_later()",
            "DROP TRIGGER touch ON job",
        ),
        ("CREATE TRIGGER touch AFTER DELETE ON job FOR EACH ROW EXECUTE FUNCTION touch()", "DROP TRIGGER touch ON job"),
        (
            "ALTER TABLE job ADD CONSTRAINT touch FOREIGN KEY (other) REFERENCES job ON DELETE SET NULL",
            "ALTER TABLE job DROP CONSTRAINT touch",
        ),
    ] {
        client.batch_execute(way).unwrap();
        for (call, was_updated) in RUNS.into_iter().flat_map(|call| [(call, false), (call, true)]) {
            client.batch_execute("TRUNCATE job; INSERT INTO job SELECT * FROM saved ORDER BY md5(id::text)").unwrap();
            if was_updated {
                // Then their positions are those of heap-only tuples.
                for statement in ["VACUUM FULL job", "UPDATE job SET queue = queue", "VACUUM job"] {
                    client.batch_execute(statement).unwrap();
                }
            }
            let (removed, kept_back, _, message, _) = run(&mut client, &call.replace("=> 10,", "=> 100,"));
            assert_eq!((removed, kept_back), (all(call) + 2000, 0), "{way}, {call}, {was_updated}: {message:?}");
        }
        client.batch_execute(drop).unwrap();
    }
}

#[test]
fn rows_that_a_trigger_of_another_table_gives_another_rank_before_their_turn_stay() {
    let cluster = Cluster::start("");
    let mut client = cluster.platform();
    client.batch_execute(JOB).unwrap();
    client
        .batch_execute(
            "CREATE TABLE part () INHERITS (job) WITH (fillfactor = 50); CREATE TABLE saved AS TABLE job;
             CREATE FUNCTION change() RETURNS trigger LANGUAGE plpgsql AS
                 $$BEGIN EXECUTE 'UPDATE part SET ' || TG_ARGV[0]; RETURN OLD; END$$",
        )
        .unwrap();
    for change in ["queue = id", "at = at + interval ''2 minutes'' * (1000 - id)"] {
        for call in [RUNS[0], RUNS[2]] {
            client
                .batch_execute(&format!(
                    "TRUNCATE job; INSERT INTO job TABLE saved;
                     INSERT INTO part SELECT 200 + id, owner, 'b', state, at FROM saved WHERE id <= 40;
                     CREATE TRIGGER change BEFORE DELETE ON job FOR EACH ROW WHEN (OLD.id = 1) EXECUTE FUNCTION change('{change}')"
                ))
                .unwrap();
            let (removed, kept_back, ..) = run(&mut client, call);
            assert_eq!((removed, kept_back), (90, 30), "{change}, {call}");
            assert_eq!(number(&mut client, "SELECT count(*) FROM part"), 40, "{change}, {call}");
            client.batch_execute("DROP TRIGGER change ON job").unwrap();
        }
    }
}

#[test]
fn rows_whose_recipe_a_transaction_changes_that_began_before_a_batched_run_stay() {
    let cluster = Cluster::start("");
    let mut client = cluster.platform();
    client.batch_execute(JOB).unwrap();
    // With room on its page a row stays there when it is updated, and the page's LSN is from before the ranks.
    for statement in ["ALTER TABLE job SET (fillfactor = 40)", "VACUUM FULL job"] {
        client.batch_execute(statement).unwrap();
    }
    let mut other = cluster.connect();
    other.batch_execute("BEGIN; UPDATE job SET queue = id WHERE id > 40").unwrap();
    let start = r#"SELECT backlog_cleanup.start_run('{"target": "t", "mode": "regular", "batch_size": 1000, "pause": "0",
                                                      "workers": 1, "force": false, "include_held": false}')"#;
    let run = number(&mut client, start);
    other.batch_execute("COMMIT").unwrap();
    client.batch_execute(&format!("SELECT backlog_cleanup.next_batch({run})")).unwrap();
    assert_eq!(number(&mut client, "SELECT count(*) FROM job"), 60);
}

#[test]
fn a_row_that_a_trigger_changes_instead_is_kept_back() {
    let cluster = Cluster::start("max_worker_processes = 16\n");
    let mut client = cluster.platform();
    client.batch_execute(JOB).unwrap();
    client
        .batch_execute(
            "CREATE TABLE saved AS TABLE job;
             CREATE FUNCTION soft() RETURNS trigger LANGUAGE plpgsql AS
                 $$BEGIN UPDATE job SET state = 'deleted' WHERE id = OLD.id; RETURN NULL; END$$;
             CREATE TRIGGER soft BEFORE DELETE ON job FOR EACH ROW WHEN (OLD.id % 3 = 0) EXECUTE FUNCTION soft()",
        )
        .unwrap();
    for call in RUNS {
        client.batch_execute("TRUNCATE job; INSERT INTO job TABLE saved").unwrap();
        let (removed, kept_back, _, message, _) = run(&mut client, call);
        let changed = all(call) / 3;
        assert_eq!((removed, kept_back), (all(call) - changed, changed), "{call}: {message:?}");
    }
}

#[test]
fn rows_that_a_trigger_changes_and_leaves_removable_are_kept_back_once_each() {
    let cluster = Cluster::start("max_worker_processes = 16\n");
    let mut client = cluster.platform();
    client.batch_execute(JOB).unwrap();
    client.batch_execute("CREATE TABLE saved AS TABLE job").unwrap();
    let every_third = "OLD.id % 3 = 0";
    for (stays, touched) in [
        ("true", "id = OLD.id"),
        (every_third, "id = OLD.id"),
        (every_third, "id % 3 = 0"),
        (every_third, "id BETWEEN OLD.id AND OLD.id + 9"),
        (every_third, "id BETWEEN OLD.id - 9 AND OLD.id"),
    ] {
        client
            .batch_execute(&format!(
                "CREATE OR REPLACE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS
                     $$BEGIN UPDATE job SET error = repeat(md5(id::text), 60) WHERE {touched}; RETURN NULL; END$$;
                 CREATE OR REPLACE TRIGGER touch BEFORE DELETE ON job FOR EACH ROW WHEN ({stays}) EXECUTE FUNCTION touch()"
            ))
            .unwrap();
        for call in RUNS {
            client.batch_execute("TRUNCATE job; INSERT INTO job TABLE saved").unwrap();
            let (removed, kept_back, ..) = run(&mut client, call);
            let stay = if stays == "true" { all(call) } else { all(call) / 3 };
            assert_eq!((removed, kept_back), (all(call) - stay, stay), "{call}: {stays}, {touched}");
        }
    }
}

#[test]
fn rows_that_a_trigger_moves_to_another_recipe_and_policy_are_kept_back_once_each() {
    let cluster = Cluster::start("max_worker_processes = 16\n");
    let mut client = cluster.platform();
    client.batch_execute(JOB).unwrap();
    client
        .batch_execute(
            "UPDATE job SET queue = 'q' || id % 5; CREATE TABLE saved AS TABLE job;
             UPDATE backlog_cleanup.policy SET keep = 0 WHERE target = 't';
             SELECT backlog_cleanup_set_policy('q1', max_age => '1 day', keep => 0, target => 't');
             CREATE FUNCTION move() RETURNS trigger LANGUAGE plpgsql AS
                 $$BEGIN UPDATE job SET queue = 'q' || (substr(OLD.queue, 2)::int + 1) % 5 WHERE id = OLD.id; RETURN NULL; END$$;
             CREATE TRIGGER move BEFORE DELETE ON job FOR EACH ROW WHEN (OLD.id % 3 = 0) EXECUTE FUNCTION move()",
        )
        .unwrap();
    for call in RUNS {
        client.batch_execute("TRUNCATE job; INSERT INTO job TABLE saved").unwrap();
        let (removed, kept_back, ..) = run(&mut client, call);
        assert_eq!((removed, kept_back), (67, 33), "{call}");
    }
}

#[test]
fn a_row_that_the_trigger_of_another_takes_out_of_the_run_is_kept_back() {
    let cluster = Cluster::start("max_worker_processes = 16\n");
    let mut client = cluster.platform();
    client.batch_execute(JOB).unwrap();
    client.batch_execute("CREATE TABLE saved AS TABLE job").unwrap();
    for change in ["at = now() + interval '1 day'", "state = 'running'", "queue = 'new'"] {
        client
            .batch_execute(&format!(
                "CREATE OR REPLACE FUNCTION other() RETURNS trigger LANGUAGE plpgsql AS
                     $$BEGIN UPDATE job SET {change} WHERE id = OLD.id + 50 AND id % 2 = 0; RETURN OLD; END$$;
                 CREATE OR REPLACE TRIGGER other BEFORE DELETE ON job FOR EACH ROW EXECUTE FUNCTION other()"
            ))
            .unwrap();
        for call in RUNS {
            client.batch_execute("TRUNCATE job; INSERT INTO job TABLE saved").unwrap();
            let (removed, kept_back, _, message, _) = run(&mut client, call);
            // An emergency run removes a row whatever its recipe and its age. Workers meet rows in any order.
            let is_regular = !call.contains("emergency");
            let stay = match change {
                "state = 'running'" => true,
                _ => is_regular,
            };
            assert_eq!(removed + kept_back, all(call), "{change}, {call}: {message:?}");
            if !call.contains("workers") {
                let right = match (stay, is_regular) {
                    (false, _) => 0,
                    (true, true) => 20,
                    (true, false) => 25,
                };
                assert_eq!(kept_back, right, "{change}, {call}: {message:?}");
            }
        }
    }
}

#[test]
fn a_row_that_goes_as_one_of_another_recipe_is_counted_once() {
    let cluster = Cluster::start("max_worker_processes = 16\n");
    let mut client = cluster.platform();
    client.batch_execute(JOB).unwrap();
    client
        .batch_execute(
            "UPDATE job SET queue = 'q' || id % 2; CREATE TABLE saved AS TABLE job;
             CREATE FUNCTION other() RETURNS trigger LANGUAGE plpgsql AS
                 $$BEGIN UPDATE job SET queue = 'new' WHERE id = OLD.id + 50; RETURN OLD; END$$;
             CREATE TRIGGER other BEFORE DELETE ON job FOR EACH ROW EXECUTE FUNCTION other()",
        )
        .unwrap();
    for call in RUNS.into_iter().filter(|call| call.contains("emergency")) {
        client.batch_execute("TRUNCATE job; INSERT INTO job TABLE saved").unwrap();
        assert_eq!(run(&mut client, call).0, 100, "{call}");
        let counted = "SELECT total_failed - removed - kept_back FROM backlog_cleanup.run ORDER BY id DESC LIMIT 1";
        assert_eq!(number(&mut client, counted), 0, "{call}");
        let kept = "SELECT sum(failed_count - cleaned_count) FROM backlog_cleanup.run_recipe WHERE run_id = (SELECT max(id) FROM backlog_cleanup.run)";
        assert_eq!(number(&mut client, kept), 0, "{call}");
    }
}

#[test]
fn an_emergency_run_removes_no_more_rows_than_there_were() {
    let cluster = Cluster::start("max_worker_processes = 16\n");
    let mut client = cluster.platform();
    client.batch_execute(JOB).unwrap();
    client
        .batch_execute(
            "INSERT INTO job (id, state) SELECT i, 'completed' FROM generate_series(1001, 2000) i; CREATE TABLE saved AS TABLE job;
             CREATE SEQUENCE again START 10000;
             CREATE FUNCTION again() RETURNS trigger LANGUAGE plpgsql AS $$
                 BEGIN
                     INSERT INTO job (id) VALUES (nextval('again')); UPDATE job SET state = 'failed' WHERE id = OLD.id + 1500;
                     RETURN NULL;
                 END $$;
             CREATE TRIGGER again AFTER DELETE ON job FOR EACH ROW EXECUTE FUNCTION again(); GRANT ALL ON SEQUENCE again TO PUBLIC",
        )
        .unwrap();
    veto(&mut client, "job", "OLD.id = 40");
    for call in RUNS.into_iter().filter(|call| call.contains("emergency")) {
        client.batch_execute("TRUNCATE job; INSERT INTO job TABLE saved; TRUNCATE credit_transactions").unwrap();
        client.batch_execute(call).unwrap();
        // A batch also takes what has failed since, up to the end of the table as it was.
        let removed = number(&mut client, "SELECT sum(amount) FROM credit_transactions");
        assert!(if call.starts_with("CALL") { removed < 1000 } else { removed == 99 }, "{call}: {removed}");
        assert_eq!(number(&mut client, "SELECT count(*) FROM job WHERE id <= 100"), 1, "{call}");
        assert_eq!(
            number(&mut client, "SELECT kept_back FROM backlog_cleanup.run ORDER BY id DESC LIMIT 1"),
            1,
            "{call}"
        );
    }
}

#[test]
fn a_row_for_which_an_expression_takes_others_along_stays_and_what_only_reads_takes_none() {
    let cluster = Cluster::start("max_worker_processes = 16\n");
    let mut client = cluster.platform();
    client.batch_execute(JOB).unwrap();
    // Nothing but the expressions' own code: no trigger, no rule, no foreign key.
    client
        .batch_execute(
            "INSERT INTO job (id, state) VALUES (1000, 'completed'); CREATE TABLE saved AS TABLE job;
             CREATE FUNCTION public.take(row_id int) RETURNS void LANGUAGE plpgsql AS
                 $$BEGIN IF row_id = 30 THEN DELETE FROM public.job WHERE job.id = 1000; END IF; END$$;
             CREATE FUNCTION public.takes(row_id int) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS
                 $$BEGIN PERFORM public.take(row_id); RETURN true; END$$;
             CREATE FUNCTION public.kind(row_id int) RETURNS text LANGUAGE plpgsql IMMUTABLE AS
                 $$BEGIN PERFORM public.take(row_id); RETURN 'k'; END$$",
        )
        .unwrap();
    for (of_target, stays) in [
        ("condition = 'public.takes(id)'", 1),
        ("condition = NULL, failure_type_column = '(public.kind(id))', fingerprint = false", 0),
    ] {
        client.batch_execute(&format!("UPDATE backlog_cleanup.target SET {of_target} WHERE name = 't'")).unwrap();
        for call in RUNS {
            client.batch_execute("TRUNCATE job; INSERT INTO job TABLE saved").unwrap();
            let (removed, kept_back, sqlstate, message, row) = run(&mut client, call);
            let there = "SELECT count(*) FROM job WHERE id = 1000";
            assert_eq!(number(&mut client, there), 1, "{of_target}, {call}: {message:?}");
            assert_eq!((removed, kept_back), (all(call) - stays, stays), "{of_target}, {call}: {message:?}");
            let reason = (sqlstate.as_deref(), row.as_deref());
            let expected = if stays > 0 { (Some("27000"), Some("30")) } else { (None, None) };
            assert_eq!(reason, expected, "{of_target}, {call}: {message:?}");
        }
    }
}

#[test]
fn a_row_for_which_code_empties_or_drops_a_part_of_the_table_stays() {
    let cluster = Cluster::start("max_worker_processes = 16\n");
    let mut client = cluster.platform();
    client.batch_execute(JOB).unwrap();
    // Row 130 is of the second part; the first has completed rows.
    client
        .batch_execute(
            "ALTER TABLE job RENAME TO single; CREATE TABLE job (LIKE single INCLUDING DEFAULTS) PARTITION BY RANGE (id);
             CREATE TABLE low PARTITION OF job FOR VALUES FROM (0) TO (100); CREATE TABLE high PARTITION OF job FOR VALUES FROM (100) TO (200);
             CREATE TABLE saved AS
                 SELECT id + 50 AS id, owner, queue, CASE WHEN id % 10 = 0 AND id < 50 THEN 'completed' ELSE state END AS state, at, error FROM single;
             CREATE FUNCTION trg() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN EXECUTE TG_ARGV[0]; RETURN OLD; END$$",
        )
        .unwrap();
    // The second TRUNCATE is in place.
    for way in ["TRUNCATE low", "TRUNCATE low; TRUNCATE low", "DROP TABLE low"] {
        client
            .batch_execute(&format!(
                "CREATE TRIGGER trg BEFORE DELETE ON high FOR EACH ROW WHEN (OLD.id = 130) EXECUTE FUNCTION trg('{way}')"
            ))
            .unwrap();
        for call in RUNS {
            client.batch_execute("TRUNCATE job; INSERT INTO job TABLE saved").unwrap();
            let (_, kept_back, sqlstate, message, row) = run(&mut client, call);
            let there = "SELECT count(*) FROM job WHERE id = 130 OR state = 'completed'";
            assert_eq!(number(&mut client, there), 5, "{way}, {call}: {message:?}");
            assert_eq!(
                (sqlstate.as_deref(), row.as_deref()),
                (Some("27000"), Some("130")),
                "{way}, {call}: {message:?}"
            );
            assert_eq!(kept_back, 1, "{way}, {call}");
        }
        client.batch_execute("DROP TRIGGER trg ON high").unwrap();
    }
}
