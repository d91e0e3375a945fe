//! Rows that reference each other.

use cluster::Cluster;
use postgres::Client;

use super::{JOB, RUNS, run};

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
