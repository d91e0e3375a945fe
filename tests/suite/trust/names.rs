//! Names that another role gives to another object while a run is at work.

use std::thread;

use cluster::{number as count, refused, until_true};
use postgres::Client;

use super::database;

/// Code of `evil` that tells that another role has run it, and what the superuser's triggers need.
const SETUP: &str = "
    CREATE SCHEMA evil AUTHORIZATION evil; CREATE SCHEMA safe; GRANT USAGE ON SCHEMA evil, safe TO PUBLIC; SET ROLE evil;
    CREATE SEQUENCE evil.ran; GRANT ALL ON SEQUENCE evil.ran TO PUBLIC;
    CREATE FUNCTION evil.tell() RETURNS boolean LANGUAGE plpgsql IMMUTABLE
    AS $$BEGIN IF current_user <> 'evil' THEN PERFORM nextval('evil.ran'); END IF; RETURN true; END$$; RESET ROLE;
    CREATE SCHEMA data; GRANT USAGE ON SCHEMA data TO PUBLIC;
    CREATE TABLE data.p (LIKE job INCLUDING DEFAULTS) PARTITION BY RANGE (id);
    CREATE TABLE data.p1 PARTITION OF data.p FOR VALUES FROM (0) TO (100); CREATE TABLE data.p2 PARTITION OF data.p FOR VALUES FROM (100) TO (200);
    INSERT INTO data.p (id) SELECT generate_series(0, 199);
    UPDATE backlog_cleanup.target SET generations_table = 'data.p' WHERE name = 't';
    -- Keeps a run in the first partition while the lock is held.
    CREATE FUNCTION safe.wait() RETURNS trigger LANGUAGE plpgsql AS
        $$BEGIN PERFORM pg_advisory_xact_lock(7); IF OLD.id = 50 THEN RAISE 'no'; END IF; RETURN OLD; END$$;
    CREATE TRIGGER wait BEFORE DELETE ON data.p1 FOR EACH ROW WHEN (OLD.id IN (0, 50)) EXECUTE FUNCTION safe.wait()";

/// Has `swap` be done as `evil` while each run is in its first partition, and checks that the run ends and has called nothing of `evil`.
fn no_run_takes_another(name: &str, setup: &str, swap: &str, back: &str) {
    let (cluster, mut client) = database(name);
    client.batch_execute(SETUP).unwrap();
    client.batch_execute(setup).unwrap();
    let rows = count(&mut client, "SELECT count(*) FROM data.p");
    let schema = "(SELECT nspname FROM pg_extension JOIN pg_namespace n ON n.oid = extnamespace WHERE extname = 'backlog_cleanup')";
    for call in ["SELECT backlog_cleanup_failed_generations('t')", "SELECT backlog_cleanup_emergency('t')"] {
        client.batch_execute("SELECT pg_advisory_lock(7)").unwrap();
        let mut operator: Client = cluster.connect_to(name);
        let run = thread::spawn(move || {
            operator.batch_execute("SET SESSION AUTHORIZATION op").unwrap();
            refused(operator.batch_execute(call))
        });
        until_true(
            &mut client,
            "SELECT count(*) > 0 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted
             AND database = (SELECT oid FROM pg_database WHERE datname = current_database())",
        );
        cluster
            .connect_to(name)
            .batch_execute(&format!("SET SESSION AUTHORIZATION evil; BEGIN; {swap}; COMMIT"))
            .unwrap();
        client.batch_execute("SELECT pg_advisory_unlock(7)").unwrap();
        let (sqlstate, message, _) = run.join().unwrap();
        // That a table has another name is seen first where the table is taken up again, and that a type has none of its operators
        // where a statement is analysed.
        let is_told =
            sqlstate == "55000" && message.contains("in the place of") || ["40001", "42883"].contains(&&*sqlstate);
        assert!(is_told, "{name}: {sqlstate} {message}");
        client.batch_execute(back).unwrap();
        assert_eq!(count(&mut client, "SELECT is_called::int::bigint FROM evil.ran"), 0, "{name}: {call}");
        assert_eq!(count(&mut client, "SELECT count(*) FROM data.p"), rows, "{name}: {call}");
        assert_eq!(count(&mut client, &format!("SELECT ({schema} = 'public')::int::bigint")), 1);
    }
    client.batch_execute("DROP FUNCTION safe.wait CASCADE").unwrap();
    client.batch_execute("SELECT backlog_cleanup_emergency('t')").unwrap();
    assert_eq!(count(&mut client, "SELECT count(*) FROM data.p"), 0, "{name}");
}

#[test]
fn no_function_operator_or_type_that_comes_under_a_name_during_a_run_is_called() {
    let of_evil = "CREATE SCHEMA ext AUTHORIZATION evil; GRANT USAGE ON SCHEMA ext TO PUBLIC";
    no_run_takes_another(
        "name_of_a_function",
        &format!(
            "{of_evil}; CREATE FUNCTION ext.norm(text) RETURNS text IMMUTABLE LANGUAGE sql AS 'SELECT $1';
             UPDATE backlog_cleanup.target SET status_column = '(ext.norm(state))' WHERE name = 't'"
        ),
        "DROP FUNCTION ext.norm(text); CREATE FUNCTION ext.norm(text) RETURNS text IMMUTABLE LANGUAGE plpgsql
         AS 'BEGIN PERFORM evil.tell(); RETURN $1; END'",
        "DROP FUNCTION ext.norm(text); CREATE FUNCTION ext.norm(text) RETURNS text IMMUTABLE LANGUAGE sql AS 'SELECT $1'",
    );
    let operator = "CREATE OPERATOR ext.=== (LEFTARG = text, RIGHTARG = text, FUNCTION = pg_catalog.texteq)";
    no_run_takes_another(
        "name_of_an_operator",
        &format!(
            "{of_evil}; {operator};
             UPDATE backlog_cleanup.target SET condition = '(state OPERATOR(ext.===) ''failed''::text)' WHERE name = 't'"
        ),
        "DROP OPERATOR ext.=== (text, text);
         CREATE FUNCTION ext.eq(text, text) RETURNS boolean IMMUTABLE LANGUAGE sql AS 'SELECT evil.tell()';
         CREATE OPERATOR ext.=== (LEFTARG = text, RIGHTARG = text, FUNCTION = ext.eq)",
        &format!("DROP OPERATOR ext.=== (text, text); DROP FUNCTION ext.eq; {operator}"),
    );
    no_run_takes_another(
        "name_of_a_type",
        &format!(
            "{of_evil}; CREATE DOMAIN ext.d AS text;
             UPDATE backlog_cleanup.target SET condition = '(state::ext.d = ''failed'')' WHERE name = 't'"
        ),
        "DROP DOMAIN ext.d; CREATE DOMAIN ext.d AS text CHECK (evil.tell())",
        "DROP DOMAIN ext.d; CREATE DOMAIN ext.d AS text",
    );
    let collation = "CREATE COLLATION ext.c (provider = icu, locale = 'und')";
    no_run_takes_another(
        "name_of_a_collation",
        &format!(
            "{of_evil}; {collation};
             UPDATE backlog_cleanup.target SET condition = '(state = ''failed'' COLLATE ext.c)' WHERE name = 't'"
        ),
        "DROP COLLATION ext.c; CREATE COLLATION ext.c (provider = icu, locale = 'und-u-ks-level2', deterministic = false)",
        &format!("DROP COLLATION ext.c; {collation}"),
    );
}

#[test]
fn no_value_is_read_by_a_type_that_comes_under_a_name_during_a_run() {
    // As an array, it would have domain_in call the CHECK before anything is known of the statement.
    no_run_takes_another(
        "name_of_an_array",
        "GRANT CREATE ON DATABASE name_of_an_array TO evil; CREATE SCHEMA typ AUTHORIZATION evil; GRANT USAGE ON SCHEMA typ TO PUBLIC;
         CREATE DOMAIN typ.st AS text; ALTER TABLE data.p ALTER state DROP DEFAULT, ALTER state TYPE typ.st USING '{x}';
         UPDATE backlog_cleanup.target SET statuses = '{\"{x}\"}' WHERE name = 't'",
        "ALTER SCHEMA typ RENAME TO typ2; CREATE SCHEMA typ; GRANT USAGE ON SCHEMA typ TO PUBLIC;
         CREATE DOMAIN evil.d AS text CHECK (evil.tell()); CREATE DOMAIN typ.st AS evil.d[]",
        "DROP SCHEMA typ CASCADE; DROP DOMAIN evil.d; ALTER SCHEMA typ2 RENAME TO typ",
    );
}

#[test]
fn who_owns_the_schema_of_the_extension_has_no_run_call_a_function_of_theirs() {
    no_run_takes_another(
        "name_of_the_schema",
        "ALTER SCHEMA public OWNER TO evil; GRANT CREATE ON DATABASE name_of_the_schema TO evil;
         SELECT backlog_cleanup_set_policy(target => 't', failure_type => 'legal', enabled => false)",
        "ALTER SCHEMA public RENAME TO public2; CREATE SCHEMA public; GRANT USAGE ON SCHEMA public TO PUBLIC;
         CREATE FUNCTION public.backlog_cleanup_fingerprint(text) RETURNS text IMMUTABLE LANGUAGE plpgsql
         AS 'BEGIN PERFORM evil.tell(); RETURN $1; END'",
        "DROP SCHEMA public CASCADE; ALTER SCHEMA public2 RENAME TO public",
    );
}

#[test]
fn who_owns_the_schema_of_a_table_has_no_run_take_another_table() {
    no_run_takes_another(
        "name_of_a_table",
        "ALTER TABLE data.p DETACH PARTITION data.p1; DROP TABLE data.p; ALTER TABLE data.p1 RENAME TO p;
         UPDATE backlog_cleanup.target SET generations_table = 'data.p' WHERE name = 't';
         ALTER SCHEMA data OWNER TO evil; GRANT CREATE ON DATABASE name_of_a_table TO evil",
        "ALTER SCHEMA data RENAME TO data2; CREATE SCHEMA data; GRANT USAGE ON SCHEMA data TO PUBLIC;
         CREATE TABLE data.p AS TABLE data2.p WITH NO DATA; INSERT INTO data.p (id, owner, state, at) SELECT i, 'w', 'failed', '2020-01-01' FROM generate_series(0, 99) i;
         CREATE FUNCTION evil.trg() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM evil.tell(); RETURN OLD; END';
         CREATE TRIGGER x BEFORE DELETE ON data.p FOR EACH ROW EXECUTE FUNCTION evil.trg()",
        "DROP SCHEMA data CASCADE; DROP FUNCTION evil.trg; ALTER SCHEMA data2 RENAME TO data",
    );
}
