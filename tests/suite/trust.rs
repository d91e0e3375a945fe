//! What one role has made does not run as another, and what a role may not see or hold stays so (SECURITY.md).

use std::sync::Arc;

use cluster::{Cluster, number as count, refused, start_run, value};
use postgres::Client;

/// A schema of `app` with a table of 100 old failures, its target `t`, and a role of each level.
const PRELUDE: &str = "
    DO $$
    DECLARE
        name text;
    BEGIN
        FOREACH name IN ARRAY '{app,evil,victim,mon,op,adm}'::text[] LOOP
            BEGIN
                EXECUTE format('CREATE ROLE %I LOGIN', name);
            EXCEPTION WHEN duplicate_object OR unique_violation THEN -- of the test beside this one
            END;
        END LOOP;
    END $$;
    CREATE EXTENSION backlog_cleanup;
    SELECT backlog_cleanup_grant('mon', 'monitor'), backlog_cleanup_grant('op', 'operator'),
           backlog_cleanup_grant('adm', 'admin');
    GRANT CREATE ON SCHEMA public TO evil, app;
    CREATE TABLE job (id int PRIMARY KEY, owner text DEFAULT 'w', queue text DEFAULT 'a', state text DEFAULT 'failed',
                      at timestamptz DEFAULT now() - interval '9 days', error text);
    CREATE TABLE ledger (user_id text, amount int, type text, description text, created_at timestamptz);
    INSERT INTO job (id) SELECT generate_series(1, 100);
    ALTER TABLE job OWNER TO app;
    INSERT INTO backlog_cleanup.target (name, generations_table, recipes_table, users_table, ledger_table, account_column,
                                        recipe_column, status_column, failed_at_column, failure_type_column, account)
    VALUES ('t', 'public.job', NULL, NULL, NULL, 'owner', 'queue', 'state', 'at', 'error', 'w')";

/// A database of that name with the prelude, and a superuser's session in it.
fn database(name: &str) -> (Arc<Cluster>, Client) {
    let cluster = Cluster::shared("max_prepared_transactions = 4\n");
    cluster.connect().batch_execute(&format!("CREATE DATABASE {name}")).unwrap();
    let mut client = cluster.connect_to(name);
    client.batch_execute(PRELUDE).unwrap();
    (cluster, client)
}

/// The status, detail and fix of a check of the doctor.
fn found(client: &mut Client, check: &str) -> (String, String, Option<String>) {
    let row = "SELECT status, detail, fix FROM backlog_cleanup_doctor('t') WHERE check_name = $1";
    let row = client.query_one(row, &[&check]).unwrap();
    (row.get(0), row.get(1), row.get(2))
}

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

/// Code of `evil` below `evil.child`, which belongs to `victim`: the object in the refusal, and the statements that make it
/// before and after the child is given away.
const CODE: [(&str, &str, &str); 15] = [
    ("type evil.st", "CREATE DOMAIN evil.st AS text; ALTER TABLE evil.root ALTER state TYPE evil.st", ""),
    (
        "type evil.st",
        "CREATE DOMAIN evil.st AS text; CREATE TYPE evil.pair AS (a evil.st);
         ALTER TABLE evil.child ADD pairs evil.pair[]",
        "",
    ),
    (
        "function evil.chk(text)",
        "CREATE DOMAIN evil.st AS text CHECK (evil.chk(VALUE)); ALTER TABLE evil.child ADD st evil.st",
        "ALTER DOMAIN evil.st OWNER TO victim",
    ),
    ("function evil.chk(text)", "ALTER TABLE evil.root ADD CHECK (evil.chk(state))", ""),
    ("function evil.chk(text)", "CREATE INDEX ON evil.child (evil.chk(state))", ""),
    ("function evil.chk(text)", "CREATE INDEX ON evil.child (id) WHERE evil.chk(state)", ""),
    (
        "function evil.chk(text)",
        "CREATE STATISTICS evil.st ON (evil.chk(state)), (evil.chk(error)) FROM evil.child",
        "",
    ),
    ("function evil.chk(text)", "ALTER TABLE evil.child ADD d boolean DEFAULT evil.chk('')", ""),
    (
        "function evil.chk(text)",
        "ALTER TABLE evil.child ADD g boolean GENERATED ALWAYS AS (evil.chk(error)) STORED",
        "",
    ),
    (
        "operator evil.=(text,text)",
        "",
        "SET ROLE evil; CREATE FUNCTION evil.eq(text, text) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT true';
         CREATE OPERATOR evil.= (LEFTARG = text, RIGHTARG = text, FUNCTION = evil.eq);
         RESET ROLE; ALTER FUNCTION evil.eq OWNER TO victim;
         ALTER TABLE evil.child ADD CHECK (state OPERATOR(evil.=) queue)",
    ),
    (
        "function evil.st_text(evil.st)",
        "SET ROLE evil; CREATE TYPE evil.st AS ENUM ('failed', 'completed', 'pending', 'processing');
         CREATE FUNCTION evil.st_text(evil.st) RETURNS text LANGUAGE sql IMMUTABLE AS $$SELECT 'failed'::text$$;
         CREATE CAST (evil.st AS text) WITH FUNCTION evil.st_text(evil.st) AS ASSIGNMENT;
         RESET ROLE; ALTER TABLE evil.root ALTER state DROP DEFAULT, ALTER state TYPE evil.st USING 'failed'",
        "ALTER TYPE evil.st OWNER TO CURRENT_USER",
    ),
    (
        "operator class evil.backwards for access method btree",
        "",
        "SET ROLE evil; CREATE FUNCTION evil.compare(text, text) RETURNS integer LANGUAGE sql IMMUTABLE AS 'SELECT 0';
         RESET ROLE; ALTER FUNCTION evil.compare OWNER TO victim;
         CREATE OPERATOR CLASS evil.backwards FOR TYPE text USING btree AS FUNCTION 1 evil.compare(text, text);
         ALTER OPERATOR CLASS evil.backwards USING btree OWNER TO evil;
         CREATE INDEX ON evil.child (state evil.backwards)",
    ),
    (
        "function evil.chk(text)",
        "CREATE RULE hold AS ON DELETE TO evil.child WHERE evil.chk(OLD.state) DO ALSO NOTHING",
        "",
    ),
    (
        "function evil.of_number(bigint)",
        "",
        "SET ROLE evil; CREATE TYPE evil.cents AS (n bigint);
         CREATE FUNCTION evil.of_number(bigint) RETURNS evil.cents LANGUAGE sql AS 'SELECT ROW($1)::evil.cents';
         CREATE CAST (bigint AS evil.cents) WITH FUNCTION evil.of_number(bigint) AS ASSIGNMENT;
         RESET ROLE; ALTER TYPE evil.cents OWNER TO victim; ALTER TABLE evil.child ADD c evil.cents",
    ),
    // What the planner puts in the place of NOT.
    (
        "function evil.ne(text,text)",
        "",
        "SET ROLE evil; CREATE FUNCTION evil.eq(text, text) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT true';
         CREATE FUNCTION evil.ne(text, text) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT true';
         CREATE OPERATOR evil.<> (LEFTARG = text, RIGHTARG = text, FUNCTION = evil.ne);
         CREATE OPERATOR evil.= (LEFTARG = text, RIGHTARG = text, FUNCTION = evil.eq, NEGATOR = OPERATOR(evil.<>));
         RESET ROLE; ALTER FUNCTION evil.eq OWNER TO victim; ALTER OPERATOR evil.= (text, text) OWNER TO victim;
         ALTER OPERATOR evil.<> (text, text) OWNER TO victim;
         ALTER TABLE evil.child ADD CHECK (NOT state OPERATOR(evil.=) queue) NOT VALID",
    ),
];

#[test]
fn a_leaf_below_which_a_role_has_code_that_its_owner_does_not_trust_is_refused() {
    let (_cluster, mut client) = database("code_below");
    client
        .batch_execute(
            "CREATE SCHEMA evil AUTHORIZATION evil; GRANT ALL ON SCHEMA evil TO victim;
             CREATE FUNCTION evil.chk(text) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT true';
             ALTER FUNCTION evil.chk OWNER TO evil;
             CREATE TABLE evil.root (LIKE job INCLUDING DEFAULTS); CREATE TABLE evil.child () INHERITS (evil.root);
             ALTER TABLE evil.root OWNER TO evil; ALTER TABLE evil.child OWNER TO evil;
             INSERT INTO evil.child SELECT * FROM job",
        )
        .unwrap();
    let write = "UPDATE backlog_cleanup.target SET generations_table = 'evil.root' WHERE name = 't'";
    for (object, before, after) in CODE {
        client.batch_execute("BEGIN").unwrap();
        if !before.is_empty() {
            client.batch_execute(before).unwrap();
            for types in ["st", "pair"] {
                // What was made as a superuser is evil's, unless it was given away.
                client
                    .batch_execute(&format!(
                        "DO $$ BEGIN IF to_regtype('evil.{types}') IN (SELECT oid FROM pg_type WHERE typowner = 10)
                         THEN ALTER TYPE evil.{types} OWNER TO evil; END IF; END $$"
                    ))
                    .unwrap();
            }
        }
        client.batch_execute(write).unwrap_or_else(|failure| panic!("evil may: {before} {failure:?}"));
        client.batch_execute("ALTER TABLE evil.child OWNER TO victim").unwrap();
        client.batch_execute(after).unwrap_or_else(|failure| panic!("{after} {failure:?}"));
        for call in ["SELECT * FROM backlog_cleanup_status('t')", "SELECT backlog_cleanup_emergency('t')", write] {
            client.batch_execute("SAVEPOINT here").unwrap();
            let (sqlstate, message, hint) = refused(client.batch_execute(call));
            client.batch_execute("ROLLBACK TO here").unwrap();
            assert_eq!(sqlstate, "42501");
            let expected =
                format!("{object} belongs to role \"evil\", and would run as role \"victim\", who owns \"evil.child\"");
            assert_eq!(message, expected, "{before} {after}");
            // No statement, which would give evil's code victim's rights without anybody's decision.
            assert!(hint.starts_with("decide whether its code may run as \"victim\""), "{hint}");
        }
        let (status, detail, _) = found(&mut client, "target");
        assert!(status == "fail" && detail.starts_with(object), "{detail}");
        // A role that could act as the owner anyway is trusted.
        client.batch_execute("GRANT victim TO evil; SELECT backlog_cleanup_emergency('t'); ROLLBACK").unwrap();
    }
}

#[test]
fn whose_code_it_is_is_asked_as_of_now_in_a_transaction_with_an_old_snapshot() {
    let (cluster, mut client) = database("as_of_now");
    client
        .batch_execute(
            "CREATE FUNCTION chk(text) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT true';
             ALTER TABLE job ADD CHECK (chk(state))",
        )
        .unwrap();
    let mut operator = cluster.connect_to("as_of_now");
    operator.batch_execute("SET ROLE op").unwrap();
    operator.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1").unwrap();
    client.batch_execute("ALTER FUNCTION chk OWNER TO evil").unwrap();
    let (sqlstate, _, _) = refused(operator.batch_execute("SELECT backlog_cleanup_emergency('t')"));
    assert_eq!(sqlstate, "42501");
}

#[test]
fn a_partition_whose_bounds_call_a_function_of_a_role_that_its_owner_does_not_trust_is_refused() {
    let (_cluster, mut client) = database("partition_key");
    client
        .batch_execute(
            "CREATE FUNCTION chk(text) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT $1'; ALTER FUNCTION chk OWNER TO evil;
             CREATE TABLE parted (LIKE job INCLUDING DEFAULTS) PARTITION BY LIST (chk(state));
             CREATE TABLE part PARTITION OF parted FOR VALUES IN ('failed');
             ALTER TABLE parted OWNER TO evil; ALTER TABLE part OWNER TO victim",
        )
        .unwrap();
    let write = "UPDATE backlog_cleanup.target SET generations_table = 'public.part' WHERE name = 't'";
    let (sqlstate, message, _) = refused(client.batch_execute(write));
    assert_eq!((sqlstate.as_str(), message.starts_with("function public.chk(text)")), ("42501", true), "{message}");
}

#[test]
fn a_ledger_and_a_view_of_recipes_are_looked_at_like_the_table() {
    let (_cluster, mut client) = database("ledger_code");
    client
        .batch_execute(
            "CREATE FUNCTION chk(text) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT true'; ALTER FUNCTION chk OWNER TO evil;
             CREATE VIEW names AS SELECT 1 AS id, 'x'::text AS name WHERE chk('x'); ALTER VIEW names OWNER TO app;
             CREATE VIEW inner_names AS SELECT 1 AS id, 'x'::text AS name; ALTER VIEW inner_names OWNER TO evil;
             CREATE VIEW outer_names AS TABLE inner_names; ALTER VIEW outer_names OWNER TO app;
             ALTER TABLE ledger ADD CHECK (chk(description)), OWNER TO app",
        )
        .unwrap();
    for (table, object) in [
        ("ledger_table = 'public.ledger'", "function public.chk(text)"),
        ("recipes_table = 'public.names'", "function public.chk(text)"),
        ("recipes_table = 'public.outer_names'", "view public.inner_names"),
    ] {
        let write = format!("UPDATE backlog_cleanup.target SET {table} WHERE name = 't'");
        let (sqlstate, message, _) = refused(client.batch_execute(&write));
        assert_eq!((sqlstate.as_str(), message.starts_with(object)), ("42501", true), "{message}");
    }
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
             UPDATE backlog_cleanup.target SET failed_status = '{failed}', completed_status = '{c}', pending_status = '{p}',
                    processing_status = '{r}' WHERE name = 't'",
        )
        .unwrap();
    let (sqlstate, message, _) = refused(client.batch_execute("SELECT backlog_cleanup_index_sql('t')"));
    assert_eq!((sqlstate.as_str(), message.contains("state has type public.st[]")), ("0A000", true), "{message}");
    client.batch_execute("SELECT backlog_cleanup_emergency('t')").unwrap();
    assert_eq!(count(&mut client, "SELECT count(*) FROM job"), 0);
    // The parser leaves a domain's CHECK to the executor, which runs as the table's owner.
    client.batch_execute("ALTER TABLE job ALTER state TYPE st USING state[1]").unwrap();
    client
        .batch_execute(
            "UPDATE backlog_cleanup.target SET failed_status = 'failed', completed_status = 'c', pending_status = 'p',
                    processing_status = 'r' WHERE name = 't'",
        )
        .unwrap();
    client.batch_execute("SELECT backlog_cleanup_index_sql('t')").unwrap();
}

#[test]
fn an_admin_that_locks_the_targets_does_not_stop_a_run_for_ever() {
    let (cluster, mut client) = database("locked_targets");
    let mut admin = cluster.connect_to("locked_targets");
    admin.batch_execute("SET ROLE adm; BEGIN; LOCK TABLE backlog_cleanup.target").unwrap();
    client.batch_execute("SET statement_timeout = '20 s'").unwrap();
    for call in ["SELECT backlog_cleanup_emergency('t')", "SELECT * FROM backlog_cleanup_status('t')"] {
        assert_eq!(refused(client.batch_execute(call)).0, "55P03", "{call}");
    }
}

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
    let (status, detail, fix) = found(&mut client, "others");
    assert_eq!(status, "warn");
    assert_eq!(detail, "trigger theirs on public.job calls public.steal(), which belongs to evil and runs as app");
    client.batch_execute(&fix.unwrap()).unwrap();
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
        let (_, _, fix) = found(&mut client, "others");
        assert_eq!(fix.as_deref(), Some(mended));
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

#[test]
fn a_transaction_that_has_run_a_cleanup_is_not_prepared() {
    let (_cluster, mut client) = database("prepared");
    for call in ["SELECT backlog_cleanup_emergency('t')", "SELECT backlog_cleanup_failed_generations('t')"] {
        client.batch_execute(&format!("SET ROLE op; BEGIN; {call}")).unwrap();
        let (sqlstate, message, _) = refused(client.batch_execute("PREPARE TRANSACTION 'mine'"));
        assert_eq!(
            (sqlstate.as_str(), message.as_str()),
            ("0A000", "cannot PREPARE a transaction that has run a cleanup")
        );
        client.batch_execute("ROLLBACK; RESET ROLE").unwrap();
    }
    // Nor one with a part of a batched run, or that stops a run.
    for part in ["next_batch(max(id))", "finish_run(max(id))", "backlog_cleanup_stop(max(id))"] {
        let part = if part.contains("stop") { part.to_owned() } else { format!("backlog_cleanup.{part}") };
        client.batch_execute(&start_run(10).replace("generations", "t")).unwrap();
        client.batch_execute(&format!("BEGIN; SELECT {part} FROM backlog_cleanup.run")).unwrap();
        assert_eq!(refused(client.batch_execute("PREPARE TRANSACTION 'mine'")).0, "0A000", "{part}");
        // Its session's lock is released by the error.
        client.batch_execute("ROLLBACK").unwrap();
    }
    // One that only looked can be prepared, and holds no table.
    for statement in ["BEGIN", "SELECT backlog_cleanup_emergency('t', dry_run => true)", "PREPARE TRANSACTION 'looked'"]
    {
        client.batch_execute(statement).unwrap();
    }
    assert_eq!(count(&mut client, "SELECT count(*) FROM pg_locks WHERE relation = 'job'::regclass"), 0);
    client.batch_execute("ROLLBACK PREPARED 'looked'").unwrap();
    client.batch_execute("SELECT backlog_cleanup_emergency('t')").unwrap();
    assert_eq!(count(&mut client, "SELECT count(*) FROM job"), 0);
    assert_eq!(found(&mut client, "transactions").0, "ok");
}

#[test]
fn a_restore_waits_for_no_advisory_lock() {
    let (cluster, mut client) = database("stalled");
    let mut stranger = cluster.connect_to("stalled");
    stranger
        .batch_execute("SET ROLE mon; SELECT pg_advisory_lock('backlog_cleanup.target'::regclass::oid::bigint)")
        .unwrap();
    client
        .batch_execute(
            "SET lock_timeout = '5 s'; SET xmloption = content; SET check_function_bodies = off;
             INSERT INTO backlog_cleanup.target (name, generations_table) VALUES ('restored', 'public.not_there');
             INSERT INTO backlog_cleanup.policy (target, keep) VALUES ('restored', 3)",
        )
        .unwrap();
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
fn what_only_looks_holds_no_table_past_its_statement() {
    let (_cluster, mut client) = database("let_go");
    client
        .batch_execute(
            "CREATE TABLE users (id text); INSERT INTO users VALUES ('w');
             CREATE TABLE recipes (id text, name text);
             UPDATE backlog_cleanup.target SET ledger_table = 'public.ledger', users_table = 'public.users',
                    recipes_table = 'public.recipes' WHERE name = 't';
             SELECT backlog_cleanup_failed_generations('t')",
        )
        .unwrap();
    client.batch_execute("SET ROLE mon; BEGIN").unwrap();
    for call in [
        "backlog_cleanup_status('t')",
        "backlog_cleanup_status_json('t')",
        "backlog_cleanup_failures('t')",
        "backlog_cleanup_books('t')",
        "backlog_cleanup_doctor('t')",
        "backlog_cleanup_run_details((SELECT max(id) FROM backlog_cleanup.run))",
        "backlog_cleanup_index_sql('t')",
    ] {
        client.batch_execute(&format!("SELECT * FROM {call}")).unwrap();
        let held = "SELECT coalesce(string_agg(DISTINCT relation::regclass::text, ', '), '') FROM pg_locks
                    JOIN pg_class c ON c.oid = relation
                    WHERE pid = pg_backend_pid() AND c.relnamespace = 'public'::regnamespace";
        assert_eq!(client.query_one(held, &[]).unwrap().get::<_, String>(0), "", "{call}");
    }
    // What an admin writes is checked, and let go.
    client.batch_execute("ROLLBACK; RESET ROLE; SET ROLE adm; BEGIN").unwrap();
    client.batch_execute("UPDATE backlog_cleanup.target SET batch_size = 9 WHERE name = 't'").unwrap();
    let held = "SELECT count(*) FROM pg_locks WHERE pid = pg_backend_pid() AND relation = 'public.job'::regclass";
    assert_eq!(count(&mut client, held), 0);
}

/// Code of `evil` that tells who runs it, in the predicate of an index of a table of `evil`.
fn planted(table: &str) -> String {
    format!(
        "CREATE TABLE told AS SELECT ''::name AS who WITH NO DATA; GRANT ALL ON told TO PUBLIC; CREATE SEQUENCE ran; GRANT ALL ON ran TO PUBLIC;
         SET ROLE evil;
         CREATE FUNCTION public.tell() RETURNS boolean LANGUAGE plpgsql IMMUTABLE
         AS $$BEGIN IF current_user <> 'evil' THEN PERFORM nextval('public.ran'); END IF; RETURN true; END$$;
         CREATE INDEX ON {table} (id) WHERE public.tell(); RESET ROLE"
    )
}

const RAN: &str = "SELECT is_called::int::bigint FROM ran";

/// Has each level ask and run all that it may, and returns what was refused with 42501. Fails if `evil`'s code has run as another role.
fn refused_by_all(client: &mut Client) -> Vec<&'static str> {
    // With it PostgreSQL's checks of foreign keys are planned for any value at once, not at the sixth row.
    client.batch_execute("SET plan_cache_mode = force_generic_plan").unwrap();
    let mut refused_calls = Vec::new();
    for (role, call) in [
        ("mon", "SELECT * FROM backlog_cleanup_status('t')"),
        ("mon", "SELECT backlog_cleanup_status_json('t')"),
        ("mon", "SELECT * FROM backlog_cleanup_failures('t')"),
        ("mon", "SELECT * FROM backlog_cleanup_doctor('t')"),
        ("mon", "SELECT backlog_cleanup_failed_generations('t', dry_run => true)"),
        ("op", "SELECT backlog_cleanup_failed_generations('t', dry_run => true)"),
        ("op", "SELECT backlog_cleanup_emergency('t', dry_run => true)"),
        ("op", "SELECT backlog_cleanup_failed_generations('t', rehearse => true)"),
        ("op", "SELECT backlog_cleanup_emergency('t', rehearse => true)"),
        ("op", "CALL backlog_cleanup_run('t', batch_size => 5, max_rows => 40)"),
        ("op", "CALL backlog_cleanup_run('t', mode => 'emergency', batch_size => 10, max_rows => 20)"),
        ("op", "SELECT backlog_cleanup_failed_generations('t')"),
        ("op", "SELECT backlog_cleanup_emergency('t')"),
    ] {
        client.batch_execute(&format!("SET ROLE {role}")).unwrap();
        if let Err(failure) = client.batch_execute(call) {
            let failure = failure.as_db_error().unwrap();
            assert_eq!(failure.code().code(), "42501", "{role} {call}: {failure}");
            if !failure.message().starts_with("permission denied") {
                refused_calls.push(call);
            }
        }
        client.batch_execute("RESET ROLE").unwrap();
        assert_eq!(count(client, RAN), 0, "{role} {call}");
    }
    refused_calls
}

#[test]
fn no_part_of_another_owner_is_read_below_a_view_a_rule_or_a_function() {
    for (name, setup, part) in [
        (
            "below_recipes",
            "CREATE TABLE rec (id text, name text) PARTITION BY LIST (id); CREATE TABLE rec1 PARTITION OF rec DEFAULT;
             CREATE TABLE rec2 PARTITION OF rec FOR VALUES IN ('2'); CREATE VIEW recv AS TABLE rec;
             UPDATE backlog_cleanup.target SET recipes_table = 'public.recv' WHERE name = 't'; ALTER TABLE rec2 OWNER TO evil",
            "rec2",
        ),
        (
            "below_users",
            "CREATE TABLE acc (id text); CREATE TABLE acc2 () INHERITS (acc); INSERT INTO acc VALUES ('w');
             CREATE VIEW accv AS TABLE acc; CREATE VIEW accvv AS TABLE accv;
             ALTER TABLE acc OWNER TO app; ALTER TABLE accv OWNER TO app; ALTER TABLE accvv OWNER TO app;
             UPDATE backlog_cleanup.target SET users_table = 'public.accvv' WHERE name = 't'; ALTER TABLE acc2 OWNER TO evil",
            "acc2 (id) WHERE public.tell(); CREATE INDEX ON acc2",
        ),
        (
            "below_ledger",
            "CREATE TABLE led (LIKE ledger, id int) PARTITION BY LIST (user_id); CREATE TABLE led1 PARTITION OF led DEFAULT;
             CREATE TABLE led2 PARTITION OF led FOR VALUES IN ('w'); CREATE VIEW ledv AS TABLE led;
             UPDATE backlog_cleanup.target SET ledger_table = 'public.ledv' WHERE name = 't'; ALTER TABLE led2 OWNER TO evil;
             SET ROLE evil; CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql
             AS 'BEGIN PERFORM public.tell(); RETURN NEW; END';
             CREATE TRIGGER note BEFORE INSERT ON led2 FOR EACH ROW EXECUTE FUNCTION note(); RESET ROLE",
            "led2",
        ),
        (
            "below_rule",
            "CREATE TABLE audit (id int) PARTITION BY LIST (id); CREATE TABLE audit1 PARTITION OF audit DEFAULT;
             CREATE TABLE audit2 PARTITION OF audit FOR VALUES IN (2000); CREATE TABLE log (id int);
             ALTER TABLE audit OWNER TO app; ALTER TABLE audit1 OWNER TO app; ALTER TABLE log OWNER TO app;
             CREATE RULE log AS ON DELETE TO job DO ALSO
             INSERT INTO log SELECT a.id FROM audit a WHERE a.id = OLD.id; ALTER TABLE audit2 OWNER TO evil",
            "audit2",
        ),
        (
            "below_own_rule",
            "CREATE TABLE child () INHERITS (job); CREATE TABLE log (n int); ALTER TABLE log OWNER TO app;
             CREATE RULE log AS ON DELETE TO job DO ALSO
             INSERT INTO log SELECT count(*) FROM job j WHERE j.id = OLD.id; ALTER TABLE child OWNER TO evil",
            "child",
        ),
        (
            "below_function",
            "CREATE TABLE rec (id text, name text) PARTITION BY LIST (id); CREATE TABLE rec1 PARTITION OF rec DEFAULT;
             CREATE TABLE rec2 PARTITION OF rec FOR VALUES IN ('2'); ALTER TABLE rec OWNER TO app;
             CREATE FUNCTION nm(text) RETURNS text BEGIN ATOMIC SELECT r.name FROM public.rec r WHERE r.id = $1; END;
             ALTER FUNCTION nm OWNER TO app; CREATE VIEW recv AS SELECT 'a'::text AS id, nm('a') AS name;
             ALTER VIEW recv OWNER TO app; ALTER TABLE rec2 OWNER TO evil;
             UPDATE backlog_cleanup.target SET recipes_table = 'public.recv' WHERE name = 't'",
            "rec2",
        ),
        (
            "view_below_function",
            "CREATE VIEW v AS SELECT 'a'::text AS id; ALTER VIEW v OWNER TO app; GRANT SELECT ON v TO PUBLIC;
             CREATE FUNCTION nm(text) RETURNS text BEGIN ATOMIC SELECT v.id FROM public.v WHERE v.id = $1; END;
             ALTER FUNCTION nm OWNER TO app; CREATE VIEW recv AS SELECT 'a'::text AS id, nm('a') AS name;
             ALTER VIEW recv OWNER TO app; CREATE TABLE own (id int); ALTER TABLE own OWNER TO evil;
             UPDATE backlog_cleanup.target SET recipes_table = 'public.recv' WHERE name = 't'; ALTER VIEW v OWNER TO evil",
            "own (id) WHERE public.tell(); CREATE OR REPLACE VIEW v AS SELECT 'a'::text AS id WHERE public.tell(); CREATE INDEX ON own",
        ),
    ] {
        let (_cluster, mut client) = database(name);
        client.batch_execute(setup).unwrap_or_else(|failure| panic!("{name}: {failure:?}"));
        client.batch_execute(&planted(part)).unwrap_or_else(|failure| panic!("{name}: {failure:?}"));
        // All but the doctor, which says why.
        assert_eq!(refused_by_all(&mut client).len(), 11, "{name}");
        let (status, detail, _) = found(&mut client, "target");
        assert_eq!(status, "fail");
        assert!(detail.contains("belongs to role \"evil\", and would run as role"), "{name}: {detail}");
    }
}

#[test]
fn a_view_over_a_part_that_its_own_table_trusts_is_used() {
    let (_cluster, mut client) = database("trusted_part");
    client
        .batch_execute(
            "CREATE TABLE rec (id text, name text) PARTITION BY LIST (id); CREATE TABLE rec1 PARTITION OF rec DEFAULT;
             CREATE VIEW recv AS TABLE rec; CREATE MATERIALIZED VIEW recm AS SELECT 'a'::text AS id, 'b'::text AS name;
             ALTER TABLE rec OWNER TO app; ALTER VIEW recv OWNER TO app; ALTER MATERIALIZED VIEW recm OWNER TO app;
             CREATE TABLE own (id int); ALTER TABLE own OWNER TO evil;
             CREATE TABLE child () INHERITS (job); ALTER TABLE child OWNER TO victim;
             CREATE TABLE log (id int); ALTER TABLE log OWNER TO app;
             CREATE RULE log AS ON DELETE TO job DO ALSO INSERT INTO log VALUES (OLD.id);
             ALTER TABLE job DISABLE RULE log; UPDATE backlog_cleanup.target SET recipes_table = 'public.recv' WHERE name = 't'",
        )
        .unwrap();
    client.batch_execute(&planted("own")).unwrap();
    // A superuser's partition; a rule, switched off, beside a child of another owner, which it does not read.
    assert_eq!(refused_by_all(&mut client), [""; 0]);
    assert_eq!(count(&mut client, "SELECT count(*) FROM job"), 0);
}

#[test]
fn a_key_from_a_table_above_the_target_is_that_of_its_own_rows() {
    // Whoever owns the target and the table above it, what is beside the target is read by nobody.
    for (name, owner) in [("above_of_one", "postgres"), ("above_of_another", "app")] {
        let (_cluster, mut client) = database(name);
        client
            .batch_execute(&format!(
                "CREATE TABLE g (LIKE job INCLUDING DEFAULTS, parent int); CREATE TABLE t (PRIMARY KEY (id)) INHERITS (g);
                 CREATE TABLE sib () INHERITS (g); ALTER TABLE g ADD FOREIGN KEY (parent) REFERENCES t (id);
                 INSERT INTO t (id) SELECT generate_series(1, 100); INSERT INTO g (id, parent) VALUES (101, 7);
                 INSERT INTO sib (id, parent) VALUES (102, 8); ALTER TABLE sib OWNER TO evil; ALTER TABLE t OWNER TO {owner};
                 UPDATE backlog_cleanup.target SET generations_table = 'public.t' WHERE name = 't'"
            ))
            .unwrap();
        client.batch_execute(&planted("sib")).unwrap();
        assert_eq!(refused_by_all(&mut client), [""; 0], "{name}");
        let left: Vec<i32> = value(&mut client, "SELECT array_agg(id ORDER BY id) FROM ONLY t");
        assert_eq!(left, [7]);
    }
}

#[test]
fn a_partition_beside_the_target_is_read_as_nobody_but_its_tables_owner() {
    let (_cluster, mut client) = database("beside");
    client
        .batch_execute(
            "CREATE TABLE r (LIKE job INCLUDING DEFAULTS, parent int, PRIMARY KEY (id, owner)) PARTITION BY LIST (owner);
             CREATE TABLE r1 PARTITION OF r FOR VALUES IN ('w'); CREATE TABLE r2 PARTITION OF r FOR VALUES IN ('v');
             ALTER TABLE r ADD FOREIGN KEY (parent, owner) REFERENCES r; INSERT INTO r (id) SELECT generate_series(1, 100);
             UPDATE r SET parent = id - 1 WHERE id > 1;
             ALTER TABLE r OWNER TO evil; ALTER TABLE r2 OWNER TO evil; ALTER TABLE r1 OWNER TO app; GRANT SELECT ON r TO app;
             GRANT SELECT ON r1 TO evil;
             UPDATE backlog_cleanup.target SET generations_table = 'public.r1' WHERE name = 't'",
        )
        .unwrap();
    client.batch_execute(&planted("r2")).unwrap();
    assert_eq!(refused_by_all(&mut client), [""; 0]);
}

/// What runs and dry runs are refused for, and reports are not.
const RUNS: usize = 8;

#[test]
fn no_key_of_the_ledger_has_postgresql_read_a_partition_of_another_owner() {
    for (name, ledger, owner) in [
        ("ledger_key", "ledger", "app"),
        ("ledger_key_below_view", "ledgerv", "app"),
        ("ledger_key_below_view_of_another", "ledgerv", "victim"),
    ] {
        let (_cluster, mut client) = database(name);
        client
            .batch_execute(&format!(
                "CREATE TABLE acc (id text PRIMARY KEY) PARTITION BY LIST (id);
                 CREATE TABLE acc1 PARTITION OF acc FOR VALUES IN ('w'); CREATE TABLE acc2 PARTITION OF acc DEFAULT;
                 INSERT INTO acc VALUES ('w'); ALTER TABLE ledger ADD FOREIGN KEY (user_id) REFERENCES acc, OWNER TO {owner};
                 GRANT ALL ON ledger TO app; CREATE VIEW ledgerv AS TABLE ledger; ALTER VIEW ledgerv OWNER TO app;
                 UPDATE backlog_cleanup.target SET ledger_table = 'public.{ledger}' WHERE name = 't';
                 ALTER TABLE acc2 OWNER TO evil"
            ))
            .unwrap();
        client.batch_execute(&planted("acc2")).unwrap();
        assert_eq!(refused_by_all(&mut client).len(), RUNS, "{name}");
        assert_eq!(found(&mut client, "others").0, "fail");
        // PostgreSQL itself reads the partition as a superuser here.
        client.batch_execute("ALTER TABLE acc DETACH PARTITION acc2; SELECT setval('ran', 1, false)").unwrap();
        assert_eq!(refused_by_all(&mut client), [""; 0], "{name}");
    }
}

#[test]
fn no_key_behind_a_cascade_or_of_a_table_that_was_given_away_runs_its_former_owners_code() {
    for (name, setup, table) in [
        (
            "two_steps",
            "CREATE TABLE mid (id int PRIMARY KEY, job int REFERENCES job ON DELETE CASCADE); ALTER TABLE mid OWNER TO app;
             INSERT INTO mid SELECT id, id FROM job;
             CREATE TABLE fk (id int, mid int REFERENCES mid) PARTITION BY LIST (id);
             CREATE TABLE fk1 PARTITION OF fk FOR VALUES IN (1); CREATE TABLE fk2 PARTITION OF fk FOR VALUES IN (2);
             ALTER TABLE fk2 OWNER TO evil",
            "fk2",
        ),
        (
            "behind_a_rule",
            "CREATE TABLE mid (id int PRIMARY KEY); ALTER TABLE mid OWNER TO app; INSERT INTO mid SELECT id FROM job;
             CREATE RULE mid AS ON DELETE TO job DO ALSO DELETE FROM mid WHERE id = OLD.id;
             CREATE TABLE fk (id int, mid int REFERENCES mid) PARTITION BY LIST (id);
             CREATE TABLE fk1 PARTITION OF fk FOR VALUES IN (1); CREATE TABLE fk2 PARTITION OF fk FOR VALUES IN (2);
             ALTER TABLE fk2 OWNER TO evil",
            "fk2",
        ),
        ("given_away", "CREATE TABLE fk (id int, job int REFERENCES job); ALTER TABLE fk OWNER TO evil", "fk"),
    ] {
        let (_cluster, mut client) = database(name);
        client.batch_execute(setup).unwrap();
        client.batch_execute(&planted(table)).unwrap();
        if name == "given_away" {
            client.batch_execute("ALTER TABLE fk OWNER TO app").unwrap();
        }
        assert_eq!(refused_by_all(&mut client).len(), RUNS, "{name}");
        assert_eq!(found(&mut client, "others").0, "fail");
    }
}

#[test]
fn who_may_only_use_a_type_or_reference_a_table_stops_no_run_of_others() {
    let (_cluster, mut client) = database("stranger");
    client
        .batch_execute(
            "DO $$ BEGIN CREATE ROLE staff; EXCEPTION WHEN duplicate_object OR unique_violation THEN END $$;
             GRANT staff TO evil; GRANT CREATE ON SCHEMA public TO staff;
             CREATE TYPE st AS ENUM ('failed', 'completed', 'pending', 'processing'); ALTER TYPE st OWNER TO app;
             CREATE DOMAIN q AS text; ALTER DOMAIN q OWNER TO app;
             CREATE FUNCTION same(st, st) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT true'; ALTER FUNCTION same OWNER TO app;
             CREATE OPERATOR == (LEFTARG = st, RIGHTARG = st, FUNCTION = same); ALTER OPERATOR == (st, st) OWNER TO app;
             ALTER TABLE job ALTER state DROP DEFAULT, ALTER state TYPE st USING state::st, ALTER queue TYPE q,
                 ADD CHECK (state == state);
             GRANT REFERENCES ON job TO evil; CREATE TABLE own (id int); ALTER TABLE own OWNER TO evil",
        )
        .unwrap();
    client.batch_execute(&planted("own")).unwrap();
    client
        .batch_execute(
            "CREATE SCHEMA evil AUTHORIZATION evil; GRANT ALL ON SCHEMA evil TO staff; SET ROLE evil; CREATE TYPE evil.ty AS (a int);
             CREATE FUNCTION evil.to_st(evil.ty) RETURNS st LANGUAGE sql AS $$SELECT 'failed'::st$$;
             CREATE CAST (evil.ty AS st) WITH FUNCTION evil.to_st(evil.ty) AS ASSIGNMENT;
             CREATE FUNCTION evil.of_st(st) RETURNS evil.ty LANGUAGE sql AS $$SELECT ROW(1)::evil.ty$$;
             CREATE CAST (st AS evil.ty) WITH FUNCTION evil.of_st(st) AS IMPLICIT;
             CREATE FUNCTION evil.of_q(q) RETURNS evil.ty LANGUAGE sql AS $$SELECT ROW(1)::evil.ty$$;
             CREATE CAST (q AS evil.ty) WITH FUNCTION evil.of_q(q) AS ASSIGNMENT;
             CREATE FUNCTION evil.text(st) RETURNS text LANGUAGE sql AS $$SELECT 'x'::text$$;
             CREATE DOMAIN evil.d AS st CHECK (public.tell()); CREATE TYPE evil.r AS RANGE (SUBTYPE = st);
             CREATE FUNCTION evil.eq(st, st) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT public.tell()';
             CREATE OPERATOR evil.= (LEFTARG = st, RIGHTARG = st, FUNCTION = evil.eq);
             CREATE TABLE evil.plain (id int, job int REFERENCES job ON DELETE SET NULL, s st DEFAULT 'failed'::evil.d);
             CREATE INDEX ON evil.plain (job) WHERE public.tell();
             CREATE TABLE evil.fk (id int, job int REFERENCES job) PARTITION BY LIST (id);
             CREATE TABLE evil.fk1 PARTITION OF evil.fk FOR VALUES IN (1); CREATE INDEX ON evil.fk1 (job) WHERE public.tell();
             ALTER TABLE evil.fk1 OWNER TO staff",
        )
        .unwrap();
    // A link from another role's operator, which the planner would follow.
    let (sqlstate, ..) = refused(client.batch_execute(
        "CREATE OPERATOR evil.=== (LEFTARG = st, RIGHTARG = st, FUNCTION = evil.eq, COMMUTATOR = OPERATOR(public.==))",
    ));
    assert_eq!(sqlstate, "42501");
    client.batch_execute("RESET ROLE").unwrap();
    let details: Vec<String> = value(
        &mut client,
        "SELECT array_agg(detail ORDER BY detail) FROM backlog_cleanup_doctor('t') WHERE check_name = 'others' AND status = 'warn'",
    );
    assert_eq!(
        details,
        [
            "a removal changes evil.plain of role evil, whose triggers there run as role app: one role should own both",
            "table evil.fk1 belongs to role \"staff\", and would run as role \"evil\", who owns \"evil.plain\""
        ]
    );
    assert_eq!(refused_by_all(&mut client), [""; 0]);
    assert_eq!(count(&mut client, "SELECT count(*) FROM job"), 0);
}

#[test]
fn a_failure_type_is_read_with_no_operator_of_the_search_path() {
    let (_cluster, mut client) = database("failure_operator");
    client
        .batch_execute(
            "CREATE SCHEMA shared; GRANT ALL ON SCHEMA shared TO PUBLIC;
             ALTER TABLE job ALTER error TYPE jsonb USING '[{\"message\": \"x\"}]', ALTER at SET DEFAULT now() - interval '10 hours';
             UPDATE job SET at = DEFAULT; CREATE TABLE own (id int); ALTER TABLE own OWNER TO evil;
             UPDATE backlog_cleanup.target SET search_path = 'public, shared, pg_catalog' WHERE name = 't'",
        )
        .unwrap();
    client.batch_execute(&planted("own")).unwrap();
    for types in ["text, text", "jsonb, jsonb", "name, text", "name, name", "tid, tid", "int, int", "bigint, bigint"] {
        let (left, right) = types.split_once(", ").unwrap();
        client
            .batch_execute(&format!(
                "SET ROLE evil; CREATE FUNCTION shared.eq({types}) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT public.tell()';
                 CREATE OPERATOR shared.= (LEFTARG = {left}, RIGHTARG = {right}, FUNCTION = shared.eq); RESET ROLE"
            ))
            .unwrap();
    }
    for kind in ["jsonb", "json"] {
        client.batch_execute(&format!("ALTER TABLE job ALTER error TYPE {kind} USING error::{kind}; INSERT INTO job (id, error) SELECT i, '[{{\"message\": \"x\"}}]' FROM generate_series(1, 50) i ON CONFLICT DO NOTHING")).unwrap();
        assert_eq!(refused_by_all(&mut client), [""; 0], "{kind}");
        client.batch_execute("SET ROLE op; SELECT backlog_cleanup_failed_generations('t', failure_type => 'x', dry_run => true); RESET ROLE").unwrap();
        assert_eq!(count(&mut client, RAN), 0, "{kind}");
    }
}

#[test]
fn a_run_plans_no_partition_of_another_owner_of_a_table_that_references_the_target() {
    let (_cluster, mut client) = database("referencing");
    client
        .batch_execute(
            "CREATE TABLE r (LIKE job INCLUDING DEFAULTS, parent int, PRIMARY KEY (id, owner)) PARTITION BY LIST (owner);
             CREATE TABLE r1 PARTITION OF r FOR VALUES IN ('w'); CREATE TABLE r2 PARTITION OF r FOR VALUES IN ('v');
             ALTER TABLE r ADD FOREIGN KEY (parent, owner) REFERENCES r; INSERT INTO r (id) SELECT generate_series(1, 100);
             UPDATE backlog_cleanup.target SET generations_table = 'public.r' WHERE name = 't';
             ALTER TABLE r2 OWNER TO evil",
        )
        .unwrap();
    client.batch_execute(&planted("r2")).unwrap();
    client.batch_execute("SET ROLE op").unwrap();
    for call in
        ["SELECT backlog_cleanup_emergency('t')", "SELECT backlog_cleanup_failed_generations('t', rehearse => true)"]
    {
        let (sqlstate, message, _) = refused(client.batch_execute(call));
        assert_eq!((sqlstate.as_str(), message.starts_with("function public.tell()")), ("42501", true), "{message}");
    }
    client.batch_execute("RESET ROLE").unwrap();
    assert_eq!(count(&mut client, RAN), 0);
}

#[test]
fn what_a_ledger_references_is_asked_only_where_no_other_role_has_code() {
    let (_cluster, mut client) = database("ledger_reference");
    client
        .batch_execute(
            "CREATE TABLE acc (id text PRIMARY KEY); CREATE TABLE acc2 () INHERITS (acc); INSERT INTO acc VALUES ('w');
             ALTER TABLE acc2 OWNER TO evil; ALTER TABLE ledger OWNER TO app; GRANT REFERENCES ON acc TO app;
             ALTER TABLE ledger ADD FOREIGN KEY (user_id) REFERENCES acc;
             UPDATE backlog_cleanup.target SET ledger_table = 'public.ledger' WHERE name = 't'",
        )
        .unwrap();
    client.batch_execute(&planted("acc2")).unwrap();
    for (role, call) in [
        ("mon", "SELECT * FROM backlog_cleanup_doctor('t')"),
        ("op", "SELECT backlog_cleanup_failed_generations('t', dry_run => true)"),
    ] {
        client.batch_execute(&format!("SET ROLE {role}; {call}; RESET ROLE")).unwrap();
        assert_eq!(count(&mut client, RAN), 0, "{call}");
    }
}

#[test]
fn a_level_is_revoked_and_granted_whatever_the_session_has_set() {
    let (cluster, mut client) = database("quoted");
    let executable = "SELECT count(*) FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
                      WHERE (p.proname ~ '^backlog_cleanup' OR n.nspname = 'backlog_cleanup')
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
fn rows_of_accounts_that_are_only_called_equal_stay() {
    let (_cluster, mut client) = database("accounts");
    client
        .batch_execute(
            "CREATE COLLATION ci (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
             DELETE FROM job;
             ALTER TABLE job ALTER owner TYPE text COLLATE ci, ALTER queue TYPE text COLLATE ci;
             INSERT INTO job (id, owner, queue)
             SELECT i, CASE WHEN i % 2 = 0 THEN 'w' ELSE 'W' END, CASE WHEN i % 4 < 2 THEN 'a' ELSE 'A' END FROM generate_series(1, 80) i",
        )
        .unwrap();
    let others = "SELECT count(*) FROM job WHERE owner COLLATE \"C\" = 'W'";
    let total = "SELECT sum(total_count) FROM backlog_cleanup_status('t')";
    assert_eq!(count(&mut client, total), 40);
    let selected = "SELECT backlog_cleanup_emergency('t', recipe_id => 'A') ->> 'removedCount'";
    assert_eq!(count(&mut client, selected), 20);
    for run in ["CALL backlog_cleanup_run('t')", "SELECT backlog_cleanup_emergency('t')"] {
        client.batch_execute(run).unwrap();
        assert_eq!(count(&mut client, others), 40, "{run}");
    }
    assert_eq!(count(&mut client, "SELECT count(*) FROM job"), 40);

    // What the type cuts off is the value of other rows, and is refused.
    for (column, account, stored) in [
        ("\"char\" USING 's'", "system", "s"),
        ("name USING repeat('s', 63)", &"s".repeat(64), &"s".repeat(63)),
        ("float4 USING 16777217", "16777217", "1.6777216e+07"),
        ("char(9) USING 's'", "s ", "s"),
    ] {
        client.batch_execute(&format!("ALTER TABLE job ALTER owner DROP DEFAULT, ALTER owner TYPE {column}")).unwrap();
        client.batch_execute("ALTER TABLE backlog_cleanup.target DISABLE TRIGGER USER").unwrap();
        let write = format!("UPDATE backlog_cleanup.target SET account = '{account}' WHERE name = 't'");
        client.batch_execute(&write).unwrap();
        client.batch_execute("ALTER TABLE backlog_cleanup.target ENABLE TRIGGER USER").unwrap();
        client.batch_execute("SELECT backlog_cleanup_emergency('t')").unwrap();
        assert_eq!(count(&mut client, "SELECT count(*) FROM job"), 40, "{column}");
        let (sqlstate, message, _) = refused(client.batch_execute("SELECT backlog_cleanup_check('t')"));
        let said = format!("\"{account}\" becomes \"{stored}\"");
        assert_eq!((sqlstate.as_str(), message.contains(&said)), ("22023", true), "{message}");
        client.batch_execute("ALTER TABLE job ALTER owner TYPE text USING 's'").unwrap();
    }
}

#[test]
fn no_setting_of_the_caller_says_when_a_row_has_failed() {
    let (cluster, mut client) = database("abbreviations");
    let write = |zone: &str| format!("UPDATE backlog_cleanup.target SET time_zone = '{zone}' WHERE name = 't'");
    for zone in ["EST", "est", "IST", "CST", "MST", "CET", "CEST"] {
        assert_eq!(refused(client.batch_execute(&write(zone))).0, "22023", "{zone}");
    }
    for zone in ["UTC", "GMT", "America/New_York", "EST5EDT", "-05:00", "UTC+5"] {
        client.batch_execute(&write(zone)).unwrap();
    }
    // One from before it was refused.
    client
        .batch_execute(&format!(
            "ALTER TABLE backlog_cleanup.target DISABLE TRIGGER USER; {};
             ALTER TABLE backlog_cleanup.target ENABLE TRIGGER USER;
             ALTER TABLE job ALTER at DROP DEFAULT, ALTER at TYPE timestamp USING timezone('EST', now() - interval '10 hours')",
            write("EST")
        ))
        .unwrap();
    let mut operator = cluster.connect_to("abbreviations");
    operator.batch_execute("SET SESSION AUTHORIZATION op; SET timezone_abbreviations = 'Australia'").unwrap();
    operator.batch_execute("SELECT backlog_cleanup_failed_generations('t')").unwrap();
    operator.batch_execute("CALL backlog_cleanup_run('t')").unwrap();
    assert_eq!(count(&mut client, "SELECT count(*) FROM job"), 100);
}

#[test]
fn labels_that_are_swapped_between_two_batches_refuse_the_next() {
    let (_cluster, mut client) = database("labels");
    client
        .batch_execute(
            "CREATE TYPE rt AS ENUM ('A', 'B'); CREATE DOMAIN rd AS rt;
             ALTER TABLE job ALTER queue DROP DEFAULT, ALTER queue TYPE rd USING CASE WHEN id % 2 = 0 THEN 'A' ELSE 'B' END::rd;
             UPDATE job SET at = at - interval '1 day' * (id % 2)",
        )
        .unwrap();
    let start = "SELECT backlog_cleanup.start_run('{\"target\":\"t\",\"mode\":\"regular\",\"batch_size\":10,\"pause\":\"0\",\"workers\":1,\"force\":false}')";
    let run = count(&mut client, start);
    let next = format!("SELECT backlog_cleanup.next_batch({run})");
    client.batch_execute(&next).unwrap();
    client.batch_execute("ALTER TYPE rt ADD VALUE 'C'").unwrap();
    client.batch_execute(&next).unwrap();
    client
        .batch_execute(
            "ALTER TYPE rt RENAME VALUE 'A' TO 'X'; ALTER TYPE rt RENAME VALUE 'B' TO 'A'; ALTER TYPE rt RENAME VALUE 'X' TO 'B'",
        )
        .unwrap();
    client.batch_execute("VACUUM FULL job").unwrap();
    assert_eq!(refused(client.batch_execute(&next)).0, "55000");
    assert_eq!(count(&mut client, "SELECT count(*) FROM job"), 80);
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
fn a_role_that_may_only_reference_a_table_keeps_nobody_from_looking() {
    let (_cluster, mut client) = database("waiting");
    client
        .batch_execute(
            "GRANT REFERENCES ON job TO evil; SET ROLE evil; CREATE TABLE fk (id int REFERENCES job); INSERT INTO fk VALUES (1);
             CREATE FUNCTION public.wait() RETURNS boolean LANGUAGE plpgsql IMMUTABLE
             AS $$BEGIN IF current_setting('evil.ready', true) = 'yes' THEN PERFORM pg_sleep(60); RAISE 'boom'; END IF; RETURN true; END$$;
             CREATE INDEX ON fk (id) WHERE public.wait(); SET evil.ready = 'yes'; RESET ROLE; SET statement_timeout = '30s'",
        )
        .unwrap();
    for (role, call) in [
        ("mon", "SELECT * FROM backlog_cleanup_doctor('t')"),
        ("op", "SELECT backlog_cleanup_failed_generations('t', dry_run => true)"),
    ] {
        client.batch_execute(&format!("SET ROLE {role}; {call}; RESET ROLE")).unwrap();
    }
    let (_, detail, _) = found(&mut client, "referenced");
    assert!(detail.ends_with("was not looked at: it belongs to role \"evil\""), "{detail}");
    // Nor is what a ledger references.
    client
        .batch_execute(
            "SET evil.ready = 'no'; SET ROLE evil; CREATE TABLE acc (id text PRIMARY KEY); INSERT INTO acc VALUES ('w');
             CREATE INDEX ON acc (id) WHERE public.wait(); GRANT REFERENCES ON acc TO app; RESET ROLE;
             ALTER TABLE ledger OWNER TO app, ADD FOREIGN KEY (user_id) REFERENCES acc;
             UPDATE backlog_cleanup.target SET ledger_table = 'public.ledger' WHERE name = 't'; SET evil.ready = 'yes'",
        )
        .unwrap();
    let (status, detail, _) = found(&mut client, "ledger_row");
    assert!(status == "ok" && detail.ends_with("references public.acc, which is not looked at"), "{detail}");
    // An error in a table that may be looked at is only said.
    client.batch_execute("ALTER TABLE fk OWNER TO app; ALTER FUNCTION public.wait() OWNER TO app").unwrap();
    client
        .batch_execute(
            "SET ROLE app; CREATE OR REPLACE FUNCTION public.wait() RETURNS boolean LANGUAGE plpgsql IMMUTABLE
                          AS $$BEGIN RAISE 'boom'; END$$; RESET ROLE",
        )
        .unwrap();
    let (_, detail, _) = found(&mut client, "referenced");
    assert!(detail.ends_with("was not looked at: its table cannot be read"), "{detail}");
}
