//! Nothing of the caller's session is in reach of code that hangs on a table, and nothing of that code stays in it.

use cluster::{Cluster, column, fail, number, own_by, refused, start_run, truth, value};
use postgres::Client;

/// The platform's tables belong to `app`, whose trigger does `what` in PL/pgSQL for each row that goes. `payload` makes a
/// superuser of `app` where one calls it.
fn hostile(cluster: &Cluster, what: &str) -> Client {
    let mut client = cluster.platform();
    client.batch_execute("CREATE ROLE app").unwrap();
    own_by(&mut client, "app");
    client
        .batch_execute(&format!(
            "CREATE SCHEMA app AUTHORIZATION app;
             SET ROLE app;
             CREATE FUNCTION app.payload() RETURNS integer LANGUAGE plpgsql AS $$
             BEGIN
                 IF (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) THEN ALTER ROLE app SUPERUSER; END IF;
                 RETURN 1;
             END $$;
             CREATE FUNCTION app.act() RETURNS trigger LANGUAGE plpgsql AS $$
             DECLARE
                 c refcursor := 'mine';
             BEGIN
                 {what};
                 RETURN OLD;
             END $$;
             CREATE TRIGGER act BEFORE DELETE ON public.generations FOR EACH ROW EXECUTE FUNCTION app.act();
             RESET ROLE"
        ))
        .unwrap();
    fail(&mut client, 1, 15);
    client
}

const RUNS: [&str; 2] = ["SELECT backlog_cleanup_failed_generations()", "SELECT backlog_cleanup_emergency()"];

fn is_superuser(client: &mut Client) -> bool {
    truth(client, "SELECT rolsuper FROM pg_roles WHERE rolname = 'app'")
}

#[test]
fn errors_of_the_sessions_other_statements_keep_all_that_they_say() {
    let cluster = Cluster::start("");
    let mut client = cluster.platform();
    client
        .batch_execute(
            "SELECT backlog_cleanup_status_json(); CREATE TABLE one (id int CONSTRAINT just_one PRIMARY KEY)",
        )
        .unwrap();
    let failure =
        client.batch_execute("DO $$BEGIN RAISE 'mine' USING ERRCODE = 'ABC12', COLUMN = 'c'; END$$").unwrap_err();
    let error = failure.as_db_error().unwrap();
    assert_eq!((error.code().code(), error.column()), ("ABC12", Some("c")));
    let failure = client.batch_execute("DO $$BEGIN INSERT INTO one VALUES (1), (1); END$$").unwrap_err();
    let error = failure.as_db_error().unwrap();
    assert_eq!((error.constraint(), error.table()), (Some("just_one"), Some("one")));
    assert!(error.where_().is_some_and(|context| context.contains("inline_code_block")), "{error:?}");
}

#[test]
fn a_cursor_of_a_trigger_does_not_outlive_the_run() {
    let cluster = Cluster::start("");
    let mut client = hostile(
        &cluster,
        "BEGIN OPEN c FOR EXECUTE 'SELECT app.payload() FROM generate_series(1, 3)'; EXCEPTION WHEN duplicate_cursor THEN END",
    );
    for run in RUNS {
        let mut transaction = client.transaction().unwrap();
        transaction.batch_execute(run).unwrap();
        let open: i64 =
            transaction.query_one("SELECT count(*) FROM pg_cursors WHERE name = 'mine'", &[]).unwrap().get(0);
        assert_eq!(open, 0, "{run}");
        assert_eq!(refused(transaction.batch_execute("FETCH mine")).0, "34000");
    }
    assert!(!is_superuser(&mut client));
}

#[test]
fn a_pinned_cursor_does_not_run_at_the_commit_of_a_batch() {
    let cluster = Cluster::start("");
    let mut client = hostile(&cluster, "NULL");
    client
        .batch_execute(
            "CREATE EXTENSION plperl;
             CREATE FUNCTION app.pin() RETURNS trigger LANGUAGE plperl AS
                 'spi_query(q{SELECT app.payload() FROM generate_series(1, 3)}); return;';
             CREATE TRIGGER pin BEFORE DELETE ON generations FOR EACH ROW EXECUTE FUNCTION app.pin()",
        )
        .unwrap();
    client.batch_execute("CALL backlog_cleanup_run(batch_size => 2)").unwrap();
    assert_eq!(number(&mut client, "SELECT count(*) FROM generations"), 10);
    assert!(!is_superuser(&mut client));
}

/// The last run.
const LAST: &str = "FROM backlog_cleanup.run ORDER BY id DESC LIMIT 1";

#[test]
fn a_cursor_of_the_caller_can_neither_be_read_nor_replaced() {
    for (theft, sqlstate) in [
        ("FETCH c INTO c", "55000"),
        ("MOVE c", "55000"),
        ("UPDATE generations SET failure_reason = 'here' WHERE CURRENT OF mine", "24000"),
        ("IF NOT EXISTS (SELECT FROM pg_cursors) THEN CLOSE c; END IF", "24000"),
        ("CLOSE c", "24000"),
        ("CLOSE c; OPEN c FOR EXECUTE 'SELECT app.payload()'", "24000"),
    ] {
        let cluster = Cluster::start("");
        let mut client = hostile(&cluster, theft);
        let declare = "DECLARE mine CURSOR FOR SELECT 'secret ' || g FROM generate_series(1, 9) g";
        client.batch_execute(&format!("BEGIN; {declare}; FETCH mine; SAVEPOINT before")).unwrap();
        client.batch_execute(RUNS[1]).unwrap();
        assert_eq!(value::<String>(&mut client, &format!("SELECT kept_back_sqlstate {LAST}")), sqlstate, "{theft}");
        client.batch_execute("ROLLBACK TO before").unwrap();
        assert_eq!(value::<String>(&mut client, "FETCH mine"), "secret 2", "{theft}");
        client.batch_execute("COMMIT").unwrap();
        assert!(!is_superuser(&mut client));
    }
}

#[test]
fn a_cursor_of_the_caller_goes_on_after_a_run() {
    let cluster = Cluster::start("");
    let mut client = hostile(&cluster, "NULL");
    client
        .batch_execute(
            "DO $$
             DECLARE
                 line record;
                 lines integer := 0;
             BEGIN
                 FOR line IN SELECT g FROM generate_series(1, 100) g LOOP
                     PERFORM backlog_cleanup_emergency(), count(*) FROM backlog_cleanup_status();
                     lines := lines + 1;
                 END LOOP;
                 ASSERT lines = 100;
             END $$",
        )
        .unwrap();
    assert_eq!(number(&mut client, "SELECT count(*) FROM generations"), 0);
}

#[test]
fn temporary_objects_of_the_session_are_not_found() {
    let cluster = Cluster::start("");
    let mut client = hostile(&cluster, "INSERT INTO audit_log VALUES (1)");
    client
        .batch_execute(
            "CREATE TABLE app.audit_log (x integer); ALTER TABLE app.audit_log OWNER TO app;
                        ALTER FUNCTION app.act() SET search_path = app",
        )
        .unwrap();
    client.batch_execute("CREATE TEMP TABLE audit_log (x integer); GRANT ALL ON audit_log TO PUBLIC").unwrap();
    for call in RUNS.into_iter().chain(["SELECT * FROM backlog_cleanup_status()", "CALL backlog_cleanup_run()"]) {
        let (sqlstate, message, hint) = refused(client.batch_execute(call));
        assert_eq!((sqlstate.as_str(), hint.as_str()), ("42501", "DISCARD TEMP"), "{call}");
        assert!(message.contains("table audit_log"), "{message}");
    }
    client.batch_execute("DISCARD TEMP").unwrap();
    client.batch_execute(RUNS[0]).unwrap();
    assert_eq!(number(&mut client, "SELECT count(*) FROM app.audit_log"), 5);
}

#[test]
fn a_trigger_plants_nothing_in_the_temporary_schema() {
    let cluster = Cluster::start("");
    let mut client = hostile(
        &cluster,
        "CREATE OR REPLACE FUNCTION pg_temp.helper(integer) RETURNS integer LANGUAGE sql AS 'SELECT app.payload()'",
    );
    for run in RUNS.into_iter().chain(["CALL backlog_cleanup_run()"]) {
        let (sqlstate, message, _) = refused(client.batch_execute(run));
        assert_eq!(sqlstate, "42501", "{message}");
    }
    assert_eq!(refused(client.batch_execute("SELECT pg_temp.helper(1)")).0, "3F000");
    assert!(!is_superuser(&mut client));
}

#[test]
fn large_object_descriptors_of_the_session_are_closed_or_refused() {
    let cluster = Cluster::start("");
    let mut client = hostile(&cluster, "PERFORM lo_open(7, 262144) FROM generate_series(1, 300)");
    client.batch_execute("SELECT lo_from_bytea(7, 'left'), lo_from_bytea(8, 'secret')").unwrap();
    client.batch_execute("ALTER LARGE OBJECT 7 OWNER TO app").unwrap();
    client.batch_execute("BEGIN; SELECT lo_open(8, 262144)").unwrap();
    let (sqlstate, _, hint) = refused(client.batch_execute(RUNS[0]));
    assert_eq!((sqlstate.as_str(), hint.as_str()), ("42501", "SELECT lo_close(0)"));
    client
        .batch_execute(
            "ROLLBACK; BEGIN; SELECT lo_open(8, 262144) FROM generate_series(0, 999); SELECT lo_close(i) FROM generate_series(0, 998) i",
        )
        .unwrap();
    let (sqlstate, _, hint) = refused(client.batch_execute(RUNS[0]));
    assert_eq!((sqlstate.as_str(), hint.as_str()), ("42501", "SELECT lo_close(999)"));
    for descriptor in [0, 299] {
        client.batch_execute("ROLLBACK; BEGIN").unwrap();
        client.batch_execute(RUNS[0]).unwrap();
        assert_eq!(refused(client.batch_execute(&format!("SELECT loread({descriptor}, 4)"))).0, "42704");
    }
    client.batch_execute("ROLLBACK").unwrap();
}

#[test]
fn constraints_stay_as_they_were() {
    let cluster = Cluster::start("");
    let mut client = hostile(&cluster, "SET CONSTRAINTS ALL DEFERRED");
    client
        .batch_execute(
            "CREATE TABLE parent (id integer PRIMARY KEY);
             CREATE TABLE child (id integer REFERENCES parent DEFERRABLE INITIALLY IMMEDIATE);
             BEGIN",
        )
        .unwrap();
    client.batch_execute(RUNS[0]).unwrap();
    assert_eq!(refused(client.batch_execute("INSERT INTO child VALUES (1)")).0, "23503");
    client.batch_execute("ROLLBACK").unwrap();
}

/// How many times the session holds each advisory lock, by taking them away.
fn advisory_locks(client: &mut Client) -> Vec<(i64, bool, i64)> {
    let mut held = Vec::new();
    for key in 7..=9 {
        for (is_shared, unlock) in [(false, "pg_advisory_unlock"), (true, "pg_advisory_unlock_shared")] {
            let unlock = format!("SELECT {unlock}({key})");
            let times = std::iter::from_fn(|| truth(client, &unlock).then_some(())).count() as i64;
            held.push((key, is_shared, times));
        }
    }
    held.retain(|(_, _, times)| *times > 0);
    held
}

#[test]
fn advisory_locks_of_the_session_stay_as_they_were_however_a_call_ends() {
    let take =
        "SELECT pg_advisory_lock(7), pg_advisory_lock(7), pg_advisory_lock_shared(7), pg_advisory_lock_shared(9)";
    let taken = vec![(7, false, 2), (7, true, 1), (9, true, 1)];
    let cluster = Cluster::start("");
    let mut client = hostile(&cluster, "PERFORM app.locks()");
    client
        .batch_execute(
            "CREATE TABLE app.what (sql text); ALTER TABLE app.what OWNER TO app; INSERT INTO app.what VALUES ('');
             CREATE FUNCTION app.locks() RETURNS boolean LANGUAGE plpgsql AS $$
             DECLARE
                 one text;
             BEGIN
                 FOR one IN SELECT sql FROM app.what LOOP EXECUTE one; END LOOP;
                 RETURN true;
             END $$;
             INSERT INTO recipes (id, name, slug, description, prompt, category, credit_cost) VALUES (1, '', '', '', '', '', 1);
             CREATE VIEW app.recipes AS SELECT id, name FROM recipes WHERE app.locks();
             ALTER VIEW app.recipes OWNER TO app;
             UPDATE backlog_cleanup.target SET recipes_table = 'app.recipes'",
        )
        .unwrap();
    let moves = [
        "SELECT pg_advisory_unlock_all()",
        "SELECT pg_advisory_lock(8)",
        "SELECT pg_advisory_unlock(7), pg_advisory_lock(9)",
        "SELECT pg_advisory_lock(7) FROM generate_series(1, 40)",
    ];
    let calls = [
        "SELECT * FROM backlog_cleanup_status()",
        "SELECT backlog_cleanup_emergency(dry_run => true)",
        "BEGIN; SELECT backlog_cleanup_failed_generations(); ROLLBACK",
        "BEGIN; SAVEPOINT s; SELECT backlog_cleanup_emergency(); ROLLBACK TO s; COMMIT",
        "DO 'BEGIN PERFORM backlog_cleanup_emergency(); RAISE division_by_zero; EXCEPTION WHEN OTHERS THEN END'",
        "SET statement_timeout = 500; SELECT backlog_cleanup_emergency(); SELECT pg_sleep(9)",
        "CALL backlog_cleanup_run(batch_size => 2)",
    ];
    for end in [
        "SELECT 1",
        "DO 'BEGIN RAISE division_by_zero; END'",
        "SELECT pg_sleep(9) WHERE current_setting('statement_timeout') <> '0'",
    ] {
        for (what, call) in moves.iter().flat_map(|what| calls.iter().map(move |call| (what, call))) {
            client.execute("UPDATE app.what SET sql = $1", &[&format!("{what}; {end}")]).unwrap();
            client.batch_execute("TRUNCATE generations").unwrap();
            fail(&mut client, 1, 15);
            client.batch_execute(take).unwrap();
            let mut other = cluster.connect();
            let waiting = std::thread::spawn(move || other.batch_execute("SELECT pg_advisory_lock(7)"));
            let waits = "SELECT count(*) = 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted";
            while !truth(&mut client, waits) {}
            client.batch_execute(call).ok();
            client.batch_execute("ROLLBACK; RESET statement_timeout").unwrap();
            assert!(truth(&mut client, waits), "another session has got the lock: {what}; {end}; {call}");
            assert_eq!(advisory_locks(&mut client), taken, "{what}; {end}; {call}");
            waiting.join().unwrap().unwrap();
            client.batch_execute("SELECT pg_advisory_lock(7), pg_advisory_unlock(7)").unwrap();
        }
    }
}

#[test]
fn prepared_statements_of_the_session_are_neither_read_nor_executed() {
    let cluster = Cluster::start("");
    let mut client = hostile(
        &cluster,
        "INSERT INTO app.seen SELECT string_agg(statement, ';') FROM pg_prepared_statements;
         EXECUTE 'EXECUTE mine';
         BEGIN EXECUTE 'EXECUTE mine(1)' INTO STRICT c; EXCEPTION WHEN no_data_found THEN END;
         BEGIN EXECUTE 'DEALLOCATE ALL'; EXCEPTION WHEN insufficient_privilege THEN END",
    );
    client.batch_execute("CREATE TABLE app.seen (text text); ALTER TABLE app.seen OWNER TO app").unwrap();
    client
        .batch_execute("PREPARE mine AS SELECT 'secret'::text; PREPARE run AS SELECT backlog_cleanup_emergency()")
        .unwrap();
    let mine = client.prepare("SELECT 'secret'::text || $1::text").unwrap();
    for run in
        ["EXECUTE run", "SELECT backlog_cleanup_emergency() FROM generate_series(1, 3)", "CALL backlog_cleanup_run()"]
    {
        fail(&mut client, 1, 15);
        client.batch_execute(run).unwrap();
    }
    assert_eq!(number(&mut client, "SELECT count(*) FROM app.seen WHERE text ~ 'SELECT'"), 50);
    assert_eq!(number(&mut client, "SELECT count(*) FROM app.seen WHERE text ~ 'secret|cleanup'"), 0);
    assert_eq!(value::<String>(&mut client, "EXECUTE mine"), "secret");
    assert_eq!(client.query_one(&mine, &[&"!"]).unwrap().get::<_, String>(0), "secret!");

    // Also after an error.
    client
        .batch_execute(
            "CREATE OR REPLACE FUNCTION app.act() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(60); END'",
        )
        .unwrap();
    fail(&mut client, 1, 15);
    client.batch_execute("SET statement_timeout = '300ms'").unwrap();
    assert_eq!(refused(client.batch_execute("EXECUTE run")).0, "57014");
    client.batch_execute("RESET statement_timeout").unwrap();
    assert_eq!(value::<String>(&mut client, "EXECUTE mine"), "secret");
}

#[test]
fn advisory_locks_of_the_transaction_end_with_it() {
    let cluster = Cluster::start("");
    let mut client = hostile(&cluster, "PERFORM pg_advisory_xact_lock(8), pg_advisory_unlock_all()");
    let held = "SELECT objid::bigint FROM pg_locks WHERE locktype = 'advisory' ORDER BY 1";
    client.batch_execute("BEGIN; SELECT pg_advisory_xact_lock(7)").unwrap();
    client.batch_execute(RUNS[0]).unwrap();
    assert_eq!(column::<i64>(&mut client, held), [7, 8]);
    client.batch_execute("COMMIT").unwrap();
    assert_eq!(column::<i64>(&mut client, held), [0; 0]);
}

#[test]
fn code_of_a_view_neither_changes_constraints_nor_fires_what_the_caller_has_put_off() {
    let cluster = Cluster::start("");
    let mut client = hostile(&cluster, "NULL");
    client
        .batch_execute(
            "CREATE FUNCTION app.set(text) RETURNS boolean LANGUAGE plpgsql AS $$
             BEGIN
                 BEGIN EXECUTE format('SET CONSTRAINTS ALL %s', $1); EXCEPTION WHEN division_by_zero THEN END;
                 RETURN true;
             END $$;
             INSERT INTO recipes (id, name, slug, description, prompt, category, credit_cost) VALUES (1, 'DEFERRED', '', '', '', '', 1);
             CREATE VIEW app.recipes AS SELECT id, name FROM recipes WHERE app.set(name);
             ALTER VIEW app.recipes OWNER TO app;
             UPDATE backlog_cleanup.target SET recipes_table = 'app.recipes';
             CREATE TABLE parent (id integer PRIMARY KEY);
             CREATE TABLE child (id integer REFERENCES parent DEFERRABLE INITIALLY IMMEDIATE)",
        )
        .unwrap();
    for mode in ["DEFERRED", "IMMEDIATE"] {
        client.execute("UPDATE recipes SET name = $1", &[&mode]).unwrap();
        for call in ["SELECT backlog_cleanup_status_json()", "SELECT backlog_cleanup_emergency(dry_run => true)"] {
            client
                .batch_execute("BEGIN; SET CONSTRAINTS child_id_fkey DEFERRED; INSERT INTO child VALUES (1)")
                .unwrap();
            client.batch_execute("SAVEPOINT before").unwrap();
            let (sqlstate, message, _) = refused(client.batch_execute(call));
            assert_eq!((sqlstate.as_str(), message.contains("SET CONSTRAINTS")), ("42501", true), "{call}: {message}");
            client.batch_execute("ROLLBACK TO before; DELETE FROM child; COMMIT").unwrap();
            assert_eq!(refused(client.batch_execute("INSERT INTO child VALUES (1)")).0, "23503", "{call}");
        }
    }
}

#[test]
fn code_of_a_table_starts_no_batched_run_in_the_callers_session() {
    let cluster = Cluster::start("");
    let mut client = hostile(&cluster, &format!("PERFORM ({})", start_run(10).replace("generations", "other")));
    client
        .batch_execute(
            "SELECT backlog_cleanup_grant('app', 'operator');
             INSERT INTO backlog_cleanup.target (name) VALUES ('other')",
        )
        .unwrap();
    for run in RUNS {
        client.batch_execute(run).unwrap();
        let message: String = value(&mut client, &format!("SELECT kept_back_message {LAST}"));
        assert!(message.contains("code of a table cannot start, continue or finish a batched run"), "{message}");
    }
    let held = "SELECT count(*) FROM pg_locks WHERE classid = 'backlog_cleanup.target'::regclass";
    assert_eq!(number(&mut client, held), 0);
}

#[test]
fn code_of_a_table_neither_continues_nor_finishes_the_batched_run_that_runs_it() {
    for part in ["next_batch", "finish_run"] {
        let cluster = Cluster::start("");
        let call = format!("PERFORM backlog_cleanup.{part}(max(id)) FROM backlog_cleanup.run WHERE state = 'running'");
        let mut client = hostile(&cluster, &call);
        client.batch_execute("SELECT backlog_cleanup_grant('app', 'operator')").unwrap();
        client.batch_execute("CALL backlog_cleanup_run(batch_size => 10)").unwrap();
        let message: String = value(&mut client, &format!("SELECT kept_back_message {LAST}"));
        assert!(
            message.contains("code of a table cannot start, continue or finish a batched run"),
            "{part}: {message}"
        );
        assert_eq!(value::<String>(&mut client, &format!("SELECT state {LAST}")), "completed", "{part}");
        assert_eq!(number(&mut client, "SELECT count(*) FROM generations"), 15, "{part}");
    }
}

#[test]
fn code_of_a_table_sets_nothing_that_ends_the_session() {
    let cluster = Cluster::start("");
    let settings = [
        "exit_on_error = on",
        "transaction_timeout = 1",
        "tcp_user_timeout = 1",
        "tcp_keepalives_idle = 1",
        "tcp_keepalives_interval = 1",
        "tcp_keepalives_count = 1",
        "client_encoding = latin1",
    ];
    let mut client = hostile(&cluster, "NULL");
    let known = "SELECT EXISTS (SELECT FROM pg_settings WHERE name = $1)";
    for setting in settings {
        let name = setting.split(' ').next().unwrap();
        if !client.query_one(known, &[&name]).unwrap().get::<_, bool>(0) {
            continue;
        }
        for function in [
            format!(
                "CREATE OR REPLACE FUNCTION app.act() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN SET LOCAL {setting}; RETURN OLD; END$$"
            ),
            format!(
                "CREATE OR REPLACE FUNCTION app.act() RETURNS trigger LANGUAGE plpgsql SET {setting} AS $$BEGIN RAISE 'x'; END$$"
            ),
        ] {
            client.batch_execute(&function).unwrap();
            for run in RUNS {
                client.batch_execute(run).unwrap_or_else(|failure| panic!("{function}: {failure:?}"));
                let kept_back = "SELECT kept_back_sqlstate || ' ' || kept_back_message FROM backlog_cleanup.run ORDER BY id DESC LIMIT 1";
                let kept_back: String = value(&mut client, kept_back);
                assert!(kept_back.starts_with(&format!("42501 invalid value for parameter \"{name}\"")), "{kept_back}");
            }
        }
        // Elsewhere it is as it was, also in a function of somebody's with SECURITY DEFINER.
        client
            .batch_execute(&format!(
                "BEGIN; SET LOCAL {setting}; COMMIT;
                 CREATE OR REPLACE FUNCTION sets() RETURNS integer LANGUAGE sql SECURITY DEFINER SET {setting} AS 'SELECT 1'; SELECT sets()"
            ))
            .unwrap();
    }
    // Nor does anything stand in the way of what is set already, or of what is not code of a target's table.
    client
        .batch_execute(
            "CREATE OR REPLACE FUNCTION app.act() RETURNS trigger LANGUAGE plpgsql SET client_encoding = 'UTF8' AS $$BEGIN RETURN OLD; END$$;
             CREATE TABLE other AS SELECT 'a'::text AS t;
             CREATE FUNCTION norm(text) RETURNS text LANGUAGE plpgsql IMMUTABLE SET client_encoding = 'LATIN1' AS 'BEGIN RETURN lower($1); END';
             CREATE INDEX ON other (norm(t)); REINDEX TABLE other; ANALYZE other; SELECT backlog_cleanup_emergency()",
        )
        .unwrap();
    assert_eq!(number(&mut client, "SELECT count(*) FROM generations"), 0);
}

#[test]
fn signals_that_code_of_a_table_ignores_end_and_cancel_the_session_afterwards() {
    let cluster = Cluster::start("");
    let mut client = hostile(&cluster, "NULL");
    // From its first batched run on, a session listens to who stops one.
    client.batch_execute("CALL backlog_cleanup_run(max_rows => 1)").unwrap();
    client
        .batch_execute(
            "CREATE EXTENSION plperl;
             CREATE FUNCTION app.deaf() RETURNS text LANGUAGE plperl AS
                 $$ $SIG{$_} = 'IGNORE' for qw(HUP INT QUIT USR1 USR2 ALRM TERM FPE XFSZ TTIN URG PROF CONT); return ''; $$;
             CREATE FUNCTION app.hear() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM app.deaf(); RETURN OLD; END';
             CREATE TRIGGER hear BEFORE DELETE ON generations FOR EACH ROW EXECUTE FUNCTION app.hear();
             ALTER TABLE recipes RENAME TO named;
             CREATE VIEW recipes AS SELECT id, name || app.deaf() AS name FROM named; ALTER VIEW recipes OWNER TO app;
             INSERT INTO named (id, name, slug, description, prompt, category, credit_cost) VALUES (1, 'a', 'a', '', '', 'video', 1)
             ON CONFLICT DO NOTHING",
        )
        .unwrap();
    let mut other = cluster.connect();
    let pid: i32 = value(&mut client, "SELECT pg_backend_pid()");
    let signals = || {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let lines = status.lines().filter(|line| line.starts_with("SigIgn") || line.starts_with("SigCgt"));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    let before = signals();
    for call in
        ["SELECT * FROM backlog_cleanup_status()", RUNS[0], "CALL backlog_cleanup_run('generations', 'emergency')"]
    {
        client.batch_execute(call).unwrap_or_else(|failure| panic!("{call}: {failure:?}"));
        assert_eq!(signals(), before, "{call}");
        let slow = "SET statement_timeout = '100ms'; SELECT pg_sleep(5)";
        assert_eq!(refused(client.batch_execute(slow)).0, "57014", "{call}");
        client.batch_execute("RESET statement_timeout").unwrap();
    }
    other.execute("SELECT pg_terminate_backend($1, 10000)", &[&pid]).unwrap();
    assert_eq!(number(&mut other, &format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {pid}")), 0);
}
