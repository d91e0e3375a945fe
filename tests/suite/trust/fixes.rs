//! The doctor's fixes, and what naming a table needs.

use cluster::{number as count, refused, value};
use postgres::Client;

use super::{database, found};

#[test]
fn a_trigger_of_a_role_that_only_has_the_trigger_privilege_is_named_by_the_doctor() {
    let (_cluster, mut client) = database("others_trigger");
    client
        .batch_execute(
            "GRANT TRIGGER ON job TO evil; SET ROLE evil;
             CREATE FUNCTION steal() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN OLD; END';
             CREATE TRIGGER theirs BEFORE DELETE ON job FOR EACH ROW EXECUTE FUNCTION steal(); RESET ROLE",
        )
        .unwrap();
    let told = |client: &mut Client| {
        let (status, detail, fix) = found(client, "others");
        assert_eq!((status.as_str(), fix), ("warn", None), "{detail}");
        let (detail, mended) = detail.split_once("; decide, and type ").unwrap();
        (detail.to_owned(), mended.to_owned())
    };
    let (detail, mended) = told(&mut client);
    assert_eq!(detail, "trigger theirs on public.job calls public.steal(), which belongs to evil and runs as app");
    client.batch_execute(&mended).unwrap();
    assert_eq!(found(&mut client, "others").0, "ok");
    // On a partitioned table it is dropped with its copies, and a copy alone can be switched off only.
    client
        .batch_execute(
            "CREATE TABLE parted (LIKE job INCLUDING DEFAULTS INCLUDING INDEXES) PARTITION BY RANGE (id);
             CREATE TABLE part PARTITION OF parted DEFAULT; ALTER TABLE parted OWNER TO app; ALTER TABLE part OWNER TO app;
             GRANT TRIGGER ON parted, part TO evil",
        )
        .unwrap();
    for (table, mended) in
        [("part", "ALTER TABLE public.part DISABLE TRIGGER theirs"), ("parted", "DROP TRIGGER theirs ON public.parted")]
    {
        client
            .batch_execute(&format!(
                "SET ROLE evil; CREATE OR REPLACE TRIGGER theirs BEFORE DELETE ON parted FOR EACH ROW EXECUTE FUNCTION steal();
                 RESET ROLE; UPDATE backlog_cleanup.target SET generations_table = 'public.{table}' WHERE name = 't'"
            ))
            .unwrap();
        assert_eq!(told(&mut client).1, mended);
        client.batch_execute(mended).unwrap();
        assert_eq!(found(&mut client, "others").0, "ok", "{table}");
    }
    client
        .batch_execute("UPDATE backlog_cleanup.target SET generations_table = 'public.job' WHERE name = 't'")
        .unwrap();
    // The owner's own, and a superuser's, are theirs.
    client
        .batch_execute(
            "ALTER FUNCTION steal OWNER TO app;
             CREATE TRIGGER own BEFORE DELETE ON job FOR EACH ROW EXECUTE FUNCTION steal()",
        )
        .unwrap();
    assert_eq!(found(&mut client, "others").0, "ok");
}

#[test]
fn no_fix_of_the_doctor_gives_a_table_of_a_catalog_or_an_extension_away() {
    let (_cluster, mut client) = database("catalog_table");
    client
        .batch_execute(
            "UPDATE backlog_cleanup.target SET recipes_table = 'pg_catalog.pg_namespace', recipe_key_column = 'nspname',
                    recipe_name_column = 'nspname' WHERE name = 't'",
        )
        .unwrap();
    let (status, detail, fix) = found(&mut client, "owner");
    assert_eq!((status.as_str(), fix), ("warn", None), "{detail}");
    client
        .batch_execute("UPDATE backlog_cleanup.target SET recipes_table = 'backlog_cleanup.target', recipe_key_column = 'name', recipe_name_column = 'name' WHERE name = 't'")
        .unwrap();
    assert_eq!(found(&mut client, "owner").2, None);
}

#[test]
fn taking_the_ledger_from_a_target_wants_the_rights_that_naming_it_wants() {
    let (_cluster, mut client) = database("without_ledger");
    client.batch_execute("UPDATE backlog_cleanup.target SET ledger_table = 'public.ledger' WHERE name = 't'").unwrap();
    let unseen =
        ["ledger_table = NULL", "account = 'other'", "account_column = 'queue'", "ledger_table = 'public.own'"];
    client.batch_execute("CREATE TABLE own (LIKE ledger); ALTER TABLE own OWNER TO adm; SET ROLE adm").unwrap();
    for change in unseen {
        let write = format!("UPDATE backlog_cleanup.target SET {change} WHERE name = 't'");
        let (sqlstate, message, _) = refused(client.batch_execute(&write));
        assert_eq!(sqlstate, "42501");
        assert_eq!(message, "must be owner of table \"public.ledger\" to change how target \"t\" uses it");
    }
    client.batch_execute("UPDATE backlog_cleanup.target SET batch_size = 5, account = 'w' WHERE name = 't'").unwrap();
    client
        .batch_execute(
            "RESET ROLE; ALTER TABLE ledger OWNER TO app; BEGIN; GRANT app TO adm; SET ROLE adm;
             UPDATE backlog_cleanup.target SET ledger_table = NULL WHERE name = 't'; ROLLBACK",
        )
        .unwrap();
}

/// A condition of target `t` that its table's owner makes fail.
fn with_condition(client: &mut postgres::Client) {
    client
        .batch_execute(
            "SET ROLE app; CREATE FUNCTION meets(text) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN true; END';
             CREATE FUNCTION constant(int) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN true; END'; RESET ROLE;
             UPDATE backlog_cleanup.target SET condition = '(public.meets(queue) AND public.constant(1))', completed_status = '{completed}' WHERE name = 't'",
        )
        .unwrap();
}

fn raises(function: &str, raise: &str) -> String {
    format!(
        "CREATE OR REPLACE FUNCTION {function} RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $$BEGIN {raise}; RETURN true; END$$"
    )
}

#[test]
fn what_code_gives_as_a_hint_is_no_fix_for_anybody() {
    let (cluster, mut client) = database("hints");
    with_condition(&mut client);
    for function in ["meets(text)", "constant(int)"] {
        for hint in [
            "'INSERT INTO app.repair SELECT app.fix()'",
            "'UPDATE backlog_cleanup.target SET keep = 0'",
            "'GRANT app TO public'",
            "'INSERT INTO a SELECT f(1' || repeat('::int', 3000000) || ')'",
        ] {
            client.batch_execute(&raises(function, &format!("RAISE 'out of date' USING HINT = {hint}"))).unwrap();
            for role in ["postgres", "adm", "op", "mon", "app"] {
                let mut session = cluster.connect_to("hints");
                if role == "app" {
                    client.batch_execute("SELECT backlog_cleanup_grant('app', 'monitor')").unwrap();
                }
                session.batch_execute(&format!("SET SESSION AUTHORIZATION {role}")).unwrap();
                let told = "SELECT count(*) FROM backlog_cleanup_doctor('t') WHERE status = 'fail' AND detail LIKE '%out of date%'";
                assert!(count(&mut session, told) > 0, "{role}: {hint}");
                let fix = "SELECT string_agg(concat(fix, detail), ' ') FROM backlog_cleanup_doctor('t')
                           WHERE concat(fix, detail) ~ 'INSERT INTO a|SET keep = 0|GRANT app'";
                assert_eq!(value::<Option<String>>(&mut session, fix), None, "{role}: {hint}");
            }
        }
        client.batch_execute(&raises(function, "NULL")).unwrap();
    }
}

#[test]
fn a_cancel_that_code_raises_ends_no_check_of_the_doctor() {
    let (cluster, mut client) = database("doctor_cancelled");
    with_condition(&mut client);
    for (message, sqlstate) in
        [("canceling statement due to user request", "57014"), ("terminating connection", "57P01")]
    {
        for function in ["meets(text)", "constant(int)"] {
            client
                .batch_execute(&raises(function, &format!("RAISE '{message}' USING ERRCODE = '{sqlstate}'")))
                .unwrap();
            for role in ["postgres", "mon"] {
                let mut session = cluster.connect_to("doctor_cancelled");
                session.batch_execute(&format!("SET SESSION AUTHORIZATION {role}")).unwrap();
                let told = format!(
                    "SELECT count(*) FROM backlog_cleanup_doctor('t') WHERE status = 'fail' AND detail LIKE '%{message}%'"
                );
                assert!(count(&mut session, &told) > 0, "{role}: {sqlstate}");
            }
            client.batch_execute(&raises(function, "NULL")).unwrap();
        }
    }
}

#[test]
fn an_operator_and_a_monitor_are_told_which_expression_fails_and_for_which_row() {
    let (cluster, mut client) = database("told_which");
    client
        .batch_execute(
            "ALTER TABLE job ADD doc text DEFAULT '{\"k\":\"1\"}';
             UPDATE backlog_cleanup.target SET condition = '((doc::jsonb ->> ''k'') = ''1'')' WHERE name = 't';
             UPDATE job SET doc = 'hunter2 is no json' WHERE id = 7;
             REVOKE EXECUTE ON FUNCTION backlog_cleanup_has_value FROM PUBLIC",
        )
        .unwrap();
    let failure = |role: &str, call: &str| {
        let mut session = cluster.connect_to("told_which");
        session.batch_execute(&format!("SET SESSION AUTHORIZATION {role}")).unwrap();
        let failure = session.batch_execute(call).unwrap_err();
        let failure = failure.as_db_error().unwrap();
        assert!(role == "postgres" || failure.detail().is_none(), "{role} {call}: {failure:?}");
        (failure.message().to_owned(), failure.hint().map(str::to_owned))
    };
    for (role, call) in [
        ("op", "SELECT backlog_cleanup_failed_generations('t')"),
        ("op", "SELECT backlog_cleanup_failed_generations('t', dry_run => true)"),
        ("op", "SELECT backlog_cleanup_emergency('t', dry_run => true)"),
        ("op", "CALL backlog_cleanup_run('t')"),
        ("mon", "SELECT count(*) FROM backlog_cleanup_status('t')"),
    ] {
        let (message, hint) = failure(role, call);
        assert!(message.contains("fails for row 7"), "{role} {call}: {message}");
        assert!(hint.as_ref().is_some_and(|hint| hint.contains("CASE WHEN")), "{role} {call}: {hint:?}");
        assert_eq!((message, hint), failure("postgres", call), "{role} {call}");
    }
}

#[test]
fn what_code_says_is_kept_and_raised_up_to_a_length() {
    let (_cluster, mut client) = database("long_messages");
    with_condition(&mut client);
    client
        .batch_execute(&format!(
            "{}; UPDATE job SET at = now() WHERE id < 50; REVOKE EXECUTE ON FUNCTION backlog_cleanup_has_value FROM PUBLIC;
             SELECT backlog_cleanup_tick()",
            raises(
                "meets(text)",
                "RAISE '%', repeat('x', 20000000) USING DETAIL = repeat('y', 20000000), HINT = repeat('z', 20000000)"
            )
        ))
        .unwrap();
    let longest = "SELECT max(octet_length(steps::text)) FROM backlog_cleanup.tick";
    assert!((2_000..20_000).contains(&count(&mut client, longest)), "{}", count(&mut client, longest));
    let told = "SELECT max(length(detail)) FROM backlog_cleanup_doctor('t')";
    assert!((5_000..50_000).contains(&count(&mut client, told)), "{}", count(&mut client, told));
    let failure = client.batch_execute("CALL backlog_cleanup_run('t')").unwrap_err();
    let failure = failure.as_db_error().unwrap();
    let texts = [Some(failure.message()), failure.detail(), failure.hint()];
    assert!(texts.into_iter().flatten().all(|text| text.len() < 30_000));
}

#[test]
fn the_history_shows_a_hint_of_code_to_those_only_who_have_the_rights_of_the_tables_owner() {
    let (cluster, mut client) = database("hints_of_history");
    client
        .batch_execute(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
                 BEGIN RAISE 'no' USING DETAIL = 'secret row', HINT = 'GRANT app TO mon'; END $$;
             ALTER TABLE ledger OWNER TO app; ALTER FUNCTION refuse OWNER TO app;
             CREATE TRIGGER refuse BEFORE INSERT ON ledger FOR EACH ROW EXECUTE FUNCTION refuse();
             UPDATE backlog_cleanup.target SET ledger_table = 'public.ledger' WHERE name = 't'",
        )
        .unwrap();
    client.batch_execute("CALL backlog_cleanup_run('t', batch_size => 7)").unwrap_err();
    let shown = "SELECT concat_ws(' ', error_message, error_detail, error_hint) FROM backlog_cleanup.history WHERE target = 't'";
    for (role, wanted) in [("mon", "no"), ("op", "no"), ("postgres", "no secret row GRANT app TO mon")] {
        let mut session = cluster.connect_to("hints_of_history");
        session.batch_execute(&format!("SET SESSION AUTHORIZATION {role}")).unwrap();
        assert_eq!(value::<String>(&mut session, shown), wanted, "{role}");
    }
}
