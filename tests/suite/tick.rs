//! A tick looks after everything in a moment, whatever else goes on, and keeps what it writes small.

use std::time::{Duration, Instant};

use cluster::{
    Cluster, balance, create_index, fail, findings_of, number, numbers, refused, truth, until_holds, until_true, value,
    with_pg_cron,
};
use postgres::Client;

const TICK: &str = "SELECT backlog_cleanup_tick()";

/// Why a step of the last tick did nothing, or what it failed with.
fn said(client: &mut Client, step: &str, key: &str) -> Option<String> {
    value(
        client,
        &format!(
            "SELECT (SELECT step ->> '{key}' FROM jsonb_array_elements(steps) step
                     WHERE concat_ws(' ', step ->> 'step', step ->> 'target') = '{step}')
             FROM backlog_cleanup.tick ORDER BY id DESC LIMIT 1"
        ),
    )
}

/// Makes everything that the tick has written look as if it had been written so much earlier.
fn pass(client: &mut Client, time: &str) {
    client
        .batch_execute(&format!(
            "UPDATE backlog_cleanup.sample SET sampled_at = sampled_at - interval '{time}' WHERE grain = 'fine';
             UPDATE backlog_cleanup.tick SET started_at = started_at - interval '{time}'"
        ))
        .unwrap();
}

#[test]
fn a_tick_samples_what_status_counts() {
    let cluster = Cluster::start("");
    let mut client = cluster.platform();
    fail(&mut client, 1, 15);
    fail(&mut client, 2, 12);
    client.batch_execute("SELECT pg_stat_force_next_flush()").unwrap();
    client.batch_execute(TICK).unwrap();
    let counted =
        "SELECT in_scope, removable, (statuses ->> 'failed')::bigint, table_bytes FROM backlog_cleanup.sample";
    let [in_scope, removable, failed, bytes] = numbers(&mut client, counted);
    assert_eq!([in_scope, removable, failed], [27, 7, 27]);
    assert!(bytes > 0);
    // The first has nothing to compare with.
    assert!(truth(
        &mut client,
        "SELECT seconds IS NULL AND failed IS NULL AND not_counted IS NULL FROM backlog_cleanup.sample"
    ));
    assert!(truth(
        &mut client,
        "SELECT oldest_at BETWEEN now() - interval '49 hours' AND now() - interval '47 hours' FROM backlog_cleanup.sample"
    ));

    pass(&mut client, "5 minutes");
    client
        .batch_execute(
            "INSERT INTO generations (user_id, recipe_id, prompt, status, failure_reason, updated_at)
             SELECT 'system_backlog', 1 + i % 3 / 2, '', 'failed', CASE WHEN i < 4 THEN 'timeout' ELSE 'out_of_credits' END,
                    now() AT TIME ZONE 'UTC' - interval '1 minute'
             FROM generate_series(1, 9) i;
             SELECT backlog_cleanup_failed_generations(); SELECT pg_stat_force_next_flush()",
        )
        .unwrap();
    client.batch_execute(TICK).unwrap();
    let last = "FROM backlog_cleanup.sample ORDER BY sampled_at DESC LIMIT 1";
    let since = format!("SELECT in_scope, removable, failed, removed, inserted, deleted {last}");
    assert_eq!(numbers(&mut client, &since), [29, 0, 9, 7, 9, 7]);
    assert!(truth(
        &mut client,
        &format!("SELECT seconds BETWEEN 300 AND 360 AND failed_seconds = seconds AND transactions > 0 {last}")
    ));
    assert_eq!(
        value::<String>(&mut client, &format!("SELECT recipes::text {last}")),
        r#"[{"change": 6, "inScope": 16, "recipeId": 1}, {"change": 3, "inScope": 13, "recipeId": 2}]"#
    );
    assert_eq!(
        value::<String>(&mut client, &format!("SELECT failure_types::text {last}")),
        r#"[{"change": 6, "failureType": "out_of_credits"}, {"change": 3, "failureType": "timeout"}]"#
    );
}

#[test]
fn a_sample_counts_every_shape_as_a_dry_run_does() {
    let cluster = Cluster::start("");
    let mut client = cluster.connect();
    client.batch_execute(cluster::JOBS).unwrap();
    client
        .batch_execute(
            "UPDATE backlog_cleanup.target SET statuses = '{failed,dead}', recipe_column = NULL,
                 recipe_columns = '{queue,error}', condition = '(id % 7 <> 0)' WHERE name = 't';
             UPDATE backlog_cleanup.policy SET keep = 3, max_age = '3 days' WHERE target = 't';
             INSERT INTO backlog_cleanup.policy (target, status, keep, max_keep_age, max_age) VALUES ('t', 'dead', 5, '5 days', '1 day');
             UPDATE job SET queue = chr(97 + id % 3), state = CASE id % 4 WHEN 0 THEN 'dead' WHEN 1 THEN 'done' ELSE 'failed' END,
                 error = nullif(id % 2, 0)::text, at = now() - id * interval '181 minutes';
             SELECT backlog_cleanup_tick()",
        )
        .unwrap();
    let sampled = "SELECT in_scope, removable FROM backlog_cleanup.sample WHERE target = 't'";
    let dry_run = "SELECT (r ->> 'totalFailedGenerations')::bigint, (r ->> 'cleanedUpGenerations')::bigint
                   FROM backlog_cleanup_failed_generations('t', dry_run => true) r";
    let [in_scope, removable] = numbers(&mut client, sampled);
    assert!(in_scope > removable && removable > 0);
    assert_eq!([in_scope, removable], numbers(&mut client, dry_run));
    let statuses = "SELECT (statuses ->> 'failed')::bigint, (statuses ->> 'dead')::bigint FROM backlog_cleanup.sample WHERE target = 't'";
    let really = "SELECT count(*) FILTER (WHERE state = 'failed'), count(*) FILTER (WHERE state = 'dead') FROM job WHERE id % 7 <> 0";
    assert_eq!(numbers::<2>(&mut client, statuses), numbers::<2>(&mut client, really));
}

#[test]
fn a_tick_waits_for_no_lock_and_says_which_target_it_has_passed_over() {
    let cluster = Cluster::start("");
    let mut client = cluster.connect();
    client.batch_execute(cluster::JOBS).unwrap();
    let mut other = cluster.connect();
    other.batch_execute("CREATE TABLE generations (); DROP TABLE generations; BEGIN; LOCK TABLE job").unwrap();
    let started = Instant::now();
    client.batch_execute(TICK).unwrap();
    assert!(started.elapsed().as_millis() < 500);
    let skipped = said(&mut client, "sample t", "skipped").unwrap();
    assert!(skipped.contains("another session has held a lock"), "{skipped}");
    // The target that the extension comes with has no table here: its step fails alone.
    let failed = said(&mut client, "sample generations", "error").unwrap();
    assert!(failed.contains("generations"), "{failed}");
    other.batch_execute("ROLLBACK").unwrap();
    client.batch_execute(TICK).unwrap();
    assert_eq!(said(&mut client, "sample t", "skipped"), None);
    assert_eq!(number(&mut client, "SELECT count(*) FROM backlog_cleanup.sample WHERE target = 't'"), 1);

    // Nor for rows of its own tables.
    pass(&mut client, "8 days");
    client.batch_execute(TICK).unwrap();
    pass(&mut client, "8 days");
    other.batch_execute("BEGIN; SELECT FROM backlog_cleanup.tick ORDER BY id LIMIT 1 FOR UPDATE").unwrap();
    let started = Instant::now();
    client.batch_execute(TICK).unwrap();
    assert!(started.elapsed().as_millis() < 500);
    other.batch_execute("ROLLBACK").unwrap();
}

#[test]
fn two_ticks_never_overlap_and_the_second_says_so() {
    let cluster = Cluster::start("");
    let (mut client, mut other) = (cluster.platform(), cluster.connect());
    other.batch_execute(&format!("BEGIN; {TICK}")).unwrap();
    let process: i32 = value(&mut other, "SELECT pg_backend_pid()");
    let skipped: String = value(&mut client, "SELECT backlog_cleanup_tick() ->> 'skipped'");
    assert_eq!(skipped, format!("another tick is at work: process {process}"));
    other.batch_execute("COMMIT").unwrap();
    assert!(truth(&mut client, "SELECT backlog_cleanup_tick() ->> 'skipped' IS NULL"));
    assert_eq!(number(&mut client, "SELECT count(*) FROM backlog_cleanup.tick"), 2);
}

#[test]
fn a_standby_ticks_without_doing_anything() {
    let cluster = Cluster::start("");
    cluster.platform();
    let standby = cluster.standby();
    assert_eq!(
        value::<String>(&mut standby.connect(), "SELECT backlog_cleanup_tick() ->> 'skipped'"),
        "this server is a standby"
    );
    let (sqlstate, ..) = refused(cluster.connect().batch_execute("BEGIN READ ONLY; SELECT backlog_cleanup_tick()"));
    assert_eq!(sqlstate, "25006");
}

#[test]
fn code_of_the_tables_owner_runs_as_the_owner() {
    let cluster = Cluster::start("");
    let mut client = cluster.connect();
    client.batch_execute(cluster::JOBS).unwrap();
    client
        .batch_execute(
            "CREATE SEQUENCE as_owner; CREATE SEQUENCE as_other; GRANT ALL ON SEQUENCE as_owner, as_other TO PUBLIC;
             CREATE FUNCTION look(text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS
                 $$BEGIN PERFORM nextval(CASE current_user WHEN 'app' THEN 'public.as_owner' ELSE 'public.as_other' END); RETURN $1; END$$;
             ALTER FUNCTION look OWNER TO app;
             UPDATE backlog_cleanup.target SET recipe_column = '(public.look(queue))' WHERE name = 't';
             ALTER SEQUENCE as_owner RESTART; ALTER SEQUENCE as_other RESTART",
        )
        .unwrap();
    client.batch_execute(TICK).unwrap();
    assert_eq!(said(&mut client, "sample t", "error"), None);
    assert_eq!(number(&mut client, "SELECT in_scope FROM backlog_cleanup.sample WHERE target = 't'"), 100);
    assert!(truth(&mut client, "SELECT is_called FROM as_owner"));
    assert!(!truth(&mut client, "SELECT is_called FROM as_other"));
}

#[test]
fn code_of_a_table_ends_no_tick_by_a_cancel_that_it_raises_and_cannot_tick() {
    let cluster = Cluster::start("");
    let mut client = cluster.platform();
    client.batch_execute(&cluster::JOBS.replace("CREATE EXTENSION backlog_cleanup;", "")).unwrap();
    let meets = |body: &str| {
        format!(
            "CREATE OR REPLACE FUNCTION meets(text) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $$BEGIN {body}; RETURN true; END$$"
        )
    };
    client
        .batch_execute(&format!(
            "{}; ALTER FUNCTION meets OWNER TO app; SELECT backlog_cleanup_grant('app', 'operator'); UPDATE backlog_cleanup.target SET condition = '(public.meets(queue))' WHERE name = 't'",
            meets("NULL")
        ))
        .unwrap();
    for (body, error) in [
        ("RAISE 'canceling statement' USING ERRCODE = '57014'", "canceling statement"),
        ("RAISE 'terminating connection' USING ERRCODE = '57P01'", "terminating connection"),
        ("PERFORM public.backlog_cleanup_tick()", "code of a table cannot tick"),
    ] {
        client.batch_execute(&meets(body)).unwrap();
        client.batch_execute(TICK).unwrap();
        let said_of_t = said(&mut client, "sample t", "skipped").unwrap_or_default();
        assert!(said_of_t.contains(error), "{body}: {said_of_t}");
        assert_eq!(said(&mut client, "sample generations", "error"), None, "{body}");
        pass(&mut client, "5 minutes");
    }
    assert_eq!(
        number(
            &mut client,
            "SELECT count(*) FROM backlog_cleanup.sample WHERE target = 'generations' AND grain = 'fine'"
        ),
        3
    );
}

#[test]
fn without_an_index_a_target_is_counted_less_often_and_its_sample_says_so() {
    let cluster = Cluster::start("");
    let mut client = cluster.platform();
    fail(&mut client, 1, 15);
    client.batch_execute(TICK).unwrap();
    client.batch_execute("UPDATE backlog_cleanup.sample SET milliseconds = 60000").unwrap();
    pass(&mut client, "5 minutes");
    client.batch_execute(TICK).unwrap();
    let last = "FROM backlog_cleanup.sample WHERE grain = 'fine' ORDER BY sampled_at DESC LIMIT 1";
    let why: String = value(&mut client, &format!("SELECT not_counted {last}"));
    assert!(why.starts_with("the last count took 60.0 s, without the partial index: the next is made in 5"), "{why}");
    assert_eq!(said(&mut client, "sample generations", "skipped").as_ref(), Some(&why));
    assert!(truth(&mut client, &format!("SELECT in_scope IS NULL AND table_bytes > 0 AND seconds > 299 {last}")));
    // A hundred times what it took later it is counted again, and the failures are those of the whole time.
    pass(&mut client, "100 minutes");
    client.batch_execute(TICK).unwrap();
    assert!(truth(
        &mut client,
        &format!("SELECT in_scope = 15 AND failed_seconds > 6000 AND not_counted IS NULL {last}")
    ));
}

#[test]
fn samples_follow_their_target() {
    let cluster = Cluster::start("");
    let mut client = cluster.platform();
    client.batch_execute(TICK).unwrap();
    client.batch_execute("UPDATE backlog_cleanup.target SET name = 'renamed'").unwrap();
    assert_eq!(value::<String>(&mut client, "SELECT target FROM backlog_cleanup.sample"), "renamed");
    client.batch_execute("DELETE FROM backlog_cleanup.target").unwrap();
    assert_eq!(number(&mut client, "SELECT count(*) FROM backlog_cleanup.sample"), 0);
}

/// Fine samples of a target in the past, `every` so often, of the time between two intervals ago.
fn back_dated(client: &mut Client, from: &str, to: &str, every: &str) {
    client
        .batch_execute(&format!(
            "INSERT INTO backlog_cleanup.sample (target, grain, sampled_at, in_scope, removable, failed, failed_seconds, milliseconds,
                                                 seconds, inserted, updated, deleted, transactions, removed, recipes)
             SELECT 'generations', 'fine', at, 100, 50, 10, extract(epoch FROM interval '{every}'), 1,
                    extract(epoch FROM interval '{every}'), 10, 0, 5, 1000, 5, '[{{\"recipeId\": 1, \"inScope\": 7, \"change\": 2}}]'
             FROM generate_series(date_trunc('hour', now(), 'UTC') - interval '{from}', now() - interval '{to}', interval '{every}') at"
        ))
        .unwrap();
}

#[test]
fn samples_are_fine_for_two_days_hourly_for_ninety_and_daily_for_three_years() {
    let cluster = Cluster::start("");
    let mut client = cluster.platform();
    // Three years and more, hour by hour: what the ticks of that time had left, had nothing been pruned.
    back_dated(&mut client, "1200 days", "3 days", "1 hour");
    back_dated(&mut client, "71 hours", "5 minutes", "5 minutes");
    for _ in 0..40 {
        client.batch_execute(TICK).unwrap();
    }
    let rows = "SELECT count(*) FILTER (WHERE grain = 'fine'), count(*) FILTER (WHERE grain = 'hour'),
                       count(*) FILTER (WHERE grain = 'day') FROM backlog_cleanup.sample";
    let [fine, hours, days] = numbers(&mut client, rows);
    // With the ticks of now, those of the hour that is not over, and the one before the first.
    assert!((576..=576 + 40 + 13).contains(&fine), "{fine} fine samples");
    assert!((2159..=2161 + 24).contains(&hours), "{hours} hours");
    assert!((1094..=1098).contains(&days), "{days} days");
    // Rates are per second of what an hour has.
    let hour = "SELECT bool_and(abs(inserted / seconds - 10 / 300.0) < 1e-9 AND failed = 120 AND transactions = 12000 AND in_scope = 100)
                FROM backlog_cleanup.sample
                WHERE grain = 'hour' AND sampled_at BETWEEN now() - interval '2 days' AND now() - interval '2 hours'";
    assert!(truth(&mut client, hour));
    let recipes = "SELECT recipes::text FROM backlog_cleanup.sample WHERE grain = 'hour' AND sampled_at < now() - interval '2 hours'
                   ORDER BY sampled_at DESC LIMIT 1";
    assert_eq!(value::<String>(&mut client, recipes), r#"[{"change": 24, "inScope": 7, "recipeId": 1}]"#);
}

#[test]
fn after_a_gap_rates_are_those_of_the_gap_and_hours_are_made_of_what_there_is() {
    let cluster = Cluster::start("");
    let mut client = cluster.platform();
    client.batch_execute(TICK).unwrap();
    // The server is down for five hours, or the job is paused.
    pass(&mut client, "5 hours");
    client
        .batch_execute(
            "INSERT INTO generations (user_id, recipe_id, prompt, status, updated_at)
             SELECT 'system_backlog', 1, '', 'failed', now() AT TIME ZONE 'UTC' - interval '1 hour' FROM generate_series(1, 50);
             SELECT pg_stat_force_next_flush()",
        )
        .unwrap();
    client.batch_execute(TICK).unwrap();
    let last =
        "SELECT failed, inserted FROM backlog_cleanup.sample WHERE grain = 'fine' ORDER BY sampled_at DESC LIMIT 1";
    assert_eq!(numbers(&mut client, last), [50, 50]);
    let seconds = "SELECT seconds BETWEEN 18000 AND 18060 FROM backlog_cleanup.sample WHERE grain = 'fine' ORDER BY sampled_at DESC LIMIT 1";
    assert!(truth(&mut client, seconds));
    // One hour, that of the first sample: there is none for the others.
    assert_eq!(number(&mut client, "SELECT count(*) FROM backlog_cleanup.sample WHERE grain = 'hour'"), 1);

    // A reset of the statistics leaves what happened meanwhile unknown, and nothing else.
    pass(&mut client, "5 minutes");
    client.batch_execute("SELECT pg_stat_reset()").unwrap();
    client.batch_execute(TICK).unwrap();
    let unknown = "SELECT inserted IS NULL AND seconds > 299 AND failed = 0 AND removed = 0 FROM backlog_cleanup.sample
                   WHERE grain = 'fine' ORDER BY sampled_at DESC LIMIT 1";
    assert!(truth(&mut client, unknown));
}

#[test]
fn pruning_keeps_the_sums_the_books_the_last_runs_and_those_at_work() {
    let cluster = Cluster::start("");
    let mut client = cluster.platform();
    for _ in 0..3 {
        fail(&mut client, 1, 15);
        client.batch_execute("SELECT backlog_cleanup_failed_generations()").unwrap();
    }
    client
        .batch_execute(
            "SELECT backlog_cleanup_failed_generations(recipe_id => '1'), backlog_cleanup_failed_generations(status => 'failed');
             SELECT backlog_cleanup_emergency()",
        )
        .unwrap();
    fail(&mut client, 2, 100);
    let mut session = cluster.connect();
    session.batch_execute(&cluster::start_run(10)).unwrap();
    let running: i64 = value(&mut client, "SELECT max(id) FROM backlog_cleanup.run WHERE state = 'running'");
    let sums = "SELECT sum(runs)::bigint, sum(removed)::bigint, round(sum(seconds) * 1000000)::bigint FROM backlog_cleanup.total
                WHERE state <> 'running'";
    let before: [i64; 3] = numbers(&mut client, sums);
    client
        .batch_execute(
            "UPDATE backlog_cleanup.run SET started_at = started_at - interval '500 days', finished_at = finished_at - interval '500 days';
             UPDATE credit_transactions SET created_at = created_at - interval '500 days'",
        )
        .unwrap();
    for _ in 0..3 {
        client.batch_execute(TICK).unwrap();
    }
    // The last regular run of everything that was completed, the last that was completed, the last, which is at work.
    assert_eq!(
        cluster::column::<i64>(&mut client, "SELECT id FROM backlog_cleanup.run ORDER BY id"),
        [running - 4, running - 1, running]
    );
    let after: [i64; 3] = numbers(&mut client, sums);
    assert_eq!(before[..2], after[..2]);
    assert!((before[2] - after[2]).abs() < 1000, "{before:?} {after:?}");
    assert_eq!(numbers(&mut client, "SELECT difference FROM backlog_cleanup_books()"), [0]);
    assert!(
        number(&mut client, &format!("SELECT count(*) FROM backlog_cleanup.run_cutoff WHERE run_id = {running}")) > 0
    );
    // What is at work goes on.
    session
        .batch_execute(&format!("SELECT backlog_cleanup.next_batch({running}), backlog_cleanup.finish_run({running})"))
        .unwrap();
    assert_eq!(numbers(&mut client, "SELECT difference FROM backlog_cleanup_books()"), [0]);
    client.batch_execute("UPDATE backlog_cleanup.retention SET max_age = NULL WHERE what = 'run'").unwrap();
    let (sqlstate, ..) = refused(client.batch_execute("UPDATE backlog_cleanup.retention SET max_age = '1 minute'"));
    assert_eq!(sqlstate, "23514");
}

#[test]
fn an_interrupted_run_is_summed_up_when_its_age_is_over() {
    let cluster = Cluster::start("");
    let mut client = cluster.platform();
    fail(&mut client, 1, 100);
    let mut session = cluster.connect();
    session.batch_execute(&cluster::start_run(10)).unwrap();
    session.batch_execute("SELECT backlog_cleanup.next_batch(1)").unwrap();
    client
        .batch_execute(
            "UPDATE backlog_cleanup.run SET started_at = started_at - interval '8 days';
             UPDATE backlog_cleanup.run_batch SET finished_at = finished_at - interval '8 days'; SELECT backlog_cleanup_tick()",
        )
        .unwrap();
    let skipped = said(&mut client, "sum up generations", "skipped").expect("the run is at work");
    assert!(skipped.contains("another run on it is in progress"), "{skipped}");
    drop(session);
    until_true(
        &mut client,
        "SELECT count(*) = 0 FROM pg_locks WHERE locktype = 'object' AND classid = 'backlog_cleanup.target'::regclass",
    );
    client.batch_execute(TICK).unwrap();
    assert_eq!(value::<String>(&mut client, "SELECT state FROM backlog_cleanup.run"), "interrupted");
    assert_eq!(numbers(&mut client, "SELECT cleaned_count, failed_count FROM backlog_cleanup.run_recipe"), [10, 100]);
    assert_eq!(number(&mut client, "SELECT count(*) FROM backlog_cleanup.run_part"), 0);
    assert_eq!(balance(&mut client, 100), 10);
}

#[test]
fn the_job_ticks_and_its_own_history_is_pruned_on_request() {
    let cluster = with_pg_cron();
    let mut client = cluster.platform();
    let (status, detail, _) = findings_of(&mut client, "generations", "tick").remove(0);
    assert_eq!(status, "ok");
    assert!(
        detail.contains("there was no tick yet") && detail.contains("SELECT backlog_cleanup_schedule_tick()"),
        "{detail}"
    );
    client.batch_execute("SELECT backlog_cleanup_schedule_tick()").unwrap();
    assert_eq!(
        value::<String>(
            &mut client,
            "SELECT concat_ws('|', jobname, schedule, command, active) FROM cron.job WHERE jobname ~ 'tick'"
        ),
        "backlog-cleanup-tick|*/5 * * * *|SELECT public.backlog_cleanup_tick()|t"
    );
    // The nightly job's checks do not take it for a job of a target.
    assert_eq!(findings_of(&mut client, "generations", "job").remove(0).0, "ok");
    let (sqlstate, _, hint) = refused(client.batch_execute("SELECT backlog_cleanup_schedule_tick('nonsense')"));
    assert_eq!(
        (&sqlstate[..], &hint[..]),
        ("22023", "SELECT backlog_cleanup_schedule_tick('*/5 * * * *'); -- minute hour day month weekday")
    );

    // One that fails each time has never ticked.
    client
        .batch_execute(
            "INSERT INTO cron.job_run_details (jobid, runid, database, username, command, status, return_message, start_time, end_time)
             SELECT jobid, nextval('cron.runid_seq'), database, username, command, 'failed', E'ERROR:  no more\nDETAIL: secret', now(), now()
             FROM cron.job WHERE jobname = 'backlog-cleanup-tick';
             DELETE FROM backlog_cleanup.tick",
        )
        .unwrap();
    let (status, detail, _) = findings_of(&mut client, "generations", "tick").remove(0);
    assert!(
        status == "warn"
            && detail.contains(" has not ticked yet: its run of ")
            && detail.ends_with("failed: ERROR:  no more"),
        "{detail}"
    );
    client.batch_execute(TICK).unwrap();
    assert_eq!(findings_of(&mut client, "generations", "tick").remove(0).0, "ok");
    client.batch_execute("DELETE FROM cron.job_run_details").unwrap();
    pass(&mut client, "20 minutes");
    let (status, detail, _) = findings_of(&mut client, "generations", "tick").remove(0);
    assert!(status == "warn" && detail.contains("the last tick was 20 minutes ago"), "{detail}");
    // Another schedule may be late by its own period, and not by a day.
    client.batch_execute("SELECT backlog_cleanup_schedule_tick('*/4 * * * *')").unwrap();
    assert_eq!(findings_of(&mut client, "generations", "tick").remove(0).0, "ok");
    pass(&mut client, "70 minutes");
    assert_eq!(findings_of(&mut client, "generations", "tick").remove(0).0, "warn");
    client.batch_execute("SELECT backlog_cleanup_schedule_tick()").unwrap();
    client
        .batch_execute(
            "SELECT cron.alter_job(jobid, active => false) FROM cron.job WHERE jobname = 'backlog-cleanup-tick'",
        )
        .unwrap();
    let (status, _, fix) = findings_of(&mut client, "generations", "tick").remove(0);
    assert_eq!(status, "warn");
    client.batch_execute(&fix.expect("a fix")).unwrap();
    client
        .batch_execute(
            "INSERT INTO backlog_cleanup.target (name, generations_table) VALUES ('lost', 'public.generations');
             SET session_replication_role = replica; UPDATE backlog_cleanup.target SET generations_table = 'public.gone' WHERE name = 'lost';
             RESET session_replication_role",
        )
        .unwrap();
    client.batch_execute(TICK).unwrap();
    let (status, detail, _) = findings_of(&mut client, "generations", "tick").remove(0);
    assert!(
        status == "warn" && detail.starts_with("step sample of target lost of the last tick has failed: "),
        "{detail}"
    );

    client
        .batch_execute(
            "INSERT INTO cron.job_run_details (jobid, runid, database, username, command, status, start_time, end_time)
             SELECT j.jobid, nextval('cron.runid_seq'), current_database(), 'postgres', j.command, 'succeeded', now() - interval '9 days', now() - interval '9 days'
             FROM (SELECT jobid, command FROM cron.job UNION ALL SELECT 777, 'SELECT 1'
                   UNION ALL SELECT 778, 'SELECT public.backlog_cleanup_tick()'
                   UNION ALL SELECT 779, 'SELECT 1 -- not backlog_cleanup_tick()') j",
        )
        .unwrap();
    client.batch_execute(TICK).unwrap();
    let old = "SELECT count(*) FROM cron.job_run_details WHERE end_time < now() - interval '8 days'";
    assert_eq!(number(&mut client, old), 5, "off unless asked for");
    client
        .batch_execute(
            "UPDATE backlog_cleanup.retention SET max_age = '7 days' WHERE what = 'cron.job_run_details'; SELECT backlog_cleanup_tick()",
        )
        .unwrap();
    assert_eq!(number(&mut client, &format!("{old} AND jobid IN (777, 779)")), 2, "those of others stay");
    assert_eq!(number(&mut client, old), 2);
    assert!(truth(&mut client, "SELECT backlog_cleanup_unschedule('backlog-cleanup-tick')"));

    // From another database the hint says what to type in pg_cron's.
    let mut other = cluster.platform_in("shop");
    let (sqlstate, _, hint) = refused(other.batch_execute("SELECT backlog_cleanup_schedule_tick()"));
    assert_eq!(sqlstate, "55000");
    client.batch_execute(&hint).unwrap();
    assert_eq!(
        value::<String>(&mut client, "SELECT concat_ws('|', jobname, database) FROM cron.job WHERE jobname ~ 'tick'"),
        "backlog-cleanup-tick@shop|shop"
    );
}

#[test]
fn a_dump_carries_samples_and_how_long_everything_is_kept() {
    let cluster = Cluster::start("");
    let mut client = cluster.platform();
    client
        .batch_execute(
            "SELECT backlog_cleanup_tick(); UPDATE backlog_cleanup.retention SET max_age = NULL, note = 'the law' WHERE what = 'run'",
        )
        .unwrap();
    client.batch_execute("CREATE DATABASE restored").unwrap();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("dump");
    let file = file.to_str().unwrap();
    cluster.program("pg_dump", &["-Fc", "-f", file, "postgres"]);
    cluster.program("pg_restore", &["-e", "-d", "restored", file]);
    let mut restored = cluster.connect_to("restored");
    let kept = "SELECT (SELECT count(*) FROM backlog_cleanup.sample) = 1 AND max_age IS NULL AND note = 'the law'
                FROM backlog_cleanup.retention WHERE what = 'run'";
    assert!(truth(&mut restored, kept));
    assert_eq!(number(&mut restored, "SELECT count(*) FROM backlog_cleanup.retention"), 11);
    restored.batch_execute(TICK).unwrap();
}

#[test]
fn on_an_outage_a_tick_takes_milliseconds() {
    let cluster = Cluster::start("");
    cluster.outage("postgres", 100_000, 2_000);
    let mut client = cluster.connect();
    client.batch_execute("CREATE EXTENSION backlog_cleanup").unwrap();
    create_index(&mut client, "generations");
    client.batch_execute("VACUUM ANALYZE generations").unwrap();
    client.batch_execute(TICK).unwrap();
    pass(&mut client, "5 minutes");
    let milliseconds: f64 = value(&mut client, "SELECT (backlog_cleanup_tick() -> 'milliseconds')::float8");
    // On a machine that does much else beside it.
    assert!(milliseconds < 500.0, "{milliseconds} ms");
    println!("a tick on an outage of 100,000 rows with the index: {milliseconds} ms");
}

#[test]
fn quiet_hours_are_those_of_the_samples_by_the_clock_of_the_target() {
    let cluster = Cluster::start("");
    let mut client = cluster.platform();
    assert_eq!(number(&mut client, "SELECT count(*) FROM backlog_cleanup_quiet_hours() WHERE note IS NOT NULL"), 0);
    // Four weeks. In Berlin it is quiet at 4 in the morning, and on Sundays most; one night is an outlier, one hour was hardly sampled.
    client
        .batch_execute(
            "UPDATE backlog_cleanup.target SET time_zone = 'Europe/Berlin';
             INSERT INTO backlog_cleanup.sample (target, grain, sampled_at, milliseconds, seconds, transactions)
             SELECT 'generations', 'hour', at, 1, seconds,
                    seconds * CASE WHEN extract(hour FROM local) = 4 THEN CASE WHEN extract(isodow FROM local) = 7 THEN 2 ELSE 5 END
                                   ELSE 50 END * CASE WHEN at > now() - interval '1 day' THEN 100 ELSE 1 END
             FROM generate_series(date_trunc('hour', now()) - interval '28 days', now() - interval '1 hour', interval '1 hour') at,
                  LATERAL (SELECT at AT TIME ZONE 'Europe/Berlin', CASE WHEN at < now() - interval '27 days' THEN 60 ELSE 3600 END) AS t (local, seconds)",
        )
        .unwrap();
    let noted = "SELECT concat_ws('|', hour, transactions_per_second, mon, sun, note) FROM backlog_cleanup_quiet_hours() WHERE note IS NOT NULL";
    assert_eq!(
        cluster::column::<String>(&mut client, noted),
        ["04:00|5|5|2|quietest of the day, quietest of the week on Sunday"]
    );
    assert_eq!(number(&mut client, "SELECT count(*) FROM backlog_cleanup_quiet_hours()"), 24);
    assert_eq!(refused(client.batch_execute("SELECT backlog_cleanup_quiet_hours('nobody')")).0, "42704");
}

#[test]
fn of_a_large_table_whose_index_lacks_what_a_policy_names_the_rows_in_scope_are_counted() {
    let cluster = Cluster::start("");
    let mut client = cluster.platform();
    fail(&mut client, 1, 15);
    create_index(&mut client, "generations");
    client.batch_execute("VACUUM generations").unwrap();
    client.batch_execute("CHECKPOINT").unwrap();
    // Empty pages at its end, which take no room on the disk.
    let path = "SELECT current_setting('data_directory') || '/' || pg_relation_filepath('generations')";
    let path: String = value(&mut client, path);
    let grow = |path: &str, bytes: u64| {
        std::fs::OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path)
            .unwrap()
            .set_len(bytes)
            .unwrap();
    };
    grow(&path, 1 << 30);
    let next = format!("{path}.1");
    grow(&next, 80 << 20);
    let owner = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(&path).unwrap());
    std::os::unix::fs::chown(&next, Some(owner), None).unwrap();
    let counted = "SELECT concat_ws('|', in_scope, removable, not_counted) FROM backlog_cleanup.sample ORDER BY sampled_at DESC LIMIT 1";
    client.batch_execute(TICK).unwrap();
    assert_eq!(value::<String>(&mut client, counted), "15|5");
    client.batch_execute("SELECT backlog_cleanup_set_policy(failure_type => 'timeout', keep => 3)").unwrap();
    pass(&mut client, "20 minutes");
    client.batch_execute(TICK).unwrap();
    assert_eq!(
        value::<String>(&mut client, counted),
        "15|what a run would remove is not counted: a policy names a failure type, which the partial index does not have"
    );
}

/// What three years without pruning would leave; the bench has the same.
const THREE_YEARS: &str = include_str!("../../benches/three_years.sql");

#[test]
fn three_years_of_nights_and_ticks_stay_under_64_megabytes() {
    let cluster = Cluster::start("");
    let mut client = cluster.platform();
    client.batch_execute(THREE_YEARS).unwrap();
    let runs = "SELECT sum(runs)::bigint, sum(removed)::bigint FROM backlog_cleanup.total";
    let before: [i64; 2] = numbers(&mut client, runs);
    let mut longest: f64 = 0.0;
    for _ in 0..30 {
        longest = longest.max(value(&mut client, "SELECT (backlog_cleanup_tick() -> 'milliseconds')::float8"));
    }
    assert_eq!(numbers(&mut client, runs), before);
    let kept =
        |client: &mut Client, table: &str| number(client, &format!("SELECT count(*) FROM backlog_cleanup.{table}"));
    // The run of 400 days ago took two seconds, as these ticks may.
    let runs_kept = kept(&mut client, "run");
    assert!([400, 401].contains(&runs_kept), "{runs_kept}");
    assert_eq!(kept(&mut client, "run_policy"), runs_kept);
    let nights = kept(&mut client, "run_recipe") / 2000;
    assert!([90, 91].contains(&nights), "{nights}");
    assert!((2016..=2016 + 31).contains(&kept(&mut client, "tick")), "{}", kept(&mut client, "tick"));
    // As VACUUM FULL or time would have it: what was pruned in this test is far more at once than ever in those years.
    let tables = "SELECT oid::regclass::text FROM pg_class WHERE relnamespace = 'backlog_cleanup'::regnamespace AND relkind = 'r'";
    for table in cluster::column::<String>(&mut client, tables) {
        client.batch_execute(&format!("VACUUM FULL {table}")).unwrap();
    }
    let size = "SELECT sum(pg_total_relation_size(oid)) FROM pg_class WHERE relnamespace = 'backlog_cleanup'::regnamespace AND relkind = 'r'";
    let megabytes = number(&mut client, size) as f64 / 1e6;
    println!("after three years: {megabytes:.1} MB; the longest of the ticks that pruned took {longest:.0} ms");
    assert!(megabytes < 64.0, "{megabytes} MB");
}

/// The last decision: its action and its reason.
fn decided(client: &mut Client) -> (String, String) {
    let last = "SELECT action, reason FROM backlog_cleanup.decision ORDER BY id DESC LIMIT 1";
    let row = client.query_one(last, &[]).unwrap();
    (row.get(0), row.get(1))
}

#[test]
fn an_adaptive_target_is_cleaned_up_early_and_every_decision_has_its_reason() {
    let cluster = Cluster::start("");
    let mut client = cluster.platform();
    fail(&mut client, 1, 60);
    client.batch_execute(TICK).unwrap();
    assert_eq!(number(&mut client, "SELECT count(*) FROM backlog_cleanup.decision"), 0, "off by default");
    let explained: String = value(&mut client, "SELECT backlog_cleanup_explain_tick()");
    assert!(explained.contains("it is not adaptive"), "{explained}");
    client
        .batch_execute(
            "CREATE ROLE op LOGIN; SELECT backlog_cleanup_grant('op', 'operator');
             UPDATE backlog_cleanup.target SET adaptive = true, adaptive_min_rows = 100",
        )
        .unwrap();
    pass(&mut client, "5 minutes");
    client.batch_execute(TICK).unwrap();
    let (action, reason) = decided(&mut client);
    assert_eq!(action, "none");
    assert!(
        reason
            .starts_with("50 rows are removable, fewer than adaptive_min_rows = 100; there is no baseline yet: 0 of 5"),
        "{reason}"
    );
    let explained: String = value(&mut client, "SELECT backlog_cleanup_explain_tick()");
    assert!(explained.contains("nothing was done, since 50 rows are removable"), "{explained}");

    // Enough rows, but what is rolled back has not happened.
    fail(&mut client, 2, 110);
    pass(&mut client, "5 minutes");
    let mut watch = cluster.connect();
    let early = "FROM pg_stat_activity WHERE backend_type = 'backlog_cleanup early run'";
    client.batch_execute("BEGIN; SELECT backlog_cleanup_tick()").unwrap();
    until_true(&mut watch, &format!("SELECT count(*) = 1 {early} AND wait_event = 'object'"));
    client.batch_execute("ROLLBACK").unwrap();
    until_true(&mut watch, &format!("SELECT count(*) = 0 {early}"));
    assert_eq!(number(&mut client, "SELECT count(*) FROM backlog_cleanup.run"), 0);

    // A run starts in a worker, as who ticks; the tick does not wait for it.
    client
        .batch_execute(
            "SET SESSION AUTHORIZATION op; SELECT public.backlog_cleanup_tick(); RESET SESSION AUTHORIZATION",
        )
        .unwrap();
    assert_eq!(decided(&mut client), ("run".into(), "150 rows are removable, and adaptive_min_rows is 100".into()));
    until_true(&mut client, "SELECT count(*) = 1 FROM backlog_cleanup.run WHERE state = 'completed'");
    let run = "SELECT concat_ws('|', mode, requested_by, removed, batches) FROM backlog_cleanup.run";
    assert_eq!(value::<String>(&mut client, run), "regular|op|150|1");
    assert_eq!(balance(&mut client, 170), 150);

    // Not again within adaptive_min_interval, whatever is removable.
    fail(&mut client, 3, 500);
    pass(&mut client, "5 minutes");
    client.batch_execute(TICK).unwrap();
    let (action, reason) = decided(&mut client);
    assert!(action == "none" && reason.ends_with("and adaptive_min_interval is 60 minutes"), "{reason}");

    // While a run is at work, none is started.
    client
        .batch_execute("UPDATE backlog_cleanup.target SET adaptive_min_interval = '0'; UPDATE backlog_cleanup.decision SET action = 'none'")
        .unwrap();
    let mut session = cluster.connect();
    session.batch_execute(&cluster::start_run(10)).unwrap();
    pass(&mut client, "5 minutes");
    client.batch_execute(TICK).unwrap();
    let (action, reason) = decided(&mut client);
    assert!(action == "none" && reason.starts_with("a run is at work"), "{reason}");
}

#[test]
fn an_adaptive_target_is_cleaned_up_when_failures_stand_out_from_their_usual_hour() {
    let cluster = Cluster::start("");
    let mut client = cluster.platform();
    fail(&mut client, 1, 60);
    client
        .batch_execute(
            "UPDATE backlog_cleanup.target SET adaptive = true;
             INSERT INTO backlog_cleanup.sample (target, grain, sampled_at, milliseconds, seconds, failed, failed_seconds)
             SELECT 'generations', 'hour', date_trunc('hour', now()) - i * interval '1 day', 1, 3600,
                    CASE i WHEN 3 THEN 100000 ELSE 120 END, 3600
             FROM generate_series(1, 7) i",
        )
        .unwrap();
    client.batch_execute(TICK).unwrap();
    let fail_now = |client: &mut Client, rows: i32| {
        pass(client, "5 minutes");
        client
            .batch_execute(&format!(
                "INSERT INTO generations (user_id, recipe_id, prompt, status, updated_at)
                 SELECT 'system_backlog', 1, '', 'failed', now() AT TIME ZONE 'UTC' - interval '1 minute' FROM generate_series(1, {rows})"
            ))
            .unwrap();
        client.batch_execute(TICK).unwrap();
        decided(client)
    };
    // Usually two a minute: the night with many does not count, since that is a median.
    let (action, reason) = fail_now(&mut client, 20);
    assert!(
        action == "none" && reason.contains("4.0 rows came into scope per minute, usually 2.0 at this hour"),
        "{reason}"
    );
    let (action, reason) = fail_now(&mut client, 100);
    assert!(
        action == "run"
            && reason
                .contains("rows came into scope per minute, usually 2.0 at this hour, and adaptive_rate_factor is 5"),
        "{reason}"
    );
    until_true(&mut client, "SELECT count(*) = 1 FROM backlog_cleanup.run WHERE state = 'completed'");
    let with_numbers = "SELECT numbers ->> 'usualPerMinute' = '2' AND (numbers ->> 'usualOf')::int = 7 FROM backlog_cleanup.decision ORDER BY id DESC LIMIT 1";
    assert!(truth(&mut client, with_numbers));
}

#[test]
fn a_run_goes_slower_while_the_database_is_busier_than_in_its_usual_hour() {
    let cluster = Cluster::start("");
    let mut client = cluster.platform();
    fail(&mut client, 1, 20_000);
    client
        .batch_execute(
            "UPDATE backlog_cleanup.target SET adaptive = true;
             INSERT INTO backlog_cleanup.sample (target, grain, sampled_at, milliseconds, seconds, transactions)
             SELECT 'generations', 'hour', date_trunc('hour', now()) - i * interval '1 day', 1, 3600, 3600 * 50 FROM generate_series(1, 7) i",
        )
        .unwrap();
    let mut session = cluster.connect();
    session.batch_execute(&cluster::start_run(1_000)).unwrap();
    for _ in 0..10 {
        session.batch_execute("SELECT backlog_cleanup.next_batch(1)").unwrap();
    }
    // The run has removed 2,000 rows a second.
    client
        .batch_execute("UPDATE backlog_cleanup.run SET started_at = clock_timestamp() - interval '5 seconds'")
        .unwrap();
    // What the database does in the five minutes before the tick: so many transactions a second.
    client.batch_execute(TICK).unwrap();
    let source: String =
        value(&mut client, "SELECT counters ->> 'source' FROM backlog_cleanup.sample WHERE grain = 'fine'");
    let tick = |client: &mut Client, rate: i64| {
        client
            .batch_execute(&format!(
                "DELETE FROM backlog_cleanup.sample WHERE grain = 'fine'; SELECT pg_stat_force_next_flush();
                 INSERT INTO backlog_cleanup.sample (target, grain, sampled_at, milliseconds, counters)
                 SELECT 'generations', 'fine', now() - interval '5 minutes', 1,
                        jsonb_build_object('transactions', xact_commit + xact_rollback - {}, 'source', '{source}')
                 FROM pg_stat_database WHERE datname = current_database();
                 {TICK}",
                300 * rate
            ))
            .unwrap();
        let numbers: (String, String) = decided(client);
        let slowed = "SELECT rows_per_second::bigint FROM backlog_cleanup.decision ORDER BY id DESC LIMIT 1";
        (numbers.0, numbers.1, value::<Option<i64>>(client, slowed))
    };
    let (action, reason, _) = tick(&mut client, 60);
    assert!(action == "none" && reason.contains("60."), "{reason}");
    let (action, reason, first) = tick(&mut client, 200);
    assert_eq!(action, "slow", "{reason}");
    assert!(reason.contains("usually 50.0 at this hour: it goes on with "), "{reason}");
    let first = first.unwrap();
    assert!((300..=1_000).contains(&first), "{first}");
    let explained: String = value(&mut client, "SELECT backlog_cleanup_explain_tick()");
    assert!(explained.contains("the run goes on slower, since a run is at work"), "{explained}");
    // The next batches are of a quarter of a second at that rate, and wait for each other.
    let before = number(&mut client, "SELECT removed FROM backlog_cleanup.run");
    let started = Instant::now();
    while number(&mut client, "SELECT removed FROM backlog_cleanup.run") < before + first {
        let wait: f64 = value(&mut session, "SELECT backlog_cleanup.next_batch(1)");
        std::thread::sleep(std::time::Duration::from_secs_f64(wait));
    }
    assert!(started.elapsed().as_secs_f64() > 0.4, "{:?}", started.elapsed());
    // While that lasts, half as fast again; then at its own pace.
    let (action, _, second) = tick(&mut client, 200);
    assert_eq!((&action[..], second), ("slow", Some(first / 2)));
    let (action, reason, none) = tick(&mut client, 60);
    assert_eq!((&action[..], none), ("resume", None), "{reason}");
    let removed = |client: &mut Client| number(client, "SELECT removed FROM backlog_cleanup.run");
    let before = removed(&mut client);
    until_holds(|| {
        session.batch_execute("SELECT backlog_cleanup.next_batch(1)").unwrap();
        removed(&mut client) > before
    });
    assert!(removed(&mut client) > before + first / 4, "a whole batch");
    // Whoever does not tick any more slows nothing down for long.
    let (action, ..) = tick(&mut client, 200);
    assert_eq!(action, "slow");
    let slowed = "SELECT backlog_cleanup.slowed_to(target, started_at) IS NULL FROM backlog_cleanup.run";
    assert!(!truth(&mut client, slowed));
    client
        .batch_execute(
            "UPDATE backlog_cleanup.run SET started_at = started_at - interval '1 hour';
                        UPDATE backlog_cleanup.decision SET decided_at = decided_at - interval '16 minutes'",
        )
        .unwrap();
    assert!(truth(&mut client, slowed));
}

#[test]
fn code_of_a_tables_owner_makes_no_tick_slow() {
    let cluster = Cluster::start("");
    let mut client = cluster.platform();
    client.batch_execute(&cluster::JOBS.replace("CREATE EXTENSION backlog_cleanup;", "")).unwrap();
    client
        .batch_execute(
            "CREATE FUNCTION meets(text) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN true; END';
             ALTER FUNCTION meets OWNER TO app; UPDATE backlog_cleanup.target SET condition = '(public.meets(queue))' WHERE name = 't';
             CREATE OR REPLACE FUNCTION meets(text) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS 'BEGIN PERFORM pg_sleep(600); RETURN true; END'",
        )
        .unwrap();
    // Also where it is within a function of the extension.
    let calls = "CREATE OR REPLACE FUNCTION meets(text) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS
                 'BEGIN FOR i IN 1..1000000 LOOP PERFORM public.backlog_cleanup_report(); END LOOP; RETURN true; END'";
    // And where it is caught again and again.
    let catches = "CREATE OR REPLACE FUNCTION meets(text) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS
                   'BEGIN LOOP BEGIN PERFORM pg_sleep(10); EXCEPTION WHEN query_canceled THEN NULL; END; END LOOP; END'";
    for body in ["SELECT backlog_cleanup_grant('app', 'monitor')", catches, calls] {
        client.batch_execute(body).unwrap();
        client.batch_execute("DELETE FROM backlog_cleanup.sample").unwrap();
        let started = Instant::now();
        client.batch_execute(TICK).unwrap();
        assert!((5.0..30.0).contains(&started.elapsed().as_secs_f64()), "{:?}", started.elapsed());
        assert_eq!(said(&mut client, "sample t", "skipped").as_deref(), Some("it was ended after 5 s"), "{body}");
    }
    // Its size and its statistics are there, and so is everything else; the session goes on.
    let sampled = "SELECT in_scope IS NULL AND table_bytes > 0 AND not_counted = 'it was ended after 5 s' FROM backlog_cleanup.sample WHERE target = 't'";
    assert!(truth(&mut client, sampled));
    assert!(truth(&mut client, "SELECT in_scope = 0 FROM backlog_cleanup.sample WHERE target = 'generations'"));
    client.batch_execute("SELECT pg_sleep(0.3)").unwrap();
    // An hour of that is told.
    client
        .batch_execute(
            "INSERT INTO backlog_cleanup.sample (target, grain, sampled_at, milliseconds, not_counted)
             SELECT target, grain, sampled_at - i * interval '5 minutes', milliseconds, not_counted
             FROM backlog_cleanup.sample, generate_series(1, 6) i WHERE target = 't' AND grain = 'fine'",
        )
        .unwrap();
    // The doctor calls the same code, and is as patient.
    let started = Instant::now();
    let found = "SELECT string_agg(check_name || ': ' || detail, E'\\n' ORDER BY check_name) FROM backlog_cleanup_doctor('t') WHERE status = 'warn'";
    let found: String = value(&mut client, found);
    assert!(started.elapsed() < Duration::from_secs(60), "{:?}", started.elapsed());
    for said in [
        "rows: this check was ended after 5 s: decide",
        "tick: no sample of the last hour has counted the rows: it was ended after 5 s",
    ] {
        assert!(found.contains(said), "{found}");
    }
    client.batch_execute("SELECT pg_sleep(0.3)").unwrap();
}

#[test]
fn what_ends_a_statement_ends_a_check_and_a_run_whatever_code_makes_of_it() {
    let cluster = Cluster::start("");
    let mut client = cluster.platform();
    client.batch_execute(&cluster::JOBS.replace("CREATE EXTENSION backlog_cleanup;", "")).unwrap();
    // It catches the first cancel, and is slow; what it calls is slow, too.
    client
        .batch_execute(
            "SELECT backlog_cleanup_grant('app', 'monitor');
             CREATE FUNCTION meets(text) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN true; END'; ALTER FUNCTION meets OWNER TO app;
             UPDATE backlog_cleanup.target SET condition = '(public.meets(queue))' WHERE name = 't'",
        )
        .unwrap();
    let meets = |client: &mut Client, body: &str| {
        let written =
            format!("CREATE OR REPLACE FUNCTION meets(text) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $${body}$$");
        client.batch_execute(&written).unwrap();
    };
    meets(
        &mut client,
        "BEGIN PERFORM pg_sleep(6); RETURN true; EXCEPTION WHEN query_canceled THEN PERFORM pg_sleep(20); RETURN true; END",
    );
    let mut session = cluster.connect();
    session.batch_execute("SET statement_timeout = '2 s'").unwrap();
    for call in ["SELECT count(*) FROM backlog_cleanup_doctor('t')", TICK] {
        let started = Instant::now();
        assert_eq!(cluster::refused(session.batch_execute(call)).0, "57014", "{call}");
        assert!(started.elapsed() < Duration::from_secs(15), "{call}: {:?}", started.elapsed());
    }
    // It goes on in spite of a timeout until the limit of a step ends it.
    meets(
        &mut client,
        "DECLARE
             since timestamptz := clock_timestamp();
         BEGIN
             WHILE current_setting('my.slow', true) = 'on' AND clock_timestamp() < since + interval '8 s' LOOP
                 BEGIN PERFORM pg_sleep(30); EXCEPTION WHEN query_canceled THEN NULL; END;
             END LOOP;
             PERFORM set_config('my.slow', 'off', false); RETURN true;
         END",
    );
    session.batch_execute("SET statement_timeout = '3 s'").unwrap();
    for call in ["SELECT count(*) FROM backlog_cleanup_doctor('t')", TICK] {
        session.batch_execute("SET my.slow = 'on'").unwrap();
        let (sqlstate, message, _) = cluster::refused(session.batch_execute(call));
        let expected = ("57014", "canceling statement due to statement timeout");
        assert_eq!((sqlstate.as_str(), message.as_str()), expected, "{call}");
    }
    session.batch_execute("SET statement_timeout = '2 s'").unwrap();
    // The limit of a step holds for a doctor that code of it calls.
    meets(
        &mut client,
        "BEGIN PERFORM * FROM public.backlog_cleanup_doctor('generations'); PERFORM pg_sleep(60); RETURN true; END",
    );
    let started = Instant::now();
    client.batch_execute(TICK).unwrap();
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
    assert_eq!(said(&mut client, "sample t", "skipped").as_deref(), Some("it was ended after 5 s"));
    // A doctor in between is no reason to forget it.
    meets(&mut client, "BEGIN PERFORM pg_sleep(0.1); RETURN true; END");
    client
        .batch_execute(
            "CREATE FUNCTION catch() RETURNS trigger LANGUAGE plpgsql AS $$
             BEGIN PERFORM pg_sleep(60); RETURN OLD;
             EXCEPTION WHEN query_canceled THEN
                 PERFORM count(*) FROM public.backlog_cleanup_doctor('t'); RAISE EXCEPTION 'mine';
             END $$;
             ALTER FUNCTION catch OWNER TO app; UPDATE backlog_cleanup.target SET condition = NULL WHERE name = 't';
             CREATE TRIGGER catch BEFORE DELETE ON job FOR EACH ROW WHEN (OLD.id = 7) EXECUTE FUNCTION catch();
             UPDATE backlog_cleanup.policy SET keep = 0",
        )
        .unwrap();
    cluster::refused(session.batch_execute("SELECT backlog_cleanup_failed_generations('t')"));
    assert_eq!(number(&mut client, "SELECT count(*) FROM job"), 100);
}

#[test]
fn many_rows_are_counted_with_every_other_tick_and_not_all_targets_with_one() {
    let cluster = Cluster::start("");
    let mut client = cluster.platform();
    fail(&mut client, 1, 300_001);
    client
        .batch_execute("INSERT INTO backlog_cleanup.target (name) SELECT 'copy ' || i FROM generate_series(1, 3) i; ANALYZE generations")
        .unwrap();
    let counted = "SELECT string_agg(target, ', ' ORDER BY target) FROM backlog_cleanup.sample
                   WHERE in_scope IS NOT NULL AND sampled_at = (SELECT max(sampled_at) FROM backlog_cleanup.sample)";
    client.batch_execute(TICK).unwrap();
    assert_eq!(value::<String>(&mut client, counted), "copy 1, copy 2");
    let why = said(&mut client, "sample copy 3", "skipped").unwrap();
    assert_eq!(why, "this tick has counted 600002 rows of others");
    client.batch_execute("UPDATE backlog_cleanup.sample SET milliseconds = 1").unwrap();
    pass(&mut client, "5 minutes");
    client.batch_execute(TICK).unwrap();
    assert_eq!(value::<String>(&mut client, counted), "copy 3, generations", "those that have waited longest");
    client.batch_execute("UPDATE backlog_cleanup.sample SET milliseconds = 1").unwrap();
    pass(&mut client, "5 minutes");
    client.batch_execute(TICK).unwrap();
    assert_eq!(value::<String>(&mut client, counted), "copy 1, copy 2");
    // A single target, too, is counted with every other tick only.
    client.batch_execute("DELETE FROM backlog_cleanup.target WHERE name LIKE 'copy %'").unwrap();
    for counts in [true, false, true] {
        client.batch_execute("UPDATE backlog_cleanup.sample SET milliseconds = 1").unwrap();
        pass(&mut client, "5 minutes");
        client.batch_execute(TICK).unwrap();
        let why = said(&mut client, "sample generations", "skipped").unwrap_or_default();
        assert_eq!(why.starts_with("the last count had 300001 rows"), !counts, "{why}");
        assert_eq!(value::<Option<String>>(&mut client, counted).is_some(), counts);
    }
}

#[test]
fn alerts_that_are_over_are_pruned_and_open_ones_stay() {
    let cluster = Cluster::start("");
    let mut client = cluster.platform();
    client
        .batch_execute(
            "UPDATE backlog_cleanup.alert_rule SET enabled = false WHERE kind <> 'failed_runs';
             INSERT INTO backlog_cleanup.alert (rule, target, subject, opened_at, resolved_at, snoozed_until, value, threshold, sentence)
             SELECT 'a rule', NULL, i, now() - interval '500 days', CASE WHEN i <> 'locked open' THEN now() - age END, snoozed, 1, 0, i
             FROM (VALUES ('over', interval '401 days', NULL::timestamptz), ('of last year', '399 days', NULL),
                          ('snoozed', '401 days', now() + interval '1 day'), ('locked open', '401 days', NULL)) alerts (i, age, snoozed);
             SELECT backlog_cleanup_tick()",
        )
        .unwrap();
    let left = "SELECT subject FROM backlog_cleanup.alert ORDER BY subject";
    assert_eq!(cluster::column::<String>(&mut client, left), ["locked open", "of last year", "snoozed"]);
}

#[test]
fn counters_of_something_else_are_not_compared() {
    let cluster = Cluster::start("");
    let mut client = cluster.platform();
    fail(&mut client, 1, 5);
    client.batch_execute("SELECT pg_stat_force_next_flush()").unwrap();
    let known = "SELECT concat_ws(' ', inserted IS NOT NULL, transactions IS NOT NULL, removed IS NOT NULL)
                 FROM backlog_cleanup.sample ORDER BY sampled_at DESC LIMIT 1";
    for (what, expected) in [
        ("SELECT", "f f f"),
        ("SELECT", "t t t"),
        ("SELECT pg_stat_reset()", "f f t"),
        (
            "CREATE TABLE more (LIKE generations INCLUDING ALL); UPDATE backlog_cleanup.target SET generations_table = 'public.more'",
            "f f t",
        ),
        ("SELECT", "t t t"),
    ] {
        pass(&mut client, "5 minutes");
        client.batch_execute(what).unwrap();
        let more =
            "INSERT INTO generations (user_id, prompt, status) SELECT 'x', '', 'pending' FROM generate_series(1, 5000);
                    SELECT pg_stat_force_next_flush()";
        client.batch_execute(more).unwrap();
        client.batch_execute(TICK).unwrap();
        assert_eq!(value::<String>(&mut client, known), expected, "{what}");
    }
    client
        .batch_execute(
            "CREATE EXTENSION file_fdw; CREATE SERVER files FOREIGN DATA WRAPPER file_fdw;
             ALTER TABLE generations RENAME TO rows;
             CREATE FOREIGN TABLE generations (id int, user_id text, recipe_id int, prompt text, status text, failure_reason text, updated_at timestamp)
                 SERVER files OPTIONS (program 'true', format 'csv');
             UPDATE backlog_cleanup.target SET generations_table = 'public.generations', id_columns = '{id}'",
        )
        .unwrap();
    pass(&mut client, "5 minutes");
    client.batch_execute(TICK).unwrap();
    let nothing = "SELECT num_nonnulls(table_bytes, index_bytes, live_rows, dead_rows) = 0 AND in_scope = 0 FROM backlog_cleanup.sample ORDER BY sampled_at DESC LIMIT 1";
    assert!(truth(&mut client, nothing));
}

#[test]
fn a_tick_does_not_wait_for_its_own_tables_and_one_that_has_begun_earlier_does_nothing() {
    let cluster = Cluster::start("");
    let mut client = cluster.platform();
    client.batch_execute(TICK).unwrap();
    let mut other = cluster.connect();
    for table in ["tick", "target", "sample", "alert"] {
        pass(&mut client, "5 minutes");
        other.batch_execute(&format!("BEGIN; LOCK TABLE backlog_cleanup.{table}")).unwrap();
        let since = Instant::now();
        let done: String = value(&mut client, "SELECT backlog_cleanup_tick()::text");
        assert!(since.elapsed().as_secs() < 2 && done.contains("lock"), "{table}: {done}");
        other.batch_execute("ROLLBACK").unwrap();
    }
    pass(&mut client, "5 minutes");
    client.batch_execute("BEGIN; SELECT now()").unwrap();
    other.batch_execute(TICK).unwrap();
    let late: String = value(&mut client, "SELECT backlog_cleanup_tick() ->> 'skipped'");
    assert_eq!(late, "another tick has begun later than this transaction");
    client.batch_execute("COMMIT").unwrap();
    assert!(truth(&mut client, "SELECT bool_and(seconds > 0) FROM backlog_cleanup.sample WHERE seconds IS NOT NULL"));
}

#[test]
fn an_early_run_that_is_refused_is_in_the_history_and_after_three_none_is_started() {
    let cluster = Cluster::start("");
    let mut client = cluster.platform();
    fail(&mut client, 1, 500);
    client
        .batch_execute(
            "UPDATE backlog_cleanup.target SET adaptive = true, adaptive_min_rows = 50, adaptive_min_interval = '0', max_rows_per_run = 100",
        )
        .unwrap();
    for refused in 1..4 {
        client.batch_execute(TICK).unwrap();
        pass(&mut client, "5 minutes");
        until_true(
            &mut client,
            &format!(
                "SELECT count(*) = {refused} FROM backlog_cleanup.history WHERE state = 'failed' AND error_sqlstate = '54000'"
            ),
        );
    }
    let said =
        "SELECT error_message || requested_by || (finished_at >= started_at) FROM backlog_cleanup.history LIMIT 1";
    let said: String = value(&mut client, said);
    assert_eq!(
        said,
        "target \"generations\": a run would remove 490 of 500 generations in scope, more than max_rows_per_run allows (100)postgrestrue"
    );
    let logged = cluster.logged();
    assert!(!logged.contains("you don't own a lock"), "{logged}");
    client.batch_execute(TICK).unwrap();
    let (action, reason) = decided(&mut client);
    assert!(
        action == "none" && reason.starts_with("the last 3 runs have failed, and a run has to succeed first: target"),
        "{reason}"
    );
    assert!(truth(&mut client, "SELECT value = 3 FROM backlog_cleanup.alert WHERE rule = 'failed runs'"));

    // What a run has kept back does not start the next.
    client
        .batch_execute(
            "UPDATE backlog_cleanup.target SET max_rows_per_run = NULL;
             CREATE TABLE shared (generation int REFERENCES generations); INSERT INTO shared SELECT id FROM generations",
        )
        .unwrap();
    client.batch_execute("CALL backlog_cleanup_run()").unwrap();
    pass(&mut client, "5 minutes");
    client.batch_execute(TICK).unwrap();
    let (action, reason) = decided(&mut client);
    assert_eq!(action, "none", "{reason}");
    assert!(
        reason.starts_with("0 rows are removable without the 490 that the last run has kept back, fewer than"),
        "{reason}"
    );

    // Where nothing fails usually, a flood stands out.
    client
        .batch_execute(
            "DROP TABLE shared;
             UPDATE backlog_cleanup.target SET adaptive_min_rows = 100000;
             UPDATE backlog_cleanup.run SET kept_back = 0;
             INSERT INTO backlog_cleanup.sample (target, grain, sampled_at, milliseconds, seconds, failed, failed_seconds)
             SELECT 'generations', 'hour', date_trunc('hour', now()) - i * interval '1 day', 1, 3600, 0, 3600 FROM generate_series(1, 7) i",
        )
        .unwrap();
    for (rows, expected) in [(20, "none"), (1000, "run")] {
        pass(&mut client, "5 minutes");
        client
            .batch_execute(&format!(
                "INSERT INTO generations (user_id, recipe_id, prompt, status, updated_at)
                 SELECT 'system_backlog', 1, '', 'failed', now() AT TIME ZONE 'UTC' - interval '1 minute' FROM generate_series(1, {rows})"
            ))
            .unwrap();
        client.batch_execute(TICK).unwrap();
        let (action, reason) = decided(&mut client);
        assert_eq!(action, expected, "{reason}");
    }
}

#[test]
fn times_that_do_not_tell_which_rows_came_in_count_none() {
    let cluster = Cluster::start("");
    let mut client = cluster.platform();
    client.batch_execute("ALTER TABLE generations ALTER updated_at TYPE date").unwrap();
    client.batch_execute(TICK).unwrap();
    pass(&mut client, "5 minutes");
    fail(&mut client, 1, 9);
    client.batch_execute(TICK).unwrap();
    let last = "SELECT concat_ws('|', in_scope, failed, failed_seconds, not_counted) FROM backlog_cleanup.sample ORDER BY sampled_at DESC LIMIT 1";
    assert_eq!(value::<String>(&mut client, last), "9|updated_at says only the day on which a row failed");
}

#[test]
fn a_timeout_of_an_operator_ends_the_whole_tick_and_interrupts_a_run() {
    let cluster = Cluster::start("");
    let mut client = cluster.platform();
    client.batch_execute(&cluster::JOBS.replace("CREATE EXTENSION backlog_cleanup;", "")).unwrap();
    client
        .batch_execute(
            "CREATE FUNCTION meets(text) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN true; END';
             ALTER FUNCTION meets OWNER TO app; CREATE ROLE op LOGIN; SELECT backlog_cleanup_grant('op', 'operator');
             UPDATE backlog_cleanup.target SET condition = '(public.meets(queue))' WHERE name = 't';
             CREATE OR REPLACE FUNCTION meets(text) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS 'BEGIN PERFORM pg_sleep(60); RETURN true; END'",
        )
        .unwrap();
    for role in ["op", "postgres"] {
        let mut session = cluster.connect();
        session.batch_execute(&format!("SET SESSION AUTHORIZATION {role}; SET statement_timeout = '1s'")).unwrap();
        let started = Instant::now();
        let (sqlstate, message, _) = refused(session.batch_execute(TICK));
        assert_eq!(
            (sqlstate.as_str(), message.as_str()),
            ("57014", "canceling statement due to statement timeout"),
            "{role}"
        );
        assert!(started.elapsed().as_secs_f64() < 4.0, "{role}: {:?}", started.elapsed());
    }
    assert_eq!(number(&mut client, "SELECT count(*) FROM backlog_cleanup.tick"), 0);
    // A run whose trigger sleeps.
    client
        .batch_execute(
            "UPDATE backlog_cleanup.target SET condition = NULL WHERE name = 't';
             CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(60); RETURN OLD; END';
             ALTER FUNCTION slow OWNER TO app; CREATE TRIGGER slow BEFORE DELETE ON job FOR EACH ROW EXECUTE FUNCTION slow()",
        )
        .unwrap();
    let mut session = cluster.connect();
    session.batch_execute("SET SESSION AUTHORIZATION op; SET statement_timeout = '2s'").unwrap();
    let (sqlstate, _, _) = refused(session.batch_execute("CALL backlog_cleanup_run('t', mode => 'emergency')"));
    assert_eq!(sqlstate, "57014");
    let state: String =
        value(&mut client, "SELECT state FROM backlog_cleanup.run WHERE target = 't' ORDER BY id DESC LIMIT 1");
    assert_eq!(state, "interrupted");
}

#[test]
fn early_runs_take_one_worker_whatever_their_number_and_who_keeps_ticks_away_is_told() {
    let cluster = Cluster::start("");
    let mut client = cluster.platform();
    fail(&mut client, 1, 60);
    client
        .batch_execute(
            "CREATE ROLE op LOGIN; SELECT backlog_cleanup_grant('op', 'operator');
             UPDATE backlog_cleanup.target SET adaptive = true, adaptive_min_rows = 10;
             CREATE TABLE other (LIKE generations INCLUDING ALL); INSERT INTO other SELECT * FROM generations;
             INSERT INTO backlog_cleanup.target (name, generations_table, recipes_table, users_table, ledger_table, account, adaptive, adaptive_min_rows)
             SELECT 'other' || i, 'public.other', NULL, NULL, NULL, 'system_backlog', true, 10 FROM generate_series(1, 8) i",
        )
        .unwrap_or_else(|failure| panic!("{failure:?}"));
    let mut session = cluster.connect();
    session.batch_execute("SET SESSION AUTHORIZATION op; BEGIN; SELECT public.backlog_cleanup_tick()").unwrap();
    let early = "FROM pg_stat_activity WHERE backend_type = 'backlog_cleanup early run'";
    until_true(&mut client, &format!("SELECT count(*) = 1 {early} AND wait_event = 'object'"));
    let finding = "SELECT concat_ws(' ', status, detail, fix) FROM backlog_cleanup_doctor() WHERE check_name = 'tick'";
    let told: String = value(&mut client, finding);
    let pid = number(&mut client, "SELECT pid::bigint FROM pg_stat_activity WHERE state = 'idle in transaction'");
    let wanted = format!("warn session {pid} of role \"postgres\" has ticked in a transaction that goes on since ");
    assert!(told.starts_with(&wanted) && told.ends_with(&format!("SELECT pg_terminate_backend({pid})")), "{told}");
    session.batch_execute("COMMIT").unwrap();
    // One after another. A table that another run has emptied has nothing left to remove.
    until_true(&mut client, &format!("SELECT count(*) = 0 {early}"));
    assert_eq!(
        number(
            &mut client,
            "SELECT count(*) FROM backlog_cleanup.run WHERE state = 'completed' AND requested_by = 'op'"
        ),
        9
    );
    assert!(!truth(
        &mut client,
        "SELECT EXISTS (SELECT FROM backlog_cleanup.run a JOIN backlog_cleanup.run b
                        ON a.id < b.id AND b.started_at < a.finished_at)"
    ));
    // One whose window closes does not wait for it.
    client
        .batch_execute(
            "CREATE TABLE held (LIKE generations INCLUDING ALL);
             UPDATE backlog_cleanup.target SET adaptive = false;
             INSERT INTO backlog_cleanup.target (name, generations_table, recipes_table, users_table, ledger_table, account, adaptive, adaptive_min_rows,
                                                 batch_size, pause, workers)
             VALUES ('held', 'public.held', NULL, NULL, NULL, 'system_backlog', true, 1, 1, '60 s', 2)",
        )
        .unwrap_or_else(|failure| panic!("{failure:?}"));
    fail(&mut client, 2, 60);
    client.batch_execute("INSERT INTO held SELECT * FROM generations").unwrap();
    pass(&mut client, "5 minutes");
    client.batch_execute(TICK).unwrap();
    let of_held = "FROM backlog_cleanup.run WHERE target = 'held'";
    until_true(&mut client, &format!("SELECT count(*) = 1 {of_held} AND state = 'running' AND removed > 0"));
    client
        .batch_execute(
            "UPDATE backlog_cleanup.target
             SET run_between = ARRAY[timezone(time_zone, now() + interval '2 h')::time, timezone(time_zone, now() + interval '3 h')::time]
             WHERE name = 'held'",
        )
        .unwrap_or_else(|failure| panic!("{failure:?}"));
    until_true(
        &mut client,
        &format!(
            "SELECT count(*) = 1 {of_held} AND state = 'stopped' AND finished_at > started_at AND stop_requested_by = 'postgres'"
        ),
    );
    until_true(&mut client, &format!("SELECT count(*) = 0 {early}"));
    // Nor does one that the governor holds up for half a minute.
    client
        .batch_execute(
            "UPDATE backlog_cleanup.target SET run_between = NULL, pause = NULL, adaptive_min_interval = '0', throttle_query = $$SELECT 'busy'$$
             WHERE name = 'held'",
        )
        .unwrap_or_else(|failure| panic!("{failure:?}"));
    pass(&mut client, "5 minutes");
    client.batch_execute(TICK).unwrap();
    let waits = format!("SELECT count(*) = 1 {of_held} AND state = 'running' AND waiting_for IS NOT NULL");
    until_true(&mut client, &waits);
    std::thread::sleep(Duration::from_secs(25));
    until_true(&mut client, &format!("SELECT count(*) = 0 {early}"));
    assert_eq!(number(&mut client, &format!("SELECT count(*) {of_held} AND state = 'stopped'")), 2);
    // What becomes of one whose target is renamed is in the history.
    client
        .batch_execute("UPDATE backlog_cleanup.target SET throttle_query = NULL, pause = '2 s' WHERE name = 'held'")
        .unwrap_or_else(|failure| panic!("{failure:?}"));
    pass(&mut client, "5 minutes");
    client.batch_execute(TICK).unwrap();
    until_true(&mut client, &format!("SELECT count(*) = 1 {of_held} AND state = 'running' AND removed > 0"));
    client
        .batch_execute("UPDATE backlog_cleanup.target SET name = 'renamed', pause = NULL WHERE name = 'held'")
        .unwrap();
    until_true(&mut client, &format!("SELECT count(*) = 0 {early}"));
    let told = "SELECT count(*) FROM backlog_cleanup.run WHERE state = 'failed' AND error_message ~ 'held|renamed'";
    assert_eq!(number(&mut client, told), 1);
    client.batch_execute("UPDATE backlog_cleanup.target SET adaptive = name <> 'renamed'").unwrap();
    // One that fails stops no other.
    client
        .batch_execute(
            "UPDATE backlog_cleanup.target SET adaptive_min_interval = '0', max_rows_per_run = CASE name WHEN 'other1' THEN 1 END;
             INSERT INTO generations SELECT (jsonb_populate_record(g, jsonb_build_object('id', 10000 + g.id))).* FROM generations g;
             INSERT INTO other SELECT * FROM generations ON CONFLICT DO NOTHING;
             INSERT INTO other SELECT (jsonb_populate_record(g, jsonb_build_object('id', 20000 + i * 100 + g.id))).* FROM generations g, generate_series(1, 5) i",
        )
        .unwrap_or_else(|failure| panic!("{failure:?}"));
    pass(&mut client, "5 minutes");
    client.batch_execute(TICK).unwrap();
    until_true(&mut client, &format!("SELECT count(*) = 0 {early}"));
    let runs = "SELECT count(*) FILTER (WHERE target > 'other1') > 0 AND count(*) FILTER (WHERE target = 'other1' AND state = 'completed') = 0
                FROM backlog_cleanup.run WHERE requested_by = 'postgres'";
    assert!(truth(&mut client, runs));
}

#[test]
fn who_keeps_alerts_from_opening_by_an_open_transaction_is_told() {
    let cluster = Cluster::start("");
    let mut client = cluster.platform();
    fail(&mut client, 1, 60);
    client
        .batch_execute(
            "CREATE ROLE op LOGIN; SELECT backlog_cleanup_grant('op', 'operator');
             UPDATE backlog_cleanup.alert_rule SET threshold = 10, resolve_at = 5 WHERE name = 'rows in scope';
             INSERT INTO backlog_cleanup.alert_channel (name, kind) VALUES ('ops', 'slack');
             INSERT INTO backlog_cleanup.sample (target, grain, sampled_at, in_scope, removable, milliseconds)
             VALUES ('generations', 'fine', now() - interval '1 minute', 60, 50, 1)",
        )
        .unwrap();
    let finding = "SELECT concat_ws(' ', status, detail, fix) FROM backlog_cleanup_doctor() WHERE check_name = 'tick'";
    let mut session = cluster.connect();
    session
        .batch_execute("SET SESSION AUTHORIZATION op; BEGIN; SELECT count(*) FROM backlog_cleanup.evaluate_alerts()")
        .unwrap();
    client.batch_execute(TICK).unwrap();
    let opened = "SELECT count(*) FROM backlog_cleanup.alert WHERE rule = 'rows in scope'";
    assert_eq!(number(&mut client, opened), 0);
    let pid = number(&mut client, "SELECT pid::bigint FROM pg_stat_activity WHERE state = 'idle in transaction'");
    let wanted = format!(
        "warn session {pid} of role \"postgres\" has changed or locked alerts or their channels in a transaction that goes on since "
    );
    let told = told_of_alerts(&mut client, finding);
    assert!(told.starts_with(&wanted) && told.ends_with(&format!("SELECT pg_terminate_backend({pid})")), "{told}");
    client.batch_execute(&format!("SELECT pg_terminate_backend({pid})")).unwrap();
    until_true(&mut client, "SELECT count(*) = 0 FROM pg_stat_activity WHERE state = 'idle in transaction'");
    client.batch_execute(TICK).unwrap();
    assert_eq!(number(&mut client, opened), 1);
    let told: String = value(&mut client, finding);
    assert!(told.starts_with("ok"), "{told}");
    // What only locks them keeps others away, too.
    for statement in [
        "INSERT INTO backlog_cleanup.alert_delivery (channel, alert, change, message)
         SELECT name, (SELECT min(id) FROM backlog_cleanup.alert), 'resolved', gen_random_uuid() FROM backlog_cleanup.alert_channel",
        "UPDATE backlog_cleanup.alert_channel SET failures = 0",
        "LOCK TABLE backlog_cleanup.alert_channel IN EXCLUSIVE MODE",
        "LOCK TABLE backlog_cleanup.alert_delivery IN EXCLUSIVE MODE",
    ] {
        let mut session = cluster.connect();
        session.batch_execute("SET SESSION AUTHORIZATION op; BEGIN").unwrap();
        session.batch_execute(statement).unwrap();
        let told = told_of_alerts(&mut client, finding);
        assert!(told.contains("has changed or locked alerts or their channels"), "{statement}: {told}");
    }
}

/// What the doctor says as soon as a transaction has been idle for a second.
fn told_of_alerts(client: &mut Client, finding: &str) -> String {
    let is_idle = "SELECT EXISTS (SELECT FROM pg_stat_activity
                                  WHERE state = 'idle in transaction' AND state_change < clock_timestamp() - interval '1.1 seconds')";
    until_true(client, is_idle);
    value(client, finding)
}

#[test]
fn rows_are_counted_anew_after_a_run_and_decisions_of_a_target_that_is_adaptive_no_more_are_pruned() {
    let cluster = Cluster::start("");
    let mut client = cluster.platform();
    client
        .batch_execute(
            "INSERT INTO backlog_cleanup.decision (tick, target, decided_at, action, reason, numbers)
             SELECT 1, 'generations', now() - interval '1 year', 'none', 'x', '{}' FROM generate_series(1, 3)",
        )
        .unwrap();
    client.batch_execute(TICK).unwrap();
    assert_eq!(
        number(
            &mut client,
            "SELECT count(*) FROM backlog_cleanup.decision WHERE decided_at < now() - interval '9 months'"
        ),
        0
    );
    let counted = "SELECT (in_scope IS NOT NULL)::int::bigint FROM backlog_cleanup.sample WHERE grain = 'fine' ORDER BY sampled_at DESC LIMIT 1";
    for (removed, is_counted) in [(0, 0), (-1, 1)] {
        client
            .batch_execute(&format!(
                "DELETE FROM backlog_cleanup.sample;
                 INSERT INTO backlog_cleanup.sample (target, grain, sampled_at, in_scope, removable, milliseconds, counters)
                 VALUES ('generations', 'fine', now() - interval '2 minutes', 200000, 200000, 1, '{{\"removed\": {removed}}}')"
            ))
            .unwrap();
        client.batch_execute(TICK).unwrap();
        assert_eq!(number(&mut client, counted), is_counted, "{removed}");
    }
}
