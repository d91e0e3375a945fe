//! Whatever settings a role has: a command works, or says what to do.

use cluster::{Cluster, truth, until_holds};

use crate::pgbouncer::{Mode, Pgbouncer};
use crate::{MANY, assert_clean, cli, server};

/// Settings that change how statements are read, how values are written, or how they are executed.
const ODD: [&str; 30] = [
    "DateStyle = 'German, DMY'",
    "IntervalStyle = 'sql_standard'",
    "TimeZone = 'Asia/Kathmandu'",
    "bytea_output = 'escape'",
    "standard_conforming_strings = off",
    "escape_string_warning = off",
    "search_path = ''",
    "xmloption = 'document'",
    "extra_float_digits = -10",
    "client_encoding = 'LATIN1'",
    "default_transaction_isolation = 'serializable'",
    "default_transaction_deferrable = on",
    "jit = on",
    "enable_seqscan = off",
    "enable_indexscan = off",
    "enable_indexonlyscan = off",
    "enable_bitmapscan = off",
    "enable_tidscan = off",
    "enable_hashagg = off",
    "enable_sort = off",
    "plan_cache_mode = 'force_generic_plan'",
    "row_security = off",
    "lock_timeout = '2 s'",
    "idle_in_transaction_session_timeout = '1 s'",
    "quote_all_identifiers = on",
    "synchronous_commit = off",
    "backslash_quote = off",
    "array_nulls = off",
    "transform_null_equals = on",
    "check_function_bodies = off",
];

fn set(cluster: &Cluster, setting: &str) {
    cluster.connect().batch_execute(&format!("ALTER ROLE postgres IN DATABASE behind SET {setting}")).unwrap();
}

/// The commands, with what they exit with when nothing is wrong.
const COMMANDS: [&[&str]; 8] = [
    &["status"],
    &["schedule", "show"],
    &["cleanup", "--dry-run"],
    &["run", "--max-rows", "3", "--batch-size", "1", "--pause", "1 ms"],
    &["cleanup"],
    &["emergency", "--confirm", "system_backlog"],
    &["run"],
    &["runs"],
];

#[test]
fn thirty_odd_settings_at_once_change_nothing() {
    let cluster = Cluster::start("");
    let mut client = server::database(&cluster, "behind");
    for setting in ODD {
        set(&cluster, setting);
    }
    let pooler = Pgbouncer::start(&cluster, Mode::Transaction);
    for is_behind in [false, true] {
        client.batch_execute("TRUNCATE generations").unwrap();
        client.batch_execute(cli::FAILURES.split_once(';').unwrap().1).unwrap();
        for arguments in COMMANDS {
            let ran = match (&pooler, is_behind) {
                (Some(pooler), true) => pooler.run(arguments),
                _ => cli::run(&cluster, "behind", arguments),
            };
            assert_eq!(ran.code, 0, "{arguments:?}, behind a pooler {is_behind}: {ran:?}");
        }
        assert!(truth(&mut client, "SELECT count(*) = 0 FROM generations"));
        assert!(truth(&mut client, "SELECT difference = 0 FROM backlog_cleanup_books()"));
    }
    let server = server::Server::start(&cluster, "behind", &[]);
    for (token, path) in [
        (server::MONITOR, "/"),
        (server::MONITOR, "/metrics"),
        (server::OPERATOR, "/preview?target=generations&mode=regular"),
    ] {
        let answer = server.get(token, path);
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
    }
}

#[test]
fn a_role_that_only_reads_is_told_so() {
    for setting in ["default_transaction_read_only = on", "session_replication_role = replica"] {
        let cluster = Cluster::start("");
        let mut client = server::database(&cluster, "behind");
        client.batch_execute(cli::FAILURES.split_once(';').unwrap().1).unwrap();
        set(&cluster, setting);
        for arguments in COMMANDS {
            let ran = cli::run(&cluster, "behind", arguments);
            assert!(ran.code == 0 || ran.stderr.contains("HINT:"), "{setting}, {arguments:?}: {ran:?}");
        }
    }
}

#[test]
fn a_run_that_its_pooler_gives_up_ends() {
    let cluster = Cluster::start("");
    let mut client = server::database(&cluster, "behind");
    client.batch_execute(MANY).unwrap();
    let Some(pooler) = Pgbouncer::start_with(&cluster, Mode::Transaction, "query_timeout = 3") else { return };
    let given_up = pooler.run(&["run", "--batch-size", "10", "--pause", "200 ms"]);
    assert!(given_up.code == 1 && given_up.stdout.contains("did not finish; it removed"), "{given_up:?}");
    until_holds(|| truth(&mut client, "SELECT state = 'interrupted' FROM backlog_cleanup.run"));
    assert!(truth(&mut client, "SELECT difference = 0 FROM backlog_cleanup_books()"));
}

#[test]
fn a_statement_timeout_of_the_role_does_not_end_a_run_and_behind_a_pooler_says_what_to_do() {
    let cluster = Cluster::start("");
    let mut client = server::database(&cluster, "behind");
    client.batch_execute(MANY).unwrap();
    set(&cluster, "statement_timeout = '1 s'");
    let slow = ["run", "--batch-size", "100", "--pause", "20 ms", "--max-rows", "2400"];
    let direct = cli::run(&cluster, "behind", &["run", "--batch-size", "1", "--pause", "20 ms", "--max-rows", "60"]);
    assert_eq!(direct.code, 0, "{direct:?}");
    let slow: Vec<&str> = slow.iter().map(|it| if *it == "20 ms" { "200 ms" } else { it }).collect();
    let direct = cli::run(&cluster, "behind", &slow);
    assert_eq!(direct.code, 0, "{direct:?}");
    let Some(pooler) = Pgbouncer::start(&cluster, Mode::Transaction) else { return };
    let behind = pooler.run(&slow);
    assert!(behind.code == 1 && behind.stderr.contains("SET statement_timeout = 0"), "{behind:?}");
    let one = pooler.run(&["cleanup"]);
    assert_eq!(one.code, 0, "{one:?}");
    assert!(truth(&mut client, "SELECT difference = 0 FROM backlog_cleanup_books()"));
    set(&cluster, "statement_timeout = 0");
    assert_clean(&pooler, &cluster);
}
