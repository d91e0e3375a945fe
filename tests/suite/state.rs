//! What is written is obeyed or refused, and the extension's own state holds: renamed schemas and roles, publications, histories
//! that something has broken.

use std::sync::mpsc;

use cluster::{Cluster, column, fail, number, refused, truth, value};
use postgres::Client;
use postgres::error::SqlState;

/// A target `t` on a table of the public reports' shape: a hundred failed rows, nine days old.
const JOBS: &str = "
    CREATE TABLE job (id int PRIMARY KEY, owner text DEFAULT 'w', queue text DEFAULT 'a', state text DEFAULT 'failed',
                      at timestamptz DEFAULT now() - interval '9 days', error text);
    INSERT INTO backlog_cleanup.target (name, generations_table, recipes_table, users_table, ledger_table, account_column,
        recipe_column, status_column, failed_at_column, failure_type_column, account)
    VALUES ('t', 'public.job', NULL, NULL, NULL, 'owner', 'queue', 'state', 'at', 'error', 'w');
    INSERT INTO job (id) SELECT generate_series(1, 100)";

fn with_jobs(cluster: &Cluster) -> Client {
    let mut client = cluster.connect();
    client.batch_execute("CREATE EXTENSION backlog_cleanup").unwrap();
    client.batch_execute(JOBS).unwrap();
    client
}

/// What the doctor says of a check: its status, what it found, and the fix.
fn finding(client: &mut Client, target: &str, check: &str) -> (String, String, Option<String>) {
    let row = client
        .query_one(
            "SELECT status, detail, fix FROM backlog_cleanup_doctor($1) WHERE check_name = $2",
            &[&target, &check],
        )
        .unwrap();
    (row.get(0), row.get(1), row.get(2))
}

#[test]
fn a1_a_written_policy_is_obeyed_in_every_form_of_a_run() {
    let cluster = Cluster::start("max_worker_processes = 16\n");
    let mut client = with_jobs(&cluster);
    client.batch_execute("UPDATE job SET error = 'timeout' WHERE id % 2 = 0; CREATE TABLE saved AS TABLE job").unwrap();
    // Of 100 rows, the 50 of failure type `timeout` under a policy of their own.
    for (policy, left, left_by_emergency) in [
        ("recipe_id => 'a', max_age => '30 days', keep => 1000", 100, 0),
        ("recipe_id => 'a', enabled => false", 100, 100),
        ("failure_type => 'timeout', enabled => false", 60, 50),
        ("failure_type => 'timeout', keep => 3", 13, 0),
        ("status => 'failed', keep => 4", 4, 0),
        ("recipe_id => 'a', failure_type => 'timeout', max_age => '0', keep => 0", 10, 0),
    ] {
        client.batch_execute(&format!("SELECT backlog_cleanup_set_policy({policy}, target => 't')")).unwrap();
        for (run, left) in [
            ("SELECT backlog_cleanup_failed_generations('t', dry_run => true)", 100),
            ("SELECT backlog_cleanup_failed_generations('t')", left),
            ("SELECT backlog_cleanup_emergency('t')", left_by_emergency),
            ("CALL backlog_cleanup_run('t', batch_size => 7)", left),
            ("CALL backlog_cleanup_run('t', batch_size => 7, workers => 2)", left),
            ("CALL backlog_cleanup_run('t', 'emergency', batch_size => 7)", left_by_emergency),
            ("CALL backlog_cleanup_run('t', 'emergency', batch_size => 7, include_held => true)", 0),
        ] {
            client.batch_execute("TRUNCATE job; INSERT INTO job TABLE saved").unwrap();
            client.batch_execute(run).unwrap();
            assert_eq!(number(&mut client, "SELECT count(*) FROM job"), left, "{policy}: {run}");
        }
        client
            .batch_execute("DELETE FROM backlog_cleanup.policy WHERE num_nonnulls(recipe_id, failure_type, status) > 0")
            .unwrap();
    }
}

#[test]
fn a_run_counts_the_rows_of_each_policy_and_the_doctor_says_which_have_none() {
    let cluster = Cluster::start("max_worker_processes = 16\n");
    let mut client = with_jobs(&cluster);
    client
        .batch_execute(
            "UPDATE job SET error = 'timeout' WHERE id % 2 = 0; CREATE TABLE saved AS TABLE job;
             SELECT backlog_cleanup_set_policy(failure_type => 'timeout', keep => 3, target => 't'),
                    backlog_cleanup_set_policy('elsewhere', target => 't')",
        )
        .unwrap();
    let (status, detail, _) = finding(&mut client, "t", "policy");
    assert_eq!(
        (status.as_str(), detail.as_str()),
        ("ok", "no regular run has looked for rows under 2 other policies yet")
    );
    // Of 50 rows of either kind, 47 and 40 go.
    let counts = "SELECT concat_ws(' ', coalesce(recipe_id, failure_type, 'default'), in_scope, removed) FROM backlog_cleanup.run_policy
                  WHERE run_id = (SELECT max(id) FROM backlog_cleanup.run) ORDER BY place";
    for run in [
        "SELECT backlog_cleanup_failed_generations('t')",
        "CALL backlog_cleanup_run('t', batch_size => 7)",
        "CALL backlog_cleanup_run('t', batch_size => 7, workers => 2)",
    ] {
        client.batch_execute("TRUNCATE job; INSERT INTO job TABLE saved").unwrap();
        client.batch_execute(run).unwrap();
        assert_eq!(column::<String>(&mut client, counts), ["elsewhere 0 0", "timeout 50 47", "default 50 40"], "{run}");
    }
    let (status, detail, fix) = finding(&mut client, "t", "policy");
    assert_eq!((status.as_str(), detail.contains("group \"elsewhere\"")), ("warn", true), "{detail}");
    assert!(fix.is_none() && detail.ends_with("decide whether it is to stay"), "{detail}: {fix:?}");
}

#[test]
fn a_policy_that_no_row_can_have_is_refused_when_it_is_written() {
    let cluster = Cluster::start("");
    let mut client = with_jobs(&cluster);
    client.batch_execute("ALTER TABLE job ALTER queue DROP DEFAULT, ALTER queue TYPE bigint USING 7").unwrap();
    for (write, sqlstate) in [
        ("INSERT INTO backlog_cleanup.policy (target, recipe_id) VALUES ('t', 'a')", "22P02"),
        ("SELECT backlog_cleanup_set_policy('a', target => 't')", "22P02"),
        ("SELECT backlog_cleanup_set_policy(status => 'completed', target => 't')", "22023"),
        ("SELECT backlog_cleanup_drop_policy(target => 't')", "22023"),
        ("SELECT backlog_cleanup_set_policy(target => 'u')", "42704"),
    ] {
        assert_eq!(refused(client.batch_execute(write)).0, sqlstate, "{write}");
    }
    client.batch_execute("ALTER TABLE job ADD code char(5) DEFAULT 'abc'; UPDATE backlog_cleanup.target SET recipe_column = 'code' WHERE name = 't'").unwrap();
    let cut_off = "SELECT backlog_cleanup_set_policy('c12345', enabled => false, target => 't')";
    assert_eq!(refused(client.batch_execute(cut_off)).0, "22023");
    client.batch_execute("UPDATE backlog_cleanup.target SET recipe_column = 'queue' WHERE name = 't'").unwrap();
    // A recipe is written as rows have it, so that 007 is 7.
    client.batch_execute("SELECT backlog_cleanup_set_policy('007', keep => 90, target => 't')").unwrap();
    client.batch_execute("SELECT backlog_cleanup_failed_generations('t')").unwrap();
    assert_eq!(number(&mut client, "SELECT count(*) FROM job"), 90);
    assert_eq!(number(&mut client, "SELECT backlog_cleanup_drop_policy('0007', target => 't')::int"), 1);
}

#[test]
fn a_limit_that_no_policy_can_have_is_named_with_its_value_however_it_is_written() {
    let cluster = Cluster::start("");
    let mut client = with_jobs(&cluster);
    for (limits, message) in [
        ("keep => -1", "keep -1 is below 0"),
        ("max_age => '-1 day'", "max_age \"-1 days\" is below 0"),
        ("max_age => '300000 years'", "max_age \"300000 years\" is more than 1000 years"),
        ("max_keep_age => '1001 years'", "max_keep_age \"1001 years\" is more than 1000 years"),
        ("max_keep_age => '-1 day'", "max_keep_age \"-1 days\" is below 0"),
        ("max_age => '2 mons', max_keep_age => '1 mon'", "max_keep_age \"1 mon\" is below max_age \"2 mons\""),
    ] {
        let (columns, values): (Vec<_>, Vec<_>) =
            limits.split(", ").map(|limit| limit.split_once(" => ").unwrap()).unzip();
        let (columns, values) = (columns.join(", "), values.join(", "));
        for write in [
            format!("SELECT backlog_cleanup_set_policy({limits}, target => 't')"),
            format!("SELECT backlog_cleanup_simulate({limits}, target => 't')"),
            format!("INSERT INTO backlog_cleanup.policy (target, recipe_id, {columns}) VALUES ('t', 'a', {values})"),
            format!("UPDATE backlog_cleanup.policy SET ({columns}) = ROW ({values}) WHERE target = 't'"),
        ] {
            let (sqlstate, said, hint) = refused(client.batch_execute(&write));
            assert_eq!((sqlstate.as_str(), said), ("22023", format!("policy of target \"t\": {message}")), "{write}");
            assert!(hint.contains("target => 't'"), "{hint}");
            client.batch_execute(&hint).unwrap_or_else(|failure| panic!("{hint}: {failure:?}"));
        }
    }
    // By the calendar a year is longer.
    let year = "SELECT backlog_cleanup_set_policy(max_age => '364 days', max_keep_age => '1 year', target => 't')";
    client.batch_execute(year).unwrap();
    let limits = "SELECT concat_ws(' ', max_age, max_keep_age, note) FROM backlog_cleanup.policy WHERE target = 't'";
    client.batch_execute("SELECT backlog_cleanup_set_policy(note => 'by law', target => 't')").unwrap();
    assert_eq!(value::<String>(&mut client, limits), "364 days 1 year by law");
    // What is taken back is gone, in a simulation as when it is written.
    client.batch_execute("SELECT backlog_cleanup_set_policy(max_age => '1 day', keep => 95, max_keep_age => '2 days', target => 't')").unwrap();
    let then = "SELECT sum(removable_now)::bigint || ' ' || sum(removable_then) FROM backlog_cleanup_simulate(no_max_keep_age => true, target => 't')";
    assert_eq!(value::<String>(&mut client, then), "100 5");
    client
        .batch_execute("SELECT backlog_cleanup_set_policy(no_max_keep_age => true, note => '', target => 't')")
        .unwrap();
    assert_eq!(value::<String>(&mut client, limits), "1 day");
    for function in ["set_policy", "simulate"] {
        let both = format!(
            "SELECT backlog_cleanup_{function}(no_max_keep_age => true, max_keep_age => '1 year', target => 't')"
        );
        assert_eq!(refused(client.batch_execute(&both)).0, "22023", "{function}");
    }
}

#[test]
fn all_that_is_wrong_with_a_policy_is_said_at_once() {
    let cluster = Cluster::start("");
    let mut client = with_jobs(&cluster);
    client.batch_execute("ALTER TABLE job ALTER queue DROP DEFAULT, ALTER queue TYPE bigint USING 7").unwrap();
    let names = "\"x\" cannot be read as bigint, the type of column queue\nstatus \"y\" is none whose rows target \"t\" may remove";
    let limits = "max_age \"-1 days\" is below 0\nkeep -3 is below 0";
    for (write, detail) in [
        ("SELECT backlog_cleanup_set_policy('x', status => 'y', target => 't')", names.to_owned()),
        ("SELECT backlog_cleanup_simulate('x', status => 'y', target => 't')", names.to_owned()),
        ("SELECT backlog_cleanup_set_policy(max_age => '-1 day', keep => -3, target => 't')", limits.to_owned()),
        ("SELECT backlog_cleanup_simulate(max_age => '-1 day', keep => -3, target => 't')", limits.to_owned()),
        (
            "SELECT backlog_cleanup_set_policy('x', status => 'y', max_age => '-1 day', keep => -3, target => 't')",
            format!("{limits}\n{names}"),
        ),
        (
            "INSERT INTO backlog_cleanup.policy (target, recipe_id, status, max_age, keep) VALUES ('t', 'x', 'y', '-1 day', -3)",
            format!("{limits}\n{names}"),
        ),
    ] {
        let failure = client.batch_execute(write).unwrap_err();
        let told = failure.as_db_error().expect("an error of the server");
        assert_eq!(told.detail(), Some(detail.as_str()), "{write}");
        assert!(told.message().ends_with(&format!(" has {} mistakes", detail.lines().count())), "{write}: {told:?}");
        client.batch_execute(told.hint().unwrap()).unwrap();
    }
}

#[test]
fn whoever_writes_a_policy_for_what_no_row_has_is_warned() {
    let cluster = Cluster::start("");
    with_jobs(&cluster);
    let (notices, heard) = mpsc::channel();
    let mut client = cluster.connect_with_notices(notices);
    for (write, warnings) in [
        ("SELECT backlog_cleanup_set_policy('b', target => 't')", 1),
        ("SELECT backlog_cleanup_simulate('c', target => 't')", 1),
        ("INSERT INTO backlog_cleanup.policy (target, recipe_id) VALUES ('t', 'a')", 0),
        ("INSERT INTO backlog_cleanup.policy (target, failure_type) VALUES ('t', 'none'), ('t', 'nothing')", 2),
        ("UPDATE backlog_cleanup.policy SET recipe_id = 'c' WHERE recipe_id = 'a'", 1),
        ("UPDATE backlog_cleanup.policy SET keep = 7 WHERE target = 't'", 0),
        ("UPDATE backlog_cleanup.target SET name = 'u' WHERE name = 't'", 0),
        (
            "UPDATE backlog_cleanup.target SET recipe_columns = '{queue,state}', recipe_column = 'state' WHERE name = 'empty'",
            1,
        ),
        ("UPDATE backlog_cleanup.target SET id_columns = '{queue,id}', id_column = 'error' WHERE name = 'empty'", 2),
    ] {
        if write.contains("'empty'") && warnings == 1 {
            client.batch_execute("DELETE FROM backlog_cleanup.policy WHERE target = 'u' AND coalesce(recipe_id, failure_type) IS NOT NULL;
                                  UPDATE backlog_cleanup.target SET name = 'empty' WHERE name = 'u'").unwrap();
        }
        heard.try_iter().for_each(drop);
        client.batch_execute(write).unwrap();
        let said: Vec<(String, String)> = heard.try_iter().collect();
        assert_eq!(said.len(), warnings, "{write}: {said:?}");
    }
    let twice = "UPDATE backlog_cleanup.target SET id_columns = '{id,id}', recipe_columns = '{queue,queue,state}' WHERE name = 'empty'";
    let (sqlstate, message, hint) = refused(client.batch_execute(twice));
    assert_eq!((sqlstate.as_str(), message.as_str()), ("42701", "target \"empty\" has 2 mistakes"));
    client.batch_execute(&hint).unwrap();
    let columns = "SELECT id_columns || recipe_columns FROM backlog_cleanup.target WHERE name = 'empty'";
    assert_eq!(value::<Vec<String>>(&mut client, columns), ["id", "queue", "state"]);
}

#[test]
fn no_hint_makes_every_row_of_a_table_the_targets() {
    let cluster = Cluster::start("");
    let mut client = with_jobs(&cluster);
    for change in [
        "account_column = NULL",
        "account = NULL",
        "account_column = 'acount'",
        "condition = '(queue)'",
        "condition = '(no = 1)'",
        "condition = '(count(*) > 1)'",
        "statuses = '{}'",
        "status_column = 'stat'",
        "status_column = '(no)'",
    ] {
        let update = format!("UPDATE backlog_cleanup.target SET {change} WHERE name = 't'");
        let (.., hint) = refused(client.batch_execute(&update));
        let in_scope = "SELECT account || ' ' || account_column || statuses::text || status_column FROM backlog_cleanup.target WHERE name = 't'";
        let before: String = value(&mut client, in_scope);
        if !hint.is_empty() {
            client.batch_execute(&hint).unwrap_or_else(|failure| panic!("{hint}: {failure:?}"));
        }
        assert_eq!(value::<String>(&mut client, in_scope), before, "{change}: {hint}");
    }
}

/// The ways to remove all rows of target `t` that may go: emergency runs, then regular ones.
const FORMS: [&str; 6] = [
    "SELECT backlog_cleanup_emergency('t')",
    "CALL backlog_cleanup_run('t', mode => 'emergency', batch_size => 7)",
    "CALL backlog_cleanup_run('t', mode => 'emergency', batch_size => 7, workers => 2)",
    "SELECT backlog_cleanup_failed_generations('t')",
    "CALL backlog_cleanup_run('t', batch_size => 7)",
    "CALL backlog_cleanup_run('t', batch_size => 7, workers => 2)",
];

#[test]
fn a2_a_partition_whose_detach_is_pending_keeps_its_rows_in_every_form() {
    let cluster = Cluster::start("max_worker_processes = 16\n");
    let mut client = cluster.connect();
    client
        .batch_execute(&format!(
            "CREATE EXTENSION backlog_cleanup; {}
             CREATE TABLE job (id int, owner text DEFAULT 'w', queue text DEFAULT 'a', state text DEFAULT 'failed',
                               at timestamptz DEFAULT now() - interval '9 days', error text) PARTITION BY RANGE (id);
             CREATE TABLE job_old PARTITION OF job FOR VALUES FROM (0) TO (300);
             CREATE TABLE job_new PARTITION OF job FOR VALUES FROM (300) TO (600);
             CREATE TABLE elsewhere (LIKE job INCLUDING ALL);
             CREATE FOREIGN TABLE job_far PARTITION OF job FOR VALUES FROM (600) TO (900) SERVER here
                 OPTIONS (table_name 'elsewhere');
             INSERT INTO backlog_cleanup.target (name, generations_table, recipes_table, users_table, ledger_table, account_column,
                 recipe_column, status_column, failed_at_column, failure_type_column, account)
             VALUES ('t', 'public.job', NULL, NULL, NULL, 'owner', 'queue', 'state', 'at', 'error', 'w');
             UPDATE backlog_cleanup.policy SET keep = 0",
            cluster.as_server("here", "postgres")
        ))
        .unwrap();
    let fill = "TRUNCATE ONLY job_old, job_new, elsewhere; INSERT INTO job_old SELECT generate_series(0, 299);
                INSERT INTO job_new SELECT generate_series(300, 599); INSERT INTO elsewhere SELECT generate_series(600, 899)";
    for pending in ["job_old", "job_far"] {
        client.batch_execute(fill).unwrap();
        client.batch_execute("BEGIN; SELECT count(*) FROM job").unwrap();
        let mut other = cluster.connect();
        other.batch_execute("SET statement_timeout = '1s'").unwrap();
        assert_eq!(
            refused(other.batch_execute(&format!("ALTER TABLE job DETACH PARTITION {pending} CONCURRENTLY"))).0,
            "57014"
        );
        client.batch_execute("COMMIT").unwrap();
        for form in FORMS {
            client.batch_execute(fill).unwrap();
            let shown = "SELECT count(*), (SELECT sum(total_count)::bigint FROM backlog_cleanup_status('t')) FROM job";
            assert_eq!(cluster::numbers(&mut client, shown), [600, 600], "{pending}, {form}");
            client.batch_execute(form).unwrap();
            let left = format!("SELECT (SELECT count(*) FROM job), (SELECT count(*) FROM {pending})");
            assert_eq!(cluster::numbers(&mut client, &left), [0, 300], "{pending}, {form}");
        }
        client.batch_execute(&format!("ALTER TABLE job DETACH PARTITION {pending} FINALIZE")).unwrap();
        if pending == "job_old" {
            client.batch_execute("ALTER TABLE job ATTACH PARTITION job_old FOR VALUES FROM (0) TO (300)").unwrap();
        }
    }
}

#[test]
fn a3_statuses_are_compared_as_values_of_their_type() {
    let cluster = Cluster::start("");
    let mut client = with_jobs(&cluster);
    client
        .batch_execute("CREATE TYPE stage AS ENUM ('failed', 'completed'); CREATE DOMAIN code AS int; CREATE DOMAIN word AS char(9)")
        .unwrap();
    for (sql_type, failed, same, other) in [
        ("boolean", "yes", "true", "no"),
        ("int", "1", " 1", "2"),
        ("code", "1", "01", "2"),
        ("char(9)", "dead", "dead ", "done"),
        ("word", "dead", "dead ", "done"),
        ("numeric", "1", "1.0", "2"),
        ("timestamptz", "2026-01-01 UTC", "2026-01-01 01:00+01", "infinity"),
        ("stage", "failed", "failed", "completed"),
    ] {
        client
            .batch_execute(&format!(
                "DELETE FROM backlog_cleanup.target WHERE name = 't'; DROP TABLE job;
                 CREATE TABLE job (id int PRIMARY KEY, owner text DEFAULT 'w', queue text DEFAULT 'a', state {sql_type},
                                   at timestamptz DEFAULT now() - interval '9 days', error text);
                 INSERT INTO job (id, state) SELECT i, CASE WHEN i <= 30 THEN '{same}' ELSE '{other}' END::{sql_type}
                 FROM generate_series(1, 50) i"
            ))
            .unwrap();
        let write = |completed: &str, pending: &str| {
            format!(
                "INSERT INTO backlog_cleanup.target (name, generations_table, recipes_table, users_table, ledger_table, account_column,
                     recipe_column, status_column, failed_at_column, failure_type_column, account, statuses, completed_status,
                     pending_status, processing_status)
                 VALUES ('t', 'public.job', NULL, NULL, NULL, 'owner', 'queue', 'state', 'at', 'error', 'w', ARRAY['{failed}'], {completed},
                         {pending}, NULL)"
            )
        };
        let (same, other) = (format!("ARRAY['{same}']"), format!("ARRAY['{other}']"));
        assert_eq!(refused(client.batch_execute(&write(&same, "NULL"))).0, "23514", "{sql_type}");
        assert_eq!(refused(client.batch_execute(&write(&other, &other))).0, "23514", "{sql_type}");
        client.batch_execute(&write(&other, "NULL")).unwrap();
        let counts =
            "SELECT total_count, failed_count, completed_count, pending_count FROM backlog_cleanup_status('t')";
        assert_eq!(cluster::numbers(&mut client, counts), [50, 30, 20, 0], "{sql_type}");
        client.batch_execute("SELECT backlog_cleanup_emergency('t')").unwrap();
        assert_eq!(cluster::numbers(&mut client, counts), [20, 0, 20, 0], "{sql_type}");
    }
    // What was two values becomes one when the column gets another type.
    client
        .batch_execute(
            "ALTER TABLE job ALTER state TYPE text;
             UPDATE backlog_cleanup.target SET statuses = '{yes}', completed_status = '{true}' WHERE name = 't';
             ALTER TABLE job ALTER state TYPE boolean USING true",
        )
        .unwrap();
    for form in FORMS {
        assert_eq!(refused(client.batch_execute(form)).0, "23514", "{form}");
    }
    assert_eq!(finding(&mut client, "t", "statuses").0, "fail");
}

#[test]
fn only_rows_in_the_statuses_go_in_every_form_and_the_index_alone_finds_them_whatever_their_type() {
    let cluster = Cluster::start("max_worker_processes = 16\n");
    let mut client = with_jobs(&cluster);
    client
        .batch_execute(
            "CREATE TYPE stage AS ENUM ('open', 'dead', 'gone'); CREATE DOMAIN word AS text CHECK (value <> '');
             CREATE DOMAIN code AS int CHECK (value < 9); CREATE TYPE pair AS (a int, b int)",
        )
        .unwrap();
    for (sql_type, [dead, gone, open], is_indexed) in [
        ("text", ["dead", "gone", "open"], true),
        ("varchar(9)", ["dead", "gone", "open"], true),
        ("char(9)", ["dead", "gone", "open"], true),
        ("stage", ["dead", "gone", "open"], true),
        ("int", ["1", "2", "3"], true),
        ("word", ["dead", "gone", "open"], true),
        ("code", ["1", "2", "3"], true),
        ("boolean", ["yes", "no", "NULL"], true),
        ("text[]", ["{dead}", "{gone}", "{open}"], false),
        ("pair", ["(1,2)", "(1,3)", "(2,2)"], false),
    ] {
        client
            .batch_execute(&format!(
                "DELETE FROM backlog_cleanup.target WHERE name = 't'; DROP TABLE job; DROP TABLE IF EXISTS saved;
                 CREATE TABLE job (id int PRIMARY KEY, owner text DEFAULT 'w', queue text DEFAULT 'a', state {sql_type},
                                   at timestamptz DEFAULT now() - interval '9 days', error text);
                 INSERT INTO job (id, state)
                 SELECT i, nullif((ARRAY['{dead}', '{gone}', '{open}'])[i % 3 + 1], 'NULL')::{sql_type}
                 FROM generate_series(1, 90) i;
                 CREATE TABLE saved AS TABLE job;
                 INSERT INTO backlog_cleanup.target (name, generations_table, recipes_table, users_table, ledger_table,
                     account_column, recipe_column, status_column, failed_at_column, failure_type_column, account, statuses,
                     pending_status)
                 VALUES ('t', 'public.job', NULL, NULL, NULL, 'owner', 'queue', 'state', 'at', 'error', 'w',
                         ARRAY['{dead}', '{gone}'], ARRAY['never', '{open}']);
                 UPDATE backlog_cleanup.policy SET keep = 0 WHERE target = 't'"
            ))
            .unwrap();
        // A value that the type cannot have, as the ones by default, counts nothing.
        let pending = if open == "NULL" { 0 } else { 30 };
        let counts =
            "SELECT total_count, failed_count, completed_count, pending_count FROM backlog_cleanup_status('t')";
        assert_eq!(cluster::numbers(&mut client, counts), [90, 60, 0, pending], "{sql_type}");
        if is_indexed {
            cluster::create_index(&mut client, "t");
        }
        for form in FORMS {
            client.batch_execute("TRUNCATE job; INSERT INTO job TABLE saved").unwrap();
            client.batch_execute("VACUUM ANALYZE job").unwrap();
            client.batch_execute(form).unwrap();
            assert_eq!(cluster::numbers(&mut client, counts), [30, 0, 0, pending], "{sql_type}: {form}");
        }
        if is_indexed {
            let only = "SELECT idx_tup_read >= 60 AND idx_tup_fetch = 0 FROM pg_stat_user_indexes
                        WHERE indexrelname LIKE 'job_queue_at_id%'";
            client.batch_execute("TRUNCATE job; INSERT INTO job TABLE saved").unwrap();
            client.batch_execute("VACUUM ANALYZE job").unwrap();
            client.batch_execute("SELECT pg_stat_reset()").unwrap();
            client.batch_execute("SELECT backlog_cleanup_failed_generations('t', dry_run => true)").unwrap();
            client.batch_execute("SELECT pg_stat_force_next_flush()").unwrap();
            assert!(truth(&mut client, only), "{sql_type}");
            assert_eq!(finding(&mut client, "t", "index").0, "ok", "{sql_type}");
        }
    }
    // Those that runs remove have to be values of the type.
    client.batch_execute("DROP TABLE saved; ALTER TABLE job DROP state, ADD state stage DEFAULT 'dead'").unwrap();
    for (change, expected) in [
        ("statuses = '{dead,failed}'", "22P02"),
        ("statuses = '{dead,dead}'", "23514"),
        ("statuses = '{dead,gone}', completed_status = '{open,gone}'", "23514"),
        ("statuses = '{}'", "23514"),
        ("statuses = '{dead,NULL}'", "23514"),
        ("statuses = '{{dead,gone}}'", "23514"),
        ("pending_status = '{{dead,gone}}'", "23514"),
        ("pending_status = '{NULL}'", "23514"),
        ("failed_status = 'dead'", "42703"),
    ] {
        let update = format!("UPDATE backlog_cleanup.target SET {change} WHERE name = 't'");
        assert_eq!(refused(client.batch_execute(&update)).0, expected, "{change}");
    }
    let of_word = |change: &str| format!("UPDATE backlog_cleanup.target SET {change} WHERE name = 't'");
    client.batch_execute(&of_word("statuses = '{dead}', pending_status = '{open}'")).unwrap();
    let (sqlstate, _, hint) = refused(client.batch_execute(&of_word("statuses = '{dead,gon}'")));
    assert_eq!((sqlstate.as_str(), &hint[..]), ("22P02", &of_word("statuses = '{dead,gone}'")[..]));
    client.batch_execute(&hint).unwrap();
    let (sqlstate, _, hint) = refused(client.batch_execute(&of_word("pending_status = '{open,open}'")));
    assert_eq!(sqlstate, "23514");
    client.batch_execute(&hint).unwrap();
}

#[test]
fn without_an_account_every_row_of_the_table_is_the_targets_and_somebody_is_told() {
    let cluster = Cluster::start("max_worker_processes = 16\n");
    let mut client = with_jobs(&cluster);
    let (notices, heard) = mpsc::channel();
    let mut listening = cluster.connect_with_notices(notices);
    client.batch_execute("DELETE FROM backlog_cleanup.target").unwrap();
    // What needs an account is refused, with what is right.
    let insert =
        "INSERT INTO backlog_cleanup.target (name, generations_table, recipes_table, recipe_column, status_column,
                      failed_at_column, failure_type_column, account_column, account)
                  VALUES ('t', 'public.job', NULL, 'queue', 'state', 'at', 'error', NULL, NULL)";
    let (sqlstate, _, hint) = refused(client.batch_execute(insert));
    assert_eq!(sqlstate, "22023");
    listening.batch_execute(&hint).unwrap();
    let (warning, limit) = heard.try_recv().expect("a warning");
    assert!(warning.contains("has no account, no condition and no limit"), "{warning}");
    for change in ["account = 'w'", "account_column = 'owner'"] {
        let (sqlstate, _, hint) =
            refused(client.batch_execute(&format!("UPDATE backlog_cleanup.target SET {change} WHERE name = 't'")));
        assert_eq!(sqlstate, "22023", "{change}");
        assert!(hint.starts_with("SELECT attname"), "{hint}");
        client.batch_execute(&hint).unwrap();
    }
    assert_eq!(heard.try_recv().ok(), None);
    // An expression is written anew, and the target checked again; the warning comes once.
    for (recipe, warnings) in [("'(lower(queue))'", 1), ("'queue'", 1)] {
        let change = format!("UPDATE backlog_cleanup.target SET recipe_column = {recipe} WHERE name = 't'");
        listening.batch_execute(&change).unwrap();
        assert_eq!(heard.try_iter().count(), warnings, "{change}");
    }
    let (status, _, fix) = finding(&mut client, "t", "account");
    assert_eq!((status.as_str(), fix.as_ref()), ("warn", Some(&limit)));
    for limit in [
        limit.as_str(),
        "UPDATE backlog_cleanup.target SET max_share = 99, max_rows_per_run = NULL",
        "UPDATE backlog_cleanup.target SET max_share = 100, condition = '(id > 0)'",
    ] {
        listening.batch_execute(limit).unwrap();
        assert_eq!(heard.try_recv().ok(), None);
        assert_eq!(finding(&mut client, "t", "account").0, "ok");
    }

    client.batch_execute("UPDATE backlog_cleanup.target SET condition = NULL, max_rows_per_run = 100").unwrap();
    cluster::create_index(&mut client, "t");
    client
        .batch_execute(
            "UPDATE backlog_cleanup.policy SET keep = 0 WHERE target = 't';
             UPDATE job SET owner = CASE id % 3 WHEN 0 THEN 'x' WHEN 1 THEN 'w' END, state = CASE WHEN id > 90 THEN 'pending' ELSE state END;
             CREATE TABLE saved AS TABLE job",
        )
        .unwrap();
    let counts = "SELECT total_count, failed_count, removable_count, pending_count FROM backlog_cleanup_status('t')";
    for form in FORMS {
        client.batch_execute("TRUNCATE job; INSERT INTO job TABLE saved").unwrap();
        client.batch_execute("VACUUM ANALYZE job").unwrap();
        assert_eq!(cluster::numbers(&mut client, counts), [100, 90, 90, 10], "{form}");
        for check in ["index", "rows", "ledger", "ledger_row"] {
            assert_eq!(finding(&mut client, "t", check).0, "ok", "{check}");
        }
        client.batch_execute(form).unwrap();
        assert_eq!(cluster::numbers(&mut client, counts), [10, 0, 0, 10], "{form}");
    }
    assert_eq!(number(&mut client, "SELECT count(*) FROM backlog_cleanup_books('t')"), 0);
    // The breaker counts all of them.
    client.batch_execute("INSERT INTO job (id, state) SELECT i, 'failed' FROM generate_series(1001, 1200) i").unwrap();
    assert_eq!(refused(client.batch_execute("SELECT backlog_cleanup_failed_generations('t')")).0, "54000");
}

#[test]
fn a4_a_row_that_has_not_finished_stays_in_every_form() {
    let cluster = Cluster::start("max_worker_processes = 16\n");
    let mut client = with_jobs(&cluster);
    client
        .batch_execute(
            "UPDATE backlog_cleanup.target SET status_column = NULL WHERE name = 't';
             UPDATE backlog_cleanup.policy SET keep = 0 WHERE target = 't';
             UPDATE job SET state = CASE WHEN id % 2 = 0 THEN 'whatever' END, at = CASE WHEN id > 40 THEN at END;
             CREATE TABLE saved AS TABLE job",
        )
        .unwrap();
    cluster::create_index(&mut client, "t");
    for index in ["used", "dropped"] {
        for form in FORMS {
            client.batch_execute("TRUNCATE job; INSERT INTO job TABLE saved; ANALYZE job").unwrap();
            client.batch_execute("VACUUM job").unwrap();
            let counts = "SELECT total_count, failed_count, removable_count FROM backlog_cleanup_status('t')";
            assert_eq!(cluster::numbers(&mut client, counts), [100, 60, 60], "{form}");
            client.batch_execute(form).unwrap();
            assert_eq!(number(&mut client, "SELECT count(*) FROM job WHERE at IS NULL"), 40, "{form}, {index}");
            assert_eq!(number(&mut client, "SELECT count(*) FROM job"), 40, "{form}, {index}");
        }
        assert_eq!(finding(&mut client, "t", "index").0, if index == "used" { "ok" } else { "warn" });
        client.batch_execute("DROP INDEX IF EXISTS job_queue_at_id_idx").unwrap();
    }
    // Where there is a status, it decides.
    let mut client = cluster.platform_in("with_status");
    fail(&mut client, 1, 5);
    client.batch_execute("UPDATE generations SET updated_at = NULL; SELECT backlog_cleanup_emergency()").unwrap();
    assert_eq!(number(&mut client, "SELECT count(*) FROM generations"), 0);
}

#[test]
fn a5_no_run_leaves_rows_behind_where_foreign_keys_are_switched_off() {
    let cluster = Cluster::start("max_worker_processes = 16\n");
    let mut client = with_jobs(&cluster);
    client
        .batch_execute(
            "CREATE TABLE part (id int PRIMARY KEY, job int REFERENCES job ON DELETE CASCADE);
             CREATE TABLE piece (part int REFERENCES part ON DELETE CASCADE);
             INSERT INTO part SELECT i, i FROM generate_series(1, 100) i; INSERT INTO piece SELECT generate_series(1, 100)",
        )
        .unwrap();
    for off in [
        "ALTER TABLE job DISABLE TRIGGER ALL",
        "ALTER TABLE part DISABLE TRIGGER ALL",
        "ALTER TABLE piece DISABLE TRIGGER ALL",
        "ALTER DATABASE postgres SET session_replication_role = replica",
        "ALTER ROLE postgres SET session_replication_role = replica",
        "ALTER ROLE postgres IN DATABASE postgres SET session_replication_role = replica",
        "SET session_replication_role = replica",
    ] {
        client.batch_execute(off).unwrap();
        let mut session = if off.starts_with("SET") { client } else { cluster.connect() };
        for form in FORMS {
            let (sqlstate, message, _) = refused(session.batch_execute(form));
            assert_eq!(sqlstate, "55000", "{off}, {form}: {message}");
        }
        let dry: String = value(&mut session, "SELECT backlog_cleanup_emergency('t', dry_run => true) ->> 'message'");
        assert!(dry.contains("switched off"), "{off}: {dry}");
        let (status, detail, fix) = finding(&mut session, "t", "foreign_keys");
        assert_eq!(status, "fail", "{off}: {detail}");
        session.batch_execute(&fix.expect("a fix")).unwrap();
        client = if off.starts_with("SET") { session } else { cluster.connect() };
        assert_eq!(finding(&mut client, "t", "foreign_keys").0, "ok", "{off}");
    }
    client.batch_execute("SELECT backlog_cleanup_emergency('t')").unwrap();
    assert_eq!(
        cluster::numbers(&mut client, "SELECT (SELECT count(*) FROM job), (SELECT count(*) FROM piece)"),
        [0, 0]
    );
}

#[test]
fn b5_a_group_key_has_any_length_and_two_thousand_of_them_are_no_matter() {
    let cluster = Cluster::start("max_worker_processes = 16\n");
    let mut client = with_jobs(&cluster);
    client
        .batch_execute(
            "TRUNCATE job;
             INSERT INTO job (id, queue)
             SELECT i, CASE WHEN i > 6000 THEN 'short' ELSE
                        (SELECT string_agg(md5(g::text || i % 2000), '') FROM generate_series(1, 90) g) END
             FROM generate_series(1, 6020) i;
             UPDATE backlog_cleanup.policy SET keep = 1 WHERE target = 't';
             CREATE TABLE saved AS TABLE job",
        )
        .unwrap();
    for run in [
        "SELECT backlog_cleanup_failed_generations('t')",
        "CALL backlog_cleanup_run('t', batch_size => 500)",
        "CALL backlog_cleanup_run('t', batch_size => 500, workers => 2)",
    ] {
        client.batch_execute("TRUNCATE job; INSERT INTO job TABLE saved").unwrap();
        client.batch_execute(run).unwrap();
        assert_eq!(number(&mut client, "SELECT count(*) FROM job"), 2001, "{run}");
        let recipes =
            "SELECT count(*) FROM backlog_cleanup.run_recipe WHERE run_id = (SELECT max(id) FROM backlog_cleanup.run)";
        assert_eq!(number(&mut client, recipes), 2001, "{run}");
    }
    client.batch_execute("CALL backlog_cleanup_run('t', mode => 'emergency')").unwrap();
    assert_eq!(number(&mut client, "SELECT count(*) FROM job"), 0);
}

#[test]
fn b5_whatever_the_rows_of_an_interrupted_run_hold_the_next_run_starts() {
    let cluster = Cluster::start("");
    let mut client = cluster.platform();
    for breakage in [
        "UPDATE backlog_cleanup.run_batch SET removed = '{9223372036854775807,9223372036854775807}', recipe_ids = '{1,1}'",
        "UPDATE backlog_cleanup.run_batch SET removed = '{}'",
        "UPDATE backlog_cleanup.run_batch SET recipe_ids = '{NULL,no number}'",
        "UPDATE backlog_cleanup.run_cutoff SET failed = -1, failed_at = 'infinity', id = 'no number', removable = NULL",
        "DELETE FROM backlog_cleanup.run_cutoff",
        "DELETE FROM backlog_cleanup.run_part",
        "DELETE FROM backlog_cleanup.run_batch",
        "DELETE FROM backlog_cleanup.run WHERE state = 'running'",
        "UPDATE backlog_cleanup.run SET state = 'completed' WHERE state = 'running'",
        "UPDATE backlog_cleanup.run SET started_at = '-infinity', reading = '7', batch_size = NULL WHERE state = 'running'",
        "UPDATE backlog_cleanup.run SET cutoff = 'infinity', removed = -9223372036854775808 WHERE state = 'running'",
        "INSERT INTO backlog_cleanup.run_recipe SELECT id, '1', 1, 1 FROM backlog_cleanup.run",
        "ALTER TABLE backlog_cleanup.run_recipe ADD CONSTRAINT filled CHECK (failed_count <> 20) NOT VALID",
        "ALTER TABLE backlog_cleanup.run ADD CONSTRAINT as_it_was CHECK (state <> 'interrupted') NOT VALID",
        "CREATE FUNCTION veto() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE ''no''; END';
         CREATE TRIGGER veto BEFORE DELETE ON backlog_cleanup.run_part FOR EACH ROW EXECUTE FUNCTION veto()",
    ] {
        client.batch_execute("TRUNCATE generations; DELETE FROM backlog_cleanup.run").unwrap();
        fail(&mut client, 1, 20);
        let mut other = cluster.connect();
        other.batch_execute(&cluster::start_run(4)).unwrap();
        other.batch_execute("SELECT backlog_cleanup.next_batch(max(id)) FROM backlog_cleanup.run").unwrap();
        drop(other);
        cluster::until(&cluster, "SELECT count(*) = 0 FROM pg_locks WHERE locktype = 'object'");
        client.batch_execute(breakage).unwrap();
        client
            .batch_execute("SELECT backlog_cleanup_failed_generations()")
            .unwrap_or_else(|failure| panic!("{breakage}: {failure:?}"));
        client.batch_execute("ALTER TABLE backlog_cleanup.run_recipe DROP CONSTRAINT IF EXISTS filled").unwrap();
        client.batch_execute("CALL backlog_cleanup_run()").unwrap_or_else(|failure| panic!("{breakage}: {failure:?}"));
        assert_eq!(number(&mut client, "SELECT count(*) FROM generations"), 10, "{breakage}");
        client
            .batch_execute(
                "ALTER TABLE backlog_cleanup.run DROP CONSTRAINT IF EXISTS as_it_was;
                 DROP FUNCTION IF EXISTS veto CASCADE; UPDATE backlog_cleanup.run SET started_at = now()",
            )
            .unwrap();
    }
}

#[test]
fn c1_state_can_be_published_and_the_history_pruned() {
    let cluster = Cluster::start("wal_level = logical\n");
    let mut client = cluster.platform();
    fail(&mut client, 1, 15);
    client
        .batch_execute(
            "ALTER TABLE generations REPLICA IDENTITY FULL; CREATE PUBLICATION everything FOR ALL TABLES;
             UPDATE backlog_cleanup.policy SET keep = 5;
             UPDATE backlog_cleanup.target SET batch_size = 4",
        )
        .unwrap();
    client.batch_execute("CALL backlog_cleanup_run()").unwrap();
    client.batch_execute("SELECT backlog_cleanup_failed_generations()").unwrap();
    let no_identity = "SELECT c.oid::regclass::text FROM pg_class c
        WHERE c.relnamespace = 'backlog_cleanup'::regnamespace AND c.relkind = 'r' AND c.relreplident <> 'f'
          AND NOT EXISTS (SELECT FROM pg_index WHERE indrelid = c.oid AND indisprimary)";
    assert_eq!(column::<String>(&mut client, no_identity), [""; 0]);
    client.batch_execute("DELETE FROM backlog_cleanup.run WHERE finished_at < now() + interval '1 hour'").unwrap();
    for child in ["run", "run_recipe", "run_batch", "run_part", "run_cutoff"] {
        assert_eq!(number(&mut client, &format!("SELECT count(*) FROM backlog_cleanup.{child}")), 0, "{child}");
    }
    assert_eq!(number(&mut client, "SELECT sum(removed)::bigint FROM backlog_cleanup.total"), 10);
}

#[test]
fn c2_the_extensions_schema_can_be_renamed() {
    let cluster = Cluster::start("max_worker_processes = 16\n");
    let mut client = cluster.connect();
    client.batch_execute(include_str!("../../demo/platform.sql")).unwrap();
    client
        .batch_execute(
            "CREATE SCHEMA ext; CREATE EXTENSION backlog_cleanup SCHEMA ext;
             CREATE ROLE chief; SELECT ext.backlog_cleanup_grant('chief', 'admin');
             ALTER SCHEMA ext RENAME TO \"E 2\"; SET search_path = public, \"E 2\"; SET ROLE chief;
             UPDATE backlog_cleanup.target SET batch_size = 9;
             UPDATE backlog_cleanup.policy SET keep = 3; RESET ROLE",
        )
        .unwrap();
    fail(&mut client, 1, 15);
    client.batch_execute("CALL backlog_cleanup_run(batch_size => 4, workers => 2)").unwrap();
    assert_eq!(number(&mut client, "SELECT count(*) FROM generations"), 3);
    for call in ["failed_generations()", "emergency()", "status_json()", "doctor()", "grant('chief', 'monitor')"] {
        client.batch_execute(&format!("SELECT backlog_cleanup_{call}")).unwrap();
    }
}

#[test]
fn c3_a_role_that_has_named_a_target_can_be_renamed_dumped_and_dropped() {
    let cluster = Cluster::start("");
    let mut client = cluster.platform();
    client
        .batch_execute(
            "CREATE ROLE alice; GRANT USAGE, CREATE ON SCHEMA public TO alice; GRANT SELECT ON generations TO alice;
             SELECT backlog_cleanup_grant('alice', 'admin');
             SET ROLE alice; CREATE TABLE job (LIKE generations INCLUDING ALL);
             INSERT INTO backlog_cleanup.target (name, generations_table, recipes_table, users_table, ledger_table)
             VALUES ('jobs', 'public.job', NULL, NULL, NULL); RESET ROLE;
             ALTER ROLE alice RENAME TO \"Alice B\"",
        )
        .unwrap();
    let named_by = "SELECT named_by::text FROM backlog_cleanup.target WHERE name = 'jobs'";
    assert_eq!(value::<String>(&mut client, named_by), "Alice B");
    client.batch_execute("SELECT backlog_cleanup_failed_generations('jobs')").unwrap();
    assert_eq!(refused(client.batch_execute("UPDATE backlog_cleanup.target SET named_by = 'nobody'")).0, "42704");

    let dump = tempfile::tempdir().unwrap();
    let file = dump.path().join("dump");
    let file = file.to_str().unwrap();
    cluster.program("pg_dump", &["-Fc", "--no-owner", "--no-privileges", "-f", file, "postgres"]);
    for (roles, outcome) in [("CREATE ROLE \"Alice B\"", "works"), ("CREATE ROLE alice", "42501")] {
        let restored = Cluster::start("");
        let mut client = restored.connect();
        client.batch_execute(roles).unwrap();
        restored.program("pg_restore", &["-e", "-d", "postgres", "--no-owner", file]);
        client.batch_execute("GRANT USAGE ON SCHEMA public TO PUBLIC").unwrap();
        let owner = roles.trim_start_matches("CREATE ROLE ");
        client.batch_execute(&format!("ALTER TABLE job OWNER TO {owner}")).unwrap();
        let run = client.batch_execute("SELECT backlog_cleanup_failed_generations('jobs')");
        if outcome == "works" {
            run.unwrap()
        } else {
            assert_eq!(refused(run).0, outcome)
        }
        client.batch_execute("SELECT backlog_cleanup_failed_generations()").unwrap();
    }

    client
        .batch_execute("REASSIGN OWNED BY \"Alice B\" TO postgres; DROP OWNED BY \"Alice B\"; DROP ROLE \"Alice B\"")
        .unwrap();
    let (sqlstate, message, hint) = refused(client.batch_execute("SELECT backlog_cleanup_failed_generations('jobs')"));
    assert_eq!(sqlstate, "42501");
    assert!(message.contains("does not exist any more"), "{message}");
    client.batch_execute(&hint).unwrap();
    client.batch_execute("SELECT backlog_cleanup_failed_generations('jobs')").unwrap();
}

#[test]
fn d11_an_extension_without_the_platforms_tables_says_what_to_do() {
    let cluster = Cluster::start("");
    let (notices, heard) = mpsc::channel();
    let mut client = cluster.connect_with_notices(notices);
    client.batch_execute("CREATE EXTENSION backlog_cleanup").unwrap();
    let said: Vec<(String, String)> = heard.try_iter().collect();
    let (_, hint) = said.iter().find(|(message, _)| message.contains("public.generations")).expect("a warning");
    // It adds a target of one's own, and drops the one that nobody can use.
    client
        .batch_execute("CREATE TABLE job (id int, user_id text, recipe_id int, status text, updated_at timestamptz, failure_reason text)")
        .unwrap();
    let (add, drop) = hint.split_once("; -- and then ").expect("two steps");
    let (sqlstate, _, hint) = refused(client.batch_execute(add));
    assert_eq!(sqlstate, "42P01");
    client.batch_execute(&hint).unwrap();
    client.batch_execute(&add.replace("schema.table", "public.job")).unwrap();
    // Until then every function without a target says which other one there is.
    for call in [
        "backlog_cleanup_failed_generations",
        "backlog_cleanup_status",
        "backlog_cleanup_emergency",
        "backlog_cleanup_index_sql",
    ] {
        let (sqlstate, _, hint) = refused(client.batch_execute(&format!("SELECT {call}()")));
        assert_eq!(
            (sqlstate.as_str(), hint.as_str()),
            ("42P01", "SELECT * FROM backlog_cleanup_doctor('jobs')"),
            "{call}"
        );
        client.batch_execute(&hint).unwrap();
    }
    client.batch_execute(drop).unwrap();
    assert_eq!(column::<String>(&mut client, "SELECT name FROM backlog_cleanup.target"), ["jobs"]);
}

/// The last run in the history: state, SQLSTATE, message, what it worked on, DETAIL.
fn ended(client: &mut Client) -> [Option<String>; 5] {
    let last = "SELECT state, error_sqlstate, error_message, error_at, error_detail FROM backlog_cleanup.history
                ORDER BY started_at DESC LIMIT 1";
    let row = client.query_one(last, &[]).unwrap();
    [0, 1, 2, 3, 4].map(|column| row.get(column))
}

/// The last run's state and SQLSTATE.
fn end(client: &mut Client) -> (String, Option<String>) {
    let [state, sqlstate, ..] = ended(client);
    (state.unwrap(), sqlstate)
}

#[test]
fn c4_a_batched_run_that_fails_says_why_and_its_books_balance() {
    let cluster = Cluster::start("max_worker_processes = 16\n");
    let mut client = cluster.platform();
    client
        .batch_execute(
            "CREATE ROLE ledgers; CREATE ROLE monitor; CREATE ROLE operator;
             SELECT backlog_cleanup_grant('monitor', 'monitor'), backlog_cleanup_grant('operator', 'operator');
             GRANT USAGE ON SCHEMA public TO ledgers; ALTER TABLE credit_transactions OWNER TO ledgers;
             CREATE FUNCTION full_up() RETURNS trigger LANGUAGE plpgsql AS $$
             BEGIN
                 IF NEW.description ~ 'batch 3' THEN
                     RAISE 'the ledger is full' USING ERRCODE = '53100', DETAIL = 'secret', HINT = 'SELECT 1';
                 END IF;
                 RETURN NEW;
             END $$;
             CREATE TRIGGER full_up BEFORE INSERT ON credit_transactions FOR EACH ROW EXECUTE FUNCTION full_up();
             UPDATE backlog_cleanup.policy SET keep = 0",
        )
        .unwrap();
    for workers in [1, 2] {
        client.batch_execute("TRUNCATE generations, credit_transactions; TRUNCATE backlog_cleanup.run").unwrap();
        fail(&mut client, 1, 100);
        let call = format!("CALL backlog_cleanup_run(batch_size => 10, workers => {workers})");
        let failure = client.batch_execute(&call).expect_err("the ledger is full");
        let error = failure.as_db_error().unwrap();
        assert_eq!(
            (error.code().code(), error.message(), error.hint()),
            ("53100", "the ledger is full", Some("SELECT 1"))
        );
        let [state, sqlstate, message, at, detail] = ended(&mut client);
        assert_eq!(state.as_deref(), Some("failed"));
        assert_eq!(sqlstate.as_deref(), Some("53100"));
        assert_eq!(message.as_deref(), Some("the ledger is full"));
        assert!(at.is_some_and(|at| at.contains("public.generations") && at.contains("batch")));
        assert_eq!(detail.as_deref(), Some("secret"));
        let removed = crate::batched::balance(&mut client, 100);
        assert!((20..=30).contains(&removed), "{removed}");
        for state in ["run_cutoff", "run_part", "run_batch"] {
            assert_eq!(number(&mut client, &format!("SELECT count(*) FROM backlog_cleanup.{state}")), 0);
        }
        let last = "SELECT backlog_cleanup_status_json() #>> '{lastRun,error}'";
        assert_eq!(value::<String>(&mut client, last), "the ledger is full");
        for level in ["monitor", "operator"] {
            client.batch_execute(&format!("SET ROLE {level}")).unwrap();
            let [state, _, message, _, detail] = ended(&mut client);
            assert_eq!((state.as_deref(), message.as_deref()), (Some("failed"), Some("the ledger is full")), "{level}");
            assert_eq!(detail, None, "{level}");
            assert_eq!(refused(client.batch_execute("TABLE backlog_cleanup.run_error")).0, "42501", "{level}");
            client.batch_execute("RESET ROLE").unwrap();
        }
        // The next one goes on, in the same session.
        client.batch_execute("ALTER TABLE credit_transactions DISABLE TRIGGER full_up").unwrap();
        client.batch_execute(&call).unwrap();
        assert_eq!(crate::batched::balance(&mut client, 100), 100);
        assert_eq!(end(&mut client), ("completed".into(), None));
        client.batch_execute("ALTER TABLE credit_transactions ENABLE TRIGGER full_up").unwrap();
    }
}

#[test]
fn a_sqlstate_of_the_owners_own_reaches_the_caller() {
    let cluster = Cluster::start("max_worker_processes = 16\n");
    let mut client = cluster.platform();
    client
        .batch_execute(
            "CREATE ROLE ledgers; CREATE ROLE operator; SELECT backlog_cleanup_grant('operator', 'operator');
             GRANT USAGE, CREATE ON SCHEMA public TO ledgers; ALTER TABLE credit_transactions OWNER TO ledgers;
             CREATE FUNCTION full_up() RETURNS trigger LANGUAGE plpgsql AS
                 $$BEGIN RAISE 'the ledger is full' USING ERRCODE = TG_ARGV[0]; END$$;
             CREATE TRIGGER full_up BEFORE INSERT ON credit_transactions FOR EACH ROW EXECUTE FUNCTION full_up('ABC12')",
        )
        .unwrap();
    fail(&mut client, 1, 100);
    for role in ["postgres", "operator"] {
        client.batch_execute(&format!("SET ROLE {role}")).unwrap();
        for (call, sqlstate) in [
            ("SELECT backlog_cleanup_failed_generations()", "ABC12"),
            ("SELECT backlog_cleanup_emergency(rehearse => true)", "ABC12"),
            ("CALL backlog_cleanup_run()", "ABC12"),
            ("CALL backlog_cleanup_run(workers => 2)", "ABC12"),
            // Its error is no longer the one before.
            ("SELECT backlog_cleanup_emergency(recipe_id => 'x')", "22P02"),
        ] {
            let failure = client.batch_execute(call).expect_err(call);
            assert_eq!(failure.code().map(SqlState::code), Some(sqlstate), "{role}, {call}");
            let caught = format!(
                "DO $do$ BEGIN {}; EXCEPTION WHEN SQLSTATE '{sqlstate}' THEN NULL; END $do$",
                call.replacen("SELECT", "PERFORM", 1)
            );
            if !call.starts_with("CALL") {
                client.batch_execute(&caught).unwrap_or_else(|failure| panic!("{caught}: {failure:?}"));
            }
        }
        client.batch_execute("RESET ROLE").unwrap();
        assert_eq!(end(&mut client), ("failed".into(), Some("ABC12".into())), "{role}");
    }
}

#[test]
fn c4_whatever_ends_a_batched_run_is_in_the_history() {
    let cluster = Cluster::start("max_worker_processes = 16\n");
    let mut client = cluster.platform();
    client.batch_execute("UPDATE backlog_cleanup.policy SET keep = 0").unwrap();
    // What happens while it pauses, how it ends, and what its session is told.
    for (what, undo, state, told) in [
        (
            "ALTER TABLE generations RENAME TO elsewhere",
            "ALTER TABLE elsewhere RENAME TO generations",
            "failed",
            Some("42P01"),
        ),
        (
            "UPDATE backlog_cleanup.target SET account = 'she'",
            "UPDATE backlog_cleanup.target SET account = 'system_backlog'",
            "failed",
            Some("55000"),
        ),
        (
            "ALTER TABLE backlog_cleanup.target DISABLE TRIGGER check_target;
             UPDATE backlog_cleanup.target SET throttle_query = 'SELECT 1/0';
             ALTER TABLE backlog_cleanup.target ENABLE TRIGGER check_target",
            "UPDATE backlog_cleanup.target SET throttle_query = NULL",
            "failed",
            Some("22012"),
        ),
        (
            "ALTER TABLE generations DISABLE TRIGGER ALL",
            "ALTER TABLE generations ENABLE TRIGGER ALL",
            "completed",
            None,
        ),
        (
            "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE query LIKE 'CALL backlog_cleanup%'",
            "SELECT 1",
            "interrupted",
            Some("57014"),
        ),
        (
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'CALL backlog_cleanup%'",
            "SELECT 1",
            "interrupted",
            Some("57P01"),
        ),
    ] {
        for workers in [1, 2] {
            client.batch_execute("TRUNCATE generations, credit_transactions; TRUNCATE backlog_cleanup.run").unwrap();
            fail(&mut client, 1, 100);
            let run = cluster.in_background(&format!(
                "CALL backlog_cleanup_run(batch_size => 10, pause => '0.3 s', workers => {workers})"
            ));
            cluster::until(&cluster, "SELECT removed > 0 FROM backlog_cleanup.progress");
            client.batch_execute(what).unwrap();
            let (_session, done) = run.join().unwrap();
            assert_eq!(done.err().map(|failure| refused(Err(failure)).0).as_deref(), told, "{what}, {workers}");
            cluster::until(&cluster, "SELECT count(*) = 0 FROM pg_locks WHERE locktype = 'object'");
            assert_eq!(end(&mut client).0, state, "{what}, {workers}");
            // A session that is ended writes nothing: the next run does.
            let (sqlstate, message) = match told {
                Some("57P01") => (None, Some("the session that ran it has ended")),
                told => (told, None),
            };
            assert_eq!(end(&mut client).1.as_deref(), sqlstate, "{what}, {workers}");
            client.batch_execute(undo).unwrap();
            crate::batched::balance(&mut client, 100);
            client.batch_execute("CALL backlog_cleanup_run()").unwrap();
            assert_eq!(crate::batched::balance(&mut client, 100), 100, "{what}, {workers}");
            if message.is_some() {
                let first = "SELECT error_message FROM backlog_cleanup.run ORDER BY id LIMIT 1";
                assert_eq!(value::<Option<String>>(&mut client, first).as_deref(), message, "{what}, {workers}");
            }
        }
    }
}

#[test]
fn c4_a_failed_night_is_in_the_history_though_its_transaction_is_gone() {
    let cluster = cluster::with_pg_cron();
    let mut client = cluster.platform();
    fail(&mut client, 1, 15);
    client
        .batch_execute(
            "CREATE ROLE monitor; SELECT backlog_cleanup_grant('monitor', 'monitor');
             UPDATE backlog_cleanup.target SET max_rows_per_run = 1;
             SELECT backlog_cleanup_schedule('* * * * *')",
        )
        .unwrap();
    cluster::until_true(&mut client, "SELECT count(*) > 0 FROM cron.job_run_details WHERE status = 'failed'");
    client
        .batch_execute(
            "SELECT backlog_cleanup_unschedule();
             -- As pg_cron writes it without background workers, where the server speaks another language.
             UPDATE cron.job_run_details SET return_message = replace(return_message, 'ERROR: ', 'ERREUR : ') || E'\nDÉTAIL : secret\n'
             WHERE status = 'failed';
             SET ROLE monitor",
        )
        .unwrap();
    let [state, _, message, _, detail] = ended(&mut client);
    assert_eq!(state.as_deref(), Some("failed"));
    let message = message.expect("a message");
    assert!(
        message.starts_with("target \"generations\": a run would remove 5 of 15") && !message.contains('\n'),
        "{message}"
    );
    assert_eq!(detail, None);
    let last: String = value(&mut client, "SELECT backlog_cleanup_status_json() #>> '{lastRun,error}'");
    assert_eq!(last, message);
    client.batch_execute("RESET ROLE; SELECT backlog_cleanup_failed_generations(force => true)").unwrap();
    assert_eq!(cluster::last_state(&mut client).as_deref(), Some("completed"));
}

#[test]
fn the_hint_of_a_session_that_is_read_only_lets_the_next_call_work() {
    let cluster = Cluster::start("");
    let mut client = cluster.platform();
    for (read_only, call) in [
        ("SET default_transaction_read_only = on", "CALL backlog_cleanup_run()"),
        ("SET default_transaction_read_only = on", "SELECT backlog_cleanup_emergency()"),
        ("BEGIN READ ONLY", "SELECT backlog_cleanup_emergency()"),
    ] {
        client.batch_execute(read_only).unwrap();
        let (sqlstate, _, hint) = refused(client.batch_execute(call));
        assert_eq!(sqlstate, "25006", "{read_only}, {call}");
        client.batch_execute(&hint).unwrap();
        client.batch_execute(call).unwrap_or_else(|failure| panic!("{read_only}, {call}: {failure:?}"));
        client.batch_execute("ROLLBACK").unwrap();
    }
}
