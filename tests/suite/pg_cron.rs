//! The nightly job, with the real pg_cron.

use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use cluster::{Cluster, PG_CRON, fail, number, numbers, refused, truth, value, with_pg_cron};

const JOBS: &str = "SELECT jobname, schedule, command FROM cron.job ORDER BY jobid";

fn jobs(client: &mut postgres::Client) -> Vec<(String, String, String)> {
    client.query(JOBS, &[]).unwrap().iter().map(|job| (job.get(0), job.get(1), job.get(2))).collect()
}

fn nightly(schedule: &str) -> Vec<(String, String, String)> {
    named("backlog-cleanup-daily", schedule)
}

fn named(name: &str, schedule: &str) -> Vec<(String, String, String)> {
    vec![(name.into(), schedule.into(), "SELECT public.backlog_cleanup_failed_generations()".into())]
}

/// Waits for what a count finds: jobs fire every minute.
fn until_there_is(client: &mut postgres::Client, count: &str) {
    let deadline = Instant::now() + Duration::from_secs(130);
    while number(client, count) == 0 {
        assert!(Instant::now() < deadline, "the job did not fire: {count}");
        thread::sleep(Duration::from_millis(200));
    }
}

#[test]
fn the_job_is_registered_changed_and_fires() {
    let cluster = with_pg_cron();
    let mut client = cluster.platform();
    assert_eq!(jobs(&mut client), nightly("0 2 * * *"));

    fail(&mut client, 1, 15);
    client.batch_execute("SELECT backlog_cleanup_schedule('* * * * *')").unwrap();
    assert_eq!(jobs(&mut client), nightly("* * * * *"));
    let scheduled: String = value(&mut client, "SELECT backlog_cleanup_status_json() #>> '{schedule,schedule}'");
    assert_eq!(scheduled, "* * * * *");

    for wrong in ["every night", "", "60 * * * *", "*/10 0 2 * * *", "10 minutes"] {
        let call = format!("SELECT backlog_cleanup_schedule('{wrong}')");
        let (sqlstate, message, hint) = refused(client.batch_execute(&call));
        assert_eq!(sqlstate, "22023");
        assert!(message.contains(&format!("\"{wrong}\"")) && hint.contains("0 2 * * *"), "{message} {hint}");
    }
    for wrong in ["", &"x".repeat(64)] {
        let call = format!("SELECT backlog_cleanup_schedule(job_name => '{wrong}')");
        let (sqlstate, message, _) = refused(client.batch_execute(&call));
        assert_eq!(sqlstate, "22023");
        assert!(message.contains(&format!("\"{wrong}\"")), "{message}");
    }
    assert_eq!(jobs(&mut client), nightly("* * * * *"));

    // A batched run of another target fires in the same minute.
    client
        .batch_execute(
            "CREATE TABLE second AS TABLE generations;
             INSERT INTO backlog_cleanup.target (name, generations_table) VALUES ('second', 'public.second');
             SELECT backlog_cleanup_schedule('* * * * *', batched => true, target => 'second', job_name => 'batched')",
        )
        .unwrap();
    // Both write to one ledger.
    until_there_is(
        &mut client,
        "SELECT count(*) FROM backlog_cleanup.run WHERE target = 'generations' AND removed = 5",
    );
    assert_eq!(number(&mut client, "SELECT count(*) FROM generations"), 10);
    let batched = "SELECT count(*) FROM backlog_cleanup.run
                   WHERE target = 'second' AND state = 'completed' AND removed = 5 AND batches = 1";
    until_there_is(&mut client, batched);
    client.batch_execute("SELECT backlog_cleanup_unschedule('batched')").unwrap();
    let books = "SELECT count(*) FROM credit_transactions WHERE type = 'backlog_cleanup'";
    assert_eq!(number(&mut client, books), 2);

    assert!(truth(&mut client, "SELECT backlog_cleanup_unschedule()"));
    assert!(!truth(&mut client, "SELECT backlog_cleanup_unschedule()"));
    assert!(jobs(&mut client).is_empty());
}

#[test]
fn whatever_hangs_on_the_tables_runs_as_their_owners_in_a_job_of_a_superuser() {
    let cluster = with_pg_cron();
    for file in ["../demo/platform.sql", "hostile.sql"] {
        cluster.program("psql", &["-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", "postgres", "-f", file]);
    }
    let mut client = cluster.connect();
    client
        .batch_execute(
            "CALL fill(); SELECT backlog_cleanup_schedule('* * * * *', target => 'job', job_name => 'hostile')",
        )
        .unwrap();
    let runs = "SELECT count(*) FROM backlog_cleanup.run WHERE target OPERATOR(pg_catalog.=) 'job'::pg_catalog.text";
    until_there_is(&mut client, runs);
    // All that a run by hand sets off (tests/regress/sql/owner.sql), and each as an owner.
    let ran = "SELECT place, who::pg_catalog.text FROM ran ORDER BY place, who";
    let ran = client.query(ran, &[]).unwrap();
    let ran: Vec<(&str, &str)> = ran.iter().map(|ran| (ran.get(0), ran.get(1))).collect();
    assert_eq!(
        ran,
        [
            ("credit_transactions before", "regress_of_ledger"),
            ("credit_transactions deferred", "regress_of_ledger"),
            ("job_0 after", "regress_of_generations"),
            ("job_0 before", "regress_of_generations"),
            ("job_0 deferred", "regress_of_generations"),
            ("job_0 rule", "regress_of_generations"),
            ("job_1 before", "regress_of_leaf"),
            ("job_1 deferred", "regress_of_leaf"),
            ("ledger check", "regress_of_ledger"),
            ("ledger default", "regress_of_ledger"),
        ]
    );
}

#[test]
fn a_time_zone_of_pg_cron_that_is_not_utc_is_said() {
    let said = |settings: &str| {
        let cluster = Cluster::start(&format!("{PG_CRON}{settings}"));
        cluster.connect().batch_execute("CREATE EXTENSION pg_cron").unwrap();
        cluster.platform();
        let (sender, notices) = mpsc::channel();
        cluster.connect_with_notices(sender).batch_execute("SELECT backlog_cleanup_schedule()").unwrap();
        notices.try_iter().map(|(message, _)| message).collect::<Vec<_>>()
    };
    assert_eq!(said(""), Vec::<String>::new());
    let elsewhere = said("cron.timezone = 'Europe/Berlin'\n");
    assert_eq!(elsewhere, ["pg_cron reads the schedule in time zone \"Europe/Berlin\", not in UTC"]);
}

#[test]
fn a_paused_job_is_said_and_stays_paused_until_the_hint_is_typed() {
    let cluster = with_pg_cron();
    cluster.platform();
    let (sender, notices) = mpsc::channel();
    let mut client = cluster.connect_with_notices(sender);
    client.batch_execute("SELECT cron.alter_job(1, active => false); SELECT backlog_cleanup_schedule()").unwrap();
    let (said, hint): (Vec<_>, Vec<_>) = notices.try_iter().unzip();
    assert_eq!(said, ["job \"backlog-cleanup-daily\" is paused"]);
    client.batch_execute(&hint.concat()).unwrap();
    client.batch_execute("SELECT backlog_cleanup_schedule()").unwrap();
    assert_eq!(notices.try_iter().count(), 0);
}

#[test]
fn a_job_of_another_role_is_left_as_it_is() {
    let cluster = with_pg_cron();
    let mut client = cluster.platform();
    client
        .batch_execute(
            "CREATE ROLE \"The scheduler\";
             GRANT EXECUTE ON FUNCTION backlog_cleanup_schedule, backlog_cleanup_unschedule TO \"The scheduler\";
             SET ROLE \"The scheduler\"",
        )
        .unwrap();
    for call in ["SELECT backlog_cleanup_schedule()", "SELECT backlog_cleanup_unschedule()"] {
        let (sqlstate, message, hint) = refused(client.batch_execute(call));
        assert_eq!(sqlstate, "42501");
        assert_eq!(message, "role \"The scheduler\" may not use schema \"cron\"");
        assert_eq!(hint, "GRANT USAGE ON SCHEMA cron TO \"The scheduler\"");
    }
    client
        .batch_execute("RESET ROLE; GRANT USAGE ON SCHEMA cron TO \"The scheduler\"; SET ROLE \"The scheduler\"")
        .unwrap();
    let (sqlstate, message, hint) = refused(client.batch_execute("SELECT backlog_cleanup_unschedule()"));
    assert_eq!((sqlstate.as_str(), hint.as_str()), ("42501", "SET ROLE postgres"));
    assert_eq!(message, "job \"backlog-cleanup-daily\" belongs to role \"postgres\"");
    // Each has a job of that name, and changes and removes their own.
    client.batch_execute("SELECT backlog_cleanup_schedule('0 4 * * *'); RESET ROLE").unwrap();
    let both =
        |client: &mut postgres::Client| jobs(client).into_iter().map(|(_, schedule, _)| schedule).collect::<Vec<_>>();
    assert_eq!(both(&mut client), ["0 2 * * *", "0 4 * * *"]);
    client.batch_execute("SELECT backlog_cleanup_schedule('0 5 * * *')").unwrap();
    assert_eq!(both(&mut client), ["0 5 * * *", "0 4 * * *"]);
    assert!(client.query_one("SELECT backlog_cleanup_unschedule()", &[]).unwrap().get::<_, bool>(0));
    assert_eq!(both(&mut client), ["0 4 * * *"]);
    let (sqlstate, _, hint) = refused(client.batch_execute("SELECT backlog_cleanup_unschedule()"));
    assert_eq!(sqlstate, "42501");
    client.batch_execute(&format!("{hint}; SELECT backlog_cleanup_unschedule()")).unwrap();
    assert_eq!(both(&mut client), [""; 0]);
}

#[test]
fn a_role_that_has_taken_the_jobs_name_first_gets_neither_the_job_nor_a_right() {
    let cluster = Cluster::start_with_pg_cron();
    let mut client = cluster.connect();
    client
        .batch_execute(
            "CREATE EXTENSION pg_cron; CREATE ROLE evil LOGIN; GRANT USAGE ON SCHEMA cron TO evil; SET ROLE evil;
             SELECT cron.schedule('backlog-cleanup-daily', '* * * * *',
                                  'SELECT public.backlog_cleanup_failed_generations()'); RESET ROLE",
        )
        .unwrap();
    let (sender, notices) = mpsc::channel();
    cluster.platform();
    cluster.connect_with_notices(sender).batch_execute("SELECT backlog_cleanup_schedule()").unwrap();
    let said: Vec<String> = notices.try_iter().map(|(message, _)| message).collect();
    assert_eq!(said, ["role \"evil\" has a job \"backlog-cleanup-daily\", too"]);
    let users = "SELECT string_agg(username || ' ' || schedule, ', ' ORDER BY jobid) FROM cron.job";
    let users: String = client.query_one(users, &[]).unwrap().get(0);
    assert_eq!(users, "evil * * * * *, postgres 0 2 * * *");

    // The job that is shown is the one that runs; where none does, what mends it is a job of one's own.
    let user = "SELECT status, fix FROM backlog_cleanup_doctor() WHERE check_name = 'job_user'";
    assert_eq!(client.query_one(user, &[]).unwrap().get::<_, String>(0), "ok");
    client.batch_execute("SELECT backlog_cleanup_unschedule()").unwrap();
    let found = client.query_one(user, &[]).unwrap();
    assert_eq!(found.get::<_, String>(0), "fail");
    assert_eq!(found.get::<_, String>(1), "SELECT cron.unschedule(1), backlog_cleanup_schedule()");
    client.batch_execute(found.get(1)).unwrap();
    assert_eq!(client.query_one(user, &[]).unwrap().get::<_, String>(0), "ok");
    assert_eq!(jobs(&mut client), nightly("0 2 * * *"));
}

#[test]
fn where_pg_cron_lives_elsewhere_the_hint_is_the_call_to_type_there() {
    let cluster = with_pg_cron();
    let mut home = cluster.connect();
    home.batch_execute("CREATE DATABASE app").unwrap();
    let mut app = cluster.connect_to("app");
    app.batch_execute(
        "CREATE EXTENSION backlog_cleanup;
         CREATE ROLE scheduler;
         GRANT EXECUTE ON FUNCTION backlog_cleanup_schedule TO scheduler;
         SET ROLE scheduler",
    )
    .unwrap();
    let (sqlstate, _, hint) = refused(app.batch_execute("SELECT backlog_cleanup_schedule()"));
    assert_eq!(sqlstate, "55000");
    home.batch_execute(&hint).unwrap();
    assert_eq!(jobs(&mut home), named("backlog-cleanup-daily@app", "0 2 * * *"));
}

#[test]
fn each_database_has_a_job_of_its_own_and_says_where_to_see_it() {
    let cluster = with_pg_cron();
    let mut home = cluster.platform();
    for database in ["CREATE DATABASE shop", "CREATE DATABASE \"a\nshop\""] {
        home.batch_execute(database).unwrap();
    }
    let jobs = "SELECT string_agg(database || ' ' || jobname || ' ' || schedule, ', ' ORDER BY jobid) FROM cron.job";
    for database in ["shop", "a\nshop"] {
        let mut shop = cluster.connect_to(database);
        shop.batch_execute(include_str!("../../demo/platform.sql")).unwrap();
        shop.batch_execute("CREATE EXTENSION backlog_cleanup").unwrap();
        let (_, _, hint) = refused(shop.batch_execute("SELECT backlog_cleanup_schedule()"));
        assert!(hint.ends_with("; -- in database \"postgres\""), "{hint}");
        home.batch_execute(&hint).unwrap();
        // As the doctor and the status say, too.
        let status: serde_json::Value = value(&mut shop, "SELECT backlog_cleanup_status_json() -> 'schedule'");
        let job = "SELECT detail FROM backlog_cleanup_doctor() WHERE check_name = 'job' AND fix IS NULL";
        let detail: String = value(&mut shop, job);
        let (what, check) = detail.split_once(", and type ").unwrap();
        assert_eq!(
            what,
            "whether a job runs target \"generations\" is not known here: connect to database \"postgres\", which has pg_cron"
        );
        assert_eq!((&status["known"], &status["check"]), (&false.into(), &check.into()));
        let job: String = home.query_one(check, &[]).unwrap().get("jobname");
        assert_eq!(job, format!("backlog-cleanup-daily@{database}"));
    }
    let all = "postgres backlog-cleanup-daily 0 2 * * *, shop backlog-cleanup-daily@shop 0 2 * * *, \
               a\nshop backlog-cleanup-daily@a\nshop 0 2 * * *";
    assert_eq!(value::<String>(&mut home, jobs), all);
    // What changes and removes a job of this database leaves those of the others alone, also under the name of 0.2.0.
    home.batch_execute(
        "UPDATE cron.job SET jobname = 'backlog-cleanup-daily-then' WHERE database = 'postgres';
                        UPDATE cron.job SET jobname = 'backlog-cleanup-daily' WHERE database = 'shop'",
    )
    .unwrap();
    let (_, _, hint) = refused(home.batch_execute("SELECT backlog_cleanup_schedule()"));
    assert_eq!(hint, "SELECT backlog_cleanup_schedule(job_name => 'backlog-cleanup-daily@postgres')");
    let mut shop = cluster.connect_to("shop");
    let (_, _, hint) = refused(shop.batch_execute("SELECT backlog_cleanup_unschedule()"));
    home.batch_execute(&hint).unwrap();
    let left = "postgres backlog-cleanup-daily-then 0 2 * * *, a\nshop backlog-cleanup-daily@a\nshop 0 2 * * *";
    assert_eq!(value::<String>(&mut home, jobs), left);
}

#[test]
fn no_check_says_that_there_is_no_job_where_none_could_be_seen() {
    let cluster = with_pg_cron();
    cluster.connect().batch_execute("CREATE DATABASE shop").unwrap();
    let mut shop = cluster.connect_to("shop");
    shop.batch_execute(include_str!("../../demo/platform.sql")).unwrap();
    shop.batch_execute("CREATE EXTENSION backlog_cleanup").unwrap();
    let said = |client: &mut postgres::Client, text: &str| {
        let checks = "SELECT check_name FROM backlog_cleanup_doctor() WHERE strpos(detail, $1) > 0 ORDER BY 1";
        let checks = client.query(checks, &[&text]).unwrap();
        checks.iter().map(|row| row.get::<_, String>(0)).collect::<Vec<_>>()
    };
    let of_jobs = ["job_login", "job_runs", "job_user", "lost_jobs", "scheduler", "timeouts"];
    assert_eq!(said(&mut shop, "jobs cannot be seen from here: pg_cron is in database \"postgres\""), of_jobs);
    assert_eq!(said(&mut shop, "whether a job ticks cannot be seen from here: SELECT jobid"), ["tick"]);
    for claim in ["there is no job", "no job ", "exists"] {
        let claimed = said(&mut shop, claim);
        assert!(!claimed.iter().any(|check| check.contains("job") || check == "tick"), "{claim}: {claimed:?}");
    }

    // Where pg_cron is not at all, something else may call a run.
    let cluster = Cluster::start("");
    let mut client = cluster.platform();
    assert_eq!(said(&mut client, "there is no pg_cron to look at"), of_jobs);
}

#[test]
fn a_pg_cron_that_runs_no_jobs_here_is_refused() {
    let cluster = with_pg_cron();
    let mut client = cluster.platform();
    client
        .batch_execute(
            "CREATE ROLE scheduler LOGIN; GRANT USAGE ON SCHEMA cron TO scheduler;
             GRANT EXECUTE ON FUNCTION backlog_cleanup_schedule TO scheduler",
        )
        .unwrap();
    client.batch_execute("ALTER SYSTEM SET cron.database_name = 'app'").unwrap();
    cluster.restart();
    let mut client = cluster.connect();
    client.batch_execute("SET ROLE scheduler").unwrap();
    let (sqlstate, message, _) = refused(client.batch_execute("SELECT backlog_cleanup_schedule()"));
    assert_eq!(
        (sqlstate.as_str(), message.as_str()),
        ("55000", "pg_cron lives in database \"app\", not in \"postgres\"")
    );

    client.batch_execute("RESET ROLE").unwrap();
    client.batch_execute("ALTER SYSTEM SET cron.database_name = 'postgres'").unwrap();
    client.batch_execute("ALTER SYSTEM SET shared_preload_libraries = 'auto_explain'").unwrap();
    cluster.restart();
    let mut client = cluster.connect();
    for call in ["SELECT backlog_cleanup_schedule()", "SELECT backlog_cleanup_unschedule()"] {
        let (sqlstate, message, hint) = refused(client.batch_execute(call));
        assert_eq!((sqlstate.as_str(), message.as_str()), ("55000", "library \"pg_cron\" is not loaded"));
        client.batch_execute(hint.split(';').next().unwrap()).unwrap();
    }
    cluster.restart();
    let mut client = cluster.connect();
    client.batch_execute("SELECT backlog_cleanup_schedule('0 3 * * *')").unwrap();
    assert_eq!(jobs(&mut client), nightly("0 3 * * *"));
}

#[test]
fn a_dump_with_the_job_restores_without_an_error_and_with_one_job() {
    let cluster = with_pg_cron();
    let mut client = cluster.platform();
    client
        .batch_execute(
            "UPDATE backlog_cleanup.target SET ledger_table = NULL, batch_size = 7;
             INSERT INTO backlog_cleanup.target (name, generations_table) VALUES ('second', 'public.generations');
             UPDATE backlog_cleanup.policy SET keep = 3 WHERE target = 'generations';
             SELECT backlog_cleanup_failed_generations()",
        )
        .unwrap();
    let dump = cluster.program("pg_dump", &["postgres"]);
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(&file, &dump).unwrap();
    // pg_cron is there already in some restores, and comes with the dump in others.
    for pg_cron_first in [false, true] {
        let restored = Cluster::start_with_pg_cron();
        if pg_cron_first {
            restored.connect().batch_execute("CREATE EXTENSION pg_cron").unwrap();
        }
        restored.program("psql", &["-q", "-v", "ON_ERROR_STOP=1", "-f", file.path().to_str().unwrap(), "postgres"]);
        let mut client = restored.connect();
        assert_eq!(jobs(&mut client), nightly("0 2 * * *"));
        let again = restored.program("pg_dump", &["postgres"]);
        assert_eq!(settled(&again), settled(&dump), "a second dump differs");
        let kept =
            "SELECT t.batch_size::bigint, p.keep::bigint FROM backlog_cleanup.target t JOIN backlog_cleanup.policy p
                    ON p.target = t.name WHERE t.name = 'generations'";
        assert_eq!(numbers(&mut client, kept), [7, 3]);
        client.batch_execute("SELECT backlog_cleanup_failed_generations()").unwrap();
    }
}

/// A dump without the lines that differ from one dump to the next.
fn settled(dump: &str) -> Vec<&str> {
    dump.lines().filter(|line| !line.contains("restrict ")).collect()
}

#[test]
fn an_admin_registers_a_job_that_runs_as_the_admin() {
    let cluster = Cluster::start_with_pg_cron();
    let mut client = cluster.platform();
    client
        .batch_execute(
            "CREATE EXTENSION pg_cron;
             CREATE ROLE admin;
             SELECT backlog_cleanup_grant('admin', 'admin');
             SET ROLE admin;
             SELECT backlog_cleanup_schedule()",
        )
        .unwrap();
    assert_eq!(jobs(&mut client), nightly("0 2 * * *"));
    client.batch_execute("SELECT backlog_cleanup_failed_generations()").unwrap();
    assert!(truth(&mut client, "SELECT backlog_cleanup_unschedule()"));

    // What a revoke leaves is said, and then the role can be dropped.
    let (sender, notices) = mpsc::channel();
    let mut owner = cluster.connect_with_notices(sender);
    owner.batch_execute("SELECT backlog_cleanup_revoke('admin')").unwrap();
    let (_, hint) = notices.try_iter().last().unwrap();
    assert_eq!(hint, "REVOKE USAGE ON SCHEMA cron FROM admin");
    owner.batch_execute(&format!("{hint}; DROP ROLE admin")).unwrap();
}
