//! Every kind of table, in one transaction and in batches: partitions, children, foreign partitions, and what Citus distributes, as far as
//! that can be seen without Citus: a catalog of ours says so.

use cluster::{Cluster, SEE, column, create_index, number, refused, truth, until, value, veto};
use postgres::Client;

/// What a test calls, with the field that counts.
const CALLS: [(&str, &str); 4] = [
    ("SELECT backlog_cleanup_failed_generations('kind')", "cleanedUpGenerations"),
    ("CALL backlog_cleanup_run('kind', batch_size => 7)", "cleanedUpGenerations"),
    ("SELECT backlog_cleanup_emergency('kind')", "removedCount"),
    ("CALL backlog_cleanup_run('kind', 'emergency', batch_size => 7, workers => 2)", "removedCount"),
];

const COLUMNS: &str = "id int NOT NULL, user_id text NOT NULL, recipe_id int NOT NULL, status text NOT NULL,
    updated_at timestamptz NOT NULL, failure_reason text";

/// 240 rows of four recipes, a quarter of them not failed or not old.
const FILL: &str = "INSERT INTO kind
    SELECT i, 'system_backlog', i % 4, CASE WHEN i % 8 = 5 THEN 'pending' ELSE 'failed' END,
           now() - interval '1 hour' * (i * 7 % 240), NULL
    FROM generate_series(1, 240) i";

/// The rows that a run has to leave, by a window.
fn kept(client: &mut Client, is_emergency: bool) -> Vec<i32> {
    let kept = format!(
        "SELECT id FROM (
             SELECT id, status, updated_at, row_number() OVER (
                 PARTITION BY recipe_id, status = 'failed' AND updated_at < now() - interval '24 hours'
                 ORDER BY updated_at DESC, id DESC) AS rank FROM kind) r
         WHERE NOT (status = 'failed' AND ({is_emergency} OR updated_at < now() - interval '24 hours' AND rank > 10))
         ORDER BY id"
    );
    column(client, &kept)
}

fn target(client: &mut Client) {
    client
        .batch_execute(
            "INSERT INTO backlog_cleanup.target (name, generations_table, recipes_table)
             VALUES ('kind', 'public.kind', NULL)",
        )
        .unwrap();
}

/// How many recipes a status counts as this query does.
const COUNTED: &str = "SELECT count(*) FROM backlog_cleanup_status('kind') s
    JOIN (SELECT recipe_id::text, count(*), count(*) FILTER (WHERE status = 'failed') AS failed,
                 count(*) FILTER (WHERE status = 'pending') AS pending,
                 greatest(count(*) FILTER (WHERE status = 'failed' AND updated_at < now() - interval '24 hours') - 10, 0)
                     AS removable,
                 min(updated_at) FILTER (WHERE status = 'failed') AS oldest
          FROM kind GROUP BY recipe_id) k USING (recipe_id)
    WHERE (s.total_count, s.failed_count, s.pending_count, s.removable_count, s.oldest_failed_at)
          = (k.count, k.failed, k.pending, k.removable, k.oldest)";

/// Fills the table and runs each call on it; exactly the right rows go, and status and the books say so.
fn exactly_the_right_rows_go(client: &mut Client, kind: &str) {
    exactly_the_right_rows_go_after(client, kind, &[]);
}

fn exactly_the_right_rows_go_after(client: &mut Client, kind: &str, statements: &[&str]) {
    for (call, _) in CALLS {
        client.batch_execute("DELETE FROM kind; TRUNCATE credit_transactions").unwrap();
        client.batch_execute(FILL).unwrap();
        statements.iter().for_each(|statement| client.batch_execute(statement).unwrap());
        assert_eq!(number(client, COUNTED), 4, "{kind}");
        let expected = kept(client, call.contains("emergency"));
        client.batch_execute(call).unwrap_or_else(|failure| panic!("{kind}, {call}: {:?}", failure.as_db_error()));
        assert_eq!(column::<i32>(client, "SELECT id FROM kind ORDER BY id"), expected, "{kind}, {call}");
        let ledger = number(client, "SELECT sum(amount) FROM credit_transactions");
        assert_eq!(ledger, 240 - expected.len() as i64, "{kind}, {call}");
        // There are 60 rows of each recipe.
        let per_recipe = "SELECT count(*) FROM backlog_cleanup.run_recipe r
            WHERE run_id = (SELECT max(id) FROM backlog_cleanup.run)
              AND cleaned_count = 60 - (SELECT count(*) FROM kind k WHERE k.recipe_id::text = r.recipe_id)";
        assert_eq!(number(client, per_recipe), 4, "{kind}, {call}");
    }
}

#[test]
fn partitions_children_unlogged_and_temporary_tables_work() {
    let cluster = Cluster::start("max_worker_processes = 16\n");
    let mut client = cluster.platform();
    let version = number(&mut client, "SELECT current_setting('server_version_num')");
    // Before PostgreSQL 18 all that is generated is stored.
    let generated = if version < 180_000 { "STORED" } else { "VIRTUAL" };
    for (kind, create) in [
        (
            "partitions of three levels",
            "CREATE TABLE kind (COLUMNS) PARTITION BY LIST (recipe_id);
             CREATE TABLE few PARTITION OF kind FOR VALUES IN (0, 1) PARTITION BY HASH (id);
             CREATE TABLE few_0 PARTITION OF few FOR VALUES WITH (MODULUS 2, REMAINDER 0);
             CREATE TABLE few_1 PARTITION OF few FOR VALUES WITH (MODULUS 2, REMAINDER 1) PARTITION BY RANGE (updated_at);
             CREATE TABLE few_1_old PARTITION OF few_1 DEFAULT;
             CREATE TABLE rest (failure_reason text, gone int, updated_at timestamptz NOT NULL, status text NOT NULL,
                                recipe_id int NOT NULL, user_id text NOT NULL, id int NOT NULL);
             ALTER TABLE rest DROP gone; ALTER TABLE kind ATTACH PARTITION rest DEFAULT",
        ),
        (
            "children",
            "CREATE TABLE kind (COLUMNS); CREATE TABLE child (more int) INHERITS (kind);
             CREATE TABLE grandchild () INHERITS (child);
             CREATE RULE child AS ON INSERT TO kind WHERE NEW.id % 3 = 1 DO INSTEAD INSERT INTO child VALUES (NEW.*);
             CREATE RULE grandchild AS ON INSERT TO kind WHERE NEW.id % 3 = 2 DO INSTEAD INSERT INTO grandchild VALUES (NEW.*)",
        ),
        (
            "a recipe that is generated as it is read",
            "CREATE TABLE kind (id int, user_id text, number int, status text, updated_at timestamptz, failure_reason text,
                                recipe_id int GENERATED ALWAYS AS (number) VIRTUAL)",
        ),
        ("unlogged", "CREATE UNLOGGED TABLE kind (COLUMNS)"),
        ("temporary", "CREATE TEMPORARY TABLE kind (COLUMNS)"),
    ] {
        client.batch_execute("DELETE FROM backlog_cleanup.target WHERE name = 'kind'; DROP TABLE IF EXISTS kind CASCADE").unwrap();
        client.batch_execute(&create.replace("COLUMNS", COLUMNS).replace("VIRTUAL", generated)).unwrap();
        if kind == "temporary" {
            client
                .batch_execute(
                    "INSERT INTO backlog_cleanup.target (name, generations_table, recipes_table)
                     VALUES ('kind', 'pg_temp.kind', NULL)",
                )
                .unwrap();
        } else {
            target(&mut client);
        }
        exactly_the_right_rows_go(&mut client, kind);
    }
}

#[test]
fn rows_that_updates_moved_within_their_pages_are_found_through_the_index() {
    let cluster = Cluster::start("max_worker_processes = 16\n");
    let mut client = cluster.platform();
    client.batch_execute(&format!("CREATE TABLE kind ({COLUMNS}) WITH (fillfactor = 40)")).unwrap();
    target(&mut client);
    create_index(&mut client, "kind");
    // An entry of the index then leads to a line pointer that redirects, on a page that a scan of the index does not visit.
    let updated = ["UPDATE kind SET failure_reason = 'again'", "VACUUM ANALYZE kind"];
    exactly_the_right_rows_go_after(&mut client, "updated", &updated);
    let moved = "SELECT n_tup_hot_upd::int FROM pg_stat_user_tables WHERE relname = 'kind'";
    drop(client);
    until(&cluster, &format!("SELECT ({moved}) = 4 * 240"));
}

#[test]
fn views_are_refused() {
    let cluster = Cluster::start("");
    let mut client = cluster.platform();
    for create in ["CREATE VIEW kind AS TABLE generations", "CREATE MATERIALIZED VIEW kind AS TABLE generations"] {
        client.batch_execute(&format!("BEGIN; {create}")).unwrap();
        let insert = "INSERT INTO backlog_cleanup.target (name, generations_table) VALUES ('kind', 'public.kind')";
        let (sqlstate, message, _) = refused(client.batch_execute(insert));
        assert_eq!((sqlstate.as_str(), message.contains("\"public.kind\" is a")), ("42809", true), "{message}");
        assert!(message.contains("view, not a table"), "{message}");
        client.batch_execute("ROLLBACK").unwrap();
    }
    client.batch_execute("ALTER TABLE generations RENAME TO old; CREATE VIEW generations AS TABLE old").unwrap();
    for call in ["SELECT backlog_cleanup_failed_generations()", "CALL backlog_cleanup_run()"] {
        assert_eq!(refused(client.batch_execute(call)).0, "42809");
    }
}

#[test]
fn a_partitions_triggers_run_as_its_own_owner() {
    let cluster = Cluster::start("");
    let mut client = cluster.platform();
    client.batch_execute(SEE).unwrap();
    client
        .batch_execute(
            &"CREATE ROLE one; CREATE ROLE two; GRANT ALL ON SCHEMA public TO one, two;
             CREATE TABLE kind (COLUMNS) PARTITION BY LIST (recipe_id);
             CREATE TABLE left_one PARTITION OF kind FOR VALUES IN (0, 1); CREATE TABLE other PARTITION OF kind DEFAULT;
             ALTER TABLE kind OWNER TO one; ALTER TABLE left_one OWNER TO one; ALTER TABLE other OWNER TO two;
             GRANT ALL ON left_one, other TO one, two;
             CREATE TRIGGER see BEFORE DELETE ON other FOR EACH ROW EXECUTE FUNCTION see()"
                .replace("COLUMNS", COLUMNS),
        )
        .unwrap();
    target(&mut client);
    for (call, _) in CALLS {
        client.batch_execute("DELETE FROM kind; DELETE FROM seen").unwrap();
        client.batch_execute(FILL).unwrap();
        client.batch_execute("DELETE FROM seen").unwrap();
        client.batch_execute(call).unwrap();
        assert_eq!(column::<String>(&mut client, "SELECT DISTINCT who::text FROM seen"), ["two"], "{call}");
    }
}

#[test]
fn foreign_partitions_lose_exactly_the_right_rows_by_one_pushed_down_delete_per_recipe() {
    let remote = Cluster::start("log_statement = all\n");
    let cluster = Cluster::start("max_worker_processes = 16\n");
    remote.connect().batch_execute(&format!("CREATE TABLE far ({COLUMNS})")).unwrap();
    let mut client = cluster.platform();
    client
        .batch_execute(
            &format!(
                "{}
                 CREATE TABLE kind (COLUMNS) PARTITION BY LIST (recipe_id);
                 CREATE TABLE near PARTITION OF kind FOR VALUES IN (0, 1);
                 CREATE FOREIGN TABLE far PARTITION OF kind FOR VALUES IN (2, 3) SERVER remote;
                 SET DateStyle = 'SQL, DMY'; SET TimeZone = 'Asia/Kolkata'",
                remote.as_server("remote", "postgres")
            )
            .replace("COLUMNS", COLUMNS),
        )
        .unwrap();
    target(&mut client);
    exactly_the_right_rows_go(&mut client, "foreign");
    let pushed = |log: &str| {
        let is_pushed = |line: &&str| line.contains("recipe_id = ") && !line.contains("ctid");
        log.lines().filter(|line| line.contains("DELETE FROM public.far")).filter(is_pushed).count()
    };
    let before = pushed(&remote.logged());
    client.batch_execute("DELETE FROM kind").unwrap();
    client.batch_execute(FILL).unwrap();
    client.batch_execute(CALLS[0].0).unwrap();
    let log = remote.logged();
    assert_eq!(pushed(&log) - before, 4, "four recipes");
    let by_position: Vec<&str> = log.lines().filter(|line| line.contains("ctid =")).collect();
    assert!(by_position.is_empty(), "{by_position:#?}");
    assert!(
        log.lines().any(|line| line.contains("count(*)") && line.contains("FROM public.far")),
        "counted over there"
    );
    client.batch_execute("DELETE FROM kind").unwrap();
    client.batch_execute(FILL).unwrap();
    client.batch_execute("CALL backlog_cleanup_run('kind', max_rows => 11)").unwrap();
    assert_eq!(number(&mut client, "SELECT 240 - count(*) FROM kind"), 11);
}

#[test]
fn times_and_floats_of_keys_are_the_same_on_both_servers_whatever_the_session_writes_them_like() {
    let (cluster, remote) = (Cluster::start(""), Cluster::start(""));
    let columns = "id timestamp, part float8, user_id text, recipe_id int, status text, updated_at timestamp, failure_reason text";
    remote.connect().batch_execute(&format!("CREATE TABLE kind ({columns})")).unwrap();
    let mut client = cluster.platform();
    client
        .batch_execute(&format!(
            "{};
             CREATE FOREIGN TABLE kind ({columns}) SERVER remote;
             SET DateStyle = 'SQL, DMY'; SET extra_float_digits = -10; SET TimeZone = 'Europe/Vienna'",
            remote.as_server("remote", "postgres")
        ))
        .unwrap();
    target(&mut client);
    client.batch_execute("UPDATE backlog_cleanup.target SET id_columns = '{id,part}' WHERE name = 'kind'").unwrap();
    for call in [CALLS[0].0, "CALL backlog_cleanup_run('kind', batch_size => 7)"] {
        // All have failed at the same time on a day that could be a month: the ids decide, and of these the last digits.
        client
            .batch_execute(
                "DELETE FROM kind;
                 INSERT INTO kind SELECT timestamp '2020-05-04 03:02:01' + interval '1 day' * (i % 4), 1 + i / 1e12, 'system_backlog', i % 2,
                                         'failed', '2020-02-03 04:05:06.000007', NULL FROM generate_series(1, 100) i",
            )
            .unwrap();
        let stay = "SELECT part FROM (SELECT part, row_number() OVER (PARTITION BY recipe_id ORDER BY id DESC, part DESC) AS rank FROM kind) ranked
                    WHERE rank <= 10 ORDER BY 1";
        let stay: Vec<f64> = column(&mut client, stay);
        client.batch_execute(call).unwrap_or_else(|failure| panic!("{call}: {failure:?}"));
        assert_eq!(column::<f64>(&mut client, "SELECT part FROM kind ORDER BY 1"), stay, "{call}");
    }
}

#[test]
fn a_foreign_table_tells_recipes_apart_as_the_ranking_does_and_leaves_its_children_to_themselves() {
    let remote = Cluster::start("");
    let cluster = Cluster::start("");
    let columns = COLUMNS.replace("recipe_id int", "recipe_id numeric");
    remote.connect().batch_execute(&format!("CREATE TABLE kind ({columns})")).unwrap();
    let mut client = cluster.platform();
    client
        .batch_execute(&format!(
            "{};
             CREATE FOREIGN TABLE kind ({columns}) SERVER remote;
             CREATE TABLE child () INHERITS (kind)",
            remote.as_server("remote", "postgres")
        ))
        .unwrap();
    target(&mut client);
    // Of 7 five go, and of 1.0 six: 1.00 is the same recipe, and has one row, older than those. 8 has ten.
    let fill = "DELETE FROM kind;
                INSERT INTO kind SELECT i, 'system_backlog', 1.0, 'failed', now() - interval '1 day' * (1 + i)
                    FROM generate_series(1, 15) i;
                INSERT INTO kind VALUES (99, 'system_backlog', 1.00, 'failed', now() - interval '90 days');
                INSERT INTO child SELECT i, 'system_backlog', 7, 'failed', now() - interval '1 day' * (1 + i)
                    FROM generate_series(1, 15) i;
                INSERT INTO child SELECT i, 'system_backlog', 8, 'failed', now() - interval '1 day' * (1 + i)
                    FROM generate_series(1, 10) i";
    for (call, _) in &CALLS[..2] {
        client.batch_execute(fill).unwrap();
        client.batch_execute(call).unwrap();
        let left = "SELECT tableoid::regclass || ' ' || recipe_id || ' ' || count(*) FROM kind
                    GROUP BY tableoid, recipe_id::text, recipe_id ORDER BY 1";
        assert_eq!(column::<String>(&mut client, left), ["child 7 10", "child 8 10", "kind 1.0 10"], "{call}");
    }
    client.batch_execute("SELECT backlog_cleanup_emergency('kind')").unwrap();
    assert_eq!(number(&mut client, "SELECT count(*) FROM kind"), 0);
}

/// Stands for Citus: its catalog, in which a table is distributed by a column or is not.
const CITUS: &str = "CREATE TABLE pg_catalog.pg_dist_partition (logicalrelid regclass, partmethod \"char\" DEFAULT 'h', partkey text DEFAULT 'id');
    CREATE FUNCTION pg_catalog.column_to_column_name(table_name regclass, column_var_text text) RETURNS text
        LANGUAGE sql RETURN column_var_text";
const DISTRIBUTE: &str = "INSERT INTO pg_catalog.pg_dist_partition VALUES ('public.kind')";

fn with_citus(settings: &str) -> (Cluster, Client) {
    let cluster = Cluster::start(&format!("allow_system_table_mods = on\nmax_worker_processes = 16\n{settings}"));
    let mut client = cluster.platform();
    let create = format!("CREATE TABLE kind ({})", COLUMNS.replace("timestamptz", "timestamp"));
    client.batch_execute(&format!("SET TimeZone = 'UTC'; {CITUS}; {create}")).unwrap();
    target(&mut client);
    (cluster, client)
}

#[test]
fn a_table_that_citus_distributes_loses_exactly_the_right_rows_by_statements_of_columns_and_constants() {
    let settings = "shared_preload_libraries = auto_explain\nauto_explain.log_min_duration = 0\n\
                    auto_explain.log_nested_statements = on\nlog_destination = stderr\n";
    let (cluster, mut client) = with_citus(settings);
    client.batch_execute(DISTRIBUTE).unwrap();
    client.batch_execute("UPDATE backlog_cleanup.target SET time_zone = 'UTC'").unwrap();
    let before = cluster.logged().len();
    for by in ["id", "recipe_id"] {
        client.execute("UPDATE pg_catalog.pg_dist_partition SET partkey = $1", &[&by]).unwrap();
        for (call, _) in CALLS {
            client.batch_execute("DELETE FROM kind; TRUNCATE credit_transactions").unwrap();
            client.batch_execute(FILL).unwrap();
            let expected = kept(&mut client, call.contains("emergency"));
            client.batch_execute(call).unwrap();
            assert_eq!(column::<i32>(&mut client, "SELECT id FROM kind ORDER BY id"), expected, "{call}");
            let ledger = "SELECT max(amount) FROM credit_transactions";
            assert!(!call.contains("batch_size") || number(&mut client, ledger) <= 7, "{call}");
        }
    }
    let log = cluster.logged()[before..].to_owned();
    let deletes: Vec<&str> =
        log.split("Query Text: ").filter(|query| query.starts_with("DELETE FROM ONLY public.kind")).collect();
    assert!(deletes.len() > 20, "{}", deletes.len());
    for delete in deletes {
        let text = delete.split("\n\tDelete on").next().unwrap_or_default();
        // A list of constants.
        let text = text.replacen("(SELECT * FROM ROWS FROM (pg_catalog.unnest('{", "", 1);
        assert!(!text.contains("SELECT") && !text.contains("ctid") && !text.contains("timezone("), "{text}");
    }
}

#[test]
fn a_batched_run_over_which_a_table_becomes_distributed_or_is_no_longer_ends_and_the_next_one_finishes() {
    let (cluster, mut client) = with_citus("");
    for (first, then) in
        [("TRUNCATE pg_catalog.pg_dist_partition", DISTRIBUTE), (DISTRIBUTE, "TRUNCATE pg_catalog.pg_dist_partition")]
    {
        client
            .batch_execute(&format!("TRUNCATE pg_catalog.pg_dist_partition; {first}; DELETE FROM kind; {FILL}"))
            .unwrap();
        let expected = kept(&mut client, false);
        let run = cluster.in_background("CALL backlog_cleanup_run('kind', batch_size => 7, pause => '1 s')");
        until(&cluster, "SELECT batches > 0 FROM backlog_cleanup.progress WHERE state = 'running'");
        // As Citus does: under a lock that lets others read.
        client.batch_execute(&format!("BEGIN; LOCK kind IN EXCLUSIVE MODE; {then}; COMMIT")).unwrap();
        let (sqlstate, message, _) = refused(run.join().unwrap().1);
        assert_eq!(sqlstate, "55000", "{message}");
        assert!(message.contains("distributed"), "{message}");
        let left = column::<i32>(&mut client, "SELECT id FROM kind ORDER BY id");
        assert!(left.len() > expected.len() && expected.iter().all(|id| left.contains(id)), "{then}");
        client.batch_execute("CALL backlog_cleanup_run('kind')").unwrap();
        assert_eq!(column::<i32>(&mut client, "SELECT id FROM kind ORDER BY id"), expected, "{then}");
    }
}

#[test]
fn a_run_that_waits_for_a_table_to_become_distributed_removes_its_rows_by_key() {
    let (cluster, mut client) = with_citus("log_statement = none\n");
    for call in [CALLS[0].0, CALLS[2].0] {
        client.batch_execute(&format!("TRUNCATE pg_catalog.pg_dist_partition; DELETE FROM kind; {FILL}")).unwrap();
        let expected = kept(&mut client, call.contains("emergency"));
        // A position would mean another row then.
        client.batch_execute(&format!("BEGIN; LOCK kind IN EXCLUSIVE MODE; {DISTRIBUTE}")).unwrap();
        let run = cluster.in_background(call);
        until(&cluster, "SELECT count(*) = 1 FROM pg_locks WHERE NOT granted");
        client
            .batch_execute("CREATE TABLE moved AS TABLE kind; DELETE FROM kind; INSERT INTO kind SELECT * FROM moved ORDER BY id DESC; DROP TABLE moved; COMMIT")
            .unwrap();
        run.join().unwrap().1.unwrap();
        assert_eq!(column::<i32>(&mut client, "SELECT id FROM kind ORDER BY id"), expected, "{call}");
    }
}

#[test]
fn a_distributed_table_that_is_rewritten_between_batches_loses_all_of_its_rows() {
    let (cluster, mut client) = with_citus("");
    client.batch_execute(&format!("{DISTRIBUTE}; {FILL}")).unwrap();
    let expected = kept(&mut client, false);
    let run = cluster.in_background("CALL backlog_cleanup_run('kind', batch_size => 50, pause => '1 s')");
    until(&cluster, "SELECT batches > 0 FROM backlog_cleanup.progress WHERE state = 'running'");
    client.batch_execute("VACUUM FULL kind").unwrap();
    run.join().unwrap().1.unwrap();
    assert_eq!(column::<i32>(&mut client, "SELECT id FROM kind ORDER BY id"), expected);
    let is_completed = "SELECT state = 'completed' FROM backlog_cleanup.run ORDER BY id DESC LIMIT 1";
    assert!(truth(&mut client, is_completed));
}

#[test]
fn a_table_that_is_distributed_by_its_recipe_loses_exactly_the_right_rows_of_many_recipes() {
    const RECIPES: i64 = 1200;
    let (_cluster, mut client) = with_citus("");
    client
        .batch_execute(&format!(
            "{DISTRIBUTE}; UPDATE pg_catalog.pg_dist_partition SET partkey = 'recipe_id';
             UPDATE backlog_cleanup.policy SET keep = 2 WHERE target = 'kind'"
        ))
        .unwrap();
    let fill = format!(
        "TRUNCATE kind; INSERT INTO kind
         SELECT i, 'system_backlog', i % {RECIPES}, 'failed', now() - interval '2 days' - interval '1 second' * (i * 7 % 5000), NULL
         FROM generate_series(1, 6000) i"
    );
    for refuses in [false, true] {
        client.batch_execute(&fill).unwrap();
        let newest = "SELECT id FROM (SELECT id, row_number() OVER (PARTITION BY recipe_id ORDER BY updated_at DESC, id DESC) AS place
                      FROM kind) ranked WHERE place <= 2 ORDER BY id";
        let mut expected: Vec<i32> = column(&mut client, newest);
        if refuses {
            let stays = (1..).find(|id| !expected.contains(id)).expect("a row that goes");
            veto(&mut client, "kind", &format!("OLD.id = {stays}"));
            expected.push(stays);
            expected.sort_unstable();
        }
        client.batch_execute("SELECT backlog_cleanup_failed_generations('kind')").unwrap();
        assert_eq!(column::<i32>(&mut client, "SELECT id FROM kind ORDER BY id"), expected);
        let removed = "SELECT sum(cleaned_count) FROM backlog_cleanup.run_recipe WHERE run_id = (SELECT max(id) FROM backlog_cleanup.run)";
        assert_eq!(number(&mut client, removed), 6000 - expected.len() as i64);
    }
}

#[test]
fn rows_of_a_distributed_table_that_cannot_go_stay_alone() {
    let (_cluster, mut client) = with_citus("");
    client.batch_execute(DISTRIBUTE).unwrap();
    for how in ["RAISE 'not this one'", "RETURN NULL"] {
        for (call, _) in CALLS {
            client.batch_execute("DROP TRIGGER IF EXISTS refuse ON kind; DELETE FROM kind").unwrap();
            client.batch_execute(FILL).unwrap();
            let mut expected = kept(&mut client, call.contains("emergency"));
            let gone: Vec<i32> = (1..=240).filter(|id| !expected.contains(id)).collect();
            let stay = [gone[0], gone[40], gone[41], gone[80]];
            let list = stay.map(|id| id.to_string()).join(", ");
            client
                .batch_execute(&format!(
                    "CREATE OR REPLACE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
                     BEGIN IF OLD.id IN ({list}) THEN {how}; END IF; RETURN OLD; END $$;
                     CREATE TRIGGER refuse BEFORE DELETE ON kind FOR EACH ROW EXECUTE FUNCTION refuse()"
                ))
                .unwrap();
            client.batch_execute(call).unwrap();
            expected.extend(stay);
            expected.sort_unstable();
            assert_eq!(column::<i32>(&mut client, "SELECT id FROM kind ORDER BY id"), expected, "{how}, {call}");
            let kept_back =
                "SELECT kept_back = 4 AND state = 'completed' FROM backlog_cleanup.run ORDER BY id DESC LIMIT 1";
            assert!(truth(&mut client, kept_back), "{how}, {call}");
        }
    }
}

#[test]
fn what_cannot_be_told_apart_on_nodes_is_refused_when_the_target_is_written() {
    let (_cluster, mut client) = with_citus("");
    client.batch_execute(DISTRIBUTE).unwrap();
    for set in ["id_columns = '{id, recipe_id}'", "recipe_column = NULL, recipe_columns = '{recipe_id, user_id}'"] {
        let update = format!("UPDATE backlog_cleanup.target SET {set} WHERE name = 'kind'");
        let (sqlstate, message, _) = refused(client.batch_execute(&update));
        assert_eq!((sqlstate.as_str(), message.contains("distributed by Citus")), ("0A000", true), "{message}");
    }
}

#[test]
fn failure_types_of_a_distributed_table_are_told_here_and_select_no_rows_there_unless_they_are_lines() {
    let (_cluster, mut client) = with_citus("");
    client.batch_execute(&format!("{FILL}; UPDATE kind SET failure_reason = 'job ' || id || ' timed out'")).unwrap();
    let types = "SELECT string_agg(DISTINCT failure_type, ',') FROM backlog_cleanup_failures('kind', since => NULL)";
    let policy = "SELECT backlog_cleanup_set_policy(target => 'kind', failure_type => 'job 1 timed out', keep => 3)";
    let run = "SELECT backlog_cleanup_failed_generations('kind')";
    let before: String = value(&mut client, types);
    client.batch_execute(policy).unwrap();
    client.batch_execute(DISTRIBUTE).unwrap();
    assert_eq!(value::<String>(&mut client, types), before);
    let selective = "SELECT backlog_cleanup_failed_generations('kind', failure_type => 'job 1 timed out')";
    for refusal in [policy, run, selective] {
        let (sqlstate, message, _) = refused(client.batch_execute(refusal));
        assert_eq!((sqlstate.as_str(), message.contains("fingerprints")), ("0A000", true), "{refusal}: {message}");
    }
    let (_, _, hint) = refused(client.batch_execute(run));
    client.batch_execute(&hint).unwrap();
    client.batch_execute("UPDATE backlog_cleanup.target SET fingerprint = false WHERE name = 'kind'").unwrap();
    client.batch_execute(policy).unwrap();
    client.batch_execute(run).unwrap();
}

#[test]
fn a_partition_that_is_detached_while_a_run_pauses_keeps_its_rows() {
    let cluster = Cluster::start("");
    let mut client = cluster.platform();
    client
        .batch_execute(
            &"CREATE TABLE kind (COLUMNS) PARTITION BY LIST (recipe_id);
              CREATE TABLE first PARTITION OF kind FOR VALUES IN (0, 1); CREATE TABLE second PARTITION OF kind DEFAULT"
                .replace("COLUMNS", COLUMNS),
        )
        .unwrap();
    target(&mut client);
    client.batch_execute(FILL).unwrap();
    let run = cluster.in_background("CALL backlog_cleanup_run('kind', 'emergency', batch_size => 50, pause => '1 s')");
    until(&cluster, "SELECT removed = 50 FROM backlog_cleanup.progress");
    client.batch_execute("ALTER TABLE kind DETACH PARTITION second").unwrap();
    run.join().unwrap().1.unwrap();
    assert_eq!(number(&mut client, "SELECT count(*) FROM second"), 120);
    assert_eq!(number(&mut client, "SELECT count(*) FROM first WHERE status = 'failed'"), 0);
}

#[test]
fn recipes_are_told_apart_by_their_bytes_whatever_their_collation() {
    let cluster = Cluster::start("");
    let mut client = cluster.platform();
    let collation = "CREATE COLLATION any_case (provider = icu, locale = 'und-u-ks-level2', deterministic = false)";
    if let Err(failure) = client.batch_execute(collation) {
        // A server without ICU.
        return assert_eq!(failure.code().unwrap().code(), "0A000");
    }
    client
        .batch_execute(
            "CREATE TABLE kind (id int, user_id text, recipe_id text COLLATE any_case, status text, updated_at timestamptz,
                                failure_reason text);
             INSERT INTO kind SELECT i, 'system_backlog', CASE WHEN i <= 15 THEN 'A' ELSE 'a' END, 'failed',
                                     now() - interval '1 day' - interval '1 hour' * i
                              FROM generate_series(1, 30) i",
        )
        .unwrap();
    veto(&mut client, "kind", "OLD.id = 30");
    target(&mut client);
    let mut pairs = |query: &str| -> Vec<(String, i64)> {
        let rows = client.query(query, &[]).unwrap();
        rows.iter().map(|row| (row.get(0), row.get(1))).collect()
    };
    let of_each = |upper, lower| vec![("A".to_owned(), upper), ("a".to_owned(), lower)];
    let status =
        "SELECT recipe_id, removable_count FROM backlog_cleanup_status('kind') ORDER BY recipe_id COLLATE \"C\"";
    assert_eq!(pairs(status), of_each(5, 5));
    let would = "SELECT d ->> 'recipeId', (d -> 'cleanedCount')::bigint
        FROM jsonb_array_elements(backlog_cleanup_emergency('kind', dry_run => true) -> 'cleanupDetails') d
        ORDER BY d ->> 'recipeId' COLLATE \"C\"";
    assert_eq!(pairs(would), of_each(15, 15));
    let removed = "SELECT d ->> 'recipeId', (d -> 'cleanedCount')::bigint
        FROM jsonb_array_elements(backlog_cleanup_failed_generations('kind') -> 'cleanupDetails') d
        ORDER BY d ->> 'recipeId' COLLATE \"C\"";
    assert_eq!(pairs(removed), of_each(5, 4));
}
