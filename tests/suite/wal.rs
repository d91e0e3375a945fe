//! What a run writes to the WAL: compressed full-page images, whoever calls, and it tells how much. By counters, not by time.

use cluster::{Cluster, column, fail, number, numbers, own_by, refused, truth, value};
use postgres::Client;

/// Bytes of WAL that statements write after a CHECKPOINT, in a session of its own.
fn written(cluster: &Cluster, database: &str, role: &str, statements: &str) -> i64 {
    let mut client = cluster.connect_to(database);
    client.batch_execute(&format!("CHECKPOINT; SET ROLE {role}")).unwrap();
    let before: String = value(&mut client, "SELECT pg_current_wal_insert_lsn()::text");
    client.batch_execute(statements).unwrap();
    assert_eq!(value::<String>(&mut client, "SHOW wal_compression"), "off", "{statements}");
    number(&mut client, &format!("SELECT (pg_current_wal_insert_lsn() - '{before}'::pg_lsn)::bigint"))
}

const REMOVABLE: &str = "
    CREATE TABLE removable AS SELECT id FROM (
        SELECT id, row_number() OVER (PARTITION BY recipe_id ORDER BY updated_at DESC, id DESC) AS rank FROM generations
        WHERE user_id = 'system_backlog' AND status = 'failed' AND updated_at < now() AT TIME ZONE 'UTC' - interval '24 hours') ranked
    WHERE rank > 10;
    ANALYZE removable; ALTER TABLE removable OWNER TO operator; GRANT DELETE, SELECT ON generations TO operator";

#[test]
fn a_run_writes_a_third_of_the_wal_of_a_plain_delete_in_each_form_as_an_operator_too_and_tells_it() {
    let cluster = Cluster::start("autovacuum = off\nfsync = off\nmax_worker_processes = 16\nwal_compression = off\n");
    cluster.connect().batch_execute("CREATE DATABASE plain").unwrap();
    cluster.outage("plain", 60_000, 200);
    let mut client = cluster.connect_to("plain");
    client.batch_execute("CREATE EXTENSION backlog_cleanup; CREATE ROLE operator; SELECT backlog_cleanup_grant('operator', 'operator')").unwrap();
    client.batch_execute(REMOVABLE).unwrap();
    // Hint bits are set, so that nobody else writes images for them.
    client.batch_execute("VACUUM ANALYZE").unwrap();
    drop(client);
    let mut postgres = cluster.connect();
    let mut fresh = |statements: &str| {
        postgres
            .batch_execute("DROP DATABASE IF EXISTS measured WITH (FORCE)")
            .and_then(|()| postgres.batch_execute("CREATE DATABASE measured TEMPLATE plain"))
            .unwrap();
        written(&cluster, "measured", "operator", statements)
    };
    let floor = fresh("DELETE FROM generations WHERE id IN (SELECT id FROM removable)");
    let emergency = fresh("DELETE FROM generations WHERE user_id = 'system_backlog' AND status = 'failed'");
    for (plain, run) in [
        (floor, "SELECT backlog_cleanup_failed_generations()"),
        (floor, "CALL backlog_cleanup_run(batch_size => 5000)"),
        (floor, "CALL backlog_cleanup_run(batch_size => 5000, workers => 2)"),
        (emergency, "SELECT backlog_cleanup_emergency()"),
        (emergency, "CALL backlog_cleanup_run(mode => 'emergency')"),
    ] {
        let wal = fresh(run);
        assert!(wal as f64 <= 0.35 * plain as f64, "{run}: {wal} of {plain}");
        let mut client = cluster.connect_to("measured");
        let told = "SELECT wal_bytes, full_page_images FROM backlog_cleanup.history";
        let [bytes, images] = numbers(&mut client, told);
        assert!((wal * 9 / 10..=wal).contains(&bytes), "{run}: {bytes} of {wal}");
        assert!(images > 1000, "{run}: {images}");
        let sums = "SELECT sum(wal_bytes)::bigint FROM backlog_cleanup.total";
        assert_eq!(number(&mut client, sums), bytes);
        client.batch_execute("DELETE FROM backlog_cleanup.run").unwrap();
        assert_eq!(number(&mut client, sums), bytes);
    }
}

/// A table of a role that is no superuser, whose trigger tells how full-page images are compressed.
fn telling(cluster: &Cluster) -> Client {
    let mut client = cluster.platform();
    client
        .batch_execute(
            "CREATE TABLE told (setting text); GRANT ALL ON told TO PUBLIC;
             CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN
                 INSERT INTO public.told VALUES (current_setting('wal_compression'));
                 IF OLD.prompt = 'slow' THEN PERFORM pg_sleep(60); END IF;
                 RETURN OLD;
             END$$;
             CREATE TRIGGER tell BEFORE DELETE ON generations FOR EACH ROW EXECUTE FUNCTION tell();
             CREATE ROLE owner",
        )
        .unwrap();
    own_by(&mut client, "owner");
    client
}

const RUNS: [&str; 5] = [
    "SELECT backlog_cleanup_failed_generations()",
    "SELECT backlog_cleanup_failed_generations(rehearse => true)",
    "SELECT backlog_cleanup_emergency()",
    "CALL backlog_cleanup_run()",
    "CALL backlog_cleanup_run(workers => 2)",
];

#[test]
fn full_page_images_are_compressed_as_the_target_says_and_else_as_the_server_does() {
    let cluster = Cluster::start("max_worker_processes = 16\n");
    let mut client = telling(&cluster);
    for (target, server, seen) in [
        ("auto", "off", "lz4"),
        ("auto", "pglz", "pglz"),
        ("off", "pglz", "off"),
        ("lz4", "pglz", "lz4"),
        ("zstd", "off", "zstd"),
    ] {
        client.batch_execute(&format!("UPDATE backlog_cleanup.target SET wal_compression = '{target}'")).unwrap();
        cluster.set(&format!("wal_compression = {server}"));
        client.batch_execute("SELECT pg_reload_conf()").unwrap();
        for run in RUNS {
            fail(&mut client, 1, 13);
            let mut session = cluster.connect();
            assert_eq!(value::<String>(&mut session, "SHOW wal_compression"), server);
            session.batch_execute(run).unwrap();
            assert_eq!(value::<String>(&mut session, "SHOW wal_compression"), server, "{run}");
            if run.contains("rehearse") {
                assert_eq!(number(&mut session, "SELECT count(*) FROM told"), 0);
                continue;
            }
            assert_eq!(column::<String>(&mut session, "SELECT DISTINCT setting FROM told"), [seen], "{target} {run}");
            session.batch_execute("TRUNCATE told, generations").unwrap();
        }
        // A report reads, and leaves it alone.
        client.batch_execute("SELECT backlog_cleanup_status()").unwrap();
    }
    for wrong in ["pglz", "on", ""] {
        let statement = format!("UPDATE backlog_cleanup.target SET wal_compression = '{wrong}'");
        assert_eq!(refused(client.batch_execute(&statement)).0, "23514");
    }
}

#[test]
fn the_setting_is_back_after_an_error_a_savepoint_and_a_cancel() {
    let cluster = Cluster::start("wal_compression = off\n");
    let mut client = telling(&cluster);
    let is_back = |client: &mut Client| truth(client, "SELECT current_setting('wal_compression') = 'off'");
    client.batch_execute("UPDATE backlog_cleanup.target SET max_rows_per_run = 1").unwrap();
    fail(&mut client, 1, 13);
    assert_eq!(refused(client.batch_execute("SELECT backlog_cleanup_failed_generations()")).0, "54000");
    assert!(is_back(&mut client));
    client.batch_execute("BEGIN; SAVEPOINT before").unwrap();
    assert_eq!(refused(client.batch_execute("SELECT backlog_cleanup_failed_generations()")).0, "54000");
    client.batch_execute("ROLLBACK TO before").unwrap();
    assert!(is_back(&mut client));
    client.batch_execute("COMMIT; UPDATE generations SET prompt = 'slow'").unwrap();
    for run in ["SELECT backlog_cleanup_emergency()", "CALL backlog_cleanup_run(mode => 'emergency')"] {
        client.batch_execute("SET statement_timeout = '300 ms'").unwrap();
        assert_eq!(refused(client.batch_execute(run)).0, "57014");
        client.batch_execute("RESET statement_timeout").unwrap();
        assert!(is_back(&mut client));
    }
    // Nor can the owner's code set it.
    client
        .batch_execute(
            "CREATE OR REPLACE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN
                 SET wal_compression = off; RETURN OLD;
             END$$",
        )
        .unwrap();
    client.batch_execute("SELECT backlog_cleanup_emergency()").unwrap();
    let met = "SELECT kept_back_sqlstate FROM backlog_cleanup.run ORDER BY id DESC LIMIT 1";
    assert_eq!(value::<String>(&mut client, met), "42501");
    assert!(is_back(&mut client));
}
