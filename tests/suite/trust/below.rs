//! Code below a table.

use cluster::refused;

use super::{count, database, found};

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
    // Whatever else is wrong with it.
    let with_mistakes = ["recipe_column = 'quee'", "batch_size = -1", "batch_size = -1, recipe_column = 'quee'"]
        .map(|wrong| write.replace(" WHERE", &format!(", {wrong} WHERE")));
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
        let calls = ["SELECT * FROM backlog_cleanup_status('t')", "SELECT backlog_cleanup_emergency('t')", write];
        for call in calls.into_iter().chain(with_mistakes.iter().map(String::as_str)) {
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
fn no_code_of_the_type_of_a_status_runs_before_it_is_refused() {
    let (_cluster, mut client) = database("code_of_statuses");
    client
        .batch_execute(
            "CREATE SCHEMA evil; GRANT ALL ON SCHEMA evil TO evil; GRANT USAGE ON SCHEMA evil TO PUBLIC;
             CREATE SEQUENCE ran; GRANT ALL ON ran TO PUBLIC",
        )
        .unwrap();
    for (base, status) in [
        ("int", "1"),
        ("boolean", "yes"),
        ("name", "failed"),
        ("\"char\"", "f"),
        ("char(6)", "failed"),
        ("varchar", "failed"),
        ("text", "failed"),
    ] {
        let target = format!(
            "INSERT INTO backlog_cleanup.target (name, generations_table, recipes_table, users_table, ledger_table, account_column,
                recipe_column, status_column, failed_at_column, failure_type_column, account, statuses, completed_status,
                pending_status, processing_status)
             VALUES ('v', 'public.vic', NULL, NULL, NULL, 'owner', 'queue', 'state', 'at', 'error', 'w', '{{{status}}}', '{{}}', '{{}}', '{{}}')"
        );
        client
            .batch_execute(&format!(
                "CREATE DOMAIN evil.st AS {base};
                 CREATE TABLE vic (id int PRIMARY KEY, owner text, queue text, state evil.st, at timestamptz, error text);
                 {target};
                 ALTER DOMAIN evil.st OWNER TO evil; SET ROLE evil;
                 CREATE FUNCTION evil.ok({base}) RETURNS boolean LANGUAGE plpgsql AS
                 $$BEGIN PERFORM nextval('public.ran'); RETURN true; END$$;
                 ALTER DOMAIN evil.st ADD CHECK (evil.ok(VALUE)) NOT VALID; RESET ROLE"
            ))
            .unwrap();
        for call in [
            "SELECT * FROM backlog_cleanup_status('v')",
            "SELECT backlog_cleanup_failed_generations('v')",
            "SELECT backlog_cleanup_emergency('v', dry_run => true)",
            "CALL backlog_cleanup_run('v')",
            "UPDATE backlog_cleanup.target SET completed_status = '{9}' WHERE name = 'v'",
            "UPDATE backlog_cleanup.target SET recipe_column = 'quee' WHERE name = 'v'",
            "SELECT * FROM backlog_cleanup_explain('1', 'v')",
        ] {
            let (sqlstate, message, _) = refused(client.batch_execute(call));
            assert_eq!(sqlstate, "42501", "{base} {call}: {message}");
        }
        client.batch_execute("SELECT backlog_cleanup_tick(); SELECT * FROM backlog_cleanup_doctor('v')").unwrap();
        client.batch_execute("DELETE FROM backlog_cleanup.target WHERE name = 'v'").unwrap();
        assert_eq!(refused(client.batch_execute(&target)).0, "42501", "{base}");
        assert_eq!(count(&mut client, "SELECT is_called::int::bigint FROM ran"), 0, "{base}: code of evil has run");
        client
            .batch_execute(&format!("DROP TABLE vic; DROP DOMAIN evil.st CASCADE; DROP FUNCTION evil.ok({base})"))
            .unwrap();
    }
}
