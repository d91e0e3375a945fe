//! What a server has only so much of: time, locks, disk. A run that meets the end of it says so, nothing is lost, and the
//! next one works.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use cluster::{Cluster, balance, fail, last_state, number, refused, until_true, value};
use postgres::Client;
use tempfile::TempDir;

const RUN: &str = "SELECT backlog_cleanup_failed_generations()";

/// Fifteen expired failed rows in each of ten recipes, of which fifty go.
fn fill(client: &mut Client) {
    for recipe in 1..=10 {
        fail(client, recipe, 15);
    }
}

fn filled(database: &str) -> (Arc<Cluster>, Client) {
    let cluster = Cluster::shared("");
    let mut client = cluster.platform_in(database);
    fill(&mut client);
    (cluster, client)
}

/// A run is refused with this SQLSTATE and this in its message, and has done nothing.
fn fails(client: &mut Client, run: &str, sqlstate: &str, said: &str) {
    let (code, message, _) = refused(client.batch_execute(run));
    assert!(code == sqlstate && message.contains(said), "{run}: {code} {message}");
    client.batch_execute("ROLLBACK").unwrap();
    assert_eq!(balance(client, 150), 0, "{run}");
}

#[test]
fn a_statement_timeout_ends_a_run_and_its_committed_batches_stay() {
    let (cluster, mut client) = filled("statement_timeout");
    let mut other = cluster.connect_to("statement_timeout");
    other.batch_execute("UPDATE backlog_cleanup.target SET lock_timeout = '0'").unwrap();
    other.batch_execute("BEGIN; UPDATE generations SET prompt = '' WHERE id = 1").unwrap();
    client.batch_execute("SET statement_timeout = '100 ms'").unwrap();
    fails(&mut client, RUN, "57014", "statement timeout");
    fails(&mut client, "CALL backlog_cleanup_run()", "57014", "statement timeout");
    other.batch_execute("ROLLBACK").unwrap();
    client.batch_execute("SET statement_timeout = '1 s'").unwrap();
    let slow = "CALL backlog_cleanup_run(batch_size => 5, pause => '1 hour')";
    assert_eq!(refused(client.batch_execute(slow)).0, "57014");
    assert!(balance(&mut client, 150) <= 5);
    client.batch_execute("RESET statement_timeout").unwrap();
    assert_eq!(last_state(&mut client).as_deref(), Some("interrupted"));
    client.batch_execute(RUN).unwrap();
    assert_eq!(balance(&mut client, 150), 50);
}

#[test]
fn no_lock_is_waited_for_longer_than_lock_timeout() {
    let (cluster, mut client) = filled("lock_timeout");
    let mut other = cluster.connect_to("lock_timeout");
    other.batch_execute("UPDATE backlog_cleanup.target SET lock_timeout = '100 ms'").unwrap();
    for table in ["generations", "users", "credit_transactions"] {
        other.batch_execute(&format!("BEGIN; LOCK TABLE {table}")).unwrap();
        for run in [RUN, "SELECT backlog_cleanup_emergency()", "CALL backlog_cleanup_run()"] {
            let (sqlstate, message, _) = refused(client.batch_execute(run));
            assert_eq!(sqlstate, "55P03", "{table}, {run}: {message}");
            assert!(message.contains("\"generations\""), "{message}");
        }
        other.batch_execute("ROLLBACK").unwrap();
        assert_eq!(balance(&mut client, 150), 0, "{table}");
    }
    other.batch_execute("BEGIN; UPDATE generations SET status = 'pending' WHERE id = 1").unwrap();
    client.batch_execute(RUN).unwrap();
    assert_eq!(number(&mut client, "SELECT skipped FROM backlog_cleanup.run ORDER BY id DESC LIMIT 1"), 1);
    assert_eq!(balance(&mut client, 150), 49);
    other.batch_execute("ROLLBACK").unwrap();
    client.batch_execute(RUN).unwrap();
    assert_eq!(balance(&mut client, 150), 50);
    assert_eq!(value::<String>(&mut client, "SHOW lock_timeout"), "0", "the session's own is as it was");
}

#[test]
fn a_caller_that_idles_in_its_transaction_loses_it_and_a_pause_is_not_idling() {
    let (cluster, mut client) = filled("idle");
    let mut idle = cluster.connect_to("idle");
    idle.batch_execute(&format!("SET idle_in_transaction_session_timeout = '100 ms'; BEGIN; {RUN}")).unwrap();
    let others = "SELECT count(*) = 0 FROM pg_stat_activity WHERE datname = 'idle' AND pid <> pg_backend_pid()";
    until_true(&mut client, others);
    assert_eq!(balance(&mut client, 150), 0);
    client.batch_execute("SET idle_in_transaction_session_timeout = '10 ms'").unwrap();
    client.batch_execute("CALL backlog_cleanup_run(batch_size => 25, pause => '50 ms')").unwrap();
    assert_eq!(balance(&mut client, 150), 50);
}

#[test]
fn a_run_needs_no_temporary_files_and_says_so_where_a_trigger_does() {
    let (_cluster, mut client) = filled("temp_files");
    client
        .batch_execute(
            "CREATE FUNCTION sort() RETURNS trigger LANGUAGE plpgsql AS
                 'BEGIN PERFORM count(*) FROM (SELECT i FROM generate_series(1, 50000) i ORDER BY md5(i::text)) x; RETURN NULL; END';
             CREATE TRIGGER sort AFTER DELETE ON generations FOR EACH STATEMENT EXECUTE FUNCTION sort();
             SET work_mem = '64 kB'; SET temp_file_limit = 0",
        )
        .unwrap();
    fails(&mut client, RUN, "53400", "temp_file_limit");
    fails(&mut client, "CALL backlog_cleanup_run()", "53400", "temp_file_limit");
    client.batch_execute("DROP TRIGGER sort ON generations").unwrap();
    client.batch_execute(RUN).unwrap();
    assert_eq!(balance(&mut client, 150), 50);
}

/// PostgreSQL writes such a table out once more where it gives it up: what meets the limit in a subtransaction, as in a
/// block with EXCEPTION, meets it again in the middle of the rollback, and the session may end with its next command.
#[test]
fn no_failure_reason_or_time_of_a_row_makes_reports_fail_or_takes_its_memory_many_times() {
    let cluster = Cluster::shared("");
    let mut client = cluster.platform_in("reasons");
    let long = "repeat('x', 40000000)";
    for (sql_type, reasons) in [
        ("text", format!("('no'), ({long}), (E'\\n ' || {long})")),
        ("jsonb", format!(r#"('{{"message":"no"}}'), (jsonb_build_object('message', {long}))"#)),
        (
            "json",
            format!(
                r#"('{{"message":"no"}}'), ('{{"message":"a\u0000b"}}'), ('{{"message":"\ud83d"}}'), ('{{"message":"\ude00"}}'),
                   ('{{"message":"\ud83d\ude00"}}'), ('"\\u0000"'), (json_build_object('message', {long}))"#
            ),
        ),
    ] {
        client
            .batch_execute(&format!(
                "DROP TABLE IF EXISTS far; CREATE TABLE far (LIKE generations INCLUDING DEFAULTS);
                 ALTER TABLE far ADD PRIMARY KEY (id), ALTER failure_reason TYPE {sql_type} USING failure_reason::text::{sql_type},
                     ALTER updated_at TYPE timestamp;
                 INSERT INTO far (user_id, recipe_id, status, prompt, updated_at, failure_reason)
                 SELECT 'system_backlog', 1, 'failed', '', '2020-01-01', reason::{sql_type} FROM (VALUES {reasons}) r (reason);
                 INSERT INTO far (user_id, recipe_id, status, prompt, updated_at)
                 SELECT 'system_backlog', 1, 'failed', '', at::timestamp
                 FROM unnest(ARRAY['294276-12-31 23:59:59', '4714-11-24 BC', 'infinity', '-infinity']) at;
                 UPDATE backlog_cleanup.target SET generations_table = 'public.far', recipes_table = NULL, ledger_table = NULL"
            ))
            .unwrap();
        for (zone, call) in [
            ("America/New_York", "SELECT count(*) FROM backlog_cleanup_failures(since => NULL)"),
            ("Asia/Tokyo", "SELECT count(*) FROM backlog_cleanup_failures(since => NULL)"),
            ("UTC", "SELECT count(*) FROM backlog_cleanup_status()"),
            ("UTC", "SELECT backlog_cleanup_failed_generations(failure_type => 'yes', rehearse => true)"),
        ] {
            client.batch_execute(&format!("UPDATE backlog_cleanup.target SET time_zone = '{zone}'; {call}")).unwrap();
            let most = cluster.memory_for("reasons", "postgres", call);
            assert!(most < 120_000, "{sql_type} {call}: {most} kB");
        }
        let types = "SELECT array_agg(DISTINCT left(failure_type, 5) COLLATE \"C\" ORDER BY left(failure_type, 5) COLLATE \"C\")
                     FROM backlog_cleanup_failures(since => NULL, types => 20)";
        let types: Vec<String> = value(&mut client, types);
        match sql_type {
            "text" => assert_eq!(types, ["(none", "no", "xxxxx"]),
            "jsonb" => assert_eq!(types, ["(none", "(too ", "no"]),
            _ => assert_eq!(types, ["(none", "(too ", "\\u000", "no", "{\"mes", "\u{1f600}"]),
        }
        client.batch_execute("SELECT backlog_cleanup_emergency(failure_type => 'no')").unwrap();
        assert_eq!(number(&mut client, "SELECT count(*) FROM far WHERE failure_reason::text LIKE '%no%'"), 0);
    }
}

#[test]
fn texts_that_a_run_keeps_are_bounded() {
    let (_cluster, mut client) = filled("kept_texts");
    for call in [
        "SELECT backlog_cleanup_emergency(failure_type => repeat('x', 10001))",
        "SELECT backlog_cleanup_failed_generations(recipe_id => repeat('1', 10001), dry_run => true)",
    ] {
        assert_eq!(refused(client.batch_execute(call)).0, "22023", "{call}");
    }
    client
        .batch_execute("UPDATE backlog_cleanup.target SET throttle_query = $$SELECT repeat('x', 10000000)$$")
        .unwrap();
    let start = "SELECT backlog_cleanup.start_run('{\"target\":\"generations\",\"mode\":\"regular\",\"batch_size\":10,\"pause\":\"0\",\"workers\":1,\"force\":false,\"include_held\":false}')";
    let run = number(&mut client, start);
    client.batch_execute(&format!("SELECT backlog_cleanup.next_batch({run})")).unwrap();
    assert_eq!(number(&mut client, "SELECT max(length(waiting_for)) FROM backlog_cleanup.run"), 1000);
}

#[test]
fn long_ids_and_recipes_take_no_more_memory_than_on_disk() {
    let cluster = Cluster::shared("");
    let mut client = cluster.platform_in("long_values");
    client
        .batch_execute(
            "CREATE TABLE long (LIKE generations INCLUDING DEFAULTS);
             ALTER TABLE long ALTER id DROP DEFAULT, ALTER id TYPE text, ALTER recipe_id TYPE text;
             UPDATE backlog_cleanup.target SET generations_table = 'public.long', recipes_table = NULL, ledger_table = NULL",
        )
        .unwrap();
    let keep = "CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS
                    $$BEGIN RETURN CASE WHEN OLD.prompt IN ('9', '18') THEN NULL ELSE OLD END; END$$;
                CREATE TRIGGER keep BEFORE DELETE ON long FOR EACH ROW EXECUTE FUNCTION keep()";
    for (id, recipe, setup, left) in [
        ("i || repeat('x', 1000000)", "i / 11", "SELECT", 1000),
        ("i::text", "i / 11 || repeat('x', 1000000)", "SELECT", 1000),
        ("i::text", "i / 11 || repeat('x', 1000000)", keep, 1002),
    ] {
        client
            .batch_execute(&format!(
                "TRUNCATE long; {setup};
                 INSERT INTO long (id, user_id, recipe_id, status, prompt, updated_at)
                 SELECT {id}, 'system_backlog', {recipe}, 'failed', (i / 11)::text, now() - interval '9 days'
                 FROM generate_series(0, 1099) i"
            ))
            .unwrap();
        for call in [
            "SELECT count(*) FROM backlog_cleanup_status()",
            "SELECT backlog_cleanup_failed_generations(dry_run => true)",
            "SELECT backlog_cleanup_failed_generations(rehearse => true)",
            "SELECT backlog_cleanup_emergency(rehearse => true)",
            "CALL backlog_cleanup_run()",
        ] {
            let most = cluster.memory_for("long_values", "postgres", call);
            assert!(most < 120_000, "{id} {recipe} {call}: {most} kB");
        }
        // One of eleven rows of each recipe goes.
        assert_eq!(number(&mut client, "SELECT count(*) FROM long"), left, "{id} {recipe}");
    }
}

/// A report of the ids themselves would be larger than a `jsonb` can be.
#[test]
fn ids_of_a_megabyte_are_shortened_and_stay_apart() {
    let cluster = Cluster::shared("");
    let mut client = cluster.platform_in("long_ids");
    client
        .batch_execute(
            "CREATE TABLE long (LIKE generations INCLUDING DEFAULTS); ALTER TABLE long ADD PRIMARY KEY (id), ALTER recipe_id TYPE text;
             INSERT INTO long (user_id, recipe_id, status, prompt, updated_at)
             SELECT 'system_backlog', repeat('x', 1000000) || recipe, 'failed', '', now() - interval '9 days'
             FROM generate_series(1, 40) recipe, generate_series(1, 11);
             UPDATE backlog_cleanup.target SET generations_table = 'public.long', recipes_table = NULL, ledger_table = NULL",
        )
        .unwrap();
    let most = cluster.memory_for("long_ids", "postgres", "SELECT backlog_cleanup_status_json()");
    assert!(most < 120_000, "{most} kB");
    let listed = "SELECT count(DISTINCT r ->> 'recipeId') FILTER (WHERE length(r ->> 'recipeId') < 1000)
                  FROM jsonb_array_elements(backlog_cleanup_status_json() -> 'recipesWithFailedGenerations') r";
    assert_eq!(number(&mut client, listed), 40);
    // Whoever may insert rows may also write what a shortened id looks like: it counts as a recipe of its own.
    client
        .batch_execute(
            "INSERT INTO long (user_id, recipe_id, status, prompt, updated_at)
             SELECT 'system_backlog', recipe_id, 'failed', '', now() - interval '9 days'
             FROM backlog_cleanup_status(), generate_series(1, 5)",
        )
        .unwrap();
    assert_eq!(number(&mut client, "SELECT count(*) FROM backlog_cleanup_status()"), 80);
    client.batch_execute("CALL backlog_cleanup_run(max_rows => 10)").unwrap();
    client.batch_execute("SELECT backlog_cleanup_failed_generations()").unwrap();
    assert_eq!(number(&mut client, "SELECT count(*) FROM long WHERE length(recipe_id) > 1000"), 400);
    assert_eq!(number(&mut client, "SELECT count(*) FROM long WHERE length(recipe_id) < 1000"), 200);
    let selected = "SELECT backlog_cleanup_failed_generations('generations', (SELECT max(recipe_id) FROM long))";
    assert_eq!(refused(client.batch_execute(selected)).0, "22023");
}

#[test]
fn long_keys_that_reference_the_target_cost_whoever_looks_little() {
    let cluster = Cluster::shared("");
    let mut client = cluster.platform_in("long_keys");
    client
        .batch_execute(
            "CREATE TABLE long (LIKE generations INCLUDING DEFAULTS); ALTER TABLE long ALTER id TYPE text, ADD PRIMARY KEY (id);
             INSERT INTO long (id, user_id, recipe_id, status, prompt, updated_at)
             SELECT i || repeat('x', 180000), 'system_backlog', 1, 'failed', '', now() - interval '9 days' FROM generate_series(1, 300) i;
             CREATE TABLE pin (id text REFERENCES long); INSERT INTO pin SELECT id FROM long;
             UPDATE backlog_cleanup.target SET generations_table = 'public.long', recipes_table = NULL, ledger_table = NULL",
        )
        .unwrap();
    for call in ["SELECT * FROM backlog_cleanup_doctor()", "SELECT backlog_cleanup_failed_generations(dry_run => true)"]
    {
        let most = cluster.memory_for("long_keys", "postgres", call);
        assert!(most < 120_000, "{call}: {most} kB");
    }
    let said =
        "SELECT count(*) FROM backlog_cleanup_doctor() WHERE detail LIKE '%none with a key of more than 1000 bytes'";
    assert_eq!(number(&mut client, said), 1);
}

#[test]
fn a_run_that_fails_with_a_message_of_a_megabyte_has_its_beginning() {
    let (_cluster, mut client) = filled("long_message");
    client
        .batch_execute(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
             $$BEGIN RAISE EXCEPTION USING MESSAGE = 'no' || repeat('x', 1000000), DETAIL = repeat('y', 1000000); END$$;
             CREATE TRIGGER refuse BEFORE INSERT ON credit_transactions FOR EACH ROW EXECUTE FUNCTION refuse()",
        )
        .unwrap();
    assert_eq!(refused(client.batch_execute("CALL backlog_cleanup_run()")).0, "P0001");
    assert_eq!(last_state(&mut client).as_deref(), Some("failed"));
    let longest = "SELECT max(length(r.error_message)) + max(length(e.detail))
                   FROM backlog_cleanup.run r JOIN backlog_cleanup.run_error e ON e.run_id = r.id";
    assert_eq!(number(&mut client, longest), 20_000);
}

#[test]
fn rows_of_a_long_recipe_take_the_memory_of_one() {
    let cluster = Cluster::shared("");
    let mut client = cluster.platform_in("long_recipe");
    client
        .batch_execute(
            "CREATE TABLE long (LIKE generations INCLUDING DEFAULTS); ALTER TABLE long ADD PRIMARY KEY (id), ALTER recipe_id TYPE text;
             INSERT INTO long (user_id, recipe_id, status, prompt, updated_at)
             SELECT 'system_backlog', repeat('x', 1000000), 'failed', '', now() - interval '9 days' FROM generate_series(1, 400);
             UPDATE backlog_cleanup.target SET generations_table = 'public.long', recipes_table = NULL, ledger_table = NULL",
        )
        .unwrap();
    // Of the account, too, and in no run.
    client
        .batch_execute(
            "INSERT INTO long (user_id, recipe_id, status, prompt)
             SELECT 'system_backlog', 'y', repeat('y', 1000000) || i, '' FROM generate_series(1, 200) i",
        )
        .unwrap();
    for call in [
        "SELECT count(*) FROM backlog_cleanup_status()",
        "SELECT count(*) FROM backlog_cleanup_failures()",
        "SELECT count(*) FROM backlog_cleanup_doctor()",
        "SELECT backlog_cleanup_failed_generations(dry_run => true)",
        "CALL backlog_cleanup_run(max_rows => 200)",
        "SELECT backlog_cleanup_failed_generations()",
        "SELECT backlog_cleanup_emergency()",
    ] {
        let most = cluster.memory_for("long_recipe", "postgres", call);
        assert!(most < 120_000, "{call}: {most} kB");
    }
    assert_eq!(number(&mut client, "SELECT count(*) FROM long WHERE status = 'failed'"), 0);
}

#[test]
fn a_transition_table_that_is_too_large_costs_no_more_than_its_session() {
    let (cluster, mut client) = filled("transition_table");
    fail(&mut client, 11, 5000);
    client
        .batch_execute(
            "CREATE FUNCTION look() RETURNS trigger LANGUAGE plpgsql AS
                 'BEGIN PERFORM FROM old_rows; RETURN NULL; END';
             CREATE TRIGGER look AFTER DELETE ON generations REFERENCING OLD TABLE AS old_rows
                 FOR EACH STATEMENT EXECUTE FUNCTION look()",
        )
        .unwrap();
    for run in [RUN, "SELECT backlog_cleanup_emergency()", "CALL backlog_cleanup_run()"] {
        let mut session = cluster.connect_to("transition_table");
        session.batch_execute("SET work_mem = '64 kB'; SET temp_file_limit = 64").unwrap();
        assert_eq!(refused(session.batch_execute(run)).0, "53400", "{run}");
        // An error is told before its transaction is over.
        session.batch_execute("").ok();
        drop(session);
        // A process that ends holds the target until it has.
        until_true(&mut client, "SELECT count(*) = 1 FROM pg_stat_activity WHERE datname = 'transition_table'");
        assert_eq!(balance(&mut client, 5150), 0, "{run}");
    }
    client.batch_execute(RUN).unwrap();
    assert_eq!(balance(&mut client, 5150), 5040);
}

#[test]
fn a_table_of_more_partitions_than_the_server_has_locks_for_is_refused() {
    // Every process that there may be adds to what is shared.
    let cluster = Cluster::start(
        "max_locks_per_transaction = 10\nmax_connections = 20\nmax_worker_processes = 0\nmax_wal_senders = 0\n\
         autovacuum_max_workers = 1\n",
    );
    let mut client = cluster.platform();
    client
        .batch_execute(
            "DO $$ BEGIN
                 ALTER TABLE generations RENAME TO old;
                 CREATE TABLE generations (LIKE old INCLUDING DEFAULTS) PARTITION BY LIST (recipe_id);
             END $$",
        )
        .unwrap();
    // More than the shared memory that is there for locks beyond what is promised.
    for first in (1..=1000).step_by(20) {
        client
            .batch_execute(&format!(
                "DO $$ BEGIN
                     FOR recipe IN {first}..{first} + 19 LOOP
                         EXECUTE format('CREATE TABLE part_%s PARTITION OF generations FOR VALUES IN (%s)', recipe, recipe);
                     END LOOP;
                 END $$"
            ))
            .unwrap();
    }
    fill(&mut client);
    for run in [RUN, "SELECT backlog_cleanup_emergency()", "CALL backlog_cleanup_run()"] {
        let (sqlstate, message, hint) = refused(client.batch_execute(run));
        assert_eq!(sqlstate, "53200", "{run}: {message}");
        assert!(hint.contains("max_locks_per_transaction"), "{hint}");
        // A count of them all would fail itself.
        let rows: i64 =
            (1..=10).map(|recipe| number(&mut client, &format!("SELECT count(*) FROM part_{recipe}"))).sum();
        assert_eq!(rows, 150, "{run}");
    }
    cluster.set("max_locks_per_transaction = 1000");
    cluster.restart();
    let mut client = cluster.connect();
    client.batch_execute(RUN).unwrap();
    assert_eq!(balance(&mut client, 150), 50);
}

/// A file system of its own, gone at the end.
struct Disk(TempDir);

impl Disk {
    /// `None` where nothing can be mounted.
    fn of(megabytes: u32) -> Option<Disk> {
        let dir = TempDir::with_prefix("backlog_cleanup-disk-").expect("a temporary directory");
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={megabytes}m,mode=0777"), "tmpfs"])
            .arg(dir.path())
            .status();
        if mount.is_ok_and(|status| status.success()) {
            return Some(Disk(dir));
        }
        println!("skipped: no file system can be mounted here");
        None
    }

    /// Leaves no room.
    fn fill(&self) {
        Command::new("dd")
            .args(["if=/dev/zero", "bs=8k"])
            .arg(format!("of={}", self.ballast().display()))
            .stderr(std::process::Stdio::null())
            .status()
            .expect("dd starts");
    }

    fn empty(&self) {
        std::fs::remove_file(self.ballast()).expect("the ballast");
    }

    fn ballast(&self) -> std::path::PathBuf {
        self.path().join("ballast")
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        Command::new("umount").args(["-l"]).arg(self.path()).status().ok();
    }
}

#[test]
fn a_full_disk_under_the_ledger_undoes_the_run() {
    let Some(disk) = Disk::of(20) else { return };
    let cluster = Cluster::start("");
    let mut client = cluster.platform();
    fill(&mut client);
    let space = disk.path().join("space");
    cluster.make_directory(&space);
    client.batch_execute(&format!("CREATE TABLESPACE small LOCATION '{}'", space.display())).unwrap();
    client.batch_execute("ALTER TABLE credit_transactions SET TABLESPACE small").unwrap();
    disk.fill();
    for run in [RUN, "SELECT backlog_cleanup_emergency()", "CALL backlog_cleanup_run()"] {
        fails(&mut client, run, "53100", "could not extend file");
    }
    disk.empty();
    client.batch_execute(RUN).unwrap();
    assert_eq!(balance(&mut client, 150), 50);
    drop(cluster);
}

#[test]
fn a_disk_too_full_for_the_log_stops_the_server_and_nothing_is_lost() {
    let Some(disk) = Disk::of(200) else { return };
    // Little enough is kept that the disk is full soon.
    let cluster = Cluster::start("min_wal_size = 32MB\nmax_wal_size = 48MB\nwal_recycle = off\n");
    cluster.platform();
    cluster.move_log_to(&disk.path().join("wal"));
    let mut client = cluster.connect();
    client
        .batch_execute(
            "INSERT INTO generations (user_id, recipe_id, prompt, status, updated_at)
             SELECT 'system_backlog', i % 10, repeat(md5(i::text), 30), 'failed', now() AT TIME ZONE 'UTC' - interval '2 days'
             FROM generate_series(1, 40000) i",
        )
        .unwrap();
    // Where pages have checksums, the first one to read a new row writes to the log.
    client.batch_execute("VACUUM generations").unwrap();
    client.batch_execute("CHECKPOINT").unwrap();
    client.batch_execute("UPDATE backlog_cleanup.target SET wal_compression = 'off'").unwrap();
    disk.fill();
    let failure = client.batch_execute("CALL backlog_cleanup_run(batch_size => 1000)").expect_err("no room");
    assert!(failure.is_closed() || failure.code().is_some(), "{failure}");
    drop(client);
    disk.empty();
    cluster.start_again();
    let mut client = cluster.reconnect();
    let gone = balance(&mut client, 40_000);
    println!("the log was full after {gone} rows");
    client.batch_execute("CALL backlog_cleanup_run()").unwrap();
    assert_eq!(balance(&mut client, 40_000), 39_900);
}
