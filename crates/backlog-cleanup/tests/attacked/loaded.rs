//! H2, H3, H6, H7, H11: what one client takes from the others.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use cluster::{Cluster, fail, until, until_holds};

use crate::server::{ADMIN, BASE, MONITOR, OPERATOR, Server, bearer, database, start};
use crate::{SLOW, login};

/// Connects from an address of this machine, and sends a text.
fn open(server: &Server, from: &str, text: &str) -> TcpStream {
    let to: SocketAddr = server.address.split("://").nth(1).unwrap().parse().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let stream = runtime.block_on(async {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::new(from.parse::<IpAddr>().unwrap(), 0)).unwrap();
        socket.connect(to).await.unwrap().into_std().unwrap()
    });
    stream.set_nonblocking(false).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    (&stream).write_all(text.as_bytes()).ok();
    stream
}

/// The first line of the answer.
fn status(mut stream: TcpStream) -> String {
    let mut answer = Vec::new();
    let mut part = [0; 4096];
    while let Ok(read @ 1..) = stream.read(&mut part) {
        answer.extend_from_slice(&part[..read]);
    }
    String::from_utf8_lossy(&answer).lines().next().unwrap_or_default().to_owned()
}

fn ask(server: &Server, from: &str, request: &str) -> String {
    let head = format!("{request} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {OPERATOR}\r\n");
    status(open(server, from, &format!("{head}Content-Length: 0\r\nConnection: close\r\n\r\n")))
}

#[test]
fn h2_bodies_that_never_end_take_nothing_from_others() {
    let (_cluster, _client, server) = start("endless", &[]);
    let endless = "POST /login HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\ntoken=";
    let held: Vec<TcpStream> = (0..300).map(|_| open(&server, "127.0.0.1", endless)).collect();
    let began = Instant::now();
    for (request, answer) in [
        ("GET /healthz", "HTTP/1.1 200 OK"),
        ("GET /readyz", "HTTP/1.1 200 OK"),
        (&format!("POST {BASE}/runs/1/stop"), "HTTP/1.1 404 Not Found"),
    ] {
        for _ in 0..10 {
            assert_eq!(ask(&server, "127.0.0.2", request), answer, "{request}");
        }
    }
    assert!(began.elapsed() < Duration::from_secs(8), "the bodies have ended");
    drop(held);
    // No HTTP/2, whose streams no bound on connections bounds.
    let h2c = status(open(&server, "127.0.0.2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\u{4}\0\0\0\0\0"));
    assert!(h2c.is_empty() || h2c.starts_with("HTTP/1.1 4"), "{h2c:?}");
}

#[test]
fn h3_idle_connections_leave_files_for_others_and_are_closed() {
    let cluster = Cluster::shared("");
    database(&cluster, "idle");
    let server = Server::start(&cluster, "idle", &[]);
    let limits = format!("--pid={}", server.child.id());
    assert!(Command::new("prlimit").args([&limits, "--nofile=1024:1024"]).status().unwrap().success());
    let idle = "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let held: Vec<TcpStream> = (0..1010)
        .map(|_| open(&server, "127.0.0.1", idle))
        .enumerate()
        .filter_map(|(number, stream)| (number < 400).then_some(stream))
        .collect();
    let files = || std::fs::read_dir(format!("/proc/{}/fd", server.child.id())).unwrap().count();
    assert!(files() < 400, "{} files", files());
    assert_eq!(ask(&server, "127.0.0.2", "GET /healthz"), "HTTP/1.1 200 OK");
    assert_eq!(ask(&server, "127.0.0.2", &format!("GET {BASE}/status")), "HTTP/1.1 200 OK");
    until_holds(|| files() < 60);
    assert_eq!(ask(&server, "127.0.0.1", "GET /healthz"), "HTTP/1.1 200 OK");
    drop(held);
}

#[test]
fn h6_one_token_takes_no_session_and_no_stream_from_another() {
    let (_cluster, _client, server) = start("per_token", &[]);
    let admin = login(&server, ADMIN);
    for _ in 0..1001 {
        login(&server, MONITOR);
    }
    let status = format!("{BASE}/status");
    assert_eq!(server.send("GET", &status, &[("cookie", &admin)], "").status, 200);
    let stream = |token: &str| {
        let head =
            format!("GET {BASE}/progress HTTP/1.1\r\nHost: localhost\r\nAuthorization: {}\r\n\r\n", bearer(token));
        let mut stream = open(&server, "127.0.0.1", &head);
        let mut line = [0; 12];
        stream.read_exact(&mut line).unwrap();
        (String::from_utf8_lossy(&line).into_owned(), stream)
    };
    let streams: Vec<_> = (0..100).map(|_| stream(MONITOR)).collect();
    assert!(streams.iter().any(|(line, _)| line == "HTTP/1.1 503"));
    assert_eq!(stream(OPERATOR).0, "HTTP/1.1 200");
}

#[test]
fn h7_stop_and_readiness_have_a_connection_of_their_own() {
    let cluster = Cluster::shared("");
    let mut client = database(&cluster, "reserved");
    client.batch_execute(SLOW).unwrap();
    fail(&mut client, 1, 1000);
    let server = Server::start(&cluster, "reserved", &[]);
    let authorization = bearer(OPERATOR);
    let headers = [("authorization", &*authorization), ("prefer", "respond-async")];
    let accepted = server.send("POST", &format!("{BASE}/emergency"), &headers, "");
    assert_eq!(accepted.status, 202, "{accepted:?}");
    let stop = format!("{}/stop", accepted.header("location"));
    client.batch_execute("BEGIN; LOCK recipes IN ACCESS EXCLUSIVE MODE").unwrap();
    thread::scope(|scope| {
        let dry = |_| scope.spawn(|| server.post(OPERATOR, &format!("{BASE}/run?dryRun=true"), ""));
        let dry_runs: Vec<_> = (0..6).map(dry).collect();
        let status = scope.spawn(|| server.get(OPERATOR, &format!("{BASE}/status")).status);
        until(
            &cluster,
            "SELECT count(*) >= 3 FROM pg_stat_activity WHERE datname = 'reserved' AND wait_event_type = 'Lock'",
        );
        let stopped = server.post(OPERATOR, &stop, "");
        let ready = server.get(MONITOR, "/readyz").status;
        client.batch_execute("COMMIT").unwrap();
        assert_eq!((stopped.status, &stopped.json()["stopping"]), (200, &true.into()), "{stopped:?}");
        assert_eq!(ready, 200);
        let answers: Vec<_> = dry_runs.into_iter().map(|dry| dry.join().unwrap()).collect();
        assert!(answers.iter().any(|it| it.status == 200) && answers.iter().any(|it| it.status == 503), "{answers:?}");
        assert_eq!(status.join().unwrap(), 200);
    });
}

#[test]
fn h11_sixty_dashboards_of_many_recipes_share_one_report() {
    let cluster = Cluster::shared("");
    let mut client = database(&cluster, "many_recipes");
    client
        .batch_execute(
            "INSERT INTO recipes (id, name, slug, description, prompt, category, credit_cost)
             SELECT id, 'Recipe ' || id, id::text, '', '', '', 1 FROM generate_series(3, 100000) id;
             INSERT INTO generations (user_id, recipe_id, prompt, status, failure_reason, updated_at)
             SELECT 'system_backlog', id, '', 'failed', 'timeout', now() AT TIME ZONE 'UTC' - interval '2 days'
             FROM generate_series(1, 100000) id;
             ANALYZE",
        )
        .unwrap();
    let server = Server::start(&cluster, "many_recipes", &["--count-interval", "86400"]);
    let authorization = bearer(MONITOR);
    let page = || server.send("GET", "/", &[("authorization", &authorization)], "").status;
    thread::scope(|scope| {
        let pages: Vec<_> = (0..60).map(|_| scope.spawn(page)).collect();
        assert!(pages.into_iter().all(|page| page.join().unwrap() == 200));
    });
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.child.id())).unwrap();
    let most = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let most: u64 = most.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(most < 400 * 1024, "{most} kB");
}
