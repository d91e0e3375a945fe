//! One row that cannot go among many, and many.

use std::time::{Duration, Instant};

use cluster::{Cluster, number, truth, until_holds, veto};

use super::{JOB, RUNS, run};

#[test]
fn a_row_among_thousands_is_found_by_few_statements_and_a_table_that_refuses_all_is_given_up() {
    let cluster = Cluster::start("");
    let mut client = cluster.platform();
    client.batch_execute(JOB).unwrap();
    client
        .batch_execute(
            "INSERT INTO job (id, at) SELECT id, now() - interval '9 days' FROM generate_series(101, 20000) id;
             CREATE SEQUENCE statements;
             CREATE FUNCTION count_up() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS
                 $$BEGIN PERFORM nextval('public.statements'); RETURN NULL; END$$;
             CREATE TRIGGER count BEFORE DELETE ON job FOR EACH STATEMENT EXECUTE FUNCTION count_up();
             CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RAISE 'refused'; END$$;
             CREATE TRIGGER refuse BEFORE DELETE ON job FOR EACH ROW WHEN (OLD.id = 777) EXECUTE FUNCTION refuse()",
        )
        .unwrap();
    let (removed, kept_back, ..) = run(&mut client, RUNS[0]);
    assert_eq!((removed, kept_back), (19_989, 1));
    // About 2 log n for the row, and one more when it is tried again.
    assert!(number(&mut client, "SELECT last_value FROM statements") < 40);
    client
        .batch_execute(
            "INSERT INTO job (id, at) SELECT id, now() - interval '9 days' FROM generate_series(20001, 40000) id;
             DROP TRIGGER refuse ON job;
             CREATE TRIGGER refuse BEFORE DELETE ON job FOR EACH ROW EXECUTE FUNCTION refuse();
             ALTER SEQUENCE statements RESTART",
        )
        .unwrap();
    let message: String =
        client.query_one("SELECT backlog_cleanup_failed_generations('t') ->> 'message'", &[]).unwrap().get(0);
    assert!(message.contains("20001 rows were kept back; gave up on "), "{message}");
    assert!(number(&mut client, "SELECT last_value FROM statements") < 2_500);
    let left =
        "SELECT kept_back = 20001 AND given_up > 15000 AND kept_back_sqlstate = 'P0001' AND kept_back_row IS NOT NULL
                FROM backlog_cleanup.run ORDER BY id DESC LIMIT 1";
    assert!(truth(&mut client, left));
}

#[test]
fn a_guard_against_many_rows_at_once_and_a_refused_row_keep_back_that_row() {
    let cluster = Cluster::start("max_worker_processes = 16\n");
    let mut client = cluster.platform();
    client.batch_execute(JOB).unwrap();
    client
        .batch_execute(
            "INSERT INTO job (id, at) SELECT i, now() - interval '9 days' FROM generate_series(101, 5000) i;
             CREATE FUNCTION guard() RETURNS trigger LANGUAGE plpgsql AS $$
                 BEGIN IF (SELECT count(*) FROM gone) > 5 THEN RAISE EXCEPTION 'too many'; END IF; RETURN NULL; END $$;
             CREATE TRIGGER guard AFTER DELETE ON job REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION guard()",
        )
        .unwrap();
    veto(&mut client, "job", "OLD.id = 7");
    let (removed, kept_back, .., row) = run(&mut client, RUNS[0]);
    assert_eq!((removed, kept_back, row.as_deref()), (4989, 1, Some("7")));
}

#[test]
fn rows_kept_back_are_counted_once_however_many_passes_meet_them() {
    let cluster = Cluster::start("max_worker_processes = 16\n");
    let mut client = cluster.platform();
    client.batch_execute(JOB).unwrap();
    client
        .batch_execute(
            "INSERT INTO job (id, at) SELECT i, now() - interval '9 days' FROM generate_series(101, 6000) i;
             CREATE TABLE saved AS TABLE job;
             CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS $$
                 BEGIN
                     IF OLD.id % 3 = 0 OR OLD.id > TG_ARGV[0]::int THEN RAISE 'no'; END IF;
                     UPDATE job SET error = 't' WHERE id IN (OLD.id + 1, OLD.id + 3000) AND id % 3 = 0; RETURN OLD;
                 END $$",
        )
        .unwrap();
    for most in [6000, 300] {
        client
            .batch_execute(&format!(
                "CREATE OR REPLACE TRIGGER touch BEFORE DELETE ON job FOR EACH ROW EXECUTE FUNCTION touch({most})"
            ))
            .unwrap();
        for (size, stop) in [(20, false), (300, false), (10_000, false), (300, true)] {
            client.batch_execute("TRUNCATE job; INSERT INTO job TABLE saved").unwrap();
            let call = format!(
                "CALL backlog_cleanup_run('t', batch_size => {size}, pause => '{} ms')",
                if stop { 20 } else { 0 }
            );
            let stopping = stop.then(|| {
                cluster.in_background(
                    "DO $$BEGIN
                         LOOP
                             PERFORM backlog_cleanup_stop(run_id) FROM backlog_cleanup.run_part WHERE pass = 2 AND steps_done > 0;
                             EXIT WHEN FOUND; PERFORM pg_sleep(0.005); COMMIT;
                         END LOOP;
                     END$$",
                )
            });
            let (removed, kept_back, ..) = run(&mut client, &call);
            let given_up = number(&mut client, "SELECT given_up FROM backlog_cleanup.run ORDER BY id DESC LIMIT 1");
            // A run that was stopped has not looked again for rows that its own code has moved.
            let least = if stop { 5900 } else { 5990 };
            assert!(
                (least..=5990).contains(&(removed + kept_back)),
                "{most}, {call}: {removed} {kept_back} {given_up}"
            );
            assert!((0..=kept_back).contains(&given_up), "{most}, {call}: {given_up}");
            if let Some(stopping) = stopping {
                stopping.join().unwrap().1.unwrap();
            }
        }
    }
}

#[test]
fn rows_that_can_go_are_found_among_many_that_cannot() {
    let cluster = Cluster::start("max_worker_processes = 16\n");
    let mut client = cluster.platform();
    client.batch_execute(JOB).unwrap();
    client
        .batch_execute(
            "INSERT INTO job (id, at) SELECT i, now() - interval '9 days' FROM generate_series(101, 12000) i;
             CREATE TABLE saved AS TABLE job; CREATE TABLE pin (job int REFERENCES job); CREATE INDEX ON pin (job)",
        )
        .unwrap();
    for pinned in ["id <= 4000 OR id % 20 = 0", "id % 6 > 0"] {
        for call in
            [RUNS[0], RUNS[1], "CALL backlog_cleanup_run('t', batch_size => 1000)", "CALL backlog_cleanup_run('t')"]
        {
            client
                .batch_execute(&format!(
                    "TRUNCATE job, pin; INSERT INTO job TABLE saved; INSERT INTO pin SELECT id FROM job WHERE {pinned}"
                ))
                .unwrap();
            let pins = format!("SELECT count(*) FROM saved WHERE ({pinned}) AND id NOT BETWEEN 91 AND 100");
            let held = number(&mut client, &pins)
                + if call.contains("emergency") {
                    number(
                        &mut client,
                        &format!("SELECT count(*) FROM saved WHERE ({pinned}) AND id BETWEEN 91 AND 100"),
                    )
                } else {
                    0
                };
            let (removed, kept_back, ..) = run(&mut client, call);
            // The last few that could go may be given up.
            assert!(
                (held..=held + removed / 100).contains(&kept_back),
                "{pinned}, {call}: {removed} {kept_back} {held}"
            );
        }
    }
}

#[test]
fn where_every_row_is_refused_each_batch_soon_tries_little() {
    let cluster = Cluster::start("");
    let mut client = cluster.platform();
    client.batch_execute(JOB).unwrap();
    client
        .batch_execute(
            "INSERT INTO job (id, at) SELECT i, now() - interval '9 days' FROM generate_series(1001, 9000) i;
             CREATE SEQUENCE tries;
             CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql
             AS 'BEGIN PERFORM nextval(''tries''); RAISE EXCEPTION ''no''; END';
             CREATE TRIGGER refuse BEFORE DELETE ON job FOR EACH ROW EXECUTE FUNCTION refuse(); GRANT ALL ON SEQUENCE tries TO PUBLIC",
        )
        .unwrap();
    client.batch_execute("CALL backlog_cleanup_run('t', batch_size => 100)").unwrap();
    assert!(number(&mut client, "SELECT last_value FROM tries") < 16_000);
    assert!(truth(&mut client, "SELECT given_up > 5000 AND removed = 0 FROM backlog_cleanup.run"));
}

#[test]
fn hundreds_of_parts_of_refused_rows_take_seconds() {
    let cluster = Cluster::start("");
    let mut client = cluster.platform();
    client.batch_execute(JOB).unwrap();
    client
        .batch_execute(
            "INSERT INTO job (id, at) SELECT i, now() - interval '9 days' FROM generate_series(101, 20000) i;
             CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE ''no''; END';
             CREATE TRIGGER refuse BEFORE DELETE ON job FOR EACH ROW EXECUTE FUNCTION refuse()",
        )
        .unwrap();
    let started = Instant::now();
    assert_eq!(run(&mut client, "CALL backlog_cleanup_run('t', batch_size => 100)").1, 19_990);
    // It took 28 seconds where each look for the next part read all parts for each of them, and 2 without.
    assert!(started.elapsed() < Duration::from_secs(14), "{:?}", started.elapsed());
}

#[test]
fn of_small_parts_of_which_nothing_goes_few_rows_are_tried() {
    let cluster = Cluster::start("");
    let mut client = cluster.platform();
    client.batch_execute(JOB).unwrap();
    client
        .batch_execute(
            "INSERT INTO job (id, at) SELECT i, now() - interval '9 days' FROM generate_series(101, 10000) i;
             CREATE SEQUENCE tries;
             CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql
             AS 'BEGIN PERFORM nextval(''tries''); RAISE EXCEPTION ''no''; END';
             CREATE TRIGGER refuse BEFORE DELETE ON job FOR EACH ROW EXECUTE FUNCTION refuse(); GRANT ALL ON SEQUENCE tries TO PUBLIC",
        )
        .unwrap();
    assert_eq!(run(&mut client, "CALL backlog_cleanup_run('t', batch_size => 20)").1, 9_990);
    // Each of the 500 parts has 39 statements, and was tried twice.
    let tries = number(&mut client, "SELECT last_value FROM tries");
    assert!(tries < 8_000, "{tries}");
}

#[test]
fn rows_kept_back_before_their_table_is_rewritten_are_counted_once() {
    let cluster = Cluster::start("max_worker_processes = 16\n");
    let mut client = cluster.platform();
    client.batch_execute(JOB).unwrap();
    client
        .batch_execute(
            "INSERT INTO job (id, at) SELECT i, now() - interval '9 days' FROM generate_series(101, 2000) i;
             CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql
             AS 'BEGIN IF OLD.id % 2 = 1 THEN RAISE ''no''; END IF; RETURN OLD; END';
             CREATE TRIGGER refuse BEFORE DELETE ON job FOR EACH ROW EXECUTE FUNCTION refuse()",
        )
        .unwrap();
    let call = "CALL backlog_cleanup_run('t', batch_size => 50, pause => '20 ms')";
    let running = cluster.in_background(call);
    until_holds(|| truth(&mut client, "SELECT EXISTS (SELECT FROM backlog_cleanup.run WHERE kept_back > 300)"));
    client.batch_execute("VACUUM FULL job").unwrap();
    until_holds(|| truth(&mut client, "SELECT removed > 850 OR state <> 'running' FROM backlog_cleanup.run"));
    client.batch_execute("SELECT backlog_cleanup_stop(1)").unwrap();
    running.join().unwrap().1.unwrap();
    let kept_back = number(&mut client, "SELECT kept_back FROM backlog_cleanup.run");
    assert!((300..=1000).contains(&kept_back), "{kept_back}");
}
