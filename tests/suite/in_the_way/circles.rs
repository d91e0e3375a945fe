//! Rows that reference each other in circles.

use cluster::{Cluster, column, number, start_run, truth};
use postgres::Client;

use super::{JOB, RUNS, all, run};

/// Each odd row and the one behind it reference each other, as do rows 31 to 60, each the next; row 7, which a trigger keeps,
/// also references row 5.
fn in_circles(client: &mut Client) {
    client
        .batch_execute(
            "ALTER TABLE job ADD next int REFERENCES job, ADD other int REFERENCES job;
             UPDATE job SET next = CASE WHEN id BETWEEN 31 AND 60 THEN 31 + (id - 30) % 30 ELSE id + id % 2 * 2 - 1 END;
             UPDATE job SET other = 5 WHERE id = 7; CREATE INDEX ON job (next); CREATE INDEX ON job (other);
             CREATE TABLE saved AS TABLE job",
        )
        .unwrap();
    refuse(client, "OLD.id = 7");
}

fn refuse(client: &mut Client, which: &str) {
    client
        .batch_execute(&format!(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE ''no''; END';
             CREATE TRIGGER refuse BEFORE DELETE ON job FOR EACH ROW WHEN ({which}) EXECUTE FUNCTION refuse()"
        ))
        .unwrap();
}

#[test]
fn a_circle_goes_as_a_whole_or_stays_for_the_reason_of_its_row_and_all_others_go() {
    let cluster = Cluster::start("max_worker_processes = 16\n");
    let mut client = cluster.platform();
    client.batch_execute(JOB).unwrap();
    in_circles(&mut client);
    for order in ["id", "id DESC", "md5(id::text)"] {
        for call in RUNS {
            client
                .batch_execute(&format!("TRUNCATE job; INSERT INTO job SELECT * FROM saved ORDER BY {order}"))
                .unwrap();
            let (removed, kept_back, sqlstate, ..) = run(&mut client, call);
            assert_eq!((removed, kept_back), (all(call) - 4, 4), "{order}, {call}");
            // The last pass of a batched run may meet what that row references first.
            let is_its = sqlstate.as_deref() == Some("P0001") || call.starts_with("CALL");
            assert!(is_its, "{order}, {call}: {sqlstate:?}");
            let stayed = number(&mut client, "SELECT count(*) FROM job WHERE id IN (5, 6, 7, 8)");
            assert_eq!(stayed, 4, "{order}, {call}");
        }
    }
}

#[test]
fn circles_of_a_key_with_restrict_go_too() {
    let cluster = Cluster::start("max_worker_processes = 16\n");
    let mut client = cluster.platform();
    client.batch_execute(JOB).unwrap();
    client
        .batch_execute(
            "ALTER TABLE job ADD next int REFERENCES job ON DELETE RESTRICT;
             UPDATE job SET next = CASE WHEN id <= 40 THEN id + id % 2 * 2 - 1 END; CREATE INDEX ON job (next);
             CREATE TABLE saved AS TABLE job",
        )
        .unwrap();
    for call in RUNS {
        client.batch_execute("TRUNCATE job; INSERT INTO job TABLE saved").unwrap();
        let (removed, kept_back, ..) = run(&mut client, call);
        assert_eq!((removed, kept_back), (all(call), 0), "{call}");
    }
}

/// The same in two partitions.
fn in_partitions(client: &mut Client) {
    client
        .batch_execute(&JOB.replace("error text)", "error text) PARTITION BY LIST (id)").replace(
            "INSERT INTO job",
            "CREATE TABLE job_0 PARTITION OF job DEFAULT;
             CREATE TABLE job_1 PARTITION OF job FOR VALUES IN (2, 6, 8, 10, 33, 34, 45, 90, 92);
             INSERT INTO job",
        ))
        .unwrap();
    in_circles(client);
}

#[test]
fn circles_through_partitions_go() {
    let cluster = Cluster::start("max_worker_processes = 16\n");
    let mut client = cluster.platform();
    in_partitions(&mut client);
    for call in RUNS {
        client.batch_execute("TRUNCATE job; INSERT INTO job TABLE saved").unwrap();
        let (removed, kept_back, ..) = run(&mut client, call);
        assert_eq!((removed, kept_back), (all(call) - 4, 4), "{call}");
    }
}

#[test]
fn circles_through_partitions_are_counted_once_where_a_trigger_changes_their_rows() {
    let cluster = Cluster::start("max_worker_processes = 16\n");
    let mut client = cluster.platform();
    in_partitions(&mut client);
    client
        .batch_execute(
            "CREATE FUNCTION change() RETURNS trigger LANGUAGE plpgsql
             AS 'BEGIN UPDATE public.job SET error = ''t'' WHERE id BETWEEN 5 AND 10; RETURN OLD; END';
             CREATE TRIGGER change BEFORE DELETE ON job FOR EACH ROW WHEN (OLD.id IN (13, 63)) EXECUTE FUNCTION change()",
        )
        .unwrap();
    for call in RUNS {
        client.batch_execute("TRUNCATE job; INSERT INTO job TABLE saved").unwrap();
        let (removed, kept_back, ..) = run(&mut client, call);
        assert_eq!((removed, kept_back), (all(call) - 4, 4), "{call}");
    }
}

#[test]
fn a_refused_circle_among_thousands_costs_little() {
    let cluster = Cluster::start("");
    let mut client = cluster.platform();
    client.batch_execute(JOB).unwrap();
    client
        .batch_execute(
            "INSERT INTO job (id, at) SELECT i, now() - interval '9 days' FROM generate_series(101, 60000) i;
             ALTER TABLE job ADD next int REFERENCES job; UPDATE job SET next = id + id % 2 * 2 - 1;
             CREATE INDEX ON job (next); CREATE TABLE saved AS TABLE job; ANALYZE job",
        )
        .unwrap();
    refuse(&mut client, "OLD.id % 10000 = 7");
    for call in
        ["SELECT backlog_cleanup_emergency('t')", "CALL backlog_cleanup_run('t', 'emergency', batch_size => 5000)"]
    {
        client.batch_execute("TRUNCATE job; INSERT INTO job TABLE saved").unwrap();
        let (started, (removed, kept_back, ..)) = (std::time::Instant::now(), run(&mut client, call));
        assert_eq!((removed, kept_back), (59_988, 12), "{call}");
        assert!(started.elapsed().as_secs() < 30, "{call}: {:?}", started.elapsed());
    }
}

/// Rows 1 and 2, and 13 and 14, reference each other through three partitions by a key with this action; row 1 is refused.
fn two_in_three_partitions(client: &mut Client, action: &str) {
    client
        .batch_execute(&JOB.replace("error text)", "error text) PARTITION BY LIST (id)").replace(
            "INSERT INTO job",
            "CREATE TABLE job_0 PARTITION OF job DEFAULT;
             CREATE TABLE job_1 PARTITION OF job FOR VALUES IN (2, 13);
             CREATE TABLE job_2 PARTITION OF job FOR VALUES IN (14, 15);
             INSERT INTO job",
        ))
        .unwrap();
    client
        .batch_execute(&format!(
            "ALTER TABLE job ADD next int REFERENCES job ON DELETE {action};
             UPDATE job SET next = CASE id WHEN 1 THEN 2 WHEN 2 THEN 1 WHEN 13 THEN 14 ELSE 13 END WHERE id IN (1, 2, 13, 14);
             CREATE INDEX ON job (next); CREATE TABLE saved AS TABLE job"
        ))
        .unwrap();
    refuse(client, "OLD.id = 1");
}

#[test]
fn a_circle_that_stays_takes_no_other_with_it() {
    for (action, stay) in [("NO ACTION", 2), ("RESTRICT", 2), ("SET NULL", 1)] {
        let cluster = Cluster::start("max_worker_processes = 16\n");
        let mut client = cluster.platform();
        two_in_three_partitions(&mut client, action);
        for call in RUNS {
            client.batch_execute("TRUNCATE job; INSERT INTO job TABLE saved").unwrap();
            let (removed, kept_back, ..) = run(&mut client, call);
            assert_eq!((removed, kept_back), (all(call) - stay, stay), "{action}, {call}");
        }
    }
}

#[test]
fn a_circle_that_stays_is_counted_under_its_policy_and_its_status() {
    let cluster = Cluster::start("max_worker_processes = 16\n");
    let mut client = cluster.platform();
    two_in_three_partitions(&mut client, "NO ACTION");
    client
        .batch_execute(
            "UPDATE backlog_cleanup.target SET statuses = '{failed,dead}' WHERE name = 't';
             SELECT FROM backlog_cleanup_set_policy('b', target => 't')",
        )
        .unwrap();
    let of_policies =
        "SELECT kept_back FROM backlog_cleanup.run_policy WHERE run_id = (SELECT max(id) FROM backlog_cleanup.run)
                       ORDER BY recipe_id";
    for call in RUNS {
        // Row 40 is of the other policy, and stays alone.
        client
            .batch_execute(
                "DROP TABLE IF EXISTS other; TRUNCATE job; INSERT INTO job TABLE saved; UPDATE job SET queue = 'b' WHERE id >= 40;
                 CREATE TABLE other (job int REFERENCES job); INSERT INTO other VALUES (40)",
            )
            .unwrap();
        run(&mut client, call);
        assert_eq!(column::<i64>(&mut client, of_policies), [1, 2], "{call}");
    }
}

#[test]
fn circles_and_chains_through_partitions_go_though_their_table_is_rewritten_between_two_batches() {
    let cluster = Cluster::start("max_worker_processes = 16\n");
    let mut client = cluster.platform();
    in_partitions(&mut client);
    client
        .batch_execute("DROP TRIGGER refuse ON job; UPDATE backlog_cleanup.policy SET keep = 0 WHERE target = 't'")
        .unwrap();
    let rewrites = ["VACUUM FULL job", "CLUSTER job_0 USING job_0_pkey"];
    for (mode, rewrite) in
        [("regular", rewrites[0]), ("regular", rewrites[1]), ("emergency", rewrites[0]), ("emergency", rewrites[1])]
    {
        client.batch_execute("TRUNCATE job; INSERT INTO job SELECT * FROM saved ORDER BY id DESC").unwrap();
        client.batch_execute(&start_run(10).replace("generations", "t").replace("regular", mode)).unwrap();
        let next = "SELECT backlog_cleanup.next_batch(max(id)) IS NOT NULL FROM backlog_cleanup.run";
        assert!(truth(&mut client, next), "{mode}, {rewrite}");
        client.batch_execute(rewrite).unwrap();
        while truth(&mut client, next) {}
        client.batch_execute("SELECT backlog_cleanup.finish_run(max(id)) FROM backlog_cleanup.run").unwrap();
        let last = "SELECT concat_ws(' ', state, removed, kept_back, given_up) FROM backlog_cleanup.run ORDER BY id DESC LIMIT 1";
        assert_eq!(column::<String>(&mut client, last), ["completed 100 0 0"], "{mode}, {rewrite}");
        assert_eq!(number(&mut client, "SELECT count(*) FROM job"), 0, "{mode}, {rewrite}");
    }
}

#[test]
fn max_rows_takes_whole_circles_through_partitions_and_no_more() {
    let cluster = Cluster::start("");
    let mut client = cluster.platform();
    in_partitions(&mut client);
    let mut of_run = |saved: &str, max_rows: i32| {
        client.batch_execute(&format!("TRUNCATE job; INSERT INTO job SELECT * FROM saved WHERE {saved}")).unwrap();
        let call = format!("CALL backlog_cleanup_run('t', 'emergency', max_rows => {max_rows})");
        let (removed, kept_back, _, message, _) = run(&mut client, &call);
        (
            removed,
            kept_back,
            message,
            column::<String>(&mut client, "SELECT state FROM backlog_cleanup.run ORDER BY id").pop().unwrap(),
        )
    };
    let circles = "id IN (1, 2, 5, 6, 9, 10)";
    assert_eq!(of_run(circles, 5), (4, 0, None, "stopped".into()));
    assert_eq!(of_run(circles, 6), (6, 0, None, "completed".into()));
    let too_large = "the row is in a circle of more rows than max_rows".to_owned();
    assert_eq!(of_run("id BETWEEN 31 AND 60", 10), (0, 30, Some(too_large), "completed".into()));
}

#[test]
fn locked_rows_of_circles_through_partitions_are_waited_for_once() {
    let cluster = Cluster::start("");
    let mut client = cluster.platform();
    in_partitions(&mut client);
    client.batch_execute("UPDATE backlog_cleanup.target SET lock_timeout = '1s' WHERE name = 't'").unwrap();
    let mut other = cluster.connect();
    other.batch_execute("BEGIN; SELECT FROM job WHERE id IN (2, 10, 34, 90) FOR UPDATE").unwrap();
    let started = std::time::Instant::now();
    client.batch_execute("CALL backlog_cleanup_run('t')").unwrap();
    assert!(started.elapsed().as_secs() < 6, "{:?}", started.elapsed());
    let last = client.query_one("SELECT removed, skipped, kept_back FROM backlog_cleanup.run", &[]).unwrap();
    // The others of their circles stay, and the circles of rows 5 and 7.
    assert_eq!((last.get::<_, i64>(0), last.get::<_, i64>(1), last.get::<_, i64>(2)), (50, 4, 36));
}
