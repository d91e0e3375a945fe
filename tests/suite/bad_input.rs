//! Whatever the functions are called with and wherever: an answer or an error with a SQLSTATE, never a crash, never a panic.

use cluster::{Cluster, JOBS, balance, fail, refused, start_run, value};
use postgres::Client;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

/// The routines of the extension that can be called, with the types of their arguments.
const ROUTINES: &str = "
    SELECT p.oid::regproc::text, p.prokind = 'p', p.proargtypes::regtype[]::text[]
    FROM pg_depend d JOIN pg_proc p ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid
    WHERE d.deptype = 'e' AND d.refclassid = 'pg_extension'::regclass AND p.prorettype <> 'trigger'::regtype
      AND d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'backlog_cleanup')
    ORDER BY p.oid::regproc::text COLLATE \"C\"";

struct Routine {
    name: String,
    is_procedure: bool,
    types: Vec<String>,
}

/// Where a call is made; `{}` is the expression or, of a procedure, the arguments.
const PLACES: [&str; 7] = [
    "SELECT {}",
    "BEGIN; SELECT {}; ROLLBACK",
    "BEGIN; SELECT 1 / 0; SELECT {}",
    "BEGIN; SAVEPOINT s; SELECT {}; ROLLBACK TO s; SELECT {}; COMMIT",
    "DO $do$ BEGIN PERFORM {}; EXCEPTION WHEN raise_exception THEN NULL; END $do$",
    "SELECT set_config(name, 'on', true) FROM pg_settings WHERE name IN ('force_parallel_mode', 'debug_parallel_query');
     SELECT {} FROM in_parallel",
    "SELECT pg_temp.called($call$SELECT {}$call$)",
];

/// Literals of what a type's values may look like, or not.
fn literals(sql_type: &str) -> Vec<&'static str> {
    const TEXTS: [&str; 18] = [
        "generations",
        "job",
        "",
        " ",
        "1",
        "-1",
        "99999999999999999999",
        "regular",
        "emergency",
        "monitor",
        "admin",
        "nobody",
        "* * * * *",
        "backlog-cleanup-daily",
        "'; DROP TABLE generations; --",
        "\u{1F4A9}\u{200B}\"",
        "NaN",
        "\\",
    ];
    match sql_type {
        "boolean" => vec!["true", "false"],
        "integer" => vec!["0", "1", "-1", "2147483647", "-2147483648", "64", "65", "1000000"],
        "bigint" => vec!["0", "1", "2", "-1", "9223372036854775807", "-9223372036854775808"],
        "double precision" => vec!["0", "-1", "NaN", "Infinity", "-Infinity", "1e308", "1e-308", "0.001"],
        "interval" => vec![
            "0",
            "1 ms",
            "-1 ms",
            "178000000 years",
            "-178000000 years",
            "1 month -30 days",
            "2147483647 days",
            "9223372036854 seconds",
            "1 day",
            // From PostgreSQL 17 on.
            "infinity",
            "-infinity",
        ],
        "jsonb" => vec!["null", "{}", "[1e400]"],
        _ => TEXTS.to_vec(),
    }
}

/// One argument: a literal of its type, NULL, one megabyte, or the literal of another type.
fn argument(sql_type: &str) -> BoxedStrategy<String> {
    let quoted = |value: &'static str| format!("'{}'", value.replace('\'', "''"));
    let typed = sql_type.to_owned();
    let of_type = prop::sample::select(literals(sql_type)).prop_map(move |value| format!("{}::{typed}", quoted(value)));
    let wrong = prop::sample::select(vec![
        "true",
        "1",
        "1.5",
        "now()",
        "ARRAY[1]",
        "'x'::bytea",
        "E'\\xff'",
        "repeat('x', 1000000)",
    ]);
    let null = Just(format!("NULL::{sql_type}"));
    prop_oneof![12 => of_type, 2 => null, 1 => wrong.prop_map(str::to_owned)].boxed()
}

/// What a client must never see.
fn must_be_told(call: &str, outcome: Result<(), postgres::Error>) {
    let Err(failure) = outcome else { return };
    let error = failure.as_db_error().unwrap_or_else(|| panic!("the server is gone after {call}: {failure}"));
    let told = format!("{} {error} {:?} {:?}", error.code().code(), error.detail(), error.hint());
    assert!(error.code().code() != "XX000", "{told}: {call}");
    assert!(!told.contains("backtrace") && !told.contains(".rs:") && !told.contains("rust_"), "{told}: {call}");
}

fn platform(cluster: &Cluster) -> Client {
    let mut client = cluster.platform();
    fail(&mut client, 1, 50);
    fail(&mut client, 2, 50);
    client
        .batch_execute(
            "CREATE ROLE nobody;
             CREATE TABLE in_parallel AS SELECT 1 AS one;
             CREATE FUNCTION pg_temp.called(call text) RETURNS void LANGUAGE plpgsql PARALLEL SAFE AS 'BEGIN EXECUTE call; END';
             SET statement_timeout = '3s'",
        )
        .unwrap();
    client
}

#[test]
fn whatever_a_function_is_called_with_is_answered_or_refused_with_a_sqlstate() {
    let cluster = Cluster::start_with_backtraces();
    let mut client = platform(&cluster);
    let routines: Vec<Routine> = client
        .query(ROUTINES, &[])
        .unwrap()
        .iter()
        .map(|row| Routine { name: row.get(0), is_procedure: row.get(1), types: row.get(2) })
        .collect();
    let call = prop::sample::select((0..routines.len()).collect::<Vec<_>>()).prop_flat_map(|routine| {
        let arguments: Vec<_> = routines[routine].types.iter().map(|sql_type| argument(sql_type)).collect();
        (Just(routine), arguments, 0..PLACES.len())
    });
    // The same calls every time.
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[4; 32]);
    let config = Config { cases: 1500, failure_persistence: None, max_shrink_iters: 50, ..Config::default() };
    let client = std::cell::RefCell::new(client);
    TestRunner::new_with_rng(config, rng)
        .run(&call, |(routine, arguments, place)| {
            let client = &mut *client.borrow_mut();
            let Routine { name, is_procedure, types } = &routines[routine];
            // Trailing arguments are left out now and then, where they have defaults.
            let many = if place == 0 { arguments.len() } else { arguments.len().min(types.len() - place % 2) };
            let call = format!("{name}({})", arguments[..many].join(", "));
            let statement = match is_procedure {
                true => format!("CALL {call}"),
                false => PLACES[place].replace("{}", &call),
            };
            must_be_told(&statement, client.batch_execute(&statement));
            client.batch_execute("ROLLBACK; RESET ROLE").unwrap();
            Ok(())
        })
        .unwrap();
    let mut client = client.into_inner();
    client.batch_execute("SET statement_timeout = 0; SELECT backlog_cleanup_failed_generations()").unwrap();
}

#[test]
fn the_parts_of_a_batched_run_are_refused_out_of_their_order() {
    let cluster = Cluster::start("");
    let (mut mine, mut other) = (platform(&cluster), cluster.connect());
    let start = &start_run(10);
    let sqlstate = |client: &mut Client, call: &str| refused(client.batch_execute(call)).0;
    for (call, expected) in [
        ("SELECT backlog_cleanup.next_batch(NULL)", "22004"),
        ("SELECT backlog_cleanup.finish_run(NULL)", "22004"),
        ("SELECT backlog_cleanup.next_batch(42)", "42704"),
        ("SELECT backlog_cleanup.finish_run(-1)", "42704"),
        ("CALL backlog_cleanup.commit_and_wait(NULL)", "22004"),
        ("CALL backlog_cleanup.commit_and_wait('NaN')", "22023"),
        ("BEGIN; CALL backlog_cleanup.commit_and_wait(0)", "25001"),
        ("ROLLBACK; SELECT 1 / 0", "22012"),
    ] {
        assert_eq!(sqlstate(&mut mine, call), expected, "{call}");
    }
    assert_eq!(sqlstate(&mut mine, &format!("BEGIN; SAVEPOINT s; {start}")), "25001");
    mine.batch_execute("ROLLBACK TO s; COMMIT").unwrap();
    let run: i64 = value(&mut mine, start);
    let (next, finish) =
        (format!("SELECT backlog_cleanup.next_batch({run})"), format!("SELECT backlog_cleanup.finish_run({run})"));
    mine.batch_execute(&next).unwrap();
    for call in [&next, &finish] {
        assert_eq!(sqlstate(&mut other, call), "55000", "{call}");
    }
    mine.batch_execute(&finish).unwrap();
    for call in [&next, &finish] {
        assert_eq!(sqlstate(&mut mine, call), "55000", "{call}");
    }
    // A run that is open keeps out others of its own session, too; their error ends it.
    for call in [start, "SELECT backlog_cleanup_emergency()", "CALL backlog_cleanup_run()"] {
        mine.batch_execute(start).unwrap();
        assert_eq!(sqlstate(&mut mine, call), "55P03", "{call}");
        // The error is told before what it ends is given back.
        mine.batch_execute("SELECT 1").unwrap();
        other.batch_execute("SELECT backlog_cleanup_failed_generations()").unwrap();
    }
    assert_eq!(balance(&mut mine, 100), 80);
}

#[test]
fn a_character_that_no_text_can_have_is_refused() {
    let cluster = Cluster::start("");
    let mut client = cluster.platform();
    for argument in ["target", "recipe_id", "failure_type"] {
        let call = start_run(10).replace("\"pause\"", &format!("\"{argument}\": \"a\\u0000\", \"pause\""));
        let call = if argument == "target" { call.replace("\"target\": \"generations\",", "") } else { call };
        assert_eq!(refused(client.batch_execute(&call)).0, "22P05", "{argument}");
    }
}

#[test]
fn a_hint_names_the_target_of_the_call_that_it_corrects() {
    let cluster = Cluster::start("");
    let mut client = cluster.connect();
    client.batch_execute(cluster::JOBS).unwrap();
    client.batch_execute("UPDATE backlog_cleanup.target SET workers = 3 WHERE name = 't'").unwrap();
    for (call, hint) in [
        ("CALL backlog_cleanup_run('t', max_rows => 5)", "CALL backlog_cleanup_run('t', max_rows => 5, workers => 1)"),
        (
            "CALL backlog_cleanup_run('t', mode => 'x')",
            "CALL backlog_cleanup_run('t', mode => 'regular'); -- or 'emergency'",
        ),
        ("CALL backlog_cleanup_run('t', force => NULL)", "CALL backlog_cleanup_run('t', force => false)"),
        ("CALL backlog_cleanup_run('t', include_held => true)", "CALL backlog_cleanup_run('t', mode => 'regular')"),
        (
            "CALL backlog_cleanup_run('t', 'emergency', force => true)",
            "CALL backlog_cleanup_run('t', mode => 'emergency')",
        ),
        (
            "CALL backlog_cleanup_run('t', pause => '-1 s')",
            "CALL backlog_cleanup_run('t', pause => '100 ms'); -- from 0 to 1 day",
        ),
        ("CALL backlog_cleanup_run(force => NULL)", "CALL backlog_cleanup_run(force => false)"),
        (
            "SELECT backlog_cleanup_failed_generations('t', force => NULL)",
            "SELECT backlog_cleanup_failed_generations('t', force => false)",
        ),
        (
            "SELECT backlog_cleanup_emergency('t', dry_run => true, rehearse => true)",
            "SELECT backlog_cleanup_emergency('t', dry_run => true)",
        ),
        (
            "SELECT backlog_cleanup_set_policy(max_age => '-1 day', target => 't')",
            "SELECT * FROM backlog_cleanup_simulate(max_age => '0', target => 't')",
        ),
        ("SELECT backlog_cleanup_drop_policy(target => 'gone')", "SELECT name FROM backlog_cleanup.target"),
    ] {
        assert_eq!(refused(client.batch_execute(call)).2, hint, "{call}");
    }
}

#[test]
fn the_hint_of_a_refused_policy_is_about_the_same_rows() {
    let cluster = Cluster::start("");
    let mut client = cluster.connect();
    client.batch_execute(JOBS).unwrap();
    let hint = |client: &mut Client, limits: &str, names: &str| {
        let call = format!("SELECT backlog_cleanup_set_policy({names}, {limits}, target => 't')");
        let (sqlstate, _, hint) = refused(client.batch_execute(&call));
        assert_eq!(sqlstate, "22023", "{call}");
        assert!(hint.contains(names), "{hint}");
        client.batch_execute(&hint).unwrap_or_else(|failure| panic!("{hint}: {failure:?}"));
        hint
    };
    for names in ["recipe_id => 'a'", "failure_type => 'it''s', status => 'failed'"] {
        assert!(hint(&mut client, "keep => -1", names).contains("keep => '0'"));
        assert!(hint(&mut client, "max_age => '1001 years'", names).contains("max_age => '1000 years'"));
        hint(&mut client, "max_age => '-1 s'", names);
        hint(&mut client, "max_keep_age => '1001 years'", names);
        let set = format!("SELECT backlog_cleanup_set_policy({names}, max_keep_age => '60 days', target => 't')");
        client.batch_execute(&set).unwrap();
        assert!(hint(&mut client, "max_age => '1001 years'", names).contains("max_age => '60 days'"));
    }
    // What simulate refuses, too.
    let simulate = "SELECT backlog_cleanup_simulate('a', keep => -1, target => 't')";
    assert!(refused(client.batch_execute(simulate)).2.contains("recipe_id => 'a'"));
}

#[test]
fn the_hint_of_a_target_with_the_same_status_twice_corrects_the_statement() {
    let cluster = Cluster::start("");
    let mut client = cluster.connect();
    client.batch_execute(JOBS).unwrap();
    client.batch_execute("ALTER TABLE job ADD is_done boolean").unwrap();
    for (column, written, right) in
        [("state", "{x,x}", "{x}"), ("state", "{x,y,x,x,y}", "{x,y}"), ("is_done", "{yes,true,no,on}", "{yes,no}")]
    {
        let insert = format!(
            "INSERT INTO backlog_cleanup.target (name, generations_table, recipes_table, users_table, ledger_table, account_column, account,
                                                 recipe_column, status_column, failed_at_column, failure_type_column, statuses,
                                                 completed_status, pending_status, processing_status)
             VALUES ('s', 'public.job', NULL, NULL, NULL, 'owner', 'w', 'queue', '{column}', 'at', NULL, '{written}', NULL, NULL, NULL)"
        );
        let (sqlstate, message, hint) = refused(client.batch_execute(&insert));
        assert_eq!(sqlstate, "23514", "{message}");
        client.batch_execute(&hint).unwrap_or_else(|failure| panic!("{hint}: {failure:?}"));
        let statuses = "SELECT statuses::text FROM backlog_cleanup.target WHERE name = 's'";
        assert_eq!(value::<String>(&mut client, statuses), right);
        let update = format!("UPDATE backlog_cleanup.target SET statuses = '{written}', max_rows = 7 WHERE name = 's'");
        let (_, _, hint) = refused(client.batch_execute(&update));
        client.batch_execute(&hint).unwrap_or_else(|failure| panic!("{hint}: {failure:?}"));
        assert_eq!(value::<String>(&mut client, statuses), right);
        client.batch_execute("DELETE FROM backlog_cleanup.target WHERE name = 's'").unwrap();
        // Beside another mistake.
        let (_, message, hint) = refused(client.batch_execute(&insert.replace("'queue'", "'queu'")));
        assert!(message.contains("has 2 mistakes"), "{message}");
        client.batch_execute(&hint).unwrap_or_else(|failure| panic!("{hint}: {failure:?}"));
        assert_eq!(value::<String>(&mut client, statuses), right);
        client.batch_execute("DELETE FROM backlog_cleanup.target WHERE name = 's'").unwrap();
    }
}

#[test]
fn limits_columns_statuses_and_policies_that_are_wrong_are_one_error() {
    let cluster = Cluster::start("");
    let mut client = cluster.connect();
    client.batch_execute(JOBS).unwrap();
    client
        .batch_execute("ALTER TABLE job ADD is_done boolean; SELECT backlog_cleanup_set_policy(status => 'failed', keep => 3, target => 't')")
        .unwrap();
    for (set, told) in [
        (
            "status_column = 'is_done', statuses = '{yes}', batch_size = 0",
            &["batch_size", "status_column: policy for status \"failed\""][..],
        ),
        (
            "status_column = 'is_done', statuses = '{yes}', recipe_column = 'queu', batch_size = 0",
            &["batch_size", "recipe_column", "status_column: policy for status \"failed\""],
        ),
        (
            "status_column = 'is_done', statuses = '{yes,nope,true}', completed_status = '{on}'",
            &["statuses: \"nope\"", "statuses: \"yes\"", "completed_status"],
        ),
    ] {
        let failure =
            client.batch_execute(&format!("UPDATE backlog_cleanup.target SET {set} WHERE name = 't'")).unwrap_err();
        let detail = failure.as_db_error().and_then(|error| error.detail()).unwrap_or_default();
        for told in told {
            assert!(detail.lines().any(|line| line.starts_with(told)), "{told}: {detail}");
        }
        client.batch_execute(failure.as_db_error().unwrap().hint().unwrap()).unwrap();
    }
}

#[test]
fn the_hint_of_a_column_that_cannot_be_used_names_one_that_can() {
    let cluster = Cluster::start("");
    let mut client = cluster.connect();
    client.batch_execute(JOBS).unwrap();
    client
        .batch_execute(
            "ALTER TABLE job ADD seconds int DEFAULT 1700000000, ADD milliseconds bigint DEFAULT 1700000000123, ADD microseconds bigint DEFAULT 1700000000123456",
        )
        .unwrap();
    for (column, written, right) in [
        ("failed_at_column", "'seconds'", "to_timestamp("),
        ("failed_at_column", "'milliseconds'", "1000.0"),
        ("failed_at_column", "'microseconds'", "1000000.0"),
        ("recipe_columns", "'{queu,owne}'", "{queue,owner}"),
        ("throttle_query", "'nothing'", "pg_stat_replication"),
        ("throttle_query", "'SELECT 1 FROM nothing'", "pg_stat_replication"),
    ] {
        let set = format!("UPDATE backlog_cleanup.target SET {column} = {written} WHERE name = 't'");
        let (_, message, hint) = refused(client.batch_execute(&set));
        client.batch_execute(&hint).unwrap_or_else(|failure| panic!("{message}; {hint}: {failure:?}"));
        let is_now = value::<String>(
            &mut client,
            &format!("SELECT {column}::text FROM backlog_cleanup.target WHERE name = 't'"),
        );
        assert!(is_now.contains(right), "{is_now}");
    }
}

#[test]
fn a_run_that_the_tables_owner_may_not_do_says_what_the_owner_lacks() {
    let cluster = Cluster::start("max_worker_processes = 16\n");
    let mut client = cluster.connect();
    client.batch_execute(JOBS).unwrap();
    let runs = ["SELECT backlog_cleanup_failed_generations('t')", "CALL backlog_cleanup_run('t')"];
    let reads = [
        "SELECT backlog_cleanup_failed_generations('t', dry_run => true)",
        "SELECT backlog_cleanup_status('t')",
        "SELECT backlog_cleanup_failures('t')",
        "SELECT backlog_cleanup_explain('1', 't')",
    ];
    for (privilege, calls) in [("SELECT", [&runs[..], &reads].concat()), ("DELETE", runs.to_vec())] {
        for call in calls {
            client.batch_execute(&format!("REVOKE {privilege} ON job FROM app")).unwrap();
            let (sqlstate, message, hint) = refused(client.batch_execute(call));
            let wrong = format!("owner \"app\" of public.job has no {privilege} privilege on it");
            assert_eq!((sqlstate.as_str(), message), ("42501", wrong), "{call}");
            client.batch_execute(&hint).unwrap();
            client.batch_execute(reads[0]).unwrap();
        }
    }
}

#[test]
fn a_name_that_no_role_can_have_is_not_to_be_created() {
    let cluster = Cluster::start("");
    let mut client = cluster.connect();
    client.batch_execute("CREATE EXTENSION backlog_cleanup").unwrap();
    for name in ["public", "none", "pg_x", "", "backlog_ops"] {
        for call in ["grant(:name, 'admin')", "revoke(:name)"] {
            let call = call.replace(":name", &format!("'{name}'"));
            let (sqlstate, _, hint) = refused(client.batch_execute(&format!("SELECT backlog_cleanup_{call}")));
            assert_eq!(sqlstate, "42704", "{call}");
            client
                .batch_execute(&format!("BEGIN; {hint}; ROLLBACK"))
                .unwrap_or_else(|failure| panic!("{hint}: {failure:?}"));
        }
    }
}
