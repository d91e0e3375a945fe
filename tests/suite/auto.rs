//! A nightly job with the schedule `auto` is at the quietest hour of its target's time zone.

use cluster::{Cluster, create_index, findings_of, number, refused, truth, value, with_pg_cron};
use postgres::Client;

const TICK: &str = "SELECT backlog_cleanup_tick()";

/// Four weeks of hours, in which the database is quietest at this hour of Berlin, and busier with each hour from there.
fn quiet_at(client: &mut Client, hour: i32) {
    client
        .batch_execute(&format!(
            "DELETE FROM backlog_cleanup.sample;
             INSERT INTO backlog_cleanup.sample (target, grain, sampled_at, milliseconds, seconds, transactions)
             SELECT 'generations', 'hour', at, 1, 3600, 3600 * (10 + 5 * least(away, 24 - away))
             FROM generate_series(date_trunc('hour', now()) - interval '28 days', now() - interval '1 hour', interval '1 hour') at,
                  LATERAL (SELECT abs(extract(hour FROM at AT TIME ZONE 'Europe/Berlin') - {hour})) AS hours (away)"
        ))
        .unwrap();
}

/// The hour of Berlin at which the job runs next, by its schedule, which pg_cron reads in UTC.
fn hour(client: &mut Client) -> i64 {
    number(
        client,
        "SELECT extract(hour FROM min(at) AT TIME ZONE 'Europe/Berlin')
         FROM cron.job, LATERAL (SELECT date_trunc('day', now(), 'UTC') + day * interval '1 day'
                                        + make_interval(hours => split_part(schedule, ' ', 2)::int, mins => split_part(schedule, ' ', 1)::int) AS at
                                 FROM generate_series(0, 1) day) days
         WHERE jobname = 'backlog-cleanup-daily' AND at > now()",
    )
}

/// What the step of the last tick that places the job has said.
fn stays(client: &mut Client) -> Option<String> {
    value(
        client,
        "SELECT (SELECT step ->> 'skipped' FROM jsonb_array_elements(steps) step WHERE step ->> 'step' = 'place')
         FROM backlog_cleanup.tick ORDER BY id DESC LIMIT 1",
    )
}

fn last_move(client: &mut Client) -> String {
    value(client, "SELECT reason FROM backlog_cleanup.decision WHERE action = 'move' ORDER BY id DESC LIMIT 1")
}

const A_WEEK_LATER: &str = "UPDATE backlog_cleanup.auto_schedule SET moved_at = moved_at - interval '8 days'";

/// Its own job does not tick beside the test's.
fn berlin(cluster: &Cluster) -> Client {
    let mut client = cluster.platform();
    client
        .batch_execute(
            "UPDATE backlog_cleanup.target SET time_zone = 'Europe/Berlin'; SELECT backlog_cleanup_schedule_tick();
             SELECT backlog_cleanup_schedule('auto');
             SELECT cron.alter_job(jobid, active => false) FROM cron.job WHERE jobname = 'backlog-cleanup-tick'",
        )
        .unwrap();
    client
}

#[test]
fn the_job_follows_the_quietest_hour_three_hours_a_week() {
    let cluster = with_pg_cron();
    let mut client = berlin(&cluster);
    assert_eq!(hour(&mut client), 2, "the default");
    client.batch_execute(TICK).unwrap();
    let why = stays(&mut client).unwrap();
    assert!(why.starts_with("the quietest hour is not known yet"), "{why}");

    quiet_at(&mut client, 13);
    client.batch_execute(TICK).unwrap();
    assert_eq!(hour(&mut client), 13, "as soon as it is known");
    let moved = last_move(&mut client);
    assert!(moved.contains("moves from 02:00 to 13:00 (Europe/Berlin)") && moved.contains("02:00 has 65.0"), "{moved}");

    quiet_at(&mut client, 21);
    client.batch_execute(TICK).unwrap();
    assert_eq!(hour(&mut client), 13, "not again in the same week");
    assert!(stays(&mut client).unwrap().ends_with("and it moves once a week"));
    client
        .batch_execute(
            "SELECT cron.alter_job(jobid, active => false) FROM cron.job WHERE jobname = 'backlog-cleanup-daily'",
        )
        .unwrap();
    for next in [16, 19, 21, 21] {
        client.batch_execute(A_WEEK_LATER).unwrap();
        client.batch_execute(TICK).unwrap();
        assert_eq!(hour(&mut client), next);
    }
    assert!(
        truth(&mut client, "SELECT NOT active FROM cron.job WHERE jobname = 'backlog-cleanup-daily'"),
        "stays paused"
    );

    // Status, the doctor and the explanation show it.
    let shown: String = value(&mut client, "SELECT backlog_cleanup_status_json() #>> '{schedule,quietestHour}'");
    assert_eq!(shown, "21:00 Europe/Berlin");
    let detail = findings_of(&mut client, "generations", "job").remove(0).1;
    assert!(detail.contains("the quietest hour: 21:00 Europe/Berlin"), "{detail}");
    let explained: String = value(&mut client, "SELECT backlog_cleanup_explain_tick()");
    assert!(explained.contains("moves from 19:00 to 21:00 (Europe/Berlin)"), "{explained}");

    // Near enough.
    quiet_at(&mut client, 22);
    client
        .batch_execute("UPDATE backlog_cleanup.sample SET transactions = 36000 * 1.05 WHERE transactions = 3600 * 15")
        .unwrap();
    client.batch_execute(A_WEEK_LATER).unwrap();
    client.batch_execute(TICK).unwrap();
    assert_eq!(hour(&mut client), 21);
}

#[test]
fn where_no_job_can_follow_nothing_says_that_one_does() {
    let cluster = with_pg_cron();
    let mut client = berlin(&cluster);
    let explained = "SELECT backlog_cleanup_explain_tick()";
    let said: String = value(&mut client, explained);
    assert!(said.contains(" is at 02:00 (Europe/Berlin)"), "{said}");
    client.batch_execute("DROP EXTENSION pg_cron").unwrap();
    let left: String = value(&mut client, explained);
    assert!(!left.contains(" is at "), "{left}");
    // In another database than pg_cron's.
    let mut app = cluster.platform_in("app");
    app.batch_execute("SELECT backlog_cleanup_tick()").unwrap();
    let refusal = app.batch_execute("SELECT backlog_cleanup_schedule('auto')").unwrap_err();
    let detail = refusal.as_db_error().unwrap().detail().unwrap_or_default();
    assert_eq!(detail, "There the job stays at this hour: the tick moves jobs of its own database only.");
    let (status, detail, _) = findings_of(&mut app, "generations", "tick").remove(0);
    assert!(
        status == "ok" && detail.contains("whether a job ticks cannot be seen from here: SELECT jobid"),
        "{detail}"
    );
}

#[test]
fn a_job_that_has_a_schedule_of_its_own_is_left_alone() {
    let cluster = with_pg_cron();
    let mut client = berlin(&cluster);
    let follows = "SELECT count(*) FROM backlog_cleanup.auto_schedule";
    client.batch_execute("SELECT backlog_cleanup_schedule('0 3 * * *')").unwrap();
    assert_eq!(number(&mut client, follows), 0);
    for own in [
        "SELECT cron.alter_job(jobid, schedule => '5 5 * * *') FROM cron.job WHERE jobname = 'backlog-cleanup-daily'",
        "SELECT cron.unschedule('backlog-cleanup-daily')",
    ] {
        client.batch_execute("SELECT backlog_cleanup_schedule('auto')").unwrap();
        assert_eq!(number(&mut client, follows), 1);
        client.batch_execute(own).unwrap();
        client.batch_execute(TICK).unwrap();
        let why = stays(&mut client).unwrap();
        assert!(why.ends_with("it does not follow the quietest hour any more"), "{why}");
        assert_eq!(number(&mut client, follows), 0);
    }
    client.batch_execute("SELECT backlog_cleanup_schedule('auto'), backlog_cleanup_unschedule()").unwrap();
    assert_eq!(number(&mut client, follows), 0);
    // It runs nowhere near the hour unless something ticks.
    client
        .batch_execute("SELECT backlog_cleanup_schedule('auto'), backlog_cleanup_unschedule('backlog-cleanup-tick')")
        .unwrap();
    let (status, detail, fix) = findings_of(&mut client, "generations", "tick").remove(0);
    assert!(status == "warn" && detail.contains("follows the quietest hour"), "{detail}");
    client.batch_execute(&fix.unwrap()).unwrap();
    assert_eq!(findings_of(&mut client, "generations", "tick").remove(0).0, "ok");
}

#[test]
fn the_job_goes_to_the_quietest_hour_of_its_targets_window() {
    let cluster = with_pg_cron();
    let mut client = berlin(&cluster);
    quiet_at(&mut client, 14);
    client.batch_execute("UPDATE backlog_cleanup.target SET run_between = '{22:00,05:00}'").unwrap();
    client.batch_execute(TICK).unwrap();
    assert_eq!(hour(&mut client), 22);
    client.batch_execute("UPDATE backlog_cleanup.target SET run_between = '{06:00,09:00}'").unwrap();
    client.batch_execute(TICK).unwrap();
    assert_eq!(hour(&mut client), 8, "at once, since it would only wait elsewhere");
    // The next run is more than a day after the last.
    client
        .batch_execute(
            "UPDATE backlog_cleanup.target SET run_between = NULL;
             SELECT backlog_cleanup_failed_generations();
             UPDATE backlog_cleanup.run SET started_at = started_at - interval '26 hours', finished_at = finished_at - interval '26 hours'",
        )
        .unwrap();
    assert_eq!(findings_of(&mut client, "generations", "overdue")[0].0, "ok");
    client.batch_execute("UPDATE backlog_cleanup.auto_schedule SET moved_at = now() - interval '25 hours'").unwrap();
    assert_eq!(findings_of(&mut client, "generations", "overdue")[0].0, "fail");
}

#[test]
fn a_window_in_which_no_hour_begins_is_told_of_and_the_hint_works() {
    let cluster = with_pg_cron();
    let mut client = berlin(&cluster);
    quiet_at(&mut client, 14);
    client.batch_execute("UPDATE backlog_cleanup.target SET run_between = '{01:15,01:45}', time_zone = 'UTC'").unwrap();
    client.batch_execute(TICK).unwrap();
    let before = hour(&mut client);
    client.batch_execute(TICK).unwrap();
    assert_eq!(stays(&mut client).unwrap(), "no hour begins within run_between, 01:15 to 01:45");
    assert_eq!(hour(&mut client), before);
    let (sqlstate, message, hint) = refused(client.batch_execute("SELECT backlog_cleanup_schedule('auto')"));
    assert_eq!(sqlstate, "22023", "{message}");
    client.batch_execute(&hint).unwrap();
    let schedule = "SELECT schedule FROM cron.job WHERE jobname = 'backlog-cleanup-daily'";
    assert_eq!(value::<String>(&mut client, schedule), "15 1 * * *");
}

#[test]
fn the_job_follows_daylight_saving_and_zones_of_half_an_hour() {
    let cluster = with_pg_cron();
    let mut client = berlin(&cluster);
    create_index(&mut client, "generations");
    let schedule = "SELECT schedule FROM cron.job WHERE jobname = 'backlog-cleanup-daily'";
    client
        .batch_execute("UPDATE backlog_cleanup.target SET time_zone = 'Asia/Kolkata'; SELECT backlog_cleanup_tick()")
        .unwrap();
    assert_eq!(value::<String>(&mut client, schedule), "30 20 * * *");
    client.batch_execute("UPDATE backlog_cleanup.target SET time_zone = 'Europe/Berlin'").unwrap();
    drop(client);
    let Some(library) = crate::clock::faketime() else {
        println!("skipped: libfaketime is not installed");
        return;
    };
    // The hour from 2 to 3 is there twice on October 25th, and not at all on March 28th.
    for (now, expected) in [
        ("@2026-10-23 12:00:00", "0 0 * * *"),
        ("@2026-10-25 12:00:00", "0 1 * * *"),
        ("@2027-03-26 12:00:00", "0 1 * * *"),
        ("@2027-03-28 12:00:00", "0 0 * * *"),
    ] {
        cluster.restart_with(&[
            ("LD_PRELOAD", &library),
            ("FAKETIME", now),
            ("TZ", "UTC"),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
        ]);
        let mut client = cluster.connect();
        client.batch_execute(TICK).unwrap();
        assert_eq!(value::<String>(&mut client, schedule), expected, "{now}");
    }
    let said = last_move(&mut cluster.connect());
    assert!(said.contains("stays at 02:00 (Europe/Berlin), which is \"0 0 * * *\" for pg_cron"), "{said}");
}

#[test]
fn a_job_that_only_has_the_number_and_the_schedule_is_moved_by_nobody() {
    let cluster = with_pg_cron();
    let mut client = berlin(&cluster);
    let anew = "DROP EXTENSION pg_cron CASCADE; CREATE EXTENSION pg_cron;
                SELECT cron.schedule('somebody''s ' || i, schedule, 'SELECT ' || i) FROM backlog_cleanup.auto_schedule, generate_series(1, 9) i";
    for another in [
        anew,
        "UPDATE cron.job SET username = 'somebody' WHERE jobname = 'backlog-cleanup-daily'",
        "UPDATE cron.job SET jobname = 'somebody''s' WHERE jobname = 'backlog-cleanup-daily'",
        "UPDATE cron.job SET command = 'SELECT 1' WHERE jobname = 'backlog-cleanup-daily'",
        "UPDATE cron.job SET command = 'SELECT public.backlog_cleanup_failed_generations(recipe_id => ''1'')' WHERE jobname = 'backlog-cleanup-daily'",
    ] {
        client
            .batch_execute(
                "DELETE FROM cron.job; DELETE FROM backlog_cleanup.auto_schedule; DELETE FROM backlog_cleanup.sample;
                 SELECT backlog_cleanup_schedule('auto')",
            )
            .unwrap();
        quiet_at(&mut client, 13);
        client.batch_execute(another).unwrap();
        let schedules = "SELECT string_agg(schedule, ', ' ORDER BY jobid) FROM cron.job";
        let before: String = value(&mut client, schedules);
        client.batch_execute(TICK).unwrap();
        assert_eq!(value::<String>(&mut client, schedules), before, "{another}");
        let why = stays(&mut client).unwrap();
        assert!(
            why.contains("is another one now") && why.ends_with("it does not follow the quietest hour any more"),
            "{why}"
        );
        assert_eq!(number(&mut client, "SELECT count(*) FROM backlog_cleanup.auto_schedule"), 0, "{another}");
    }
}
