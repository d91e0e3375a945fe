//! Who is let in: tokens, sessions, hosts, other sites' pages, limits, TLS.

mod server;

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::Duration;

use cluster::Cluster;
use server::{ADMIN, Answer, BASE, MONITOR, OPERATOR, Server, bearer, database, start};

fn is_problem(answer: &Answer, status: u16) -> bool {
    answer.status == status
        && answer.header("content-type") == "application/problem+json"
        && answer.json()["hint"].as_str().is_some_and(|hint| !hint.is_empty())
}

#[test]
fn nobody_comes_in_without_a_token_and_wrong_ones_are_counted() {
    let (_cluster, _client, server) = start("tokens", &[]);
    let status = format!("{BASE}/status");
    let with = |value: &str| server.send("GET", &status, &[("authorization", value)], "");
    let without = server.send("GET", &status, &[], "");
    assert!(is_problem(&without, 401), "{without:?}");
    assert_eq!(without.header("www-authenticate"), "Bearer");
    for wrong in ["Bearer", "Bearer x", &format!("Basic {MONITOR}"), &format!("Bearer {MONITOR}x"), "Bearer "] {
        assert!(is_problem(&with(wrong), 401), "{wrong}");
    }
    let refused = (0..20).find(|_| with("Bearer guess").status == 429);
    assert!(refused.is_some(), "guesses are not counted");
    for right in [MONITOR, OPERATOR, ADMIN] {
        assert_eq!(with(&format!("bearer {right}")).status, 200);
    }
}

#[test]
fn a_token_file_is_read_by_its_owner_only_and_says_what_is_wrong_with_it() {
    let cluster = Cluster::shared("");
    database(&cluster, "token_files");
    let file = cluster.socket().to_owned() + "/tokens";
    let said = |lines: &str, mode: u32| {
        std::fs::write(&file, lines).unwrap();
        std::fs::set_permissions(&file, PermissionsExt::from_mode(mode)).unwrap();
        Server::try_start(&cluster, "token_files", &["--tokens", &file]).err().unwrap_or_default()
    };
    let right = format!("monitor backlog_monitor {MONITOR}\n");
    for mode in [0o644, 0o640, 0o604, 0o660] {
        assert!(said(&right, mode).contains("HINT:  chmod 600"), "{mode:o}");
    }
    for (lines, what) in [
        ("", "has no tokens"),
        ("monitor backlog_monitor\n", "line 1"),
        ("\n# a comment\nboss backlog_monitor x\n", "line 3 of the file of tokens"),
        ("monitor backlog_monitor short\n", "shorter than"),
        ("monitor backlog_monitor sha256:12\n", "64 hex digits"),
        (&format!("{right}admin backlog_admin {MONITOR}\n"), "an earlier line"),
    ] {
        let said = said(lines, 0o600);
        assert!(said.contains(what), "{lines}: {said}");
        assert!(!said.contains(MONITOR), "{said}");
    }
    // The SHA-256 of `MONITOR`.
    let hash = Command::new("sha256sum")
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .and_then(|mut child| {
            child.stdin.take().unwrap().write_all(MONITOR.as_bytes())?;
            child.wait_with_output()
        })
        .unwrap();
    let hash = String::from_utf8(hash.stdout).unwrap();
    std::fs::write(&file, format!("monitor backlog_monitor sha256:{}\n", hash.split_whitespace().next().unwrap()))
        .unwrap();
    let server = Server::start(&cluster, "token_files", &["--tokens", &file]);
    assert_eq!(server.get(MONITOR, &format!("{BASE}/status")).status, 200);
}

#[test]
fn without_tokens_it_listens_on_loopback_only_and_only_when_told_so() {
    let cluster = Cluster::shared("");
    database(&cluster, "no_tokens");
    let said = Server::try_start(&cluster, "no_tokens", &["--insecure-no-auth", "--listen", "0.0.0.0:0"]).err();
    assert!(said.as_ref().is_some_and(|said| said.contains("on loopback only")), "{said:?}");
    let serve = server::command(&cluster, "no_tokens").arg("serve").output().unwrap();
    assert_eq!(serve.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&serve.stderr).contains("--tokens"));
    let server = Server::start(&cluster, "no_tokens", &["--insecure-no-auth", "--username", "backlog_admin"]);
    assert_eq!(server.send("POST", &format!("{BASE}/run"), &[], "").status, 200);
    // Without credentials, any page that a person opens could send such a request.
    let evil = [("origin", "http://evil.example")];
    assert!(is_problem(&server.send("POST", &format!("{BASE}/run"), &evil, ""), 403));
}

#[test]
fn a_session_lasts_from_login_to_logout_and_is_for_this_servers_pages_only() {
    let (_cluster, _client, server) = start("sessions", &[]);
    let form = ("content-type", "application/x-www-form-urlencoded");
    let own = ("sec-fetch-site", "same-origin");
    assert!(is_problem(&server.send("POST", "/login", &[form, own], "token=wrong"), 401));
    for site in ["cross-site", "same-site"] {
        let login = server.send("POST", "/login", &[form, ("sec-fetch-site", site)], &format!("token={OPERATOR}"));
        assert!(is_problem(&login, 403), "{login:?}");
    }
    let login = server.send("POST", "/login", &[form, own], &format!("token={OPERATOR}"));
    assert_eq!((login.status, login.header("location")), (303, "/"), "{login:?}");
    let cookie = login.header("set-cookie");
    for attribute in ["HttpOnly", "SameSite=Strict", "Path=/", "Max-Age="] {
        assert!(cookie.contains(attribute), "{cookie}");
    }
    assert!(!cookie.contains(OPERATOR) && !cookie.contains("Secure"), "{cookie}");
    let behind_tls = [form, own, ("x-forwarded-proto", "https")];
    assert!(
        server.send("POST", "/login", &behind_tls, &format!("token={ADMIN}")).header("set-cookie").contains("Secure")
    );
    let cookie = ("cookie", cookie.split(';').next().unwrap());

    let status = || server.send("GET", &format!("{BASE}/status"), &[cookie], "").status;
    assert_eq!(status(), 200);
    let address = server.address.clone();
    let port = address.rsplit(':').next().unwrap();
    let post =
        |headers: &[(&str, &str)]| server.send("POST", &format!("{BASE}/run"), &[&[cookie], headers].concat(), "");
    for evil in [
        &[("sec-fetch-site", "cross-site")][..],
        &[("sec-fetch-site", "same-site")],
        &[("sec-fetch-site", "cross-site"), ("origin", &address)],
        &[("sec-fetch-site", "")],
        &[("origin", "http://evil.example")],
        &[("origin", "null")],
        &[("origin", "http://127.0.0.1:1")],
        &[("origin", &format!("http://127.0.0.1:{port}.evil.example"))],
        // A browser sends at least one of the two headers.
        &[],
    ] {
        assert!(is_problem(&post(evil), 403), "{evil:?}");
    }
    for own in [&[("sec-fetch-site", "same-origin")][..], &[("sec-fetch-site", "none")], &[("origin", &address)]] {
        assert_eq!(post(own).status, 200, "{own:?}");
    }
    assert_eq!(server.send("POST", "/logout", &[cookie, own], "").status, 303);
    assert_eq!(status(), 401);
}

#[test]
fn it_answers_to_its_own_names_only() {
    let (_cluster, _client, server) = start("hosts", &["--allowed-host", "ops.example,Backlog.Example"]);
    let port = server.address.rsplit(':').next().unwrap().to_owned();
    let ask = |host: &str| {
        server.send("GET", &format!("{BASE}/runs"), &[("host", host), ("authorization", &bearer(MONITOR))], "")
    };
    for host in
        ["localhost", "127.0.0.1", "[::1]:80", &format!("localhost:{port}"), "ops.example", "backlog.example:443"]
    {
        assert_eq!(ask(host).status, 200, "{host}");
    }
    for host in ["evil.example", "localhost.evil.example", "127.0.0.2", "example"] {
        assert!(is_problem(&ask(host), 421), "{host}");
    }
    for two in ["Host: localhost\r\nHost: evil.example\r\n", ""] {
        let answer = raw(&server, &format!("GET /healthz HTTP/1.1\r\n{two}Connection: close\r\n\r\n"));
        assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    }
}

#[test]
fn every_answer_tells_browsers_to_be_strict() {
    let (_cluster, _client, server) = start("headers", &[]);
    for (method, path) in [("GET", format!("{BASE}/status")), ("GET", "/nothing".into()), ("POST", "/login".into())] {
        let answer = server.send(method, &path, &[], "");
        let policy = answer.header("content-security-policy");
        assert!(policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"), "{answer:?}");
        assert!(!policy.contains("unsafe"), "{policy}");
        assert_eq!(answer.header("x-content-type-options"), "nosniff");
        assert_eq!(answer.header("cache-control"), "no-store");
        assert_eq!(answer.header("access-control-allow-origin"), "");
    }
}

#[test]
fn what_is_too_long_too_slow_or_too_much_is_refused() {
    let (_cluster, _client, server) = start("limits", &["--rate-limit", "30"]);
    let long = "x".repeat(20_000);
    assert!(is_problem(&server.post(OPERATOR, &format!("{BASE}/run"), &long), 413));
    // A slow head and a slow body do not delay other requests.
    let half_a_head = open(&server, "GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Slow: ");
    let nothing = open(&server, "");
    let half_a_body = open(
        &server,
        &format!(
            "POST {BASE}/run HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {OPERATOR}\r\nContent-Length: 100\r\n\
             Content-Type: application/json\r\n\r\n{{"
        ),
    );
    assert_eq!(server.get(MONITOR, &format!("{BASE}/status")).status, 200);
    let answers = (0..100).map(|_| server.send("GET", "/login", &[], "")).collect::<Vec<_>>();
    let refused = answers.iter().find(|answer| answer.status != 200).expect("a limit");
    assert!(is_problem(refused, 429) && !refused.header("retry-after").is_empty(), "{refused:?}");
    assert!(rest(half_a_body).starts_with("HTTP/1.1 408"));
    for stream in [half_a_head, nothing] {
        let rest = rest(stream);
        assert!(rest.is_empty() || rest.starts_with("HTTP/1.1 408"), "{rest}");
    }
}

#[test]
fn tls_is_served_with_a_certificate() {
    let cluster = Cluster::shared("");
    database(&cluster, "tls");
    let file = |name: &str| format!("{}/{name}", cluster.socket());
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"])
        .args(["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"])
        .args(["-addext", "basicConstraints=critical,CA:FALSE"])
        .args(["-keyout", &file("key.pem"), "-out", &file("cert.pem")])
        .output()
        .expect("openssl starts");
    assert!(made.status.success(), "{made:?}");
    let tls = ["--tls-cert", &file("cert.pem"), "--tls-key", &file("key.pem")];
    let server = Server::start(&cluster, "tls", &tls);
    assert!(server.address.starts_with("https://"));
    let certificate = ureq::tls::Certificate::from_pem(&std::fs::read(file("cert.pem")).unwrap()).unwrap();
    let trust =
        ureq::tls::TlsConfig::builder().root_certs(ureq::tls::RootCerts::new_with_certs(&[certificate])).build();
    let agent: ureq::Agent = ureq::Agent::config_builder().tls_config(trust).build().into();
    assert_eq!(agent.get(format!("{}/healthz", server.address)).call().unwrap().status(), 200);
    assert!(!raw(&server, "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").contains("HTTP"), "plain text is no TLS");
    let said =
        Server::try_start(&cluster, "tls", &["--tls-cert", &file("key.pem"), "--tls-key", &file("key.pem")]).err();
    assert!(said.is_some_and(|said| said.contains("could not use the certificate")));
}

fn open(server: &Server, text: &str) -> TcpStream {
    let address = server.address.split("://").nth(1).unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    stream.write_all(text.as_bytes()).unwrap();
    stream
}

/// Reads until the server closes the connection.
fn rest(mut stream: TcpStream) -> String {
    let mut all = Vec::new();
    match stream.read_to_end(&mut all) {
        Err(error) if error.kind() != ErrorKind::ConnectionReset => panic!("the server does not close: {error}"),
        _ => String::from_utf8_lossy(&all).into_owned(),
    }
}

fn raw(server: &Server, text: &str) -> String {
    rest(open(server, text))
}
