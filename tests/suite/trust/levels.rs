//! What a level sees and may do.

use cluster::{Cluster, column, number as count, refused, until_true, value};
use postgres::Client;

use super::{PRELUDE, database, found};

#[test]
fn a_monitor_learns_of_no_row_of_another_account() {
    let (_cluster, mut client) = database("rows_of_others");
    client.batch_execute("INSERT INTO job (id, owner) VALUES (101, 'other'); SET ROLE mon").unwrap();
    let verdict = |id: i32| format!("SELECT verdict || reason FROM backlog_cleanup_explain('{id}', 't')");
    let [of_another, of_none]: [String; 2] = [101, 102].map(|id| value(&mut client, &verdict(id)));
    assert_eq!(of_another, of_none);
    client.batch_execute("RESET ROLE").unwrap();
    assert!(value::<String>(&mut client, &verdict(101)).starts_with("out of scope"));
}

#[test]
fn no_error_tells_a_monitor_a_value_of_a_row_of_another_account() {
    let (_cluster, mut client) = database("errors_of_others");
    client
        .batch_execute(
            "UPDATE job SET error = '1'; INSERT INTO job (id, owner, error) VALUES (1001, 'boss', 'secret of boss');
             UPDATE backlog_cleanup.target SET condition = '(error::int > 0)', status_column = '(CASE error::int WHEN 1 THEN ''failed'' END)',
                    recipe_column = '(error::int)', failure_type_column = '(error::int)' WHERE name = 't';
             SET ROLE mon",
        )
        .unwrap();
    let verdict: String = value(&mut client, "SELECT verdict FROM backlog_cleanup_explain('1001', 't')");
    assert_eq!(verdict, "no such row");
    for check in ["rows", "failed_at"] {
        let (status, detail, _) = found(&mut client, check);
        assert_eq!(status, "ok", "{check}: {detail}");
    }
    client.batch_execute("SELECT * FROM backlog_cleanup_status('t'); RESET ROLE").unwrap();
}

#[test]
fn default_privileges_give_nothing() {
    let cluster = Cluster::start("");
    let mut client = cluster.connect();
    client
        .batch_execute(
            "CREATE ROLE evil; ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO evil; ALTER DEFAULT PRIVILEGES GRANT ALL ON SCHEMAS TO evil;
             ALTER DEFAULT PRIVILEGES GRANT ALL ON SEQUENCES TO evil; ALTER DEFAULT PRIVILEGES GRANT EXECUTE ON FUNCTIONS TO evil;
             CREATE EXTENSION backlog_cleanup VERSION '0.2.0'",
        )
        .unwrap();
    client.batch_execute("ALTER EXTENSION backlog_cleanup UPDATE").unwrap();
    // What came with 0.2.0 has what that version left; the doctor says so.
    let given = "SELECT pg_describe_object(d.classid, d.objid, 0) FROM pg_depend d
                 LEFT JOIN pg_proc p ON d.classid = 'pg_proc'::regclass AND p.oid = d.objid
                 LEFT JOIN pg_class c ON d.classid = 'pg_class'::regclass AND c.oid = d.objid
                 LEFT JOIN pg_namespace n ON d.classid = 'pg_namespace'::regclass AND n.oid = d.objid
                 WHERE d.deptype = 'e' AND d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'backlog_cleanup')
                   AND EXISTS (SELECT FROM aclexplode(coalesce(proacl, relacl, nspacl)) acl WHERE acl.grantee = 'evil'::regrole)
                 ORDER BY 1";
    let access =
        "SELECT concat(status, ': ', detail) FROM backlog_cleanup_doctor() WHERE check_name = 'access' ORDER BY detail";
    let left: Vec<String> = column(&mut client, given);
    assert!(left.contains(&"table backlog_cleanup.run".to_owned()), "{left:?}");
    assert!(!left.contains(&"table backlog_cleanup.run_policy".to_owned()), "{left:?}");
    assert!(!left.iter().any(|object| object.contains("backlog_cleanup_explain")), "{left:?}");
    let said: Vec<String> = column(&mut client, access);
    let on_run = "fail: role \"evil\" has no level, but DELETE, INSERT, REFERENCES, SELECT, TRIGGER, TRUNCATE, UPDATE ON backlog_cleanup.run";
    assert!(said.contains(&on_run.to_owned()), "{said:?}");
    assert!(!said.iter().any(|said| said.contains("if it is to have")), "{said:?}");
    client.batch_execute("DROP EXTENSION backlog_cleanup; CREATE EXTENSION backlog_cleanup").unwrap();
    let for_all = ["function backlog_cleanup_fingerprint(text)", "function backlog_cleanup_has_value(text,\"any\")"];
    assert_eq!(column::<String>(&mut client, given), for_all);
    assert_eq!(column::<String>(&mut client, access), ["ok: no role has privileges beyond its level"]);

    // Who owns the schema, or may create in it, could have a job call another function.
    client
        .batch_execute("CREATE ROLE weak; GRANT CREATE ON SCHEMA public TO evil; ALTER DATABASE postgres OWNER TO weak")
        .unwrap();
    assert_eq!(
        column::<String>(&mut client, access),
        [
            "warn: role \"evil\" may create functions in schema public, which could be called instead of the extension's",
            "warn: role \"weak\" owns schema public, and could put functions there in the place of the extension's"
        ]
    );
}

#[test]
fn an_error_shows_rows_to_those_only_who_have_the_rights_of_the_tables_owner() {
    let (_cluster, mut client) = database("discreet");
    client
        .batch_execute(
            "CREATE TABLE secret (job int REFERENCES job); INSERT INTO secret VALUES (77); ALTER TABLE secret OWNER TO app;
             ALTER TABLE ledger ADD CHECK (amount < 5), OWNER TO app",
        )
        .unwrap();
    let run = "SELECT backlog_cleanup_emergency('t')";
    let detail_for = |client: &mut Client, role: &str| {
        client.batch_execute(&format!("BEGIN; {role}")).unwrap();
        let failure = client.batch_execute(run).unwrap_err();
        client.batch_execute("ROLLBACK").unwrap();
        let error = failure.as_db_error().unwrap().clone();
        (error.code().code().to_owned(), error.message().to_owned(), error.detail().map(str::to_owned))
    };
    // What keeps a row back is told without the DETAIL, which has the key.
    let reason: String = value(&mut client, &format!("{run} ->> 'keptBackReason'"));
    assert!(
        reason.contains("\"secret_job_fkey\"") && reason.ends_with("(23503)") && !reason.contains("Key"),
        "{reason}"
    );
    client
        .batch_execute(
            "DROP TABLE secret; INSERT INTO job (id) SELECT generate_series(101, 199); UPDATE backlog_cleanup.target SET ledger_table = 'public.ledger' WHERE name = 't'",
        )
        .unwrap();
    assert_eq!(detail_for(&mut client, "SET LOCAL ROLE op").2, None);
    assert!(detail_for(&mut client, "GRANT app TO op; SET LOCAL ROLE op").2.unwrap().contains("100"));
}

#[test]
fn a_row_beyond_a_limit_runs_and_tells_an_admin_nothing_that_another_does_not() {
    let (_cluster, mut client) = database("beyond");
    client
        .batch_execute(
            "CREATE SEQUENCE ran; GRANT ALL ON ran TO PUBLIC;
             CREATE FUNCTION throttle() RETURNS text LANGUAGE plpgsql AS $$
                 BEGIN
                     PERFORM nextval('public.ran');
                     IF current_setting('my.bad', true) = 'x' THEN
                         RAISE EXCEPTION 'no' USING ERRCODE = '55P03', DETAIL = 'secret row', HINT = 'DROP TABLE job';
                     END IF;
                     RETURN NULL;
                 END $$;
             ALTER FUNCTION throttle OWNER TO app;
             UPDATE backlog_cleanup.target SET throttle_query = 'SELECT public.throttle()' WHERE name = 't'; SET my.bad = 'x'; SET ROLE adm",
        )
        .unwrap();
    let written = "(SELECT to_jsonb(t) || '{\"named_by\": null, \"batch_size\": -1, \"throttle_query\": \"SELECT public.throttle()\"}' FROM backlog_cleanup.target t WHERE name = 't')";
    let before = count(&mut client, "SELECT last_value FROM ran");
    for (write, sqlstate) in [
        ("UPDATE backlog_cleanup.target SET max_rows = 5 WHERE name = 't'", "55P03"),
        ("UPDATE backlog_cleanup.target SET max_rows = -5 WHERE name = 't'", "23514"),
        (&format!("SELECT backlog_cleanup.check_limits_of_target({written}::text, '{{}}')"), "23514"),
    ] {
        let failure = client.batch_execute(write).unwrap_err();
        let error = failure.as_db_error().unwrap();
        assert_eq!((error.code().code(), error.detail()), (sqlstate, None), "{write}");
        assert!(!error.hint().unwrap_or_default().contains("DROP"), "{write}: {error:?}");
    }
    assert_eq!(count(&mut client, "SELECT last_value FROM ran") - before, 1, "as for the row within its limits");
    // What is within the limits is as before, also with an output of fewer digits.
    client
        .batch_execute(
            "RESET my.bad; SET extra_float_digits = -15; UPDATE backlog_cleanup.target SET adaptive_rate_factor = 1.2 WHERE name = 't';
             INSERT INTO backlog_cleanup.target (name, max_rows) VALUES ('t', 6) ON CONFLICT (name) DO UPDATE SET max_rows = 7",
        )
        .unwrap();
    assert_eq!(count(&mut client, "SELECT max_rows FROM backlog_cleanup.target WHERE name = 't'"), 7);
}

#[test]
fn a_target_that_gets_another_name_shows_an_admin_no_row() {
    let (_cluster, mut client) = database("renamed");
    client
        .batch_execute(
            "CREATE FUNCTION chk(text) RETURNS boolean LANGUAGE plpgsql AS $$
                 BEGIN
                     IF current_setting('my.bad', true) = 'x' THEN RAISE 'no' USING DETAIL = 'secret row', HINT = 'DROP TABLE job'; END IF;
                     RETURN true;
                 END $$; ALTER FUNCTION chk OWNER TO app;
             CREATE DOMAIN q AS text CHECK (chk(VALUE)); ALTER DOMAIN q OWNER TO app;
             ALTER TABLE job ALTER queue DROP DEFAULT, ALTER queue TYPE q;
             SELECT backlog_cleanup_set_policy('a', keep => 3, target => 't'); SET my.bad = 'x'; SET ROLE adm",
        )
        .unwrap();
    client.batch_execute("UPDATE backlog_cleanup.target SET name = 't2' WHERE name = 't'").unwrap();
    // Its code fails, and says no more than that.
    let failure =
        client.batch_execute("SELECT backlog_cleanup_set_policy('b', keep => 3, target => 't2')").unwrap_err();
    let error = failure.as_db_error().unwrap();
    assert_eq!((error.message(), error.detail(), error.hint()), ("no", None, None));
}

#[test]
fn a_level_is_revoked_and_granted_whatever_the_session_has_set() {
    let (cluster, mut client) = database("quoted");
    let executable = "SELECT count(*) FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
                      WHERE (p.proname ~ '^backlog_cleanup' OR n.nspname = 'backlog_cleanup')
                        AND p.proname NOT IN ('backlog_cleanup_fingerprint', 'backlog_cleanup_has_value')
                        AND has_function_privilege('op', p.oid, 'EXECUTE')";
    let before = count(&mut client, executable);
    client.batch_execute("SET quote_all_identifiers = on; SET search_path = pg_temp").unwrap();
    client.batch_execute("SELECT public.backlog_cleanup_revoke('op')").unwrap();
    assert_eq!(count(&mut client, executable), 0);
    client.batch_execute("SELECT public.backlog_cleanup_grant('op', 'operator')").unwrap();
    assert_eq!(count(&mut client, executable), before);

    let mut operator = cluster.connect_to("quoted");
    operator.batch_execute("SET quote_all_identifiers = on; SET SESSION AUTHORIZATION op").unwrap();
    operator.batch_execute("CALL backlog_cleanup_run('t', batch_size => 30)").unwrap();
    assert_eq!(count(&mut client, "SELECT count(*) FROM public.job"), 10);
    assert_eq!(count(&mut operator, "SELECT count(*) FROM backlog_cleanup_doctor('t')"), {
        operator.batch_execute("RESET quote_all_identifiers").unwrap();
        count(&mut operator, "SELECT count(*) FROM backlog_cleanup_doctor('t')")
    });

    client.batch_execute("ALTER EXTENSION backlog_cleanup DROP FUNCTION public.backlog_cleanup_stop(bigint)").unwrap();
    let (sqlstate, message, _) = refused(client.batch_execute("SELECT public.backlog_cleanup_revoke('op')"));
    assert_eq!((sqlstate.as_str(), message.contains("backlog_cleanup_stop")), ("42704", true), "{message}");
}

#[test]
fn no_setting_of_the_caller_shows_values_of_rows() {
    let cluster = Cluster::start("");
    let (notices, said) = std::sync::mpsc::channel();
    let mut client = cluster.connect();
    client.batch_execute(PRELUDE).unwrap();
    client
        .batch_execute(
            "CREATE TABLE known (k int); ALTER TABLE known OWNER TO app;
             CREATE FUNCTION tr() RETURNS trigger LANGUAGE plpgsql AS
             'BEGIN PERFORM 1 FROM public.known WHERE k = OLD.id + 123456000; RAISE LOG ''SECRET''; RETURN OLD; END';
             ALTER FUNCTION tr OWNER TO app;
             CREATE TRIGGER tr BEFORE DELETE ON job FOR EACH ROW EXECUTE FUNCTION tr()",
        )
        .unwrap();
    let mut operator = cluster.connect_with_notices(notices);
    operator
        .batch_execute(
            "SET SESSION AUTHORIZATION op; SET client_min_messages = log;
             SET debug_print_parse = on; SET debug_print_rewritten = on; SET debug_print_plan = on; SET debug_pretty_print = off",
        )
        .unwrap();
    operator.batch_execute("SELECT backlog_cleanup_failed_generations('t')").unwrap();
    assert_eq!(count(&mut client, "SELECT count(*) FROM job"), 10);
    let said: Vec<String> = said.try_iter().map(|(message, _)| message).collect();
    assert!(said.iter().any(|message| message == "plan:"), "the operator's own statement");
    assert!(!said.iter().any(|message| message == "SECRET"));
    assert!(!cluster.logged().contains(":aliasname known"));
    // Who has the owner's rights may look.
    client.batch_execute("SET debug_print_plan = on; SELECT backlog_cleanup_emergency('t')").unwrap();
    assert!(cluster.logged().contains(":aliasname known"));
}

#[test]
fn the_doctor_compares_what_a_role_has_with_its_level() {
    let (_cluster, mut client) = database("privileges_of_levels");
    let access = "SELECT concat_ws('|', status, detail, fix) FROM backlog_cleanup_doctor('t')
                  WHERE check_name = 'access' AND detail NOT LIKE '%may create%' ORDER BY detail";
    assert_eq!(column::<String>(&mut client, access).len(), 0);
    client
        .batch_execute(
            "GRANT INSERT, UPDATE, DELETE ON backlog_cleanup.run_batch TO op; GRANT UPDATE (max_age) ON backlog_cleanup.policy TO mon;
             GRANT SELECT ON backlog_cleanup.history TO victim; GRANT EXECUTE ON FUNCTION backlog_cleanup_emergency TO mon;
             REVOKE SELECT ON backlog_cleanup.tick FROM adm",
        )
        .unwrap();
    let told = column::<String>(&mut client, access);
    let said: Vec<&str> = told.iter().map(|told| told.split('|').take(2).last().unwrap()).collect();
    assert_eq!(
        said,
        [
            "role \"adm\" has level admin, but not 1 of what it gives, such as SELECT ON backlog_cleanup.tick: if it is to have them, type \
             SELECT public.backlog_cleanup_grant('adm', 'admin')",
            "role \"mon\" has level monitor, and besides EXECUTE ON public.backlog_cleanup_emergency(text,text,text,boolean,boolean,boolean,text)",
            "role \"mon\" has level monitor, and besides UPDATE (max_age) ON backlog_cleanup.policy",
            "role \"op\" has level operator, and besides DELETE, INSERT, UPDATE ON backlog_cleanup.run_batch",
            "role \"victim\" has no level, but SELECT ON backlog_cleanup.history",
        ],
    );
    // Each fix works as typed, and gives nothing.
    told.iter().filter_map(|told| told.split('|').nth(2)).for_each(|fix| client.batch_execute(fix).unwrap());
    assert_eq!(column::<String>(&mut client, access).len(), 1);
}

#[test]
fn nobody_looks_up_as_somebody_else_what_a_row_of_their_own_making_names() {
    let (cluster, mut client) = database("made_up");
    client
        .batch_execute(
            "CREATE SEQUENCE ran; GRANT ALL ON ran TO PUBLIC; GRANT CREATE ON DATABASE made_up TO adm;
             CREATE FUNCTION valid(v int) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN abs(v) < 100; END';
             CREATE DOMAIN level AS int CHECK (public.valid(value));
             CREATE TABLE settings (id int PRIMARY KEY, state level, at timestamptz); INSERT INTO settings VALUES (1, 1, now());
             CREATE TABLE plain (id int PRIMARY KEY, state text, at timestamptz); ALTER TABLE plain OWNER TO app",
        )
        .unwrap();
    let mut admin = cluster.connect_to("made_up");
    admin
        .batch_execute(
            "SET SESSION AUTHORIZATION adm; CREATE SCHEMA adm; GRANT USAGE ON SCHEMA adm TO PUBLIC;
             CREATE FUNCTION adm.abs(v int) RETURNS int LANGUAGE plpgsql AS $$
                 BEGIN IF current_user <> 'adm' THEN PERFORM nextval('public.ran'); END IF; RETURN 1; END $$",
        )
        .unwrap();
    for (table, condition) in
        [("public.settings", "null"), ("public.plain", "\"(state IS NOT NULL AND public.valid(1))\"")]
    {
        for (path, broken) in [
            ("adm, pg_catalog, public", "\"batch_size\": -1, \"generations_table\": \"nowhere.at_all\""),
            ("adm, pg_catalog, public", "\"batch_size\": -1"),
        ] {
            for function in
                ["check_limits_of_target(now::text", "check_written('generations'", "check_policies('generations'"]
            {
                let call = format!(
                    "WITH made AS (
                         SELECT to_jsonb(t) || '{{\"recipes_table\": null, \"users_table\": null, \"ledger_table\": null, \"account_column\": null,
                                \"account\": null, \"recipe_column\": null, \"status_column\": \"state\", \"failed_at_column\": \"at\",
                                \"failure_type_column\": null, \"statuses\": [\"1\"], \"completed_status\": [\"2\"], \"pending_status\": [\"3\"],
                                \"processing_status\": [\"4\"], \"named_by\": null, \"generations_table\": \"{table}\", \"search_path\": \"{path}\",
                                \"condition\": {condition}}}' AS was
                         FROM backlog_cleanup.target t WHERE name = 't'), written AS (SELECT was, was || '{{{broken}}}' AS now FROM made)
                     SELECT backlog_cleanup.{function}, was::text) FROM written"
                );
                admin.batch_execute(&call).ok();
                assert!(!value::<bool>(&mut client, "SELECT is_called FROM ran"), "{call}");
            }
        }
    }
    // A superuser may.
    client
        .batch_execute(
            "UPDATE backlog_cleanup.target SET generations_table = 'public.settings', search_path = 'adm, pg_catalog, public',
                    recipe_column = NULL, account_column = NULL, account = NULL, statuses = '{1}', completed_status = '{2}',
                    pending_status = '{3}', processing_status = '{4}', failure_type_column = NULL, max_share = 100 WHERE name = 't'",
        )
        .ok();
    assert!(value::<bool>(&mut client, "SELECT is_called FROM ran"), "the trap works");
}

#[test]
fn an_admin_may_have_any_name() {
    let (cluster, mut client) = database("any_name");
    for name in ["Alice", "jane.doe", "Ops \"Team\"", "10"] {
        let quoted = format!("\"{}\"", name.replace('"', "\"\""));
        client
            .batch_execute(&format!(
                "CREATE ROLE {quoted} LOGIN; SELECT backlog_cleanup_grant('{name}', 'admin'); CREATE TABLE \"of {0}\" (LIKE job INCLUDING ALL);
                 ALTER TABLE \"of {0}\" OWNER TO {quoted}",
                name.replace('"', "")
            ))
            .unwrap();
        let mut admin = cluster.connect_to("any_name");
        let table = format!("public.\"of {}\"", name.replace('"', ""));
        admin
            .batch_execute(&format!(
                "SET SESSION AUTHORIZATION {quoted};
                 INSERT INTO backlog_cleanup.target (name, generations_table, recipes_table, users_table, ledger_table, account_column,
                                                     recipe_column, status_column, failed_at_column, failure_type_column, account)
                 VALUES ('{name}', '{table}', NULL, NULL, NULL, 'owner', 'queue', 'state', 'at', 'error', 'w');
                 UPDATE backlog_cleanup.target SET name = 'another' WHERE name = '{name}'; DELETE FROM backlog_cleanup.target WHERE name = 'another'"
            ))
            .unwrap_or_else(|failure| panic!("{name}: {failure:?}"));
        admin.batch_execute("RESET SESSION AUTHORIZATION").ok();
    }
}

#[test]
fn what_an_admin_writes_into_a_target_is_obeyed_or_refused_with_what_to_do() {
    let (_cluster, mut client) = database("obeyed_or_refused");
    client.batch_execute("CREATE SCHEMA o; ALTER TABLE job SET SCHEMA o; UPDATE backlog_cleanup.target SET generations_table = 'o.job' WHERE name = 't'; SET ROLE adm").unwrap();
    for (change, wanted) in [
        ("condition = '(id > 3)'", "permission denied for schema o (target \"t\")"),
        ("named_by = 'adm'", "permission denied to set named_by of target \"t\""),
        ("named_by = NULL, batch_size = 5", ""),
    ] {
        let done = client.batch_execute(&format!("UPDATE backlog_cleanup.target SET {change} WHERE name = 't'"));
        if wanted.is_empty() {
            done.unwrap();
            continue;
        }
        let (sqlstate, message, hint) = refused(done);
        assert_eq!((&*sqlstate, &*message), ("42501", wanted), "{change}");
        assert!(!hint.is_empty(), "{change}");
    }
}

#[test]
fn no_update_of_a_superuser_reads_a_table_that_nobody_has_named() {
    let (cluster, mut client) = database("nobody_named");
    client
        .batch_execute(
            "CREATE SEQUENCE ran; GRANT ALL ON ran TO PUBLIC; GRANT CREATE ON DATABASE nobody_named TO adm;
             CREATE FUNCTION known(v int) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN abs(v) < 100; END';
             CREATE DOMAIN level AS int CHECK (public.known(value));
             CREATE TABLE rendered (id int PRIMARY KEY, state level, at timestamptz); CREATE TABLE taken_over (LIKE rendered INCLUDING ALL)",
        )
        .unwrap();
    let mut admin = cluster.connect_to("nobody_named");
    admin
        .batch_execute(
            "SET SESSION AUTHORIZATION adm; CREATE SCHEMA mine; GRANT USAGE ON SCHEMA mine TO PUBLIC;
             CREATE FUNCTION mine.abs(v int) RETURNS int LANGUAGE plpgsql AS $$
                 BEGIN IF current_user <> 'adm' THEN PERFORM nextval('public.ran'); END IF; RETURN 1; END $$;
             CREATE FUNCTION mine.throttle() RETURNS text LANGUAGE plpgsql AS 'BEGIN PERFORM mine.abs(1), pg_sleep(1); RETURN NULL; END';
             CREATE TABLE mine.rendered (id int PRIMARY KEY, state int, at timestamptz);
             CREATE TABLE mine.taken_over (LIKE mine.rendered INCLUDING ALL)",
        )
        .unwrap();
    let target = |table: &str, more: &str| {
        format!(
            "INSERT INTO backlog_cleanup.target (name, generations_table, recipes_table, users_table, ledger_table, account_column, account, recipe_column,
                                                 status_column, failed_at_column, failure_type_column, search_path, statuses, completed_status,
                                                 pending_status, processing_status, max_share, throttle_query, condition)
             VALUES ('{table}', 'mine.{table}', NULL, NULL, NULL, NULL, NULL, NULL, 'state', 'at', NULL, 'mine, pg_catalog, pg_temp', '{{1}}', '{{2}}',
                     '{{3}}', '{{4}}', 100, {more})"
        )
    };
    // An admin renames the table while the row is checked, and another one has its name.
    let slow = target("rendered", "'SELECT mine.throttle()', '(state IS NOT NULL AND public.known(1))'");
    let write = std::thread::spawn(move || admin.batch_execute(&slow).map(|()| admin));
    until_true(
        &mut client,
        "SELECT count(*) > 0 FROM pg_stat_activity WHERE datname = 'nobody_named' AND wait_event = 'PgSleep'",
    );
    client.batch_execute("ALTER TABLE mine.rendered RENAME TO gone").unwrap();
    write.join().unwrap().err().expect("the table is gone");
    client.batch_execute("ALTER TABLE mine.gone RENAME TO rendered").unwrap();
    let mut admin = cluster.connect_to("nobody_named");
    admin.batch_execute("SET SESSION AUTHORIZATION adm").unwrap();
    // A table is gone whose namesake is a superuser's, and a superuser has taken one over.
    admin.batch_execute(&target("rendered", "NULL, NULL")).unwrap();
    admin.batch_execute(&target("taken_over", "'SELECT mine.throttle()', NULL")).unwrap();
    client.batch_execute("DROP TABLE mine.rendered; ALTER TABLE mine.taken_over OWNER TO postgres").unwrap();
    for table in ["rendered", "taken_over"] {
        for write in [
            "batch_size = 100",
            "batch_size = 0",
            "status_column = 'stat'",
            "batch_size = 0, condition = '(state > 0)'",
        ] {
            let update = format!("UPDATE backlog_cleanup.target SET {write} WHERE name = '{table}'");
            client.batch_execute(&update).expect_err(&update);
            assert!(!value::<bool>(&mut client, "SELECT is_called FROM ran"), "{update}");
        }
    }
}
