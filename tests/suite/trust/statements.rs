//! The statements of the extension itself.

use cluster::{number as count, refused};

use super::{RAN, database};

/// Domains with the names of types of PostgreSQL in a schema; each runs `steal()` of that schema.
fn namesakes(schema: &str) -> String {
    format!(
        "CREATE FUNCTION {schema}.steal() RETURNS boolean LANGUAGE sql
         AS 'INSERT INTO public.stolen VALUES (current_user) RETURNING true';
         DO $$
         DECLARE
             type text;
         BEGIN
             FOREACH type IN ARRAY '{{text,int4,timestamptz,tid,_text,name,jsonb}}'::text[] LOOP
                 EXECUTE format('CREATE DOMAIN {schema}.%I AS pg_catalog.%1$I CHECK ({schema}.steal())', type);
             END LOOP;
         END $$"
    )
}

#[test]
fn no_call_of_ours_finds_a_namesake_that_takes_exactly_its_arguments() {
    let (cluster, mut client) = database("exactly");
    client
        .batch_execute(
            "CREATE SEQUENCE ran; GRANT ALL ON ran TO PUBLIC; SET ROLE evil;
             CREATE FUNCTION public.step(text[], text) RETURNS text[] LANGUAGE plpgsql AS
                 $$BEGIN PERFORM nextval('public.ran'); RETURN $1 || $2; END$$;
             CREATE AGGREGATE public.array_agg(text) (sfunc = public.step, stype = text[], initcond = '{}'); RESET ROLE;
             CREATE TYPE st AS ENUM ('failed', 'done'); ALTER TYPE st OWNER TO app;
             ALTER TABLE job ALTER state DROP DEFAULT, ALTER state TYPE st USING state::st;
             UPDATE backlog_cleanup.target SET completed_status = '{}', pending_status = '{}', processing_status = '{}' WHERE name = 't'",
        )
        .unwrap();
    let mut superuser = cluster.connect_to("exactly");
    for call in [
        "SELECT backlog_cleanup_check('t')",
        "SELECT * FROM backlog_cleanup_status('t')",
        "SELECT * FROM backlog_cleanup_doctor('t')",
        "UPDATE backlog_cleanup.target SET row_word = 'job' WHERE name = 't'",
        "SELECT backlog_cleanup_failed_generations('t')",
    ] {
        superuser.batch_execute(call).unwrap_or_else(|failure| panic!("{call}: {failure:?}"));
        assert_eq!(count(&mut client, "SELECT count(*) FROM ran WHERE is_called"), 0, "{call}");
    }
}

#[test]
fn no_statement_of_ours_finds_a_namesake_before_pg_catalog_in_the_callers_path() {
    let (cluster, mut client) = database("before_pg_catalog");
    client
        .batch_execute(
            "CREATE SEQUENCE ran; GRANT ALL ON ran TO PUBLIC;
             ALTER TABLE job ADD parent int REFERENCES job; UPDATE job SET parent = id - 1 WHERE id % 10 > 1;
             CREATE TABLE step (id int PRIMARY KEY, job int REFERENCES job ON DELETE CASCADE, after int REFERENCES job);
             INSERT INTO step SELECT i, i, i % 7 + 1 FROM generate_series(20, 60) i; ALTER TABLE step OWNER TO app;
             CREATE TABLE part (LIKE job INCLUDING ALL) PARTITION BY RANGE (id); ALTER TABLE part OWNER TO app; SET ROLE app;
             CREATE TABLE part_1 PARTITION OF part FOR VALUES FROM (0) TO (50);
             CREATE TABLE part_2 PARTITION OF part FOR VALUES FROM (50) TO (999);
             ALTER TABLE part ADD FOREIGN KEY (parent) REFERENCES part; INSERT INTO part TABLE job; RESET ROLE;
             INSERT INTO backlog_cleanup.target (name, generations_table, recipes_table, users_table, ledger_table, account_column,
                                                 recipe_column, status_column, failed_at_column, failure_type_column, account, time_zone)
             SELECT 'p', 'public.part', NULL, NULL, NULL, account_column, recipe_column, status_column, failed_at_column,
                    failure_type_column, account, 'Europe/Vienna' FROM backlog_cleanup.target WHERE name = 't'",
        )
        .unwrap();
    client.batch_execute(include_str!("namesakes.sql")).unwrap();
    assert!(count(&mut client, "SELECT count(*) FROM pg_operator WHERE oprnamespace = 'trap'::regnamespace") > 500);
    let calls = [
        "SELECT public.backlog_cleanup_check($)",
        "SELECT public.backlog_cleanup_status($)",
        "SELECT public.backlog_cleanup_status_json($)",
        "SELECT public.backlog_cleanup_failures($)",
        "SELECT public.backlog_cleanup_index_sql($)",
        "SELECT public.backlog_cleanup_simulate(keep => 1, target => $)",
        "SELECT public.backlog_cleanup_explain('15', $)",
        "SELECT public.backlog_cleanup_explain_tick($)",
        "SELECT public.backlog_cleanup_doctor($)",
        "SELECT public.backlog_cleanup_quiet_hours($)",
        "SELECT public.backlog_cleanup_set_policy('a', 'x', keep => 2, target => $)",
        "SELECT public.backlog_cleanup_drop_policy('a', 'x', target => $)",
        "SELECT public.backlog_cleanup_failed_generations($, dry_run => true)",
        "SELECT public.backlog_cleanup_failed_generations($, rehearse => true)",
        "SELECT public.backlog_cleanup_emergency($, rehearse => true)",
        "SELECT public.backlog_cleanup_tick()",
        "SELECT backlog_cleanup.evaluate_alerts()",
        "SELECT public.backlog_cleanup_report(target => $)",
        "SELECT public.backlog_cleanup_books($)",
        "CALL public.backlog_cleanup_run($, batch_size => 7, max_rows => 20)",
        "CALL public.backlog_cleanup_run($, batch_size => 7, workers => 2)",
        "SELECT public.backlog_cleanup_failed_generations($)",
        "CALL public.backlog_cleanup_run($, 'emergency', batch_size => 7)",
        "SELECT public.backlog_cleanup_run_details((SELECT pg_catalog.max(id) FROM backlog_cleanup.run))",
        "UPDATE backlog_cleanup.target SET row_word = 'job', max_duration = '2 hours' WHERE name OPERATOR(pg_catalog.=) $",
        "SELECT public.backlog_cleanup_grant('mon', 'operator')",
    ];
    let mut superuser = cluster.connect_to("before_pg_catalog");
    superuser.batch_execute("SET search_path = trap, pg_catalog").unwrap();
    for call in calls {
        for target in ["'t'", "'p'"] {
            let call = call.replace('$', target);
            superuser.batch_execute(&call).unwrap_or_else(|failure| panic!("{call}: {failure:?}"));
            // Neither has it raised an error that somebody has caught.
            assert_eq!(count(&mut client, RAN), 0, "{call}");
        }
    }
}

#[test]
fn what_the_owners_code_asserts_holds_its_rows_whoever_calls() {
    let (cluster, mut client) = database("asserted");
    client
        .batch_execute(
            "CREATE FUNCTION held() RETURNS trigger LANGUAGE plpgsql AS
                 $$DECLARE a int; a_b int; BEGIN ASSERT OLD.id > 50, 'rows up to 50 are under legal hold'; RETURN OLD; END$$;
             ALTER FUNCTION held OWNER TO app; CREATE TRIGGER held BEFORE DELETE ON job FOR EACH ROW EXECUTE FUNCTION held()",
        )
        .unwrap();
    for call in ["CALL backlog_cleanup_run('t', 'emergency', batch_size => 7)", "SELECT backlog_cleanup_emergency('t')"]
    {
        let mut operator = cluster.connect_to("asserted");
        operator.batch_execute("SET SESSION AUTHORIZATION op; SET plpgsql.check_asserts = off").unwrap();
        operator.batch_execute(call).unwrap();
        assert_eq!(count(&mut client, "SELECT count(*) FROM job WHERE id <= 50"), 50, "{call}");
        assert_eq!(count(&mut operator, "SELECT (current_setting('plpgsql.check_asserts') = 'off')::int"), 1, "{call}");
    }
}

#[test]
fn no_statement_of_ours_finds_a_type_of_another_role_or_of_pg_temp() {
    let (cluster, mut client) = database("namesakes");
    // What the target's owner has written: others may create in that schema, and pg_temp would come first.
    client
        .batch_execute(
            "UPDATE backlog_cleanup.target SET search_path = 'public, pg_catalog' WHERE name = 't';
             CREATE TABLE stolen AS SELECT ''::name AS by WITH NO DATA; GRANT ALL ON stolen TO PUBLIC;
             CREATE TABLE audit_log (id int); ALTER TABLE audit_log OWNER TO app;
             CREATE FUNCTION audit() RETURNS trigger LANGUAGE plpgsql
             AS 'BEGIN INSERT INTO audit_log VALUES (OLD.id); RETURN NULL; END'; ALTER FUNCTION audit OWNER TO app;
             CREATE TRIGGER audit AFTER DELETE ON job FOR EACH ROW EXECUTE FUNCTION audit();
             SELECT backlog_cleanup_grant('app', 'operator'); SET ROLE evil",
        )
        .unwrap();
    client.batch_execute(&namesakes("public")).unwrap();
    client.batch_execute("RESET ROLE").unwrap();
    let [mut operator, mut owner] = ["op", "app"].map(|role| {
        let mut session = cluster.connect_to("namesakes");
        session.batch_execute(&format!("SET SESSION AUTHORIZATION {role}")).unwrap();
        session
    });
    let calls = [
        "SELECT * FROM backlog_cleanup_status('t')",
        "SELECT * FROM backlog_cleanup_failures('t')",
        "SELECT * FROM backlog_cleanup_doctor('t')",
        "SELECT backlog_cleanup_failed_generations('t', recipe_id => 'b')",
        "CALL backlog_cleanup_run('t', batch_size => 7, max_rows => 20)",
        "SELECT backlog_cleanup_emergency('t', 'b')",
    ];
    calls.iter().for_each(|call| operator.batch_execute(call).unwrap_or_else(|failure| panic!("{call}: {failure:?}")));

    // In the owner's own session its code may find temporary objects, behind all others.
    operator.batch_execute(&namesakes("pg_temp")).unwrap();
    assert_eq!(refused(operator.batch_execute(calls[0])).0, "42501");
    owner.batch_execute(&namesakes("pg_temp")).unwrap();
    owner.batch_execute("CREATE TEMP TABLE audit_log (id int)").unwrap();
    calls.iter().for_each(|call| owner.batch_execute(call).unwrap_or_else(|failure| panic!("{call}: {failure:?}")));
    owner.batch_execute("SELECT backlog_cleanup_emergency('t', 'a')").unwrap();

    assert_eq!(count(&mut client, "SELECT count(*) FROM job"), 0);
    assert_eq!(count(&mut client, "SELECT count(*) FROM audit_log"), 100);
    assert_eq!(client.query("SELECT by FROM stolen", &[]).unwrap().len(), 0);

    for path in ["pg_temp, public", "pg_temp_3, public", "public, pg_temp_3", "a b", ""] {
        let write = format!("UPDATE backlog_cleanup.target SET search_path = '{path}' WHERE name = 't'");
        let (sqlstate, message, hint) = refused(client.batch_execute(&write));
        assert_eq!((sqlstate.as_str(), message.contains(path)), ("22023", true), "{message}");
        client.batch_execute(&hint.replace("'schema, ", "'public, ")).unwrap();
    }
}

#[test]
fn qualified_types_cut_no_value_off() {
    let (_cluster, mut client) = database("types");
    client
        .batch_execute(
            "ALTER TABLE job ALTER queue TYPE char(3), ALTER error TYPE bit(4) USING NULL, ALTER owner TYPE varchar(2);
             UPDATE job SET queue = 'abc' WHERE id <= 50",
        )
        .unwrap();
    let run = "SELECT (backlog_cleanup_emergency('t', recipe_id => 'abc') -> 'removedCount')::bigint";
    assert_eq!(count(&mut client, run), 50);
    let wrong = "SELECT backlog_cleanup_failed_generations('t', failure_type => 'y')";
    let (sqlstate, message, _) = refused(client.batch_execute(wrong));
    assert_eq!(
        (sqlstate.as_str(), message.as_str()),
        ("22P02", "\"y\" cannot be read as \"bit\", the type of column error")
    );
}

#[test]
fn the_statement_of_the_index_has_no_value_that_the_parser_would_read_by_code_of_the_tables_owner() {
    let (_cluster, mut client) = database("index_literal");
    client
        .batch_execute(
            "CREATE FUNCTION chk(text) RETURNS boolean LANGUAGE plpgsql
             AS 'BEGIN RAISE NOTICE ''%'', current_user; RETURN true; END'; ALTER FUNCTION chk OWNER TO app;
             CREATE DOMAIN st AS text CHECK (chk(VALUE)); ALTER DOMAIN st OWNER TO app;
             ALTER TABLE job ALTER state DROP DEFAULT, ALTER state TYPE st[] USING ARRAY[state]::st[];
             UPDATE backlog_cleanup.target SET statuses = ARRAY['{failed}'], completed_status = ARRAY['{c}'],
                    pending_status = ARRAY['{p}'], processing_status = ARRAY['{r}'] WHERE name = 't'",
        )
        .unwrap();
    let (sqlstate, message, _) = refused(client.batch_execute("SELECT backlog_cleanup_index_sql('t')"));
    assert_eq!(
        (sqlstate.as_str(), message.contains("column state, which has type public.st[]")),
        ("0A000", true),
        "{message}"
    );
    client.batch_execute("SELECT backlog_cleanup_emergency('t')").unwrap();
    assert_eq!(count(&mut client, "SELECT count(*) FROM job"), 0);
    // The parser leaves a domain's CHECK to the executor, which runs as the table's owner.
    client.batch_execute("ALTER TABLE job ALTER state TYPE st USING state[1]").unwrap();
    client
        .batch_execute(
            "UPDATE backlog_cleanup.target SET statuses = '{failed}', completed_status = '{c}', pending_status = '{p}',
                    processing_status = '{r}' WHERE name = 't'",
        )
        .unwrap();
    client.batch_execute("SELECT backlog_cleanup_index_sql('t')").unwrap();
}
