//! The doctor where it needs a server of its own: the job of the real pg_cron, a standby, a server that is ill.

use cluster::{Cluster, PG_CRON, create_index, own_by, refused, until_holds, value, with_pg_cron};
use postgres::Client;

/// The checks of the target `generations` that are not `ok`: name, status, detail, fix.
fn ill(client: &mut Client) -> Vec<[String; 4]> {
    let ill = "SELECT check_name, status, detail, coalesce(fix, '') FROM backlog_cleanup_doctor() WHERE status <> 'ok'";
    client.query(ill, &[]).unwrap().iter().map(|row| [0, 1, 2, 3].map(|column| row.get(column))).collect()
}

/// The platform, owned by an ordinary role, with the index and a run.
fn healthy(cluster: &Cluster) -> Client {
    let mut client = cluster.platform();
    client.batch_execute("CREATE ROLE platform; CREATE ROLE watcher LOGIN").unwrap();
    own_by(&mut client, "platform");
    client
        .batch_execute("SELECT backlog_cleanup_grant('watcher', 'monitor'), backlog_cleanup_failed_generations()")
        .unwrap();
    create_index(&mut client, "generations");
    client
}

#[test]
fn what_is_wrong_with_the_job_is_said_and_its_fix_mends_it() {
    let cluster = with_pg_cron();
    let mut client = healthy(&cluster);
    let mut watcher = cluster.connect();
    watcher.batch_execute("SET ROLE watcher").unwrap();
    assert_eq!(ill(&mut watcher), Vec::<[String; 4]>::new());

    for (harm, check, status) in [
        ("SELECT backlog_cleanup_unschedule()", "job", "warn"),
        ("SELECT cron.alter_job(jobid, active => false) FROM cron.job", "job", "warn"),
        ("UPDATE cron.job SET username = 'gone'", "job_user", "fail"),
        ("UPDATE cron.job SET username = 'watcher'", "job_user", "fail"),
        ("UPDATE cron.job SET username = 'watcher'; ALTER ROLE watcher NOLOGIN", "job_user", "fail"),
    ] {
        client.batch_execute(harm).unwrap();
        // The scheduler may meet the job of a role that does not exist, and end, before the doctor looks; it starts again by itself.
        let mut found = ill(&mut watcher);
        found.retain(|[check, ..]| check != "scheduler");
        let [[found, how, _, fix]] = &found[..] else { panic!("{harm}: {found:?}") };
        assert_eq!((found.as_str(), how.as_str()), (check, status), "{harm}");
        client.batch_execute(fix).unwrap();
        until_holds(|| ill(&mut watcher).is_empty());
    }

    // A target whose name is longer than a job's may be.
    let long = "a name that is as long as a sentence and longer than that of a job";
    client.batch_execute(&format!("INSERT INTO backlog_cleanup.target (name) VALUES ('{long}')")).unwrap();
    let job = |column: &str| format!("SELECT {column} FROM backlog_cleanup_doctor('{long}') WHERE check_name = 'job'");
    let fix: String = value(&mut client, &job("fix"));
    client.batch_execute(&fix).unwrap();
    assert_eq!(value::<String>(&mut client, &job("status")), "ok", "{fix}");
    client.batch_execute(&format!("DELETE FROM backlog_cleanup.target WHERE name = '{long}'")).unwrap();
    client.batch_execute("SELECT cron.unschedule(max(jobid)) FROM cron.job").unwrap();

    let run = |status: &str| {
        format!(
            "INSERT INTO cron.job_run_details (jobid, runid, status, return_message, start_time)
             SELECT jobid, nextval('cron.runid_seq'), '{status}', 'no such thing', '2026-01-02 03:04 UTC' FROM cron.job"
        )
    };
    client.batch_execute(&run("failed")).unwrap();
    let [check, status, detail, _] = &ill(&mut watcher)[0];
    assert_eq!((check.as_str(), status.as_str()), ("job_runs", "fail"));
    assert_eq!(detail, "the run of 2026-01-02 03:04 UTC failed: no such thing");
    client.batch_execute(&run("succeeded")).unwrap();
    assert_eq!(ill(&mut watcher)[0][1], "warn");

    cluster.set("cron.timezone = 'Europe/Berlin'");
    cluster.restart();
    let mut watcher = cluster.connect();
    watcher.batch_execute("SET ROLE watcher").unwrap();
    assert!(ill(&mut watcher).iter().any(|[check, ..]| check == "job_time_zone"));
}

#[test]
fn a_pg_cron_that_lives_elsewhere_is_said_with_the_call_to_type_there() {
    let cluster = with_pg_cron();
    let mut home = cluster.connect();
    home.batch_execute("CREATE DATABASE app").unwrap();
    let mut app = cluster.connect_to("app");
    app.batch_execute("CREATE EXTENSION backlog_cleanup").unwrap();
    let found = ill(&mut app);
    let [_, status, detail, fix] = found.iter().find(|[check, ..]| check == "pg_cron").unwrap();
    let (what, call) = detail.split_once(": connect to that database, and type ").unwrap();
    assert_eq!(what, "pg_cron lives in database \"postgres\", not in \"app\"");
    assert_eq!((status.as_str(), fix.as_str()), ("warn", ""));
    home.batch_execute(call).unwrap();
}

/// README's install without `cron.use_background_workers`, on a Debian: pg_cron logs in over localhost.
#[test]
fn a_job_that_cannot_connect_is_seen_before_its_first_night() {
    let address = format!("127.{}.{}.9", 1 + std::process::id() / 250 % 250, 1 + std::process::id() % 250);
    let cluster = Cluster::start(&format!("{PG_CRON}cron.use_background_workers = off\ncron.host = '{address}'\n"));
    let mut client = healthy(&cluster);
    client.batch_execute("CREATE EXTENSION pg_cron; SELECT backlog_cleanup_schedule()").unwrap();
    let login =
        "SELECT concat_ws('|', status, detail, fix) FROM backlog_cleanup_doctor() WHERE check_name = 'job_login'";
    let logs_in = format!("pg_cron logs in as role \"postgres\" at {address} for job 1, without a password, and ");
    let fix = "ALTER SYSTEM SET cron.use_background_workers = on; -- and restart the server";
    assert_eq!(value::<String>(&mut client, login), format!("fail|{logs_in}the server does not listen there|{fix}"));
    let hba = format!("{}/hba.conf", cluster.socket());
    cluster.set(&format!("hba_file = '{hba}'"));
    cluster.set(&format!("listen_addresses = '{address}'"));
    for (lines, why) in [
        ("host all all 127.0.0.2/32 trust", Some("no line of pg_hba.conf lets it in")),
        ("hostssl all all all trust\nhost all all 127.0.0.0/8 reject", Some("pg_hba.conf rejects it")),
        (
            "host other all all trust\nhost all watcher all trust\nhost all all 127.0.0.0 255.0.0.0 scram-sha-256\nhost all all all trust",
            Some("pg_hba.conf wants one (scram-sha-256), which only a .pgpass of the server's user could have"),
        ),
        ("host sameuser +postgres localhost trust\nhost all all all md5", None),
    ] {
        std::fs::write(&hba, format!("local all all trust\n{lines}\n")).unwrap();
        cluster.restart();
        client = cluster.connect();
        let expected = match why {
            Some(why) => format!("fail|{logs_in}{why}|{fix}"),
            None => "ok|pg_cron can connect for the job".into(),
        };
        assert_eq!(value::<String>(&mut client, login), expected, "{lines}");
        // It is as the doctor says.
        let mut there = postgres::Config::new();
        there.host(&address).user("postgres").dbname("postgres");
        assert_eq!(there.connect(postgres::NoTls).is_ok(), why.is_none(), "{lines}");
    }
    std::fs::write(&hba, "local all all trust\n").unwrap();
    client.batch_execute(fix).unwrap();
    cluster.restart();
    assert!(value::<String>(&mut cluster.connect(), login).starts_with("ok"));
}

#[test]
fn an_ill_server_is_seen_and_a_standby_sees_the_same_state() {
    let cluster = Cluster::start("wal_level = logical\nmax_worker_processes = 1\nautovacuum = off\n");
    let mut client = healthy(&cluster);
    client
        .batch_execute(
            "SELECT pg_create_logical_replication_slot('abandoned', 'pgoutput');
             INSERT INTO generations (user_id, prompt) SELECT 'someone', '' FROM generate_series(1, 20000);
             DELETE FROM generations; SELECT pg_stat_force_next_flush()",
        )
        .unwrap();
    let standby = cluster.standby();
    let names = |ill: Vec<[String; 4]>| ill.into_iter().map(|[check, ..]| check).collect::<Vec<_>>();
    let found = names(ill(&mut client));
    assert_eq!(found, ["dead_rows", "autovacuum", "pg_cron", "job", "workers", "replication_slots"]);
    let mut watcher = standby.connect();
    watcher.batch_execute("SET ROLE watcher").unwrap();
    let there = names(ill(&mut watcher));
    // A standby has statistics and slots of its own.
    assert!(there.iter().all(|check| found.contains(check)), "{there:?}");
    assert!(there.iter().any(|check| check == "autovacuum"), "{there:?}");
}

#[test]
fn a_lock_is_said_and_not_waited_for() {
    let cluster = Cluster::start("");
    let mut client = healthy(&cluster);
    let of_target = "UPDATE backlog_cleanup.target SET lock_timeout = '100 ms'";
    let of_session = "UPDATE backlog_cleanup.target SET lock_timeout = '0'; SET lock_timeout = '100 ms'";
    for (table, limit) in [("generations", of_target), ("users", of_session), ("credit_transactions", of_session)] {
        client.batch_execute(limit).unwrap();
        let mut other = cluster.connect();
        other.batch_execute(&format!("BEGIN; LOCK TABLE {table}")).unwrap();
        // Where something waits without end, this ends it, as an error.
        client.batch_execute("SET statement_timeout = '5s'").unwrap();
        let found = ill(&mut client);
        let is_said = |[_, status, detail, _]: &[String; 4]| status == "warn" && detail.contains("locked");
        assert!(found.iter().any(is_said), "{table}: {found:?}");
        let [_, _, detail, fix] = found.iter().find(|finding| is_said(finding)).unwrap();
        assert!(detail.contains(&format!("has locked public.{table}")) && fix.is_empty(), "{detail}");
        let questions: &[&str] = match table {
            "credit_transactions" => &["backlog_cleanup_books()"],
            _ => &["backlog_cleanup_status_json()", "backlog_cleanup_status()", "backlog_cleanup_failures()"],
        };
        for question in questions {
            assert_eq!(refused(client.batch_execute(&format!("SELECT {question}"))).0, "55P03", "{table} {question}");
        }
        other.batch_execute("ROLLBACK").unwrap();
    }
}

#[test]
fn partitions_that_a_run_would_empty_are_named_where_policies_keep_nothing() {
    let cluster = Cluster::start("");
    let mut client = cluster.platform();
    client
        .batch_execute(
            "CREATE TABLE event (id bigint, queue text, state text, at timestamp) PARTITION BY RANGE (at);
             DO $$
             DECLARE
                 noon timestamp := date_trunc('day', now() AT TIME ZONE 'Europe/Vienna') + interval '12 hours';
             BEGIN
                 FOR day IN 1..5 LOOP
                     EXECUTE format('CREATE TABLE event_%s PARTITION OF event FOR VALUES FROM (%L) TO (%L)', day,
                                    noon - make_interval(days => day + 1), noon - make_interval(days => day));
                 END LOOP;
             END $$;
             CREATE TABLE event_rest PARTITION OF event DEFAULT;
             INSERT INTO backlog_cleanup.target (name, generations_table, recipes_table, users_table, ledger_table, account_column, account,
                                                 recipe_column, status_column, failed_at_column, failure_type_column, time_zone)
             VALUES ('e', 'public.event', NULL, NULL, NULL, NULL, NULL, 'queue', NULL, 'at', NULL, 'Europe/Vienna');
             SELECT backlog_cleanup_set_policy(max_age => '3 days', keep => 0, target => 'e')",
        )
        .unwrap();
    let said = |client: &mut Client, write: &str| {
        client.batch_execute(write).unwrap();
        value::<String>(
            client,
            "SELECT status || ': ' || detail FROM backlog_cleanup_doctor('e') WHERE check_name = 'partitions'",
        )
    };
    let nothing = "ok: no partition could be dropped instead of removing its rows";
    let found = said(&mut client, "SET TimeZone = 'Pacific/Kiritimati'; SET DateStyle = 'German, DMY'");
    // The third day has ended three days ago in the afternoon only.
    let expected = ["event_5, public.event_4", "event_5, public.event_4, public.event_3"].map(|partitions| {
        format!(
            "ok: policies keep no row in scope of public.{partitions}; DROP TABLE takes no time and leaves no dead rows: \
             decide whether such partitions may go"
        )
    });
    assert!(expected.contains(&found), "{found}");
    let found = said(&mut client, "UPDATE backlog_cleanup.target SET status_column = 'state' WHERE name = 'e'");
    assert!(found.ends_with("may go with their rows out of scope"), "{found}");
    let held = "SELECT backlog_cleanup_set_policy('mail', enabled => false, target => 'e')";
    assert_eq!(said(&mut client, held), nothing);
    assert_eq!(said(&mut client, "DELETE FROM backlog_cleanup.policy WHERE recipe_id = 'mail'").len(), found.len());
    assert_eq!(said(&mut client, "SELECT backlog_cleanup_set_policy(keep => 1, target => 'e')"), nothing);
    let found =
        said(&mut client, "SELECT backlog_cleanup_set_policy(max_keep_age => '4 days 12 hours', target => 'e')");
    assert!(found.contains("of public.event_5;"), "{found}");
    // What would go without a word, or not go at all.
    for (besides, without) in [
        (
            "CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN OLD; END';
             CREATE TRIGGER tell BEFORE DELETE ON event FOR EACH ROW EXECUTE FUNCTION tell()",
            "DROP TRIGGER tell ON event",
        ),
        ("CREATE RULE other AS ON DELETE TO event_5 DO ALSO SELECT 1", "DROP RULE other ON event_5"),
        (
            "ALTER TABLE event_5 ADD UNIQUE (id); CREATE TABLE of_event (id bigint REFERENCES event_5 (id))",
            "DROP TABLE of_event",
        ),
        (
            "UPDATE backlog_cleanup.target SET ledger_table = 'public.credit_transactions', account_column = 'queue', account = 'a' WHERE name = 'e'",
            "UPDATE backlog_cleanup.target SET ledger_table = NULL WHERE name = 'e'",
        ),
    ] {
        assert_eq!(said(&mut client, besides), nothing, "{besides}");
        assert_eq!(said(&mut client, without), found, "{without}");
    }
}
