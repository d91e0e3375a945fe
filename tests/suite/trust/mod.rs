//! Whose code runs as whom, and what a level gets.

mod below;
mod expressions;
mod fixes;
mod guards;
mod keys;
mod levels;
mod locks;
mod names;
mod parts;
mod statements;
mod values;

use std::sync::Arc;

use cluster::{Cluster, number as count};
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
