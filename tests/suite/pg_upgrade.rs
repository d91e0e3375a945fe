//! pg_upgrade: nothing is lost, and everything works on. PG_UPGRADE_FROM is the `pg_config` of an earlier major; without
//! it, it goes from this major to this one.

use cluster::{Cluster, PG_CRON, balance, create_index, own_by, pg_config, refused, start_run, value};
use postgres::Client;

const ROLES: &str = "CREATE ROLE platform; CREATE ROLE watcher; CREATE ROLE runner; CREATE ROLE \"The Chief\"";

/// A target as it is and one of other types, in partitions; levels; runs of each kind.
const FILL: &str = "
    SELECT backlog_cleanup_grant('watcher', 'monitor'), backlog_cleanup_grant('runner', 'operator'),
           backlog_cleanup_grant('The Chief', 'admin');

    CREATE TABLE jobs (id uuid NOT NULL DEFAULT gen_random_uuid(), owner text NOT NULL DEFAULT 'batch', kind text, state text,
                       changed_at timestamptz, error text) PARTITION BY LIST (kind);
    CREATE TABLE jobs_mail PARTITION OF jobs FOR VALUES IN ('mail');
    CREATE TABLE jobs_rest PARTITION OF jobs DEFAULT;
    ALTER TABLE jobs OWNER TO platform; ALTER TABLE jobs_mail OWNER TO platform; ALTER TABLE jobs_rest OWNER TO platform;
    INSERT INTO backlog_cleanup.target (name, generations_table, recipes_table, users_table, ledger_table, account_column,
                                        recipe_column, status_column, failed_at_column, failure_type_column, account, max_share)
    VALUES ('jobs', 'public.jobs', NULL, NULL, NULL, 'owner', 'kind', 'state', 'changed_at', 'error', 'batch', 99);
    -- As the earlier versions let it in.
    SET session_replication_role = replica;
    INSERT INTO backlog_cleanup.policy (target, recipe_id, failure_type, max_age, keep, note)
    VALUES ('jobs', 'mail', 'bounced', '3 days', 1, 'of another''s making');
    RESET session_replication_role;
    INSERT INTO jobs (kind, state, changed_at, error)
    SELECT kind, 'failed', now() - interval '4 days', 'bounced' FROM unnest(ARRAY['mail', 'fax', NULL]) kind, generate_series(1, 15);

    INSERT INTO recipes (id, name, slug, description, prompt, category, credit_cost)
    SELECT recipe, 'Recipe ' || recipe, recipe, '', '', '', 1 FROM generate_series(1, 3) recipe;
    INSERT INTO generations (user_id, recipe_id, prompt, status, updated_at, failure_reason)
    SELECT 'system_backlog', recipe, '', 'failed', now() AT TIME ZONE 'UTC' - interval '2 days', 'timeout'
    FROM generate_series(1, 10) recipe, generate_series(1, 15);
    SELECT backlog_cleanup_failed_generations(recipe_id => '1'), backlog_cleanup_emergency(recipe_id => '2'),
           backlog_cleanup_failed_generations('jobs', recipe_id => 'fax')";

/// What there is of both targets and the books, and of the state that no dump carries.
const ROWS: &str = "
    SELECT 'rows', count(*), md5(string_agg(g::text, ' ' ORDER BY id)) FROM generations g
    UNION ALL SELECT 'jobs', count(*), md5(string_agg(j::text, ' ' ORDER BY id)) FROM jobs j
    UNION ALL SELECT 'part', count(*), md5(string_agg(p::text, ' ' ORDER BY part)) FROM backlog_cleanup.run_part p
    UNION ALL SELECT 'cutoff', count(*), md5(string_agg(c::text, ' ' ORDER BY place)) FROM backlog_cleanup.run_cutoff c
    UNION ALL SELECT 'batch', count(*), md5(string_agg(b::text, ' ' ORDER BY batch)) FROM backlog_cleanup.run_batch b";

fn rows(client: &mut Client) -> Vec<(String, i64, Option<String>)> {
    client.query(ROWS, &[]).unwrap().iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect()
}

/// All of a server as this major's pg_dumpall writes it, without what is of the moment.
fn dump(new: &Cluster, of: &Cluster) -> Vec<String> {
    let dump = new.program("pg_dumpall", &["-h", of.socket()]);
    let of_the_moment = |line: &&str| line.starts_with("--") || line.contains("restrict ");
    dump.lines().filter(|line| !of_the_moment(line)).map(str::to_owned).collect()
}

/// What is wrong: the checks that are not `ok`, each with what it says.
fn ill(client: &mut Client, target: &str) -> Vec<[String; 2]> {
    let ill = "SELECT check_name, detail FROM backlog_cleanup_doctor($1) WHERE status <> 'ok'";
    client.query(ill, &[&target]).unwrap().iter().map(|row| [0, 1].map(|column| row.get(column))).collect()
}

#[test]
fn what_was_there_before_is_there_afterwards_and_works() {
    let old = Cluster::start_of(&std::env::var("PG_UPGRADE_FROM").unwrap_or_else(|_| pg_config()), PG_CRON);
    let mut client = old.connect();
    for statement in ["CREATE EXTENSION pg_cron", ROLES, "CREATE DATABASE released"] {
        client.batch_execute(statement).unwrap();
    }
    // The library of this version is there, but not its schema.
    let mut released = old.connect_to("released");
    for (client, version) in [(&mut client, ""), (&mut released, "VERSION '0.1.0'")] {
        client.batch_execute(include_str!("../../demo/platform.sql")).unwrap();
        client.batch_execute(&format!("CREATE EXTENSION backlog_cleanup {version}")).unwrap();
        own_by(client, "platform");
        client.batch_execute(FILL).unwrap();
        for target in ["generations", "jobs"] {
            create_index(client, target);
        }
    }
    client.batch_execute("CALL backlog_cleanup_run(recipe_id => '3', batch_size => 4, workers => 2)").unwrap();
    // At work still: `CALL` in a session of its own would be over.
    let run: i64 = value(&mut client, &start_run(7));
    client.execute("SELECT backlog_cleanup.next_batch($1)", &[&run]).unwrap();
    drop((client, released));

    let new = Cluster::start(PG_CRON);
    let mut client = old.connect();
    let before = (dump(&new, &old), rows(&mut client), ill(&mut client, "generations"), ill(&mut client, "jobs"));
    drop(client);
    new.take_over(&old);
    let mut client = new.connect();
    let after = (dump(&new, &new), rows(&mut client), ill(&mut client, "generations"), ill(&mut client, "jobs"));
    assert_eq!(after.0, before.0);
    assert_eq!(after.1, before.1);
    assert_eq!((after.2, after.3), (before.2, before.3));

    // Who had which level has it still.
    for (role, call, may) in [
        ("watcher", "SELECT backlog_cleanup_status_json()", true),
        ("watcher", "SELECT backlog_cleanup_failed_generations()", false),
        ("runner", "SELECT backlog_cleanup_failed_generations('jobs')", true),
        ("runner", "UPDATE backlog_cleanup.policy SET keep = 0", false),
        ("\"The Chief\"", "UPDATE backlog_cleanup.policy SET keep = 3 WHERE recipe_id IS NULL", true),
        ("\"The Chief\"", "SELECT backlog_cleanup_grant('watcher', 'admin')", false),
        ("runner", "CALL backlog_cleanup_run()", true),
    ] {
        client.batch_execute(&format!("SET ROLE {role}")).unwrap();
        let result = client.batch_execute(call);
        if may {
            result.unwrap_or_else(|failure| panic!("{role}, {call}: {failure:?}"));
        } else {
            assert_eq!(refused(result).0, "42501", "{role}, {call}");
        }
        client.batch_execute("RESET ROLE").unwrap();
    }
    // Three rows stay of each recipe but the second, which was an emergency.
    assert_eq!(balance(&mut client, 150), 150 - 9 * 3);
    let state: String = value(&mut client, &format!("SELECT state FROM backlog_cleanup.run WHERE id = {run}"));
    assert_eq!(state, "interrupted");

    client.batch_execute("ANALYZE").unwrap();
    client.batch_execute("SELECT backlog_cleanup_failed_generations()").unwrap();
    assert_eq!(ill(&mut client, "generations"), Vec::<[String; 2]>::new());

    let mut released = new.connect_to("released");
    released.batch_execute("ALTER EXTENSION backlog_cleanup UPDATE").unwrap();
    released.batch_execute("CALL backlog_cleanup_run()").unwrap();
    // Ten rows stay of each recipe but the second.
    assert_eq!(balance(&mut released, 150), 150 - 9 * 10);
    assert!(
        !ill(&mut released, "generations").iter().any(|[check, _]| ["version", "ledger"].contains(&check.as_str()))
    );
}
