//! The doctor knows the jobs of pg_cron by what they call, and sees that they run.

use cluster::{JOBS, column, finding, refused, truth, until_true, value, with_pg_cron};

#[test]
fn a_job_is_recognised_by_what_it_calls_whatever_its_spelling() {
    let cluster = with_pg_cron();
    let mut client = cluster.connect();
    client.batch_execute(JOBS).unwrap();
    client.batch_execute("SELECT backlog_cleanup_unschedule(); CREATE TABLE log (message text)").unwrap();
    for (command, runs) in [
        ("SELECT backlog_cleanup_failed_generations('t')", true),
        ("select * from Public.\"backlog_cleanup_failed_generations\"(force => true, target => 't'::text) as r", true),
        ("CALL public.backlog_cleanup_run('t', batch_size => 2000)", true),
        ("call backlog_cleanup_run(batch_size => 2000, target => $x$t$x$)", true),
        ("ANALYZE job; SELECT 1; SELECT public.backlog_cleanup_failed_generations(target => 't')", true),
        ("WITH r AS (SELECT backlog_cleanup_failed_generations('t')) SELECT * FROM r", true),
        ("INSERT INTO log SELECT backlog_cleanup_failed_generations('t') ->> 'message'", true),
        ("DO $$ BEGIN PERFORM public.backlog_cleanup_failed_generations('t'); END $$", true),
        ("DO 'DECLARE r jsonb; BEGIN IF true THEN r := backlog_cleanup_failed_generations(''t''); END IF; END'", true),
        (
            "DO $$ DECLARE r jsonb; BEGIN /* ; */ CALL backlog_cleanup_run('t', report => r); PERFORM 1; END $$ LANGUAGE plpgsql",
            true,
        ),
        ("DO $$ BEGIN SELECT backlog_cleanup_failed_generations('t') INTO r; END $$", true),
        // What runs something else, or nothing of it.
        ("SELECT backlog_cleanup_failed_generations()", false),
        ("SELECT backlog_cleanup_failed_generations('t', dry_run => true)", false),
        ("SELECT backlog_cleanup_failed_generations('t', dry_run => 'f', rehearse => 'off'::boolean)", true),
        ("SELECT backlog_cleanup_failed_generations('t', dry_run => 't')", false),
        ("SELECT backlog_cleanup_failed_generations('t', dry_run => '1'::boolean)", false),
        ("SELECT backlog_cleanup_failed_generations('t', dry_run => NOT false)", false),
        ("SELECT backlog_cleanup_failed_generations('t', rehearse => 1 = 1)", false),
        ("SELECT backlog_cleanup_failed_generations('t', rehearse => true)", false),
        ("SELECT backlog_cleanup_failed_generations('t', NULL, NULL, false, false, true)", false),
        ("SELECT other.backlog_cleanup_failed_generations('t')", false),
        ("SELECT 'SELECT backlog_cleanup_failed_generations(''t'')'", false),
        ("SELECT 1 -- backlog_cleanup_failed_generations('t')", false),
        ("DO $$ BEGIN -- PERFORM backlog_cleanup_failed_generations('t');\n END $$", false),
        ("CALL backlog_cleanup_run(", false),
    ] {
        client.execute("SELECT cron.schedule('it', '0 2 * * *', $1)", &[&command]).unwrap();
        let (status, detail, fix) = finding(&mut client, "job");
        assert_eq!(status == "ok", runs, "{command}: {detail}");
        assert_eq!(fix.is_some(), !runs, "{command}: {fix:?}");
        let job: Option<i64> =
            value(&mut client, "SELECT (backlog_cleanup_status_json('t') #>> '{schedule,jobId}')::bigint");
        assert_eq!(job.is_some(), runs, "{command}");
    }
    // What only its execution would tell.
    for command in [
        "SELECT backlog_cleanup_failed_generations(name) FROM backlog_cleanup.target",
        "DO $$ BEGIN EXECUTE 'SELECT backlog_cleanup_failed_generations(''t'')'; END $$",
        "DO $$ BEGIN IF backlog_cleanup_failed_generations('t') IS NULL THEN NULL; END IF; END $$",
    ] {
        client.execute("SELECT cron.schedule('it', '0 2 * * *', $1)", &[&command]).unwrap();
        let (status, detail, fix) = finding(&mut client, "job");
        assert_eq!((status.as_str(), fix), ("warn", None), "{command}: {detail}");
        assert!(detail.contains("\"it\"") && detail.contains("does not tell"), "{detail}");
    }
}

#[test]
fn several_jobs_of_a_target_are_told_apart() {
    let cluster = with_pg_cron();
    let mut client = cluster.connect();
    client.batch_execute(JOBS).unwrap();
    client
        .batch_execute(
            "SELECT backlog_cleanup_unschedule();
             SELECT cron.schedule('old', '0 2 * * *', 'SELECT backlog_cleanup_failed_generations(''t'')');
             SELECT cron.schedule('new', '0 3 * * *', 'CALL backlog_cleanup_run(''t'')')",
        )
        .unwrap();
    let (status, detail, fix) = finding(&mut client, "job");
    assert_eq!((status.as_str(), fix), ("warn", None));
    assert!(detail.starts_with("2 active jobs run target \"t\""), "{detail}");
    for name in
        ["\"old\" of role \"postgres\" at \"0 2 * * *\" (regular)", "\"new\" of role \"postgres\" at \"0 3 * * *\""]
    {
        assert!(detail.contains(name), "{detail}");
    }
    // A paused job beside an active one is no problem, and stays paused.
    client.batch_execute("SELECT cron.alter_job(jobid, active => false) FROM cron.job WHERE jobname = 'old'").unwrap();
    let (status, detail, fix) = finding(&mut client, "job");
    assert_eq!((status.as_str(), fix), ("ok", None), "{detail}");
    assert!(detail.contains("(regular, paused)"), "{detail}");
    let active: String = value(&mut client, "SELECT backlog_cleanup_status_json('t') #>> '{schedule,jobName}'");
    assert_eq!(active, "new");
    // An emergency job is no regular one.
    client
        .batch_execute(
            "SELECT cron.unschedule('old');
             SELECT cron.schedule('new', '0 3 * * *', 'CALL backlog_cleanup_run(''t'', mode => ''emergency'')')",
        )
        .unwrap();
    let (status, detail, fix) = finding(&mut client, "job");
    assert!(detail.contains("no job does a regular run") && detail.contains("(emergency)"), "{detail}");
    assert_eq!(status, "warn");
    client.batch_execute(&fix.unwrap()).unwrap();
    assert!(finding(&mut client, "job").1.contains("2 active jobs"));
}

#[test]
fn a_job_and_a_run_in_one_transaction_that_pass_over_limits_of_batched_runs_are_told() {
    let cluster = with_pg_cron();
    let mut client = cluster.connect();
    client.batch_execute(JOBS).unwrap();
    for limit in [
        "max_replica_lag = '1 s'",
        "max_transaction_age = '1 h'",
        "yield_to_autovacuum = true",
        "max_wal_rate = 1000000",
        "throttle_query = 'SELECT NULL'",
        "max_duration = '1 h'",
        "max_rows = 1000",
        "max_rows_per_second = 1000",
        "pause = '1 s'",
        "batch_size = 500",
        "workers = 2",
    ] {
        let name = limit.split(' ').next().unwrap();
        client
            .batch_execute(&format!(
                "BEGIN; SET LOCAL IntervalStyle = iso_8601; UPDATE backlog_cleanup.target SET {limit} WHERE name = 't';
                 SELECT backlog_cleanup_unschedule()"
            ))
            .unwrap();
        // Who has no job gets one that obeys the limit.
        let fix = finding(&mut client, "job").2.unwrap();
        client.batch_execute(&fix).unwrap_or_else(|failure| panic!("{fix}: {failure:?}"));
        assert_eq!(finding(&mut client, "job").0, "ok", "{limit}");
        client
            .batch_execute(
                "SELECT cron.unschedule(jobid) FROM cron.job;
                 SELECT cron.schedule('mine', '0 2 * * *', 'select backlog_cleanup_failed_generations(target => ''t'');')",
            )
            .unwrap();
        let (status, detail, fix) = finding(&mut client, "job");
        assert_eq!(status, "warn");
        assert!(detail.ends_with(&format!("is a run in one transaction, which passes over {name}")), "{detail}");
        client.batch_execute(&fix.unwrap()).unwrap();
        assert_eq!(finding(&mut client, "job").0, "ok", "{limit}");
        let command: String = value(&mut client, "SELECT command FROM cron.job");
        assert_eq!(command, "CALL public.backlog_cleanup_run('t')");
        // What else a command says is for a person to decide.
        client
            .batch_execute("SELECT cron.alter_job(jobid, command => $$SELECT backlog_cleanup_failed_generations('t', force => true)$$) FROM cron.job")
            .unwrap();
        let (_, detail, fix) = finding(&mut client, "job");
        assert!(fix.is_none() && detail.contains("decide"), "{detail}");
        client.batch_execute("ROLLBACK").unwrap();
    }
    assert_eq!(
        finding(&mut client, "job").2.as_deref(),
        Some("SELECT backlog_cleanup_schedule(target => 't', job_name => 'backlog-cleanup-t')")
    );

    let (told, notices) = std::sync::mpsc::channel();
    let mut client = cluster.connect_with_notices(told);
    client
        .batch_execute("UPDATE backlog_cleanup.target SET max_replica_lag = '1 s', pause = '1 s' WHERE name = 't'")
        .unwrap();
    for (call, is_told) in [
        ("SELECT backlog_cleanup_failed_generations('t', dry_run => true)", false),
        ("SELECT backlog_cleanup_failed_generations('t')", true),
        ("SELECT backlog_cleanup_emergency('t')", true),
        ("CALL backlog_cleanup_run('t')", false),
    ] {
        client.batch_execute(call).unwrap();
        let said: Vec<(String, String)> = notices.try_iter().collect();
        assert_eq!(
            said.iter().any(|(said, _)| said.contains("passes over max_replica_lag, pause of target \"t\"")),
            is_told,
            "{call}: {said:?}"
        );
    }
}

#[test]
fn a_job_whose_database_has_another_name_after_a_restore_is_moved_here() {
    let cluster = with_pg_cron();
    let mut client = cluster.connect();
    client.batch_execute(JOBS).unwrap();
    client
        .batch_execute(
            "SELECT backlog_cleanup_schedule(target => 't', job_name => 'backlog-cleanup-t');
             UPDATE cron.job SET database = 'prod'",
        )
        .unwrap();
    let (status, detail, fix) = finding(&mut client, "job");
    assert_eq!(status, "warn");
    assert!(detail.contains("in database \"prod\", which does not exist"), "{detail}");
    client.batch_execute(&fix.unwrap()).unwrap();
    assert_eq!(finding(&mut client, "job").0, "ok");
    // Its removal works in the same way.
    client.batch_execute("UPDATE cron.job SET database = 'prod'").unwrap();
    let call = "SELECT backlog_cleanup_schedule(target => 't', job_name => 'backlog-cleanup-t')";
    let (sqlstate, _, hint) = refused(client.batch_execute(call));
    assert_eq!(sqlstate, "42710");
    client.batch_execute(&format!("{hint}; {call}; UPDATE cron.job SET database = 'prod'")).unwrap();
    assert!(truth(&mut client, "SELECT backlog_cleanup_unschedule('backlog-cleanup-t')"));

    // A job of a database that exists is left alone.
    client
        .batch_execute(
            "SELECT cron.schedule_in_database('backlog-cleanup-t', '0 2 * * *',
                                              'SELECT backlog_cleanup_failed_generations(''t'')', 'template1')",
        )
        .unwrap();
    let (sqlstate, message, hint) =
        refused(client.batch_execute("SELECT backlog_cleanup_unschedule('backlog-cleanup-t')"));
    assert_eq!(
        (sqlstate.as_str(), message.as_str()),
        ("55000", "job \"backlog-cleanup-t\" runs in database \"template1\"")
    );
    let (_, _, fix) = finding(&mut client, "job");
    client.batch_execute(&fix.unwrap()).unwrap();
    assert_eq!(finding(&mut client, "job").0, "ok");
    client.batch_execute(&hint).unwrap();
}

#[test]
fn a_scheduler_that_has_ended_and_a_success_without_a_run_are_seen() {
    let cluster = with_pg_cron();
    let mut client = cluster.connect();
    client.batch_execute(JOBS).unwrap();
    client.batch_execute("SELECT backlog_cleanup_schedule(target => 't', job_name => 'backlog-cleanup-t')").unwrap();
    until_true(&mut client, "SELECT status = 'ok' FROM backlog_cleanup_doctor('t') WHERE check_name = 'scheduler'");
    assert_eq!(finding(&mut client, "job_runs").1, "the job has not run yet");
    client
        .batch_execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'pg_cron scheduler'",
        )
        .unwrap();
    until_true(&mut client, "SELECT status = 'fail' FROM backlog_cleanup_doctor('t') WHERE check_name = 'scheduler'");
    assert_eq!(finding(&mut client, "scheduler").2, None);

    let record = |status: &str, started: &str| {
        format!(
            "INSERT INTO cron.job_run_details (jobid, runid, status, return_message, start_time, end_time)
             SELECT jobid, nextval('cron.runid_seq'), '{status}', '', {started}, {started}
             FROM cron.job WHERE jobname = 'backlog-cleanup-t'"
        )
    };
    client.batch_execute(&record("succeeded", "timestamptz '2026-01-02 03:04 UTC'")).unwrap();
    let (status, detail, _) = finding(&mut client, "job_runs");
    assert_eq!(status, "warn");
    assert!(
        detail.starts_with("pg_cron's run of 2026-01-02 03:04 UTC succeeded, but the history has no run"),
        "{detail}"
    );
    client.batch_execute("SELECT backlog_cleanup_failed_generations('t')").unwrap();
    client.batch_execute(&record("succeeded", "clock_timestamp()")).unwrap();
    assert_eq!(finding(&mut client, "job_runs").0, "ok");
    client.batch_execute(&format!("{}; {}", record("starting", "NULL"), record("starting", "NULL"))).unwrap();
    let (status, detail, _) = finding(&mut client, "job_runs");
    assert!(status == "warn" && detail.contains("\"starting\""), "{detail}");

    cluster.restart();
    let mut client = cluster.connect();
    until_true(&mut client, "SELECT status = 'ok' FROM backlog_cleanup_doctor('t') WHERE check_name = 'scheduler'");

    // A job of a role that is gone ends it, too, as soon as it is to run: a restart alone would not help.
    client.batch_execute("SELECT cron.schedule('theirs', '0 2 * * *', 'SELECT 1')").unwrap();
    client.batch_execute("UPDATE cron.job SET username = 'gone' WHERE jobname = 'theirs'").unwrap();
    client
        .batch_execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'pg_cron scheduler'",
        )
        .unwrap();
    until_true(&mut client, "SELECT status = 'fail' FROM backlog_cleanup_doctor('t') WHERE check_name = 'scheduler'");
    let (_, detail, fix) = finding(&mut client, "scheduler");
    assert!(detail.contains("of role \"gone\", which does not exist") && fix.is_none(), "{detail}");
    let (_, unschedule) = detail.split_once("type ").unwrap();
    client.batch_execute(unschedule.split(';').next().unwrap()).unwrap();
    assert!(finding(&mut client, "scheduler").1.ends_with("restart the server"));
}

#[test]
fn a_job_that_calls_a_function_in_a_schema_that_was_renamed_is_seen() {
    let cluster = with_pg_cron();
    let mut client = cluster.connect();
    client
        .batch_execute(
            &JOBS
                .replace("CREATE EXTENSION", "CREATE SCHEMA old; GRANT USAGE ON SCHEMA old TO app; CREATE EXTENSION")
                .replace("backlog_cleanup;\n", "backlog_cleanup SCHEMA old;\n"),
        )
        .unwrap();
    client
        .batch_execute(
            "SET search_path = public, old, \"New\"; SELECT old.backlog_cleanup_unschedule();
             SELECT backlog_cleanup_schedule(target => 't', job_name => 'backlog-cleanup-t');
             SELECT cron.schedule('block', '0 3 * * *', 'DO $$ BEGIN PERFORM old.backlog_cleanup_emergency(''t''); END $$');
             CREATE FUNCTION public.backlog_cleanup_run(text) RETURNS void LANGUAGE sql AS '';
             SELECT cron.schedule('mine', '0 3 * * *', 'SELECT public.backlog_cleanup_run(''t'')')",
        )
        .unwrap();
    assert_eq!(finding(&mut client, "lost_jobs").0, "ok");
    client.batch_execute("ALTER SCHEMA old RENAME TO \"New\"").unwrap();
    let found = cluster::findings(&mut client, "lost_jobs");
    assert_eq!(found.len(), 2, "{found:?}");
    for (status, detail, fix) in found {
        assert!(status == "fail" && detail.contains(" calls old.backlog_cleanup_") && fix.is_none(), "{detail}");
        assert!(
            detail.contains(", which does not exist: decide whether the job is to call \"New\".backlog_cleanup_"),
            "{detail}"
        );
        if detail.contains("\"block\"") {
            client.batch_execute(detail.split_once("or type ").unwrap().1).unwrap();
        }
    }
    // What the check of the target's job says is a job of the same name.
    let (status, _, fix) = finding(&mut client, "job");
    assert_eq!(status, "warn");
    client.batch_execute(&fix.unwrap().replace("backlog-cleanup-daily-t", "backlog-cleanup-t")).unwrap();
    assert_eq!(finding(&mut client, "lost_jobs").0, "ok");
}

#[test]
fn a_job_of_a_target_that_is_gone_and_a_timeout_that_runs_come_close_to_are_seen() {
    let cluster = with_pg_cron();
    let (sender, notices) = std::sync::mpsc::channel();
    let mut client = cluster.connect_with_notices(sender);
    // Nothing of the platform is there: the extension says so when it registers the job.
    client.batch_execute(JOBS).unwrap();
    let said: Vec<String> = notices.try_iter().map(|(message, _)| message).collect();
    let warning = "table \"public.generations\" does not exist";
    assert!(said.iter().any(|said| said.starts_with("target \"generations\"") && said.contains(warning)), "{said:?}");

    assert_eq!(finding(&mut client, "lost_jobs").0, "ok");
    client.batch_execute("DELETE FROM backlog_cleanup.target WHERE name = 'generations'").unwrap();
    let (status, detail, fix) = finding(&mut client, "lost_jobs");
    assert_eq!(status, "fail");
    assert!(detail.contains("\"backlog-cleanup-daily\"") && detail.contains("'generations'"), "{detail}");
    client.batch_execute(&fix.unwrap()).unwrap();
    assert_eq!(finding(&mut client, "lost_jobs").0, "ok");

    client
        .batch_execute(
            "SELECT backlog_cleanup_schedule(target => 't', job_name => 'backlog-cleanup-t');
             SELECT backlog_cleanup_failed_generations('t');
             UPDATE backlog_cleanup.run SET finished_at = started_at + interval '1.5 s';
             ALTER ROLE postgres SET statement_timeout = '10s'",
        )
        .unwrap();
    for long in ["10s", "1e9", "0x2710", "24d", "  10000 "] {
        client.batch_execute(&format!("ALTER ROLE postgres SET statement_timeout = '{long}'")).unwrap();
        assert_eq!(finding(&mut client, "timeouts").0, "ok", "{long}");
    }
    for harm in [
        "ALTER ROLE postgres SET statement_timeout = '0x1F4'",
        "ALTER ROLE postgres SET statement_timeout = '2e3'",
        "ALTER ROLE postgres SET statement_timeout = '2s'",
        "ALTER ROLE postgres RESET ALL; ALTER DATABASE postgres SET statement_timeout = 2000",
        "ALTER DATABASE postgres RESET ALL; ALTER ROLE postgres IN DATABASE postgres SET statement_timeout = '0.04 min'",
    ] {
        client.batch_execute(harm).unwrap();
        let (status, detail, fix) = finding(&mut client, "timeouts");
        assert_eq!(status, "warn", "{harm}");
        assert!(detail.starts_with("runs took up to 1.5 s, more than half of the statement_timeout"), "{detail}");
        client.batch_execute(&fix.unwrap()).unwrap();
        assert_eq!(finding(&mut client, "timeouts").0, "ok", "{harm}");
        client.batch_execute("ALTER ROLE postgres IN DATABASE postgres RESET ALL").unwrap();
    }
}

#[test]
fn a_job_that_cannot_run_its_target_is_told_before_its_night() {
    let cluster = with_pg_cron();
    let mut client = cluster.connect();
    client.batch_execute(JOBS).unwrap();
    client.batch_execute("SELECT backlog_cleanup_unschedule()").unwrap();
    for (command, why) in [
        ("SET statement_timeout = 0; CALL public.backlog_cleanup_run('t')", Some("beside other statements")),
        ("CALL public.backlog_cleanup_run('t'); VACUUM job", Some("beside other statements")),
        ("BEGIN; CALL public.backlog_cleanup_run('t'); COMMIT", Some("beside other statements")),
        ("DO $$BEGIN CALL public.backlog_cleanup_run('t'); END$$", Some("no variable for \"report\"")),
        (
            "DO $$DECLARE r jsonb; BEGIN CALL public.backlog_cleanup_run('t', report => r); EXCEPTION WHEN OTHERS THEN RAISE; END$$",
            Some("a block with EXCEPTION"),
        ),
        ("SELECT public.backlog_cleanup_failed_generations('t', dryrun => true)", Some("an argument \"dryrun\"")),
        (
            "SELECT public.backlog_cleanup_failed_generations('t', NULL, NULL, false, false, false, NULL, 8)",
            Some("an argument 8"),
        ),
        (
            "SET TRANSACTION READ ONLY; SELECT public.backlog_cleanup_failed_generations('t')",
            Some("a read-only transaction"),
        ),
        ("SELECT public.backlog_cleanup_failed_generations('t') WHERE false", Some("never reached")),
        ("WITH x AS (SELECT public.backlog_cleanup_failed_generations('t')) SELECT 1", Some("never reached")),
        ("WITH x AS (SELECT public.backlog_cleanup_failed_generations('t')) SELECT * FROM x", None),
        ("DO $$BEGIN PERFORM public.backlog_cleanup_failed_generations('t'); ROLLBACK; END$$", Some("is rolled back")),
        (
            "SET session_replication_role = replica; SELECT public.backlog_cleanup_failed_generations('t')",
            Some("session_replication_role = replica"),
        ),
        ("SELECT public.backlog_cleanup_failed_generations('t') LIMIT 0", Some("never reached")),
        ("SELECT public.backlog_cleanup_failed_generations('t') FROM nosuch", Some("table nosuch")),
        ("SELECT public.backlog_cleanup_failed_generations('t') FROM cron.nosuch", Some("table cron.nosuch")),
        (
            "SELECT public.backlog_cleanup_failed_generations('t', force => 1)",
            Some("a value of \"force\" of another type"),
        ),
        ("SELECT public.backlog_cleanup_failed_generations('t', 7)", Some("a value of \"recipe_id\" of another type")),
        ("CALL public.backlog_cleanup_run('t', batch_size => 1e3)", Some("a value of \"batch_size\" of another type")),
        ("CALL public.backlog_cleanup_run('t', pause => 1)", Some("a value of \"pause\" of another type")),
        ("CALL public.backlog_cleanup_run('t', max_rows => 3000000000, batch_size => '10', force => 1::boolean)", None),
        ("CALL public.backlog_cleanup_run('t', batch_size => 0)", Some("a value of \"batch_size\"")),
        ("CALL public.backlog_cleanup_run('t', 'regular', 10, workers => 65)", Some("a value of \"workers\"")),
        ("CALL public.backlog_cleanup_run('t', include_held => true)", Some("a value of \"include_held\"")),
        (
            "DROP TABLE IF EXISTS made; CREATE TABLE made AS SELECT 1; SELECT public.backlog_cleanup_failed_generations('t') FROM made",
            None,
        ),
        ("WITH one AS (SELECT 1) SELECT public.backlog_cleanup_failed_generations('t') FROM one WHERE true", None),
        ("SET statement_timeout = 0; SELECT public.backlog_cleanup_failed_generations('t')", None),
        (
            "DO $$BEGIN PERFORM public.backlog_cleanup_failed_generations('t'); EXCEPTION WHEN OTHERS THEN RAISE; END$$",
            None,
        ),
        ("DO $$DECLARE r jsonb; BEGIN CALL public.backlog_cleanup_run('t', report => r); END$$", None),
    ] {
        client.execute("SELECT cron.schedule('it', '0 2 * * *', $1)", &[&command]).unwrap();
        let (status, detail, fix) = finding(&mut client, "job");
        assert_eq!(status, if why.is_some() { "fail" } else { "ok" }, "{command}: {detail}");
        assert!(fix.is_none() && why.is_none_or(|why| detail.contains(why)), "{command}: {detail}");
        // It is as the doctor says.
        let night = cluster.connect().batch_execute(command);
        let succeeds = |why: &str| ["is rolled back", "never reached"].contains(&why);
        assert_eq!(night.is_ok(), why.is_none_or(succeeds), "{command}: {night:?}");
    }
    // Nor does pg_cron itself run one that it cannot read: it has come from elsewhere.
    for schedule in ["61 2 * * *", "30 seconds", "every night", "0 2 * *"] {
        client.execute("UPDATE cron.job SET schedule = $1", &[&schedule]).unwrap();
        let (status, detail, fix) = finding(&mut client, "job");
        assert_eq!(status, "fail", "{schedule}: {detail}");
        assert!(detail.ends_with("never runs: pg_cron cannot read its schedule"), "{detail}");
        client.batch_execute(&fix.unwrap()).unwrap();
        assert_eq!(finding(&mut client, "job").0, "ok", "{schedule}");
    }
    client.batch_execute("SELECT backlog_cleanup_schedule_tick()").unwrap();
    client.batch_execute("UPDATE cron.job SET schedule = '5 minutes' WHERE jobname = 'backlog-cleanup-tick'").unwrap();
    let (status, detail, fix) = finding(&mut client, "tick");
    assert!(status == "fail" && detail.ends_with("pg_cron cannot read its schedule"), "{detail}");
    client.batch_execute(&fix.unwrap()).unwrap();
    assert_eq!(finding(&mut client, "tick").0, "ok");
    for (schedule, said) in [("0 2 30 2 *", "never runs"), ("@reboot", "only when the server starts")] {
        client
            .execute(
                "SELECT cron.schedule('it', $1, 'SELECT public.backlog_cleanup_failed_generations(''t'')')",
                &[&schedule],
            )
            .unwrap();
        let (status, detail, fix) = finding(&mut client, "job");
        assert!(status == "warn" && fix.is_none() && detail.contains(said), "{schedule}: {detail}");
    }
}

#[test]
fn a_job_whose_role_cannot_run_it_is_told_before_its_night() {
    let cluster = with_pg_cron();
    let mut client = cluster.connect();
    client.batch_execute(JOBS).unwrap();
    client
        .batch_execute(
            "CREATE ROLE night LOGIN; CREATE ROLE other; GRANT other TO night; SELECT backlog_cleanup_grant('night', 'operator');
             SELECT backlog_cleanup_unschedule(); SELECT backlog_cleanup_schedule(target => 't', job_name => 'night');
             UPDATE cron.job SET username = 'night'",
        )
        .unwrap();
    assert_eq!(finding(&mut client, "job_user").0, "ok");
    for (harm, said) in [
        ("ALTER ROLE night SET default_transaction_read_only = on", "default_transaction_read_only = on"),
        ("ALTER ROLE ALL SET default_transaction_read_only = 'true'", "= true stops it"),
        ("ALTER ROLE night SET role = 'other'", "role = other"),
        ("REVOKE CONNECT ON DATABASE postgres FROM public", "may not connect"),
    ] {
        client.batch_execute(harm).unwrap();
        let (status, detail, fix) = finding(&mut client, "job_user");
        assert!(status == "fail" && detail.contains(said), "{harm}: {detail}");
        client.batch_execute(&fix.unwrap()).unwrap();
        assert_eq!(finding(&mut client, "job_user").0, "ok", "{harm}");
        client.batch_execute("ALTER ROLE ALL RESET ALL; ALTER ROLE night RESET ALL").unwrap();
        client.batch_execute("ALTER ROLE night IN DATABASE postgres RESET ALL").unwrap();
    }
}

#[test]
fn a_job_of_a_role_that_may_run_nothing_counts_for_nothing() {
    let cluster = with_pg_cron();
    let mut client = cluster.connect();
    client.batch_execute(JOBS).unwrap();
    client
        .batch_execute(
            "CREATE ROLE evil LOGIN; GRANT USAGE ON SCHEMA cron TO evil; DELETE FROM cron.job;
             DELETE FROM backlog_cleanup.target WHERE name = 'generations';
             UPDATE backlog_cleanup.target SET named_at = now() - interval '10 days' WHERE name = 't';
             SELECT backlog_cleanup_tick()",
        )
        .unwrap_or_else(|failure| panic!("{failure:?}"));
    let open = "SELECT count(*) FROM backlog_cleanup.alert WHERE rule = 'no successful run' AND target = 't' AND resolved_at IS NULL";
    assert_eq!(value::<i64>(&mut client, open), 1);
    // A long period, and a tick that nobody may do.
    client
        .batch_execute(
            "SET SESSION AUTHORIZATION evil;
             SELECT cron.schedule('e', '0 0 1 1 *', 'SELECT public.backlog_cleanup_failed_generations(''t'')');
             SELECT cron.schedule('tick', '* * * * *', 'SELECT public.backlog_cleanup_tick()');
             RESET SESSION AUTHORIZATION; SELECT backlog_cleanup_tick()",
        )
        .unwrap();
    assert_eq!(value::<i64>(&mut client, open), 1);
    let (_, detail, _) = finding(&mut client, "job");
    assert!(detail.ends_with("does not count, since its role may not run it: see check \"job_user\""), "{detail}");
    assert_eq!(finding(&mut client, "job_user").0, "fail");
    assert!(!finding(&mut client, "tick").1.contains("evil"));
    // What its failure says is nowhere.
    client
        .batch_execute(
            "INSERT INTO cron.job_run_details (jobid, runid, database, username, command, status, return_message, start_time, end_time)
             SELECT jobid, 1, database, username, command, 'failed', 'ERROR:  type DROP TABLE app.t now', now(), now() FROM cron.job WHERE jobname = 'e'",
        )
        .unwrap();
    let history = "SELECT count(*) FROM backlog_cleanup.history WHERE state = 'failed'";
    assert_eq!(value::<i64>(&mut client, history), 0);
    client.batch_execute("SELECT backlog_cleanup_grant('evil', 'operator')").unwrap();
    assert_eq!(value::<i64>(&mut client, history), 1);
    assert_eq!(finding(&mut client, "job_user").0, "ok");
}

#[test]
fn a_command_that_is_too_long_is_not_parsed_but_told() {
    let cluster = with_pg_cron();
    let mut client = cluster.connect();
    client.batch_execute(JOBS).unwrap();
    let long = format!("DO $x$ BEGIN PERFORM backlog_cleanup_emergency('t'); {} END $x$", "select ".repeat(8000));
    client.execute("SELECT cron.schedule('long', '0 0 1 1 *', $1)", &[&long]).unwrap();
    // As deep as one that is parsed may be.
    for deep in ["+1", "::text"] {
        let deep = format!("SELECT backlog_cleanup_emergency('u' || 1{})", deep.repeat(2000 / deep.len()));
        client
            .execute("SELECT cron.schedule($1, '0 0 1 1 *', $2)", &[&deep[deep.len() - 9..].to_owned(), &deep])
            .unwrap();
    }
    client.batch_execute("SET statement_timeout = '5 s'; SELECT backlog_cleanup_status_json('t')").unwrap();
    let unclear = "SELECT count(*) FROM backlog_cleanup_doctor('t')
                   WHERE check_name = 'job' AND detail LIKE '%that its command does not tell%'";
    assert_eq!(value::<i64>(&mut client, unclear), 3);
}

#[test]
fn commands_and_messages_of_others_cost_whoever_looks_little() {
    let cluster = with_pg_cron();
    let mut client = cluster.connect();
    client.batch_execute(JOBS).unwrap();
    let looks = [
        "SELECT count(*) FROM backlog_cleanup.history",
        "SELECT backlog_cleanup_status_json('t')",
        "SELECT count(*) FROM backlog_cleanup_doctor('t')",
    ];
    let dear = |cluster: &cluster::Cluster| {
        let costs = looks.map(|look| (look, cluster.memory_for("postgres", "postgres", look)));
        costs.into_iter().filter(|(_, most)| *most > 100_000).collect::<Vec<_>>()
    };
    client
        .batch_execute(
            "SELECT cron.schedule('long', '0 0 1 1 *', 'SELECT backlog_cleanup_failed_generations(''t'') --' || repeat('x', 50000000));
             INSERT INTO cron.job_run_details (jobid, runid, database, username, command, status, return_message, start_time)
             SELECT jobid, 1000000 + run, 'postgres', 'postgres', 'SELECT backlog_cleanup_failed_generations(''t'') --' || repeat('x', 50000000 * run),
                    'failed', 'ERROR:  it ' || repeat('x', 50000000) || E'\nDETAIL:  it', now()
             FROM cron.job, generate_series(0, 1) run WHERE jobname = 'long'",
        )
        .unwrap();
    assert_eq!(dear(&cluster), []);
    let message: String = value(&mut client, "SELECT max(error_message) FROM backlog_cleanup.history");
    assert!(message.starts_with("it x") && message.len() < 2000, "{}", message.len());
    // Thousands of failures, each of many calls.
    client
        .batch_execute(
            "INSERT INTO cron.job_run_details (jobid, runid, database, username, command, status, return_message, start_time)
             SELECT jobid, 2000000 + run, 'postgres', 'postgres', calls, 'failed', 'ERROR:  ' || repeat('x', 2000), now()
             FROM cron.job, generate_series(1, 2000) run,
                  (SELECT string_agg(format('CALL backlog_cleanup_run(''%s'')', i), '; ') FROM generate_series(1, 60) i) of (calls)
             WHERE jobname = 'long'",
        )
        .unwrap();
    assert_eq!(dear(&cluster), []);

    client.batch_execute("SELECT cron.unschedule('long'); TRUNCATE cron.job_run_details").unwrap();
    client
        .batch_execute(
            "SELECT cron.schedule('x' || i, '0 0 1 1 *', 'DO $$ BEGIN PERFORM backlog_cleanup_emergency(); '
                                  || repeat('select ', 280) || ' END$$ -- ' || i) FROM generate_series(1, 300) i",
        )
        .unwrap();
    assert_eq!(dear(&cluster), []);
    // After so many texts that are no SQL, what a block calls cannot be told.
    client.batch_execute("SELECT cron.unschedule(jobid) FROM cron.job").unwrap();
    let block = format!(
        "DO $$ BEGIN {} PERFORM backlog_cleanup_failed_generations('t'); END $$",
        "select from where; ".repeat(30)
    );
    client.execute("SELECT cron.schedule('it', '0 2 * * *', $1)", &[&block]).unwrap();
    let (_, detail, _) = finding(&mut client, "job");
    assert!(detail.contains("that its command does not tell"), "{detail}");
    // Of a role with more jobs than anybody needs, the rest is not looked at, and that is said.
    client
        .batch_execute(
            "SELECT cron.schedule('y' || i, '0 0 1 1 *', 'SELECT backlog_cleanup_emergency(''other'')') FROM generate_series(1, 1002) i",
        )
        .unwrap();
    let said =
        "SELECT detail FROM backlog_cleanup_doctor('t') WHERE check_name = 'job' AND detail LIKE '3 jobs of role%'";
    assert!(value::<String>(&mut client, said).contains("were not looked at"));
}

#[test]
fn a_job_that_starts_outside_of_its_targets_window_is_told_and_its_fix_lets_it_work_at_once() {
    let cluster = with_pg_cron();
    let mut client = cluster.connect();
    client.batch_execute(JOBS).unwrap();
    client
        .batch_execute(
            "SELECT backlog_cleanup_unschedule();
             SELECT cron.schedule('it', '30 2 * * 1-5', 'CALL backlog_cleanup_run(''t'')');
             UPDATE backlog_cleanup.target SET run_between = '{22:15,03:00}', time_zone = 'Asia/Kolkata' WHERE name = 't'",
        )
        .unwrap();
    // Half past two in UTC is eight o'clock there.
    let (status, detail, fix) = finding(&mut client, "job");
    assert_eq!(status, "warn", "{detail}");
    assert!(
        detail.ends_with("starts outside of run_between, 22:15 to 03:00 (Asia/Kolkata): its run waits until then"),
        "{detail}"
    );
    client.batch_execute(&fix.unwrap()).unwrap();
    assert_eq!(finding(&mut client, "job").0, "ok");
    assert_eq!(value::<String>(&mut client, "SELECT schedule FROM cron.job"), "45 16 * * 1-5");
    // One of its times is enough; what fires every minute is never far; and what does not wait is no matter of the window.
    for (schedule, command) in [
        ("0 2,20 * * *", "CALL backlog_cleanup_run('t')"),
        ("* * * * *", "CALL backlog_cleanup_run('t')"),
        ("0 2 * * *", "SELECT backlog_cleanup_failed_generations('t')"),
    ] {
        client.execute("SELECT cron.schedule('it', $1, $2)", &[&schedule, &command]).unwrap();
        let (_, detail, _) = finding(&mut client, "job");
        assert!(!detail.contains("outside of run_between"), "{schedule}: {detail}");
    }
    client.batch_execute("SELECT cron.schedule('it', '@weekly', 'CALL backlog_cleanup_run(''t'')')").unwrap();
    let (_, detail, fix) = finding(&mut client, "job");
    assert!(detail.ends_with("its run waits until then: decide when it is to start") && fix.is_none(), "{detail}");
}

#[test]
fn a_monitor_sees_of_the_command_of_another_roles_job_what_it_runs() {
    let cluster = with_pg_cron();
    let mut client = cluster.connect();
    client.batch_execute(JOBS).unwrap();
    client
        .batch_execute(
            "SELECT backlog_cleanup_unschedule();
             CREATE ROLE mon; SELECT backlog_cleanup_grant('mon', 'monitor');
             SELECT cron.schedule('it', '0 3 * * *', 'SELECT public.backlog_cleanup_failed_generations(''t''); -- password=hunter2')",
        )
        .unwrap();
    let command = "SELECT backlog_cleanup_status_json('t') #>> '{schedule,command}'";
    assert!(value::<String>(&mut client, command).contains("hunter2"));
    client.batch_execute("SET SESSION AUTHORIZATION mon").unwrap();
    assert_eq!(value::<String>(&mut client, command), "backlog_cleanup_failed_generations('t')");
}

#[test]
fn a_failed_job_of_a_role_that_may_not_run_is_no_run() {
    let cluster = with_pg_cron();
    let mut client = cluster.connect();
    client.batch_execute(JOBS).unwrap();
    client
        .batch_execute(
            "CREATE ROLE night LOGIN; CREATE ROLE stranger LOGIN; SELECT backlog_cleanup_grant('night', 'operator');
             INSERT INTO cron.job_run_details (jobid, runid, database, username, command, status, return_message, start_time)
             SELECT run, run, 'postgres', role, 'SELECT backlog_cleanup_failed_generations(''t'')', 'failed', 'ERROR:  of ' || role, now()
             FROM (VALUES (1000001, 'night'), (1000002, 'stranger'), (1000003, 'gone')) failed (run, role)",
        )
        .unwrap();
    assert_eq!(column::<String>(&mut client, "SELECT error_message FROM backlog_cleanup.history"), ["of night"]);
}
