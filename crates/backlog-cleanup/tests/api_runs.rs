//! Runs that take longer than their request, that are requested twice, or during which the server or the database stops.

mod server;

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::thread;

use cluster::{Cluster, fail, truth, until, until_holds};
use server::{BASE, MONITOR, OPERATOR, Server, bearer, database};

/// Makes batches small and slow.
const SLOW: &str = "
    CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.1); RETURN NULL; END $$;
    CREATE TRIGGER slow AFTER DELETE ON generations FOR EACH STATEMENT EXECUTE FUNCTION slow();
    UPDATE backlog_cleanup.target SET batch_size = 5";

fn emergency(server: &Server, headers: &[(&str, &str)]) -> server::Answer {
    let authorization = bearer(OPERATOR);
    server.send("POST", &format!("{BASE}/emergency"), &[&[("authorization", &*authorization)], headers].concat(), "")
}

#[test]
fn a_run_that_outlasts_its_request_goes_on_in_batches_and_is_followed() {
    let cluster = Cluster::shared("");
    let mut client = database(&cluster, "outlasts");
    client.batch_execute(SLOW).unwrap();
    fail(&mut client, 1, 100);
    let server = Server::start(&cluster, "outlasts", &["--request-timeout", "1"]);
    let events = TcpStream::connect(server.address.trim_start_matches("http://")).unwrap();
    write!(&events, "GET {BASE}/progress HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {MONITOR}\r\n\r\n")
        .unwrap();
    let accepted = emergency(&server, &[]);
    assert_eq!(accepted.status, 202, "{accepted:?}");
    let location = accepted.header("location").to_owned();
    assert_eq!(accepted.json()["location"], location);
    let at_work = server.get(MONITOR, &location).json();
    assert_eq!(at_work["state"], "running");
    assert!(at_work["removed"].as_i64().unwrap() < 100 && at_work["shareDone"].is_number(), "{at_work}");
    until_holds(|| server.get(MONITOR, &location).json()["state"] != "running");
    let over = server.get(MONITOR, &location).json();
    assert_eq!((&over["state"], over["removed"].as_i64()), (&"completed".into(), Some(100)), "{over}");
    // The events up to the one without a run.
    let mut seen = Vec::new();
    for line in BufReader::new(events).lines().map_while(Result::ok) {
        if let Some(data) = line.strip_prefix("data: ") {
            seen.push(serde_json::from_str::<serde_json::Value>(data).unwrap());
            if seen.len() > 2 && data == "[]" {
                break;
            }
        }
    }
    assert!(seen.iter().any(|runs| runs[0]["removed"].as_i64().is_some_and(|removed| (1..100).contains(&removed))));
    until(&cluster, "SELECT count(*) = 0 FROM pg_stat_activity WHERE query LIKE 'CALL%' AND datname = 'outlasts'");
}

#[test]
fn a_client_need_not_wait_and_can_ask_the_run_to_stop() {
    let cluster = Cluster::shared("");
    let mut client = database(&cluster, "stop");
    client.batch_execute(SLOW).unwrap();
    fail(&mut client, 1, 1000);
    let server = Server::start(&cluster, "stop", &[]);
    let accepted = emergency(&server, &[("prefer", "respond-async")]);
    assert_eq!(accepted.status, 202, "{accepted:?}");
    let second = emergency(&server, &[]);
    assert_eq!((second.status, &second.json()["sqlstate"]), (409, &"55P03".into()), "{second:?}");
    let location = accepted.header("location").to_owned();
    let stop = server.post(OPERATOR, &format!("{location}/stop"), "").json();
    assert_eq!(stop["stopping"], true, "{stop}");
    until_holds(|| server.get(MONITOR, &location).json()["state"] == "stopped");
    assert_eq!(server.get(MONITOR, &location).json()["stopRequestedBy"], "backlog_operator");
    let run = location.rsplit('/').next().unwrap();
    let page = server.get(MONITOR, &format!("/?run={run}")).body;
    assert!(page.contains("stop requested by</dt><dd>backlog_operator"), "{page}");
    assert_eq!(server.post(OPERATOR, &format!("{location}/stop"), "").json()["stopping"], false);
}

#[test]
fn the_same_key_is_the_same_run() {
    let cluster = Cluster::shared("");
    let mut client = database(&cluster, "keys");
    fail(&mut client, 1, 15);
    let server = Server::start(&cluster, "keys", &[]);
    let first = emergency(&server, &[("idempotency-key", "one")]);
    assert_eq!((first.status, &first.json()["removedCount"]), (200, &15.into()), "{first:?}");
    fail(&mut client, 1, 15);
    let again = emergency(&server, &[("idempotency-key", "one")]);
    assert_eq!((again.status, &again.body), (200, &first.body));
    // Another role's key is another key; another request with the same key is refused.
    let key = ("idempotency-key", "one");
    let admin = bearer(server::ADMIN);
    let other = server.send("POST", &format!("{BASE}/run"), &[("authorization", &admin), key], "");
    assert_eq!((other.status, &other.json()["cleanedUpGenerations"]), (200, &5.into()), "{other:?}");
    let operator = bearer(OPERATOR);
    let reused = server.send("POST", &format!("{BASE}/run"), &[("authorization", &operator), key], "");
    assert_eq!(reused.status, 422, "{reused:?}");
    for bad in ["", &"k".repeat(256)] {
        assert_eq!(emergency(&server, &[("idempotency-key", bad)]).status, 400);
    }
    // The key of an unanswered request, and of a request that failed.
    client.batch_execute(SLOW).unwrap();
    client.batch_execute("UPDATE backlog_cleanup.target SET lock_timeout = '1 hour'").unwrap();
    client.batch_execute("BEGIN; LOCK generations IN ACCESS EXCLUSIVE MODE").unwrap();
    thread::scope(|scope| {
        let first = scope.spawn(|| emergency(&server, &[("idempotency-key", "two")]));
        until(
            &cluster,
            "SELECT count(*) > 0 FROM pg_stat_activity WHERE datname = 'keys' AND wait_event_type = 'Lock'",
        );
        assert_eq!(emergency(&server, &[("idempotency-key", "two")]).status, 409);
        client.batch_execute("COMMIT").unwrap();
        assert_eq!(first.join().unwrap().status, 200);
    });
    client.batch_execute("UPDATE backlog_cleanup.target SET max_share = 0").unwrap();
    fail(&mut client, 1, 15);
    let run = || {
        server.send("POST", &format!("{BASE}/run"), &[("authorization", &operator), ("idempotency-key", "three")], "")
    };
    assert_eq!(run().status, 422);
    client.batch_execute("UPDATE backlog_cleanup.target SET max_share = 100").unwrap();
    assert_eq!((run().status, &run().json()["cleanedUpGenerations"]), (200, &5.into()));
}

#[test]
fn a_run_is_done_and_known_when_its_client_has_gone() {
    let cluster = Cluster::shared("");
    let mut client = database(&cluster, "gone");
    client.batch_execute(SLOW).unwrap();
    fail(&mut client, 1, 20);
    let server = Server::start(&cluster, "gone", &[]);
    let gone = TcpStream::connect(server.address.trim_start_matches("http://")).unwrap();
    write!(
        &gone,
        "POST {BASE}/emergency HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {OPERATOR}\r\nIdempotency-Key: k\r\n\
         Content-Length: 0\r\n\r\n"
    )
    .unwrap();
    cluster::until_true(&mut client, "SELECT count(*) > 0 FROM backlog_cleanup.run");
    drop(gone);
    until_holds(|| emergency(&server, &[("idempotency-key", "k")]).status == 200);
    let again = emergency(&server, &[("idempotency-key", "k")]);
    assert_eq!(again.json()["removedCount"], 20, "{again:?}");
}

#[test]
fn it_stops_as_soon_as_requests_are_answered_and_runs_are_between_two_batches() {
    let cluster = Cluster::shared("");
    let mut client = database(&cluster, "shutdown");
    client.batch_execute(SLOW).unwrap();
    fail(&mut client, 1, 30);
    client.batch_execute("INSERT INTO backlog_cleanup.target (name, batch_size) VALUES ('second', 5)").unwrap();
    let mut server = Server::start(&cluster, "shutdown", &[]);
    let events = TcpStream::connect(server.address.trim_start_matches("http://")).unwrap();
    write!(&events, "GET {BASE}/progress HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {MONITOR}\r\n\r\n")
        .unwrap();
    thread::scope(|scope| {
        let waiting = scope.spawn(|| emergency(&server, &[]));
        cluster::until_true(&mut client, "SELECT count(*) = 1 FROM backlog_cleanup.progress WHERE batches > 0");
        server.terminate();
        let answer = waiting.join().unwrap();
        assert_eq!((answer.status, &answer.json()["removedCount"]), (200, &30.into()), "{answer:?}");
    });
    assert!(server.child.wait().unwrap().success(), "{}", server.log());

    fail(&mut client, 1, 1000);
    let mut server = Server::start(&cluster, "shutdown", &[]);
    assert_eq!(emergency(&server, &[("prefer", "respond-async")]).status, 202);
    server.terminate();
    assert!(server.child.wait().unwrap().success(), "{}", server.log());
    let last = "SELECT state = 'stopped' AND finished_at IS NOT NULL AND removed < 1000
                FROM backlog_cleanup.run ORDER BY id DESC LIMIT 1";
    assert!(truth(&mut client, last));
    let books = "SELECT (SELECT sum(removed) FROM backlog_cleanup.run)
                        = (SELECT sum(amount) FROM credit_transactions WHERE type = 'backlog_cleanup')";
    assert!(truth(&mut client, books));
}

#[test]
fn it_starts_and_waits_without_the_database_and_is_there_again_with_it() {
    let cluster = Cluster::start("");
    let mut client = database(&cluster, "away");
    fail(&mut client, 1, 15);
    drop(client);
    let status = format!("{BASE}/status");
    let server = Server::start(&cluster, "away", &[]);
    assert_eq!(server.get(MONITOR, &status).status, 200);
    cluster.restart();
    // The pool replaces its lost connections unnoticed.
    assert_eq!(server.get(MONITOR, &status).status, 200);
    cluster.stop();
    for path in [&*status, "/readyz"] {
        let away = server.get(MONITOR, path);
        assert_eq!(away.status, 503, "{away:?}");
        assert_eq!((&away.json()["sqlstate"], away.header("retry-after")), (&"08006".into(), "5"));
    }
    assert_eq!(server.get(MONITOR, "/healthz").status, 200);
    let late = Server::start(&cluster, "away", &[]);
    late.until_logged("the database is away");
    cluster.start_again();
    for server in [&server, &late] {
        until_holds(|| server.get(MONITOR, &status).status == 200);
        assert_eq!(server.get(MONITOR, "/readyz").status, 200);
    }
}

#[test]
fn a_run_that_the_databases_restart_cuts_off_loses_nothing() {
    let cluster = Cluster::start("");
    let mut client = database(&cluster, "cut");
    client.batch_execute(SLOW).unwrap();
    fail(&mut client, 1, 50);
    let server = Server::start(&cluster, "cut", &[]);
    thread::scope(|scope| {
        let run = scope.spawn(|| emergency(&server, &[("idempotency-key", "cut")]));
        cluster::until_true(&mut client, "SELECT count(*) = 1 FROM backlog_cleanup.progress WHERE batches > 0");
        cluster.restart();
        assert_eq!(run.join().unwrap().status, 503);
    });
    let again = emergency(&server, &[("idempotency-key", "cut")]);
    assert_eq!(again.status, 200, "{again:?}");
    let mut client = cluster.connect_to("cut");
    let books = "SELECT count(*) = 0 AND (SELECT sum(removed) FROM backlog_cleanup.run) = 50
                        AND (SELECT sum(amount) FROM credit_transactions WHERE type = 'backlog_cleanup') = 50
                 FROM generations";
    assert!(truth(&mut client, books));
}

#[test]
fn a_database_that_says_nothing_keeps_nobody_for_ever() {
    let cluster = Cluster::start("");
    drop(database(&cluster, "silent"));
    let status = format!("{BASE}/status");
    let server = Server::start(&cluster, "silent", &["--request-timeout", "1"]);
    assert_eq!(server.get(MONITOR, &status).status, 200);
    let signal = |signal: &str| {
        let send = |pid: &str| std::process::Command::new("kill").args([signal, pid]).status().unwrap();
        let postmaster = cluster.postmaster().to_string();
        // The postmaster first, so that it starts no new backend.
        send(&postmaster);
        let pids = std::fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        for pid in pids {
            let line = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let parent = format!("PPid:\t{postmaster}\n");
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            if line.contains("backlog_monitor silent") && status.contains(&parent) {
                send(&pid);
            }
        }
    };
    signal("-STOP");
    let silent = server.get(MONITOR, &status);
    signal("-CONT");
    assert!([503, 504].contains(&silent.status), "{silent:?}");
    until_holds(|| server.get(MONITOR, &status).status == 200);
}
