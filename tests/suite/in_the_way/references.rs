//! Rows that reference each other.

use cluster::{Cluster, number, until_true};
use postgres::Client;

use super::{JOB, RUNS, all, run};

/// Rows in chains: each but the first `step` references the one `step` before it.
fn chain(client: &mut Client, step: i32) {
    client
        .batch_execute(&format!(
            "ALTER TABLE job ADD parent int REFERENCES job;
             UPDATE job SET parent = id - {step} WHERE id > {step}; CREATE INDEX ON job (parent)"
        ))
        .unwrap();
}

#[test]
fn rows_that_rows_of_the_same_run_reference_go_with_them() {
    let cluster = Cluster::start("max_worker_processes = 16\n");
    let mut client = cluster.platform();
    client.batch_execute(JOB).unwrap();
    chain(&mut client, 20);
    client.batch_execute("CREATE TABLE saved AS TABLE job").unwrap();
    for order in ["id", "id DESC", "md5(id::text)"] {
        for call in RUNS {
            client
                .batch_execute(&format!("TRUNCATE job; INSERT INTO job SELECT * FROM saved ORDER BY {order}"))
                .unwrap();
            // The ten newest stay, and hold what they reference.
            let right = if call.contains("emergency") { (100, 0) } else { (50, 40) };
            let (removed, kept_back, sqlstate, ..) = run(&mut client, call);
            assert_eq!((removed, kept_back), right, "{order}, {call}");
            assert_eq!(sqlstate.as_deref(), (kept_back > 0).then_some("23503"), "{order}, {call}");
        }
    }
}

#[test]
fn chains_through_partitions_go_in_one_run() {
    let cluster = Cluster::start("max_worker_processes = 16\n");
    let mut client = cluster.platform();
    client
        .batch_execute(&JOB.replace("error text)", "error text) PARTITION BY HASH (id)").replace(
            "INSERT INTO job",
            "CREATE TABLE job_0 PARTITION OF job FOR VALUES WITH (MODULUS 2, REMAINDER 0) PARTITION BY HASH (id);
             CREATE TABLE job_00 PARTITION OF job_0 FOR VALUES WITH (MODULUS 4, REMAINDER 0);
             CREATE TABLE job_01 PARTITION OF job_0 FOR VALUES WITH (MODULUS 4, REMAINDER 2);
             CREATE TABLE job_1 PARTITION OF job FOR VALUES WITH (MODULUS 2, REMAINDER 1);
             INSERT INTO job",
        ))
        .unwrap();
    chain(&mut client, 20);
    client.batch_execute("CREATE TABLE saved AS TABLE job").unwrap();
    for call in RUNS {
        client.batch_execute("TRUNCATE job; INSERT INTO job TABLE saved").unwrap();
        let right = if call.contains("emergency") { (100, 0) } else { (50, 40) };
        let (removed, kept_back, ..) = run(&mut client, call);
        assert_eq!((removed, kept_back), right, "{call}");
    }
}

#[test]
fn a_pass_takes_what_another_row_held_in_the_pass_before() {
    let cluster = Cluster::start("max_worker_processes = 16\n");
    let mut client = cluster.platform();
    client.batch_execute(JOB).unwrap();
    // No foreign key says that row 7 waits for row 60, and 60 for 61.
    client
        .batch_execute(
            "CREATE TABLE saved AS TABLE job;
             CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS $$
                 BEGIN
                     IF EXISTS (SELECT FROM public.job WHERE id = CASE OLD.id WHEN 7 THEN 60 ELSE 61 END) THEN
                         RAISE 'not yet';
                     END IF;
                     RETURN OLD;
                 END $$;
             CREATE TRIGGER wait BEFORE DELETE ON job FOR EACH ROW WHEN (OLD.id IN (7, 60)) EXECUTE FUNCTION wait()",
        )
        .unwrap();
    for call in RUNS {
        client.batch_execute("TRUNCATE job; INSERT INTO job TABLE saved").unwrap();
        let all = if call.contains("emergency") { 100 } else { 90 };
        let (removed, kept_back, ..) = run(&mut client, call);
        assert_eq!((removed, kept_back), (all, 0), "{call}");
    }
}

#[test]
fn rows_that_hold_each_other_through_another_table_go() {
    let cluster = Cluster::start("max_worker_processes = 16\n");
    let mut client = cluster.platform();
    client.batch_execute(JOB).unwrap();
    client
        .batch_execute(
            "INSERT INTO job (id, at) SELECT i, now() - interval '9 days' + i * interval '1 minute' FROM generate_series(101, 3000) i;
             CREATE TABLE attempt (id int PRIMARY KEY, job int REFERENCES job ON DELETE CASCADE); CREATE INDEX ON attempt (job);
             ALTER TABLE job ADD repeats int REFERENCES attempt; CREATE INDEX ON job (repeats);
             INSERT INTO attempt SELECT id, id FROM job; UPDATE job SET repeats = id - 100 WHERE id > 100;
             CREATE TABLE saved AS TABLE job; CREATE TABLE saved_attempt AS TABLE attempt",
        )
        .unwrap();
    for call in [RUNS[0], "CALL backlog_cleanup_run('t', batch_size => 500)"] {
        client
            .batch_execute(
                "ALTER TABLE job DROP CONSTRAINT job_repeats_fkey; TRUNCATE job CASCADE; INSERT INTO job TABLE saved;
                 INSERT INTO attempt TABLE saved_attempt; ALTER TABLE job ADD FOREIGN KEY (repeats) REFERENCES attempt",
            )
            .unwrap();
        // The ten newest stay, and hold what they repeat.
        let (removed, kept_back, ..) = run(&mut client, call);
        assert_eq!((removed, kept_back), (2700, 290), "{call}");
    }
}

/// 6,000 rows in chains of 50, each of which references the one before. `refused` says which rows a trigger keeps.
fn chains_with(client: &mut Client, refused: &str) {
    client.batch_execute(JOB).unwrap();
    client
        .batch_execute(&format!(
            "INSERT INTO job (id, at) SELECT i, now() - interval '9 days' + i * interval '1 minute' FROM generate_series(101, 6000) i;
             ALTER TABLE job ADD parent int REFERENCES job; UPDATE job SET parent = id - 1 WHERE id % 50 <> 1;
             CREATE INDEX ON job (parent); CREATE TABLE saved AS TABLE job;
             CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN IF {refused} THEN RAISE ''no''; END IF; RETURN OLD; END';
             CREATE TRIGGER refuse BEFORE DELETE ON job FOR EACH ROW EXECUTE FUNCTION refuse()"
        ))
        .unwrap();
}

#[test]
fn what_a_refused_row_references_is_kept_back_untried_and_all_else_goes() {
    let cluster = Cluster::start("max_worker_processes = 16\n");
    let mut client = cluster.platform();
    let refused = "OLD.id <= 500 OR OLD.id % 20 = 0";
    chains_with(&mut client, refused);
    // A row stays with each row behind it in its chain that stays.
    let right = |newest: i32| {
        format!(
            "SELECT count(*) FROM saved o WHERE NOT EXISTS (
                 SELECT FROM saved b WHERE b.id >= o.id AND (b.id - 1) / 50 = (o.id - 1) / 50
                                       AND ({} OR b.id > 6000 - {newest}))",
            refused.replace("OLD", "b")
        )
    };
    let (regular, emergency) = (number(&mut client, &right(10)), number(&mut client, &right(0)));
    let calls = ["CALL backlog_cleanup_run('t')", "CALL backlog_cleanup_run('t', batch_size => 500, workers => 3)"];
    for call in [RUNS[0], RUNS[1]].into_iter().chain(calls) {
        client.batch_execute("TRUNCATE job; INSERT INTO job TABLE saved").unwrap();
        let most = if call.contains("emergency") { emergency } else { regular };
        let (removed, kept_back, ..) = run(&mut client, call);
        let scope = if call.contains("emergency") { 6000 } else { 5990 };
        assert!((most - most / 50..=most).contains(&removed), "{call}: {removed} of {most}");
        assert_eq!(removed + kept_back, scope, "{call}");
    }
}

#[test]
fn workers_that_meet_rows_of_each_others_parts_remove_all_in_one_run() {
    let cluster = Cluster::start("max_worker_processes = 16\n");
    let mut client = cluster.platform();
    chains_with(&mut client, "false");
    for (call, right) in [
        ("CALL backlog_cleanup_run('t', batch_size => 2000, workers => 3)", (5950, 40)),
        ("CALL backlog_cleanup_run('t', 'emergency', batch_size => 200, workers => 3)", (6000, 0)),
    ] {
        client.batch_execute("TRUNCATE job; INSERT INTO job TABLE saved").unwrap();
        let (removed, kept_back, ..) = run(&mut client, call);
        assert_eq!((removed, kept_back), right, "{call}");
    }
}

/// `rows` rows, of which each but the first `step` has the one `step` before it as its parent: no key says so, but a trigger that keeps
/// rows with children. Statements are counted.
fn held_by_a_trigger(client: &mut Client, rows: i32, step: i32, order: &str) {
    client
        .batch_execute(&format!(
            "DROP TRIGGER IF EXISTS has_children ON job; DROP TRIGGER IF EXISTS count ON job; TRUNCATE job;
             ALTER TABLE job ADD IF NOT EXISTS parent int; CREATE INDEX IF NOT EXISTS job_parent ON job (parent);
             INSERT INTO job (id, at, parent)
             SELECT i, now() - interval '9 days' + i * interval '1 second', nullif(greatest(i - {step}, 0), 0)
             FROM generate_series(1, {rows}) i ORDER BY {order};
             CREATE SEQUENCE IF NOT EXISTS statements; ALTER SEQUENCE statements RESTART;
             CREATE OR REPLACE FUNCTION count_up() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS
                 $$BEGIN PERFORM nextval('public.statements'); RETURN NULL; END$$;
             CREATE OR REPLACE FUNCTION has_children() RETURNS trigger LANGUAGE plpgsql AS $$
                 BEGIN
                     IF EXISTS (SELECT FROM public.job WHERE parent = OLD.id) THEN RAISE 'it has children'; END IF; RETURN OLD;
                 END $$;
             CREATE TRIGGER count BEFORE DELETE ON job FOR EACH STATEMENT EXECUTE FUNCTION count_up();
             CREATE TRIGGER has_children BEFORE DELETE ON job FOR EACH ROW EXECUTE FUNCTION has_children()"
        ))
        .unwrap();
}

#[test]
fn what_a_pass_gave_up_goes_once_what_held_it_has_gone() {
    let cluster = Cluster::start("max_worker_processes = 16\n");
    let mut client = cluster.platform();
    client.batch_execute(JOB).unwrap();
    for (rows, step, orders, calls) in [
        (
            5_000,
            100,
            &["i", "i DESC"][..],
            &[
                RUNS[0],
                "CALL backlog_cleanup_run('t', batch_size => 500)",
                "CALL backlog_cleanup_run('t', batch_size => 200)",
                "CALL backlog_cleanup_run('t', batch_size => 500, workers => 3)",
                "CALL backlog_cleanup_run('t', 'emergency', batch_size => 500)",
                "CALL backlog_cleanup_run('t', 'emergency', batch_size => 500, workers => 3)",
            ][..],
        ),
        (5_000, 50, &["i"], &[RUNS[0], RUNS[1], "CALL backlog_cleanup_run('t', batch_size => 500)"]),
        (
            30_000,
            500,
            &["i"],
            &[
                RUNS[0],
                "CALL backlog_cleanup_run('t')",
                "CALL backlog_cleanup_run('t', batch_size => 1000, workers => 2)",
            ],
        ),
        (30_000, 50, &["i"], &["CALL backlog_cleanup_run('t')"]),
    ] {
        for order in orders {
            for call in calls {
                held_by_a_trigger(&mut client, rows, step, order);
                // The ten newest stay, with the ten chains that they end.
                let right = match call.contains("emergency") {
                    true => (i64::from(rows), 0),
                    false => (i64::from(rows - 10 * rows / step), i64::from(10 * rows / step - 10)),
                };
                let (removed, kept_back, ..) = run(&mut client, call);
                let statements = number(&mut client, "SELECT last_value FROM statements");
                assert_eq!((removed, kept_back), right, "{rows} {step} {order}, {call}");
                assert!(statements < 8 * i64::from(rows), "{rows} {step} {order}, {call}: {statements}");
            }
        }
    }
}

#[test]
fn rows_that_hold_each_other_through_two_tables_go_in_batches() {
    let cluster = Cluster::start("max_worker_processes = 16\n");
    let mut client = cluster.platform();
    client.batch_execute(JOB).unwrap();
    client
        .batch_execute(
            "INSERT INTO job (id, at) SELECT i, now() - interval '9 days' + i * interval '1 minute' FROM generate_series(101, 3000) i;
             CREATE TABLE attempt (id int PRIMARY KEY, job int REFERENCES job ON DELETE CASCADE); CREATE INDEX ON attempt (job);
             CREATE TABLE step (id int PRIMARY KEY, attempt int REFERENCES attempt ON DELETE CASCADE); CREATE INDEX ON step (attempt);
             INSERT INTO attempt SELECT id, id FROM job; INSERT INTO step SELECT id, id FROM job;
             ALTER TABLE job ADD parent int REFERENCES step, ADD root int REFERENCES job; CREATE INDEX ON job (parent);
             CREATE INDEX ON job (root); CREATE TABLE saved AS TABLE job",
        )
        .unwrap();
    // The ten newest stay, and hold what they reference.
    for (parent, right) in [("id - 100", (2700, 290)), ("id + 100", (2990, 0))] {
        client
            .batch_execute(&format!(
                "TRUNCATE job CASCADE; INSERT INTO job TABLE saved; INSERT INTO attempt SELECT id, id FROM job;
                 INSERT INTO step SELECT id, id FROM job; UPDATE job SET parent = {parent} WHERE {parent} BETWEEN 1 AND 3000"
            ))
            .unwrap();
        client.batch_execute("VACUUM FULL job").unwrap();
        let (removed, kept_back, ..) = run(&mut client, "CALL backlog_cleanup_run('t', batch_size => 500)");
        assert_eq!((removed, kept_back), right, "{parent}");
    }
}

#[test]
fn a_second_run_removes_nothing_more_of_rows_that_refused_and_pinned_ones_hold() {
    let cluster = Cluster::start("max_worker_processes = 16\n");
    let mut client = cluster.platform();
    client.batch_execute(&JOB.replace("error text)", "error text) WITH (fillfactor = 50)")).unwrap();
    client
        .batch_execute(
            "INSERT INTO job (id, at) SELECT i, now() - interval '9 days' + i * interval '1 minute' FROM generate_series(101, 3000) i;
             ALTER TABLE job ADD parent int; UPDATE job SET parent = id - 40 WHERE id > 40; CREATE INDEX ON job (parent);
             CREATE TABLE pin (job int); CREATE TABLE saved AS TABLE job;
             CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
                 BEGIN
                     IF OLD.id <= 1000 THEN RAISE 'no'; END IF;
                     UPDATE public.job SET error = repeat('t', 200) WHERE id = OLD.id + 45; RETURN OLD;
                 END $$;
             CREATE TRIGGER refuse BEFORE DELETE ON job FOR EACH ROW EXECUTE FUNCTION refuse();
             ALTER TABLE job ADD FOREIGN KEY (parent) REFERENCES job; ALTER TABLE pin ADD FOREIGN KEY (job) REFERENCES job",
        )
        .unwrap();
    for every in [101, 7] {
        for call in [RUNS[0], RUNS[1], "CALL backlog_cleanup_run('t', batch_size => 100)"] {
            client
                .batch_execute(&format!(
                    "TRUNCATE job CASCADE; INSERT INTO job TABLE saved; INSERT INTO pin SELECT id FROM job WHERE id % {every} = 0"
                ))
                .unwrap();
            let (removed, kept_back, ..) = run(&mut client, call);
            let scope = if call.contains("emergency") { 3000 } else { 2990 };
            assert_eq!(removed + kept_back, scope, "{every}, {call}");
            assert_eq!(run(&mut client, call).0, 0, "{every}, {call}");
        }
    }
}

#[test]
fn where_all_removable_rows_are_held_they_stay_for_a_reason_and_what_nothing_holds_goes() {
    let cluster = Cluster::start("max_worker_processes = 16\n");
    let mut client = cluster.platform();
    client.batch_execute(JOB).unwrap();
    client
        .batch_execute(
            "DELETE FROM job WHERE id > 12; ALTER TABLE job ADD next int REFERENCES job, ADD other int REFERENCES job ON DELETE SET NULL;
             UPDATE job SET next = 2 WHERE id = 12; CREATE TABLE saved AS TABLE job",
        )
        .unwrap();
    for call in RUNS.iter().filter(|call| !call.contains("emergency")) {
        // Rows 1 and 2 are removable, and row 12 holds row 2.
        for (other, removable, gone) in [("1", "id > 0", 1), ("NULL", "id > 1", 0)] {
            client
                .batch_execute(&format!(
                    "TRUNCATE job; INSERT INTO job SELECT * FROM saved WHERE {removable};
                     UPDATE job SET other = {other} WHERE id = 2"
                ))
                .unwrap();
            let (removed, kept_back, sqlstate, _, row) = run(&mut client, call);
            assert_eq!((removed, kept_back), (gone, 1), "{other}, {call}");
            // Of two workers, the one that sees what holds the row may be the first.
            let is_tried = !call.contains("workers");
            assert!(
                !is_tried || (sqlstate.as_deref(), row.as_deref()) == (Some("23503"), Some("2")),
                "{other}, {call}: {sqlstate:?}"
            );
        }
    }
}

#[test]
fn no_row_goes_that_a_row_references_whose_cascade_a_trigger_refuses_without_an_error() {
    let in_two = "error text) PARTITION BY LIST (id); CREATE TABLE job_0 PARTITION OF job DEFAULT;
                  CREATE TABLE job_1 PARTITION OF job FOR VALUES IN (6, 17, 18, 33, 41, 99)";
    for table in ["error text)", in_two] {
        let cluster = Cluster::start("max_worker_processes = 16\n");
        let mut client = cluster.platform();
        client.batch_execute(&JOB.replace("error text)", table)).unwrap();
        // Chains of 10, in which each row references the one before; 41 and 42 reference each other. Row 4 is moved when row 33 goes.
        client
            .batch_execute(
                "ALTER TABLE job ADD next int REFERENCES job ON DELETE CASCADE, ADD aside int REFERENCES job ON DELETE SET NULL;
                 UPDATE job SET next = CASE id WHEN 41 THEN 42 ELSE id - 1 END WHERE id % 10 <> 1 OR id = 41;
                 CREATE INDEX ON job (next); CREATE TABLE saved AS TABLE job;
                 CREATE OR REPLACE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
                 CREATE TRIGGER refuse BEFORE DELETE ON job FOR EACH ROW WHEN (OLD.id IN (5, 18, 42)) EXECUTE FUNCTION refuse()",
            )
            .unwrap();
        for call in RUNS {
            let aside = if call.contains("workers") { "NULL" } else { "33" };
            client
                .batch_execute(&format!(
                    "TRUNCATE job; INSERT INTO job TABLE saved; UPDATE job SET aside = {aside} WHERE id = 4"
                ))
                .unwrap();
            let (removed, kept_back, ..) = run(&mut client, call);
            // Rows 1 to 5, 11 to 18, 41 and 42.
            assert_eq!((removed, kept_back), (all(call) - 15, 15), "{table}, {call}");
            let dangling = "SELECT count(*) FROM job WHERE next NOT IN (SELECT id FROM job)";
            assert_eq!(number(&mut client, dangling), 0, "{table}, {call}");
        }
    }
}

#[test]
fn what_another_session_does_to_chains_through_partitions_is_counted_once() {
    let cluster = Cluster::start("max_worker_processes = 16\n");
    let mut client = cluster.platform();
    let in_two = "error text) PARTITION BY LIST (id); CREATE TABLE job_0 PARTITION OF job DEFAULT;
                  CREATE TABLE job_1 PARTITION OF job FOR VALUES IN (6, 12, 14, 17, 18, 20, 33, 41)";
    client.batch_execute(&JOB.replace("error text)", in_two)).unwrap();
    client
        .batch_execute(
            "ALTER TABLE job ADD next int REFERENCES job; UPDATE job SET next = id - 1 WHERE id % 10 <> 1;
             CREATE INDEX ON job (next); CREATE TABLE saved AS TABLE job",
        )
        .unwrap();
    for (change, kept_back) in [
        // It leaves the scope, and holds the three before it.
        ("UPDATE job SET state = 'done' WHERE id = 14", 3),
        ("DELETE FROM job WHERE id = 20", 0),
    ] {
        for call in RUNS {
            client.batch_execute("TRUNCATE job; INSERT INTO job TABLE saved").unwrap();
            let mut other = cluster.connect();
            other.batch_execute(&format!("BEGIN; {change}")).unwrap();
            let mut watch = cluster.connect();
            let other = std::thread::spawn(move || {
                until_true(&mut watch, "SELECT count(*) > 0 FROM pg_locks WHERE NOT granted");
                other.batch_execute("COMMIT").unwrap();
            });
            client.batch_execute(call).unwrap();
            other.join().unwrap();
            let found = number(&mut client, "SELECT kept_back FROM backlog_cleanup.run ORDER BY id DESC LIMIT 1");
            assert_eq!(found, kept_back, "{change}, {call}");
        }
    }
}

#[test]
fn rows_that_a_row_of_another_table_holds_go_behind_the_rows_that_it_goes_with() {
    let cluster = Cluster::start("max_worker_processes = 16\n");
    let mut client = cluster.platform();
    client.batch_execute(JOB).unwrap();
    // Each row of ten needs the one before, and a young one needs row 50.
    client
        .batch_execute(
            "CREATE TABLE \"de%p\" (job int REFERENCES job ON DELETE CASCADE, needs int REFERENCES job);
             CREATE INDEX ON \"de%p\" (job); CREATE INDEX ON \"de%p\" (needs); CREATE TABLE saved AS TABLE job",
        )
        .unwrap();
    for order in ["id", "id DESC", "md5(id::text)"] {
        for call in RUNS {
            client
                .batch_execute(&format!(
                    "TRUNCATE job CASCADE; INSERT INTO job SELECT * FROM saved ORDER BY {order};
                     INSERT INTO \"de%p\" SELECT id, id - 1 FROM job WHERE id % 10 <> 1;
                     INSERT INTO \"de%p\" VALUES (95, 50)"
                ))
                .unwrap();
            let stay = if call.contains("emergency") { 0 } else { 10 };
            let (removed, kept_back, ..) = run(&mut client, call);
            assert_eq!((removed, kept_back), (all(call) - stay, stay), "{order}, {call}");
        }
    }
}

#[test]
fn a_chain_that_goes_from_partition_to_partition_costs_little_and_one_refused_row_keeps_only_what_it_references() {
    let cluster = Cluster::start("max_worker_processes = 16\n");
    let mut client = cluster.platform();
    client
        .batch_execute(
            &JOB.split("INSERT INTO job")
                .next()
                .unwrap()
                .replace("error text)", "error text) PARTITION BY LIST (id)")
                .replace("id int PRIMARY KEY", "id int, place int, next int, at_next int, PRIMARY KEY (place, id)")
                .replace("BY LIST (id)", "BY LIST (place)"),
        )
        .unwrap();
    let target = &JOB[JOB.find("INSERT INTO backlog_cleanup.target").unwrap()..];
    client
        .batch_execute(&format!(
            "CREATE TABLE job_0 PARTITION OF job FOR VALUES IN (0); CREATE TABLE job_1 PARTITION OF job FOR VALUES IN (1);
             INSERT INTO job (id, place, next, at_next, at)
             SELECT i, i % 2, CASE WHEN i > 1 THEN i - 1 END, CASE WHEN i > 1 THEN (i - 1) % 2 END, now() - interval '9 days'
             FROM generate_series(1, 3000) i;
             ALTER TABLE job ADD FOREIGN KEY (at_next, next) REFERENCES job (place, id); CREATE INDEX ON job (at_next, next);
             CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE ''no''; END';
             CREATE TRIGGER refuse BEFORE DELETE ON job FOR EACH ROW WHEN (OLD.id = 400) EXECUTE FUNCTION refuse();
             CREATE TABLE saved AS TABLE job; {target}; UPDATE backlog_cleanup.policy SET keep = 0 WHERE target = 't'"
        ))
        .unwrap();
    for call in RUNS {
        client.batch_execute("TRUNCATE job; INSERT INTO job TABLE saved").unwrap();
        let call = call.replace("batch_size => 10", "batch_size => 500");
        let (started, (removed, kept_back, ..)) = (std::time::Instant::now(), run(&mut client, &call));
        assert_eq!((removed, kept_back), (2_600, 400), "{call}");
        assert!(started.elapsed().as_secs() < 15, "{call}: {:?}", started.elapsed());
    }
}

#[test]
fn what_one_worker_frees_goes_though_another_has_looked_before() {
    let cluster = Cluster::start("max_worker_processes = 16\n");
    let mut client = cluster.platform();
    // Row 1 references row 2, and takes half a second. The other worker takes row 2 again a moment after that is committed, and has looked
    // a second before.
    client
        .batch_execute(&JOB.replace("error text)", "error text) PARTITION BY LIST (id)").replace(
            "INSERT INTO job",
            "CREATE TABLE job_1 PARTITION OF job FOR VALUES IN (1);
             CREATE TABLE job_2 PARTITION OF job DEFAULT;
             INSERT INTO job",
        ))
        .unwrap();
    client
        .batch_execute(
            "DELETE FROM job WHERE id NOT IN (1, 2, 100); UPDATE backlog_cleanup.policy SET keep = 1 WHERE target = 't';
             ALTER TABLE job ADD next int REFERENCES job ON DELETE CASCADE; UPDATE job SET next = 2 WHERE id = 1;
             CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(0.5); RETURN OLD; END';
             CREATE TRIGGER slow BEFORE DELETE ON job FOR EACH ROW WHEN (OLD.id = 1) EXECUTE FUNCTION slow();
             UPDATE backlog_cleanup.target SET throttle_query = 'SELECT NULL::text FROM pg_sleep(1)' WHERE name = 't'",
        )
        .unwrap();
    let (removed, kept_back, ..) = run(&mut client, "CALL backlog_cleanup_run('t', batch_size => 1, workers => 2)");
    assert_eq!((removed, kept_back), (2, 0));
}

#[test]
fn rows_that_others_of_their_batch_have_moved_go() {
    let cluster = Cluster::start("max_worker_processes = 16\n");
    let mut client = cluster.platform();
    client
        .batch_execute(&JOB.replace("error text)", "error text) PARTITION BY LIST (id)").replace(
            "INSERT INTO job",
            "CREATE TABLE job_0 PARTITION OF job DEFAULT;
             CREATE TABLE job_1 PARTITION OF job FOR VALUES IN (1, 4, 7, 10, 13, 16, 19, 22, 25, 28, 31, 34);
             CREATE TABLE job_2 PARTITION OF job FOR VALUES IN (2, 5, 8, 11, 14, 17, 20, 23, 26, 29, 32, 35);
             INSERT INTO job",
        ))
        .unwrap();
    // One chain; the deletion of each row moves the one below it.
    client
        .batch_execute(
            "DELETE FROM job WHERE id > 36; UPDATE backlog_cleanup.policy SET keep = 0 WHERE target = 't';
             ALTER TABLE job ADD next int REFERENCES job, ADD aside int REFERENCES job ON DELETE SET NULL;
             UPDATE job SET next = nullif(id - 1, 0), aside = CASE WHEN id < 36 THEN id + 1 END; CREATE TABLE saved AS TABLE job;
             UPDATE backlog_cleanup.target SET throttle_query = 'SELECT NULL::text FROM pg_sleep(0.02)' WHERE name = 't'",
        )
        .unwrap();
    for call in [
        "CALL backlog_cleanup_run('t', batch_size => 3)",
        "CALL backlog_cleanup_run('t', batch_size => 3, workers => 2)",
        "CALL backlog_cleanup_run('t', 'emergency', batch_size => 3, workers => 2)",
    ] {
        client.batch_execute("TRUNCATE job; INSERT INTO job TABLE saved").unwrap();
        let (removed, kept_back, ..) = run(&mut client, call);
        assert_eq!((removed, kept_back), (36, 0), "{call}");
    }
}
