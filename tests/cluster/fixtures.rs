use postgres::Client;

use crate::cluster::Cluster;
use crate::value;

/// A table `seen` of the roles as whom the trigger function `see` has run.
pub const SEE: &str = "
    CREATE TABLE seen (who name);
    GRANT INSERT ON seen TO PUBLIC;
    CREATE FUNCTION see() RETURNS trigger LANGUAGE plpgsql AS
        'BEGIN INSERT INTO public.seen VALUES (current_user); RETURN OLD; END'";

/// The platform's tables, empty, and the extension, in the database of a session.
pub fn platform_of(mut client: Client) -> Client {
    client.batch_execute(include_str!("../../demo/platform.sql")).expect("the platform's tables");
    client.batch_execute("CREATE EXTENSION backlog_cleanup").expect("the extension");
    client
}

/// Gives the platform's tables to a role.
pub fn own_by(client: &mut Client, role: &str) {
    client.batch_execute(&format!("GRANT USAGE ON SCHEMA public TO {role}")).expect("a role");
    for table in ["generations", "recipes", "users", "credit_transactions"] {
        client.batch_execute(&format!("ALTER TABLE {table} OWNER TO {role}")).expect("a table of the platform");
    }
}

/// A server with pg_cron in its database `postgres`.
pub fn with_pg_cron() -> Cluster {
    let cluster = Cluster::start_with_pg_cron();
    cluster.connect().batch_execute("CREATE EXTENSION pg_cron").expect("pg_cron");
    cluster
}

/// Failed rows of a recipe, two days old, all of one age.
pub fn fail(client: &mut Client, recipe: i32, rows: i32) {
    client
        .batch_execute(&format!(
            "INSERT INTO generations (user_id, recipe_id, prompt, status, updated_at)
             SELECT 'system_backlog', {recipe}, '', 'failed', now() AT TIME ZONE 'UTC' - interval '2 days'
             FROM generate_series(1, {rows})"
        ))
        .expect("the rows");
}

/// Failed rows of the recipes 0 to 2 and of none, older than two days, one in each second, in no order of age.
pub fn fail_in_any_order(client: &mut Client, rows: i32) {
    client
        .batch_execute(&format!(
            "INSERT INTO generations (user_id, recipe_id, prompt, status, updated_at)
             SELECT 'system_backlog', nullif(i % 4, 3), '', 'failed',
                    now() AT TIME ZONE 'UTC' - interval '2 days' - interval '1 second' * (i * 7919 % {rows})
             FROM generate_series(1, {rows}) i"
        ))
        .expect("the rows");
}

/// A trigger that keeps the rows of a table for which a condition holds.
pub fn veto(client: &mut Client, table: &str, condition: &str) {
    client
        .batch_execute(&format!(
            "CREATE FUNCTION veto() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
             CREATE TRIGGER veto BEFORE DELETE ON {table} FOR EACH ROW WHEN ({condition}) EXECUTE FUNCTION veto()"
        ))
        .expect("the trigger");
}

/// Creates the index of a target.
pub fn create_index(client: &mut Client, target: &str) {
    let index: String = value(client, &format!("SELECT backlog_cleanup_index_sql('{target}')"));
    client.batch_execute(&index).expect("the index");
}

/// The start of a batched run by hand, so that what happens between two batches happens there; returns its id.
pub fn start_run(batch_size: i32) -> String {
    format!(
        r#"SELECT backlog_cleanup.start_run('{{"target": "generations", "mode": "regular", "batch_size": {batch_size},
                                              "pause": "0", "workers": 1, "force": false, "include_held": false}}')"#
    )
}

/// The state of the last run of `generations`, as status says it.
pub fn last_state(client: &mut Client) -> Option<String> {
    value(client, "SELECT backlog_cleanup_status_json() #>> '{lastRun,state}'")
}

/// A table of job attempts of an ordinary role, with a target `t`.
pub const JOBS: &str = "
    CREATE ROLE app;
    CREATE TABLE job (id int PRIMARY KEY, owner text DEFAULT 'w', queue text DEFAULT 'a', state text DEFAULT 'failed',
                      at timestamptz DEFAULT now() - interval '9 days', error text);
    CREATE TABLE ledger (id serial PRIMARY KEY, user_id text, amount int, type text, description text, created_at timestamptz);
    ALTER TABLE job OWNER TO app;
    ALTER TABLE ledger OWNER TO app;
    GRANT USAGE ON SCHEMA public TO app;
    INSERT INTO job (id) SELECT generate_series(1, 100);
    CREATE EXTENSION backlog_cleanup;
    INSERT INTO backlog_cleanup.target (name, generations_table, recipes_table, users_table, ledger_table, account_column,
                                        recipe_column, status_column, failed_at_column, failure_type_column, account)
    VALUES ('t', 'public.job', NULL, NULL, 'public.ledger', 'owner', 'queue', 'state', 'at', 'error', 'w')";

/// The doctor's findings of a check of `t`: status, detail, fix.
pub fn findings(client: &mut Client, check: &str) -> Vec<(String, String, Option<String>)> {
    findings_of(client, "t", check)
}

/// The same of a target.
pub fn findings_of(client: &mut Client, target: &str, check: &str) -> Vec<(String, String, Option<String>)> {
    let rows = "SELECT status, detail, fix FROM backlog_cleanup_doctor($1) WHERE check_name = $2";
    let rows = client.query(rows, &[&target, &check]).expect("the doctor");
    rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect()
}

/// The one finding of a check of `t`.
pub fn finding(client: &mut Client, check: &str) -> (String, String, Option<String>) {
    let mut found = findings(client, check);
    assert_eq!(found.len(), 1, "{check}: {found:?}");
    found.remove(0)
}

/// Makes `raise(sqlstate, message)` and the trigger function `meet(sqlstate, message)`, whose errors are those of a server, not of a RAISE in
/// the code itself, whose SQLSTATE says nothing to a run.
pub fn genuine_errors(client: &mut Client) {
    client
        .batch_execute(
            "CREATE EXTENSION dblink;
             CREATE FUNCTION raise(sqlstate text, message text) RETURNS void LANGUAGE plpgsql SET search_path = public AS $f$
                 BEGIN
                     PERFORM dblink_exec(format('host=%s port=%s user=postgres dbname=%s', split_part(current_setting('unix_socket_directories'), ',', 1),
                                                current_setting('port'), current_database()),
                                         format('DO $$BEGIN RAISE EXCEPTION USING ERRCODE = %L, MESSAGE = %L; END$$', sqlstate, message));
                 END $f$;
             CREATE FUNCTION meet() RETURNS trigger LANGUAGE plpgsql SET search_path = public AS
                 'BEGIN PERFORM raise(TG_ARGV[0], TG_ARGV[1]); RETURN OLD; END'",
        )
        .expect("the functions");
}
