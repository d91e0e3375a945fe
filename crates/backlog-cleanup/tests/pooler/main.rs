//! Behind a pooler, every command and the server work, and nothing stays on a connection that other clients get.

#[path = "../cli/mod.rs"]
mod cli;
#[path = "../receiver/mod.rs"]
mod receiver;
#[path = "../server/mod.rs"]
mod server;

mod delivered;
mod odd;
mod pgbouncer;
mod restarted;

use std::process::Command;

use cluster::{Cluster, truth, until_holds, value};
use server::{ADMIN, BASE, MONITOR, OPERATOR, Server};

use pgbouncer::{Mode, Pgbouncer};

/// Rows that take seconds to remove, in small batches.
const MANY: &str = "
    INSERT INTO generations (user_id, recipe_id, prompt, status, updated_at)
    SELECT 'system_backlog', 1, '', 'failed', now() AT TIME ZONE 'UTC' - interval '2 days' FROM generate_series(1, 5000)";

/// Panics if a server connection of the pooler has kept anything of its clients.
fn assert_clean(pooler: &Pgbouncer, cluster: &Cluster) {
    // All of them are idle again.
    let mut direct = cluster.connect();
    let others = "backend_type = 'client backend' AND pid <> pg_backend_pid() AND datname = 'behind'";
    until_holds(|| {
        !truth(&mut direct, &format!("SELECT EXISTS (SELECT FROM pg_stat_activity WHERE {others} AND state <> 'idle')"))
    });
    let locks = "SELECT count(*) FROM pg_locks WHERE locktype IN ('advisory', 'object') AND pid <> pg_backend_pid()";
    assert_eq!(value::<i64>(&mut direct, locks), 0);
    for _ in 0..pooler.size {
        for (kept, nothing) in [
            ("SELECT current_setting('search_path')", "\"$user\", public"),
            ("SELECT count(*)::text FROM pg_prepared_statements", "0"),
            (
                "SELECT coalesce(string_agg(name || '=' || setting, ' '), '') FROM pg_settings WHERE source = 'session'
                 AND name NOT IN ('application_name', 'client_encoding', 'DateStyle', 'TimeZone', 'standard_conforming_strings')",
                "",
            ),
            ("SELECT count(*)::text FROM pg_cursors WHERE is_holdable", "0"),
            ("SELECT pg_my_temp_schema()::text", "0"),
            ("SELECT count(*)::text FROM pg_listening_channels()", "0"),
        ] {
            assert_eq!(pooler.ask(kept), nothing, "{kept}");
        }
    }
}

fn ended(mut command: Command) -> cli::Ran {
    command.output().expect("it starts").into()
}

/// Runs every command, one after the other.
fn every_command(mode: Mode) {
    let cluster = Cluster::start("");
    let mut client = server::database(&cluster, "behind");
    let Some(pooler) = Pgbouncer::start(&cluster, mode) else { return };
    for _ in 0..2 {
        client.batch_execute("TRUNCATE generations").unwrap();
        client.batch_execute(cli::FAILURES.split_once(';').unwrap().1).unwrap();
        for arguments in [
            &["setup", "--yes"][..],
            &["status"],
            &["status", "--check"],
            &["doctor"],
            &["schedule", "show"],
            &["cleanup", "--dry-run"],
            &["cleanup", "--recipe-id", "it's \\ odd"],
            &["run", "--max-rows", "3", "--batch-size", "1", "--pause", "1 ms"],
            &["cleanup"],
            &["run", "--workers", "2"],
            &["emergency", "--dry-run"],
            &["emergency", "--confirm", "system_backlog"],
            &["runs"],
            &["runs", "1"],
        ] {
            let ran = pooler.run(arguments);
            let usual = match arguments[0] {
                "cleanup" if arguments.len() == 3 => 1, // no such recipe
                // Without pg_cron, the doctor has something to say.
                "setup" | "doctor" => ran.code.clamp(0, 4),
                "status" if arguments.len() > 1 => ran.code.clamp(0, 4),
                _ => 0,
            };
            assert_eq!(ran.code, usual, "{arguments:?}: {ran:?}");
            assert!(!ran.stderr.contains("prepared statement"), "{arguments:?}: {ran:?}");
            assert_clean(&pooler, &cluster);
        }
    }
    assert!(truth(&mut client, "SELECT difference = 0 FROM backlog_cleanup_books()"));
}

#[test]
fn every_command_works_behind_a_pooler_of_transactions_and_leaves_nothing() {
    every_command(Mode::Transaction);
}

#[test]
fn every_command_works_behind_a_pooler_of_sessions_and_leaves_nothing() {
    every_command(Mode::Session);
}

#[test]
fn a_run_behind_a_pooler_shows_its_progress_and_ctrl_c_ends_it_and_no_other() {
    for mode in [Mode::Transaction, Mode::Session] {
        let cluster = Cluster::start("");
        let mut client = server::database(&cluster, "behind");
        let Some(pooler) = Pgbouncer::start(&cluster, mode) else { return };
        client.batch_execute(MANY).unwrap();
        let other = std::thread::spawn({
            let command = pooler.psql("SELECT pg_sleep(4), 'undisturbed'");
            move || ended(command)
        });
        let mut terminal = cli::Terminal::start(
            &pooler.command(&[]),
            &format!("{} run --batch-size 10 --pause '20 ms'", env!("CARGO_BIN_EXE_backlog-cleanup")),
            100,
            20,
        );
        assert!(
            terminal.until(|screen| screen.contains("generations,") && screen.contains(" left")),
            "{}",
            terminal.text()
        );
        terminal.press("\u{3}");
        terminal.finish();
        let text = terminal.text();
        assert!(text.contains("did not finish; it removed") && !text.contains("WARN"), "{text}");
        let other = other.join().unwrap();
        assert!(other.stdout.contains("undisturbed"), "{other:?}");
        assert_clean(&pooler, &cluster);
        assert!(truth(&mut client, "SELECT difference = 0 FROM backlog_cleanup_books()"));
    }
}

#[test]
fn the_server_works_behind_a_pooler_and_leaves_nothing() {
    for mode in [Mode::Transaction, Mode::Session] {
        let cluster = Cluster::start("");
        let mut client = server::database(&cluster, "behind");
        let Some(pooler) = Pgbouncer::start(&cluster, mode) else { return };
        client.batch_execute(MANY).unwrap();
        client.batch_execute("UPDATE backlog_cleanup.target SET batch_size = 20, throttle_query = 'SELECT pg_sleep(0.02)::text WHERE false'").unwrap();
        let server = Server::start_behind(pooler.host(), "behind", &[]);
        for _ in 0..3 {
            for (token, path) in [
                (MONITOR, format!("{BASE}/status")),
                (MONITOR, format!("{BASE}/doctor")),
                (MONITOR, format!("{BASE}/runs")),
                (MONITOR, "/metrics".into()),
                (MONITOR, "/readyz".into()),
                (OPERATOR, "/preview?target=generations&mode=regular".into()),
                (ADMIN, "/".into()),
            ] {
                let answer = server.get(token, &path);
                assert_eq!(answer.status, 200, "{mode:?} {path}: {answer:?}");
            }
        }
        let begun = server.send(
            "POST",
            &format!("{BASE}/run"),
            &[("authorization", &server::bearer(OPERATOR)), ("prefer", "respond-async")],
            "",
        );
        assert_eq!(begun.status, 202, "{begun:?}");
        let id = begun.json()["runId"].as_i64().unwrap();
        let stopped = server.post(OPERATOR, &format!("{BASE}/runs/{id}/stop"), "");
        assert!(stopped.status == 200 && stopped.json()["stopping"] == true, "{stopped:?}");
        until_holds(|| {
            truth(&mut client, "SELECT state = 'stopped' FROM backlog_cleanup.run ORDER BY id DESC LIMIT 1")
        });
        drop(server);
        assert_clean(&pooler, &cluster);
    }
}
