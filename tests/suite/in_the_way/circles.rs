//! Rows that reference each other in circles.

use cluster::{Cluster, number};
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
