//! Code that a run meets while an expression that fails for a row is guarded, and that calls what guards it.

use cluster::{Cluster, JOBS, number as count, refused, value};

#[test]
fn what_guards_an_expression_is_for_the_extensions_statements_alone() {
    let cluster = Cluster::start("");
    let mut client = cluster.connect();
    client.batch_execute(JOBS).unwrap();
    // Of somebody with nothing but REFERENCES: its row goes along.
    client
        .batch_execute(
            "CREATE ROLE evil; CREATE SCHEMA evil AUTHORIZATION evil; GRANT REFERENCES ON job TO evil; GRANT USAGE ON SCHEMA public TO evil;
             SET ROLE evil;
             CREATE FUNCTION evil.f() RETURNS int LANGUAGE sql AS 'SELECT 1';
             CREATE TABLE evil.child (job int REFERENCES public.job ON DELETE CASCADE); INSERT INTO evil.child VALUES (50);
             CREATE FUNCTION evil.t() RETURNS trigger LANGUAGE plpgsql AS
             $$BEGIN PERFORM public.backlog_cleanup_has_value('evil.f()', OLD); RETURN OLD; END$$;
             CREATE TRIGGER t BEFORE DELETE ON evil.child FOR EACH ROW EXECUTE FUNCTION evil.t(); RESET ROLE;
             UPDATE backlog_cleanup.policy SET keep = 0",
        )
        .unwrap();
    let (sqlstate, message, hint) =
        refused(client.batch_execute("SELECT backlog_cleanup_has_value('g.id', j) FROM job j"));
    assert_eq!(
        (sqlstate.as_str(), message.as_str()),
        ("55000", "function backlog_cleanup_has_value is for statements of backlog_cleanup")
    );
    client.batch_execute(&hint).unwrap();
    for call in [
        "SELECT backlog_cleanup_failed_generations('t')",
        "CALL backlog_cleanup_run('t', batch_size => 7)",
        "SELECT backlog_cleanup_emergency('t')",
    ] {
        client.batch_execute(call).unwrap_or_else(|failure| panic!("{call}: {failure:?}"));
        let reason: String =
            value(&mut client, "SELECT kept_back_message FROM backlog_cleanup.run ORDER BY id DESC LIMIT 1");
        assert_eq!(reason, message, "{call}");
        assert_eq!(count(&mut client, "SELECT count(*) FROM job"), 1, "{call}");
    }
}

#[test]
fn what_guards_an_expression_is_for_rows_of_its_table_alone() {
    let cluster = Cluster::start("");
    let mut client = cluster.connect();
    client.batch_execute(JOBS).unwrap();
    // To a row of another type the expression is a function of somebody's.
    let guarded = "((((g.error)::pg_catalog.json OPERATOR(pg_catalog.->>) ''c''::pg_catalog.text) OPERATOR(pg_catalog.=) ''1''::pg_catalog.text))";
    client
        .batch_execute(&format!(
            "UPDATE job SET error = '{{\"c\":\"1\"}}'; UPDATE job SET error = 'no json' WHERE id = 1;
             UPDATE backlog_cleanup.target SET condition = '(error::json ->> ''c'' = ''1'')' WHERE name = 't';
             UPDATE backlog_cleanup.policy SET keep = 0;
             CREATE ROLE evil; CREATE SCHEMA evil AUTHORIZATION evil; GRANT REFERENCES ON job TO evil; GRANT USAGE ON SCHEMA public TO evil;
             SET ROLE evil;
             CREATE TYPE evil.r AS (id int);
             CREATE FUNCTION evil.error(record) RETURNS text LANGUAGE plpgsql IMMUTABLE AS $$BEGIN RETURN '{{}}'; END$$;
             CREATE TABLE evil.child (job int REFERENCES public.job ON DELETE CASCADE); INSERT INTO evil.child VALUES (50);
             CREATE FUNCTION evil.t() RETURNS trigger LANGUAGE plpgsql SET search_path = evil, pg_catalog AS
             $$BEGIN PERFORM public.backlog_cleanup_has_value('{guarded}', ROW(1)::evil.r); RETURN OLD; END$$;
             CREATE TRIGGER t BEFORE DELETE ON evil.child FOR EACH ROW EXECUTE FUNCTION evil.t(); RESET ROLE"
        ))
        .unwrap();
    for call in [
        "SELECT backlog_cleanup_failed_generations('t')",
        "CALL backlog_cleanup_run('t', batch_size => 7)",
        "SELECT backlog_cleanup_emergency('t')",
    ] {
        client.batch_execute(call).unwrap_or_else(|failure| panic!("{call}: {failure:?}"));
        let reasons = "SELECT kept_back_message || ' ' || kept_back FROM backlog_cleanup.run ORDER BY id DESC LIMIT 1";
        let reason: String = value(&mut client, reasons);
        assert!(reason.ends_with(" 2"), "{call}: {reason}");
        assert_eq!(count(&mut client, "SELECT count(*) FROM job WHERE id IN (1, 50)"), 2, "{call}");
        assert_eq!(count(&mut client, "SELECT count(*) FROM job"), 2, "{call}");
    }
}

#[test]
fn a_trigger_that_catches_a_timeout_and_calls_the_extension_takes_it_from_no_run() {
    let cluster = Cluster::start("");
    let mut client = cluster.connect();
    client.batch_execute(JOBS).unwrap();
    client
        .batch_execute(
            "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS
             $$BEGIN
                 PERFORM pg_sleep(0.5); RETURN OLD;
             EXCEPTION WHEN query_canceled THEN
                 BEGIN PERFORM public.backlog_cleanup_has_value('true', OLD); EXCEPTION WHEN OTHERS THEN END;
                 BEGIN PERFORM public.backlog_cleanup_fingerprint('e'); EXCEPTION WHEN OTHERS THEN END;
                 BEGIN PERFORM public.backlog_cleanup_status_json('none'); EXCEPTION WHEN OTHERS THEN END;
                 RAISE EXCEPTION 'mine';
             END$$;
             ALTER FUNCTION slow OWNER TO app;
             CREATE TRIGGER slow BEFORE DELETE ON job FOR EACH ROW WHEN (OLD.id < 7) EXECUTE FUNCTION slow();
             UPDATE backlog_cleanup.policy SET keep = 0; SET statement_timeout = '1200 ms'",
        )
        .unwrap();
    for call in ["SELECT backlog_cleanup_failed_generations('t')", "SELECT backlog_cleanup_emergency('t')"] {
        refused(client.batch_execute(call));
        assert_eq!(count(&mut client, "SELECT count(*) FROM job"), 100, "{call}");
    }
}

#[test]
fn a_schema_that_is_swapped_while_rows_are_removed_runs_nothing_as_the_owner_of_the_table() {
    let cluster = Cluster::start("");
    let mut client = cluster.connect();
    client.batch_execute(JOBS).unwrap();
    client
        .batch_execute(
            r#"TRUNCATE job; ALTER TABLE job ADD payload text, ADD recipe int DEFAULT 1; ALTER TABLE job ALTER payload SET STORAGE EXTERNAL;
               INSERT INTO job (id, payload) SELECT i, '{"c": 1, "x": "' || repeat('x', 4000) || '"}' FROM generate_series(1, 300) i;
               INSERT INTO job (id, payload) VALUES (0, 'not json');
               CREATE SEQUENCE ran; GRANT ALL ON SEQUENCE ran TO PUBLIC;
               CREATE ROLE evil; GRANT CREATE ON DATABASE postgres TO evil;
               CREATE SCHEMA lib AUTHORIZATION evil; GRANT USAGE, CREATE ON SCHEMA lib TO app;
               CREATE SCHEMA lib2 AUTHORIZATION evil; GRANT USAGE ON SCHEMA lib2 TO PUBLIC; GRANT USAGE ON SCHEMA public TO evil;
               SET ROLE app;
               CREATE FUNCTION lib.f(text) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS
               $$BEGIN PERFORM pg_sleep(0.002); RETURN ($1::jsonb ->> 'c') = '1'; END$$;
               SET ROLE evil;
               CREATE FUNCTION lib2.f(text) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS
               $$BEGIN PERFORM nextval('public.ran'); RETURN true; END$$;
               RESET ROLE; ANALYZE job;
               UPDATE backlog_cleanup.target SET recipe_column = 'recipe', condition = '(lib.f(payload))' WHERE name = 't'"#,
        )
        .unwrap();
    let swap = cluster.in_background(
        "SET ROLE evil;
         DO $$BEGIN
             LOOP
                 PERFORM pg_sleep(0.01);
                 EXIT WHEN EXISTS (SELECT FROM pg_locks WHERE relation = 'public.job_pkey'::regclass AND mode = 'RowExclusiveLock');
             END LOOP;
             PERFORM pg_sleep(0.05);
         END$$;
         BEGIN; ALTER SCHEMA lib RENAME TO lib3; ALTER SCHEMA lib2 RENAME TO lib; COMMIT",
    );
    let done = client.batch_execute("SELECT backlog_cleanup_emergency('t')");
    swap.join().unwrap().1.unwrap();
    assert!(!value::<bool>(&mut client, "SELECT is_called FROM ran"), "{done:?}");
    let (sqlstate, message, _) = refused(done);
    assert_eq!(
        (sqlstate.as_str(), message.as_str()),
        ("55000", "function lib.f(text) has come in the place of what was checked before")
    );
    assert_eq!(count(&mut client, "SELECT count(*) FROM job"), 301);
}
