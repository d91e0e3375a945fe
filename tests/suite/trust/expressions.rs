//! Expressions and conditions of targets, which run as the table's owner.

use cluster::{number as count, refused, value};

use super::{RAN, database};

fn set(column: &str, text: &str) -> String {
    format!("UPDATE backlog_cleanup.target SET {column} = '{}' WHERE name = 't'", text.replace('\'', "''"))
}

#[test]
fn a_function_of_an_expression_names_no_table() {
    let (_cluster, mut client) = database("expression_of_a_table");
    client
        .batch_execute(
            "CREATE TABLE x (id int PRIMARY KEY); ALTER TABLE x OWNER TO app; SET ROLE app;
             CREATE FUNCTION del(i int) RETURNS boolean LANGUAGE sql VOLATILE BEGIN ATOMIC DELETE FROM public.x WHERE id = i; SELECT true; END;
             CREATE FUNCTION meets(i int) RETURNS boolean LANGUAGE sql IMMUTABLE BEGIN ATOMIC SELECT public.del(i); END;
             CREATE OPERATOR !! (RIGHTARG = int, FUNCTION = meets); RESET ROLE",
        )
        .unwrap();
    client
        .batch_execute(
            "SET ROLE app; CREATE DOMAIN gone AS int CHECK (del(VALUE)); CREATE DOMAIN all_gone AS gone[];
             CREATE FUNCTION hides(i int) RETURNS boolean LANGUAGE sql IMMUTABLE BEGIN ATOMIC SELECT i::public.gone > 0; END; RESET ROLE",
        )
        .unwrap();
    for text in ["(meets(id))", "(!! id)", "(id::gone > 0)", "(ARRAY[id]::all_gone IS NULL)", "(hides(id))"] {
        let (sqlstate, message, hint) = refused(client.batch_execute(&set("condition", text)));
        assert_eq!(sqlstate, "42P17", "{message}");
        assert!(
            message.contains("function public.del(integer) names table public.x: it is to be of the row alone"),
            "{text}: {message}"
        );
        client.batch_execute(&hint).unwrap();
    }
    client.batch_execute("CREATE DOMAIN late AS timestamptz CHECK (VALUE < now())").unwrap();
    let (sqlstate, message, _) = refused(client.batch_execute(&set("condition", "(at::late IS NOT NULL)")));
    assert_eq!(sqlstate, "42P17", "{message}");
    assert!(message.contains("constraint late_check calls functions that are not IMMUTABLE"), "{message}");
}

#[test]
fn an_expression_is_of_the_row_alone_and_always_the_same() {
    let (_cluster, mut client) = database("expressions");
    client
        .batch_execute(
            "ALTER TABLE job ADD g text, ADD posix text COLLATE \"POSIX\", ADD c text COLLATE \"C\";
             CREATE TABLE other (error text); CREATE DOMAIN word AS text; CREATE TYPE label AS ENUM ('{x}');
             CREATE TEXT SEARCH CONFIGURATION cfg (COPY = pg_catalog.english);
             CREATE FUNCTION since(text, timestamptz DEFAULT now()) RETURNS text IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN $1; END'",
        )
        .unwrap();
    let mut wrong = Vec::new();
    let deep = format!("(error{})", " || error".repeat(50_000));
    for (text, sqlstate, said) in [
        ("((SELECT max(error) FROM other))", "0A000", "subquery"),
        ("(EXISTS (SELECT FROM other))", "0A000", "subquery"),
        ("(max(error))", "42803", "aggregate"),
        ("(lag(error) OVER ())", "42P20", "window"),
        ("(unnest(ARRAY[error]))", "0A000", "set-returning"),
        ("(ctid::text || error)", "42P17", "system column"),
        ("(tableoid::text || error)", "42P17", "system column"),
        ("(xmin::text || error)", "42P17", "system column"),
        ("(job::text)", "42P17", "whole row"),
        ("(job.*::text)", "42P17", "whole row"),
        ("(other.error)", "42P01", "other"),
        ("(g.error)", "42P01", "\"g\""),
        ("($1 || error)", "42P02", "$1"),
        ("(error || now())", "42P17", "IMMUTABLE"),
        ("(error || random())", "42P17", "IMMUTABLE"),
        ("(error || current_user)", "42P17", "IMMUTABLE"),
        ("(since(error))", "42P17", "IMMUTABLE"),
        ("('x')", "42P17", "no column"),
        ("(to_tsvector('public.cfg', error) @@ 'x')", "0A000", "regconfig names an object"),
        ("(id = 'other'::regclass::oid::bigint)", "0A000", "regclass names an object"),
        ("(id = ANY ('{other}'::regclass[]::oid[]::bigint[]))", "0A000", "names objects"),
        ("(error = 'x' AND '{x}'::label IS NOT NULL)", "0A000", "begins as an array"),
        ("(error = ANY ('{a'))", "22P02", "malformed array literal"),
        ("(id = 'x')", "22P02", "invalid input syntax"),
        ("(error = ANY ('{a}'::word[]))", "0A000", "has elements"),
        ("(error, queue)", "42804", "record"),
        ("(c = posix)", "42P22", "COLLATE"),
        ("(length(c || posix))", "42P22", "COLLATE"),
        ("(c || posix)", "42P22", "COLLATE"),
        ("(NULLIF(at, id))", "42883", "operator"),
        ("(NULLIF(ARRAY[error], ARRAY[queue]))", "0A000", "search path"),
        ("(CASE ARRAY[error] WHEN ARRAY[queue] THEN 1 END)", "0A000", "search path"),
        ("(error) ; DROP TABLE job; --", "42601", ""),
        ("(error)); DROP TABLE job; SELECT (1", "42601", "one expression"),
        ("(error) FROM other, (job", "42601", ""),
        ("(error)) FROM other WHERE (true", "42601", "one expression"),
        ("(error) ORDER BY (1", "42601", ""),
        ("(error /* )", "42601", "unterminated"),
        ("(error || 'it)", "42601", "unterminated"),
        ("(no_such)", "42703", "no_such"),
        ("()", "42601", ""),
        (deep.as_str(), "54001", "stack depth"),
        ("(DEFAULT)", "42601", ""),
    ] {
        if client.batch_execute(&format!("BEGIN; {}", set("failure_type_column", text))).is_ok() {
            wrong.push(format!("{text}: not refused"));
            client.batch_execute("ROLLBACK").unwrap();
            continue;
        }
        client.batch_execute("ROLLBACK").unwrap();
        let (code, message, hint) = refused(client.batch_execute(&set("failure_type_column", text)));
        if code != sqlstate || !message.contains(said) || !message.ends_with("(failure_type_column of target \"t\")") {
            wrong.push(format!("{text}: {code} {message}"));
        }
        client.batch_execute(&hint).unwrap_or_else(|failure| panic!("{text}: {hint}: {failure}"));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    for (text, sqlstate) in [("(error)", "42804"), ("true", "42P17"), ("state = 'failed' AND", "42601")] {
        assert_eq!(refused(client.batch_execute(&set("condition", text))).0, sqlstate, "{text}");
    }
    // All mistakes are one error.
    let both = "UPDATE backlog_cleanup.target SET condition = '(ctid IS NULL)', recipe_column = '(random())', id_column = 'it' WHERE name = 't'";
    let (_, message, _) = refused(client.batch_execute(both));
    assert_eq!(message, "target \"t\" has 3 mistakes");
    assert_eq!(count(&mut client, "SELECT count(*) FROM job"), 100);

    // These work, and are kept with every name qualified.
    for (text, kept) in [
        ("(error -- a comment, \n)", "(error)"),
        ("((error)) /* ; */", "(error)"),
        ("(g || '); DROP TABLE job; --')", "((g OPERATOR(pg_catalog.||) '); DROP TABLE job; --'::pg_catalog.text))"),
        ("(error || posix COLLATE \"C\")", "((error OPERATOR(pg_catalog.||) (posix COLLATE pg_catalog.\"C\")))"),
        ("(NULLIF(error, 'x'))", "(NULLIF(error, 'x'::pg_catalog.text))"),
        (
            "(CASE state WHEN 'failed' THEN (ARRAY[error])[array_upper(ARRAY[error], 1)] ELSE queue END)",
            "(CASE state WHEN 'failed'::pg_catalog.text THEN (ARRAY[error])[pg_catalog.array_upper(ARRAY[error], 1)] ELSE queue END)",
        ),
        ("(job.error LIKE 'a%' AND id BETWEEN 1 AND 2 AND queue IN ('a', 'b'))", ""),
        ("(extract(epoch FROM at AT TIME ZONE 'UTC') - -1)", ""),
        ("('2024-01-02'::date + (id || ' days')::text::int)", ""),
        ("(to_tsvector('english', error) @@ 'x')", ""),
        ("(error = '{x}'::word OR error = ANY ('{x}'))", ""),
    ] {
        client.batch_execute(&set("failure_type_column", text)).unwrap_or_else(|failure| panic!("{text}: {failure:?}"));
        let read: String =
            value(&mut client, "SELECT failure_type_column FROM backlog_cleanup.target WHERE name = 't'");
        assert!(kept.is_empty() || read == kept, "{text}: {read}");
        client
            .batch_execute(
                "UPDATE backlog_cleanup.target SET failure_type_column = failure_type_column WHERE name = 't'",
            )
            .unwrap();
        let again: String =
            value(&mut client, "SELECT failure_type_column FROM backlog_cleanup.target WHERE name = 't'");
        assert_eq!(read, again, "{text}");
        if !text.contains("days") {
            client.batch_execute("SELECT * FROM backlog_cleanup_failures('t')").unwrap();
        }
    }
}

#[test]
fn an_expression_calls_only_what_the_owner_trusts_and_goes_on_calling_it() {
    let (_cluster, mut client) = database("called");
    client
        .batch_execute(
            "CREATE TABLE told (who name); GRANT ALL ON told TO PUBLIC; CREATE SEQUENCE ran; GRANT ALL ON ran TO PUBLIC;
             SET ROLE evil;
             CREATE FUNCTION tell(text) RETURNS text IMMUTABLE LANGUAGE plpgsql
             AS $$BEGIN IF current_user <> 'evil' THEN PERFORM nextval('public.ran'); END IF; RETURN $1; END$$;
             CREATE FUNCTION tells(text, text) RETURNS boolean IMMUTABLE LANGUAGE sql AS 'SELECT tell($1) = $2';
             CREATE OPERATOR ~~~ (FUNCTION = tells, LEFTARG = text, RIGHTARG = text);
             CREATE DOMAIN telling AS text CHECK (tell(VALUE) <> '');
             CREATE FUNCTION takes(telling[]) RETURNS text IMMUTABLE LANGUAGE sql AS 'SELECT ''''';
             CREATE COLLATION strange (locale = 'C');
             RESET ROLE; GRANT ALL ON FUNCTION tell, tells, takes TO PUBLIC",
        )
        .unwrap();
    for text in [
        "(tell(error))",
        "(error ~~~ 'x')",
        "(error OPERATOR(public.~~~) 'x')",
        "(error ~~~ ANY ('{x}'))",
        "(error::telling)",
        "(error || ('{x}'::telling[])[1])",
        "(error || takes('{x}'))",
    ] {
        for column in ["failure_type_column", "recipe_column"] {
            let (sqlstate, message, _) = refused(client.batch_execute(&set(column, text)));
            assert_eq!(
                (sqlstate.as_str(), message.contains("\"evil\"") || message.contains("role evil")),
                ("42501", true),
                "{text}: {message}"
            );
        }
    }
    assert_eq!(count(&mut client, RAN), 0);

    // What is found first in another search path tomorrow is not called.
    client.batch_execute(&set("failure_type_column", "((ARRAY[error])[array_upper(ARRAY[error], 1)])")).unwrap();
    client
        .batch_execute(&set("condition", "(array_position(ARRAY[state], 'failed') = 1 AND NULLIF(error, 'x') IS NULL)"))
        .unwrap();
    client
        .batch_execute(
            "SET ROLE evil;
             CREATE FUNCTION array_upper(text[], int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT length(tell(''x''))';
             CREATE FUNCTION array_position(text[], text) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT length(tell(''x''))';
             CREATE FUNCTION eq(text, varchar) RETURNS boolean IMMUTABLE LANGUAGE sql AS 'SELECT tell($1) IS NULL';
             CREATE OPERATOR = (FUNCTION = eq, LEFTARG = text, RIGHTARG = varchar);
             RESET ROLE",
        )
        .unwrap_or_else(|failure| panic!("{failure:?}"));
    client.batch_execute("UPDATE backlog_cleanup.target SET search_path = 'public' WHERE name = 't'").unwrap();
    client.batch_execute("SELECT * FROM backlog_cleanup_failures('t')").unwrap();
    assert_eq!(count(&mut client, "SELECT backlog_cleanup_failed_generations('t') ->> 'cleanedUpGenerations'"), 90);
    assert_eq!(count(&mut client, RAN), 0);
}

#[test]
fn an_expression_calls_nothing_that_another_of_its_name_could_take_the_place_of() {
    let (_cluster, mut client) = database("replaced");
    client
        .batch_execute(
            "CREATE SCHEMA ext; GRANT ALL ON SCHEMA ext TO PUBLIC;
             CREATE FUNCTION ext.same(anyelement) RETURNS anyelement IMMUTABLE LANGUAGE sql AS 'SELECT $1';
             CREATE FUNCTION ext.short(text, int DEFAULT 5) RETURNS text IMMUTABLE LANGUAGE sql AS 'SELECT left($1, $2)';
             CREATE FUNCTION ext.first(VARIADIC \"any\") RETURNS text IMMUTABLE LANGUAGE internal AS 'text_concat_ws';
             CREATE FUNCTION ext.is(anyelement, anyelement) RETURNS boolean IMMUTABLE LANGUAGE sql AS 'SELECT $1 = $2';
             CREATE OPERATOR ext.=== (FUNCTION = ext.is, LEFTARG = anyelement, RIGHTARG = anyelement);
             CREATE FUNCTION ext.exact(text) RETURNS text IMMUTABLE LANGUAGE sql AS 'SELECT $1'",
        )
        .unwrap();
    for (text, name) in [
        ("(ext.same(error))", "ext.same(anyelement)"),
        ("(ext.short(error))", "ext.short(text,integer)"),
        ("(ext.first(error, error))", "ext.first"),
        ("(CASE WHEN error OPERATOR(ext.===) 'x' THEN 'x' END)", "ext.==="),
        ("(CASE WHEN error OPERATOR(ext.===) ANY ('{x,y}') THEN 'x' END)", "ext.==="),
    ] {
        let (sqlstate, message, _) = refused(client.batch_execute(&set("failure_type_column", text)));
        assert_eq!((sqlstate.as_str(), message.contains(name)), ("0A000", true), "{text}: {message}");
    }
    client.batch_execute(&set("failure_type_column", "(ext.exact(error::varchar))")).unwrap();
}

#[test]
fn a_function_that_changes_later_runs_as_the_owner_only() {
    let (cluster, mut client) = database("changed");
    client
        .batch_execute(
            "CREATE SEQUENCE as_app; CREATE SEQUENCE as_other; GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO PUBLIC;
             SET ROLE app;
             CREATE FUNCTION of_error(text) RETURNS text IMMUTABLE LANGUAGE sql AS 'SELECT upper($1)';
             RESET ROLE",
        )
        .unwrap();
    client.batch_execute(&set("condition", "(of_error(state) = 'FAILED')")).unwrap();
    // A volatile function that says it is not, as of an index: the owner's own business, and its own role.
    client
        .batch_execute(
            "SET ROLE app;
             CREATE OR REPLACE FUNCTION of_error(text) RETURNS text IMMUTABLE LANGUAGE plpgsql
             AS $$BEGIN
                PERFORM CASE current_user WHEN 'app' THEN nextval('public.as_app') ELSE nextval('public.as_other') END;
                RETURN upper($1);
             END$$;
             RESET ROLE",
        )
        .unwrap();
    let mut operator = cluster.connect_to("changed");
    operator.batch_execute("SET ROLE op").unwrap();
    operator
        .batch_execute("SELECT backlog_cleanup_failed_generations('t'); SELECT backlog_cleanup_emergency('t')")
        .unwrap();
    assert_eq!(count(&mut client, "SELECT count(*) FROM job"), 0);
    let called = |sequence: &str| format!("SELECT is_called::int::bigint FROM {sequence}");
    assert_eq!((count(&mut client, &called("as_app")), count(&mut client, &called("as_other"))), (1, 0));

    // One that is volatile now is refused by the next run, as is one that is gone, or that somebody else owns.
    for change in [
        "ALTER FUNCTION of_error VOLATILE",
        "ALTER FUNCTION of_error IMMUTABLE OWNER TO evil",
        "ALTER FUNCTION of_error RENAME TO of_errors",
    ] {
        let change = change.replace("IMMUTABLE OWNER", "IMMUTABLE; ALTER FUNCTION of_error OWNER");
        client.batch_execute(&change).unwrap();
        let (sqlstate, message, _) = refused(operator.batch_execute("SELECT backlog_cleanup_emergency('t')"));
        assert!(["42P17", "42501", "42883"].contains(&sqlstate.as_str()), "{change}: {sqlstate} {message}");
    }
}

#[test]
fn no_index_has_a_constant_that_runs_code_of_the_owner_as_whoever_types_it() {
    let (_cluster, mut client) = database("constants");
    client
        .batch_execute(
            "SET ROLE app;
             CREATE FUNCTION fits(text) RETURNS boolean IMMUTABLE LANGUAGE sql AS 'SELECT true';
             CREATE DOMAIN fitting AS text CHECK (fits(VALUE)); CREATE TYPE mood AS ENUM ('sad'); RESET ROLE",
        )
        .unwrap();
    let index = "SELECT backlog_cleanup_index_sql('t')";
    for (condition, refused_with) in [
        ("(error = ANY ('{x}'::fitting[]::text[]))", Some("0A000")),
        ("(error = ANY ('{x,y}'))", None),
        ("(error::fitting = 'x'::fitting OR error IS NULL)", None),
        ("(error::mood = 'sad')", Some("42P17")),
    ] {
        let written = client.batch_execute(&set("condition", condition)).and_then(|()| client.batch_execute(index));
        match refused_with {
            None => written.unwrap_or_else(|failure| panic!("{condition}: {failure:?}")),
            Some(sqlstate) => assert_eq!(refused(written).0, sqlstate, "{condition}"),
        }
    }
}

#[test]
fn to_name_an_expression_takes_the_rights_that_to_name_the_table_takes() {
    let (cluster, mut client) = database("namer");
    let mut admin = cluster.connect_to("namer");
    admin.batch_execute("SET ROLE adm").unwrap();
    for (column, text) in [
        ("condition", "(id > 5)"),
        ("recipe_column", "(queue || owner)"),
        ("status_column", "(lower(state))"),
        ("failed_at_column", "(coalesce(at, at))"),
        ("failure_type_column", "(left(error, 5))"),
    ] {
        let (sqlstate, message, _) = refused(admin.batch_execute(&set(column, text)));
        assert_eq!((sqlstate.as_str(), message.starts_with("must be owner")), ("42501", true), "{column}: {message}");
        client.batch_execute(&set(column, text)).unwrap();
        // Other settings stay the admin's, and a superuser's expression is not theirs by that.
        admin.batch_execute("UPDATE backlog_cleanup.target SET batch_size = batch_size + 1 WHERE name = 't'").unwrap();
    }
    assert_eq!(
        refused(admin.batch_execute("UPDATE backlog_cleanup.target SET condition = NULL WHERE name = 't'")).0,
        "42501"
    );
    client.batch_execute("GRANT app TO adm").unwrap();
    admin.batch_execute(&set("condition", "(id > 6)")).unwrap();
    let named_by: String = value(&mut client, "SELECT named_by::text FROM backlog_cleanup.target WHERE name = 't'");
    assert_eq!(named_by, "adm");
    client.batch_execute("REVOKE app FROM adm").unwrap();
    assert_eq!(refused(client.batch_execute("SELECT backlog_cleanup_emergency('t')")).0, "42501");
}

#[test]
fn no_constant_is_read_whose_elements_have_code() {
    let (cluster, mut client) = database("elements");
    client
        .batch_execute(
            "CREATE TABLE told (who name); GRANT ALL ON told TO PUBLIC; CREATE SEQUENCE ran; GRANT ALL ON ran TO PUBLIC;
             CREATE SCHEMA s1 AUTHORIZATION evil; CREATE SCHEMA s2 AUTHORIZATION evil; GRANT ALL ON SCHEMA s1 TO app; GRANT USAGE ON SCHEMA s1, s2 TO PUBLIC;
             SET ROLE app;
             CREATE TYPE s1.c AS (a int); CREATE TYPE s1.m AS ENUM ('sad'); CREATE TYPE s1.r AS RANGE (SUBTYPE = int); CREATE DOMAIN s1.w AS text;
             CREATE DOMAIN s1.d AS s1.w[]; CREATE TABLE s1.with_c (id int, owner text, queue text, state text, at timestamptz, error text, c s1.c);
             SET ROLE evil;
             CREATE FUNCTION s2.tell(int) RETURNS boolean LANGUAGE plpgsql IMMUTABLE
             AS $$BEGIN IF current_user <> 'evil' THEN PERFORM nextval('public.ran'); END IF; RETURN true; END$$;
             CREATE DOMAIN s2.told AS int CHECK (s2.tell(VALUE)); CREATE TYPE s2.c AS (a s2.told); CREATE DOMAIN s2.m AS s2.told[];
             RESET ROLE; REVOKE CREATE ON SCHEMA s1 FROM app",
        )
        .unwrap();
    let constants = [
        ("(('(1)'::s1.c) IS NOT NULL AND id > 0)", " c has elements"),
        ("(s1.c '(1)' IS NOT NULL AND id > 0)", " c has elements"),
        ("(id > 0 AND '{\"(1)\"}'::s1.c[] IS NOT NULL)", " c[] has elements"),
        ("('[1,2)'::s1.r @> id)", " r has elements"),
        ("(('{}'::s1.d) IS NOT NULL AND id > 0)", " w[] has elements"),
        ("(c = '(1)')", "input of anonymous composite types"),
        ("(ROW(c) IS DISTINCT FROM ROW('(1)'::s1.c))", " c has elements"),
    ];
    client.batch_execute("UPDATE backlog_cleanup.target SET generations_table = 's1.with_c' WHERE name = 't'").unwrap();
    for (condition, said) in constants {
        let (sqlstate, message, hint) = refused(client.batch_execute(&set("condition", condition)));
        assert!(sqlstate == "0A000" && message.contains(said), "{condition}: {sqlstate} {message}");
        client.batch_execute(&hint).unwrap();
    }
    // What is written with ARRAY and ROW is read by the executor; NULL has no elements, and the elements of what is PostgreSQL's own have no code.
    for condition in [
        "(c IS NOT NULL OR ROW(1)::s1.c IS NULL OR id > 0)",
        "(ARRAY['sad'::s1.m] IS NOT NULL AND id > 0)",
        "(NULL::s1.c IS NULL AND id > 0)",
        "(id <@ '[1,2)'::int4range OR error = ANY ('{a,b}') OR error IS DISTINCT FROM 'a' OR error IN ('a', 'b', NULL))",
        "(error BETWEEN 'a' AND 'b' OR 'sad'::s1.m IS NULL OR at > '2020-01-01' OR state = 'failed'::s1.w)",
    ] {
        client.batch_execute(&set("condition", condition)).unwrap_or_else(|failure| panic!("{condition}: {failure:?}"));
    }
    // One from before it was refused, and another type under its name: its code runs for nobody.
    client
        .batch_execute(&format!(
            "ALTER TABLE backlog_cleanup.target DISABLE TRIGGER USER;
             UPDATE backlog_cleanup.target SET generations_table = 'public.job' WHERE name = 't'; {};
             ALTER TABLE backlog_cleanup.target ENABLE TRIGGER USER;
             ALTER SCHEMA s1 RENAME TO s3; ALTER SCHEMA s2 RENAME TO s1",
            set("condition", "(('(1)'::s1.c IS NOT NULL) AND ('{1}'::s1.m IS NOT NULL) AND (id > 0))")
        ))
        .unwrap();
    let mut operator = cluster.connect_to("elements");
    operator.batch_execute("SET SESSION AUTHORIZATION op").unwrap();
    for call in [
        "SELECT backlog_cleanup_failed_generations('t', dry_run => true)",
        "SELECT backlog_cleanup_failed_generations('t')",
        "CALL backlog_cleanup_run('t')",
        "SELECT count(*) FROM backlog_cleanup_status('t')",
        "SELECT count(*) FROM backlog_cleanup_explain('5', 't')",
    ] {
        let (sqlstate, message, _) = refused(operator.batch_execute(call));
        assert!(["0A000", "42501"].contains(&sqlstate.as_str()), "{call}: {sqlstate} {message}");
    }
    operator.batch_execute("SELECT backlog_cleanup_tick(); SELECT backlog_cleanup_doctor('t')").unwrap();
    assert_eq!(count(&mut client, RAN), 0);
    assert_eq!(count(&mut client, "SELECT count(*) FROM job"), 100);
}
