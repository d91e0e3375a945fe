//! H12: tokens, roles, sessions, and requests without any.

use std::os::unix::fs::PermissionsExt;

use cluster::{Cluster, fail};

use crate::server::{BASE, MONITOR, OPERATOR, Server, bearer, database, start};
use crate::{FORM, login};

/// The log of a server that does not start with these tokens.
fn refused(cluster: &Cluster, database: &str, lines: &str) -> String {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), lines).unwrap();
    std::fs::set_permissions(file.path(), PermissionsExt::from_mode(0o600)).unwrap();
    Server::try_start(cluster, database, &["--tokens", file.path().to_str().unwrap()]).err().expect("refused")
}

#[test]
fn h12_readiness_tells_nobody_the_names_of_roles() {
    let cluster = Cluster::start("");
    let mut client = database(&cluster, "quiet");
    let server = Server::start(&cluster, "quiet", &[]);
    client
        .batch_execute(
            "ALTER ROLE backlog_monitor NOLOGIN;
             SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'backlog_monitor'",
        )
        .unwrap();
    let away = server.send("GET", "/readyz", &[], "");
    assert_eq!((away.status, away.header("retry-after")), (503, "5"), "{away:?}");
    assert!(!away.body.contains("backlog_monitor"), "{away:?}");
    server.until_logged("backlog_monitor");
}

#[test]
fn h12_requests_without_a_token_take_nothing_from_those_with_one_probes_and_stops() {
    let (_cluster, _client, server) = start("shared_address", &["--rate-limit", "5"]);
    assert!((0..50).any(|_| server.send("GET", "/login", &[], "").status == 429));
    for _ in 0..20 {
        assert_eq!(server.send("GET", "/healthz", &[], "").status, 200);
        assert_eq!(server.send("GET", "/readyz", &[], "").status, 200);
        assert_eq!(server.post(OPERATOR, &format!("{BASE}/runs/1/stop"), "").status, 404);
    }
    assert_eq!(server.get(MONITOR, &format!("{BASE}/runs")).status, 200);
    // One token takes nothing from another either.
    assert!((0..50).any(|_| server.get(MONITOR, &format!("{BASE}/runs")).status == 429));
    assert_eq!(server.get(OPERATOR, &format!("{BASE}/runs")).status, 200);
}

#[test]
fn h12_a_token_whose_role_may_do_more_than_its_level_is_refused() {
    let cluster = Cluster::start("");
    let mut client = database(&cluster, "powerful");
    client
        .batch_execute(
            "CREATE ROLE powerful SUPERUSER;
             CREATE ROLE member LOGIN NOINHERIT IN ROLE powerful;
             CREATE ROLE deputy LOGIN NOINHERIT IN ROLE backlog_admin;
             SELECT backlog_cleanup_grant(role, 'monitor') FROM unnest('{member,deputy}'::text[]) AS role",
        )
        .unwrap();
    for (line, why) in [
        ("monitor postgres", "is a superuser"),
        ("admin postgres", "is a superuser"),
        ("monitor member", "is a member of superuser \"powerful\""),
        ("admin member", "is a member of superuser \"powerful\""),
        ("monitor backlog_admin", "has privileges of a higher level"),
        ("monitor backlog_operator", "has privileges of a higher level"),
        ("operator backlog_admin", "has privileges of a higher level"),
        ("monitor deputy", "is a member of role \"backlog_admin\""),
    ] {
        let said = refused(&cluster, "powerful", &format!("{line} {MONITOR}\n"));
        assert!(said.contains(why), "{line}: {said}");
    }
    // A role that gets more while the server runs is refused by the next connection.
    let server = Server::start(&cluster, "powerful", &[]);
    client
        .batch_execute(
            "GRANT backlog_admin TO backlog_monitor;
             SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'backlog_monitor'",
        )
        .unwrap();
    assert_ne!(server.get(MONITOR, &format!("{BASE}/status")).status, 200);
}

#[test]
fn h12_a_token_that_is_easy_to_guess_is_refused() {
    let cluster = Cluster::shared("");
    database(&cluster, "weak");
    let said = refused(&cluster, "weak", &format!("monitor backlog_monitor {}\n", "ab".repeat(20)));
    assert!(said.contains("fewer than 8 different characters"), "{said}");
}

#[test]
fn h12_without_tokens_no_page_of_another_site_reads_or_counts_and_no_superuser_serves() {
    let cluster = Cluster::shared("");
    let mut client = database(&cluster, "open_door");
    fail(&mut client, 1, 15);
    let said = Server::try_start(&cluster, "open_door", &["--insecure-no-auth"]).err().expect("refused");
    assert!(said.contains("is a superuser"), "{said}");
    let server = Server::start(&cluster, "open_door", &["--insecure-no-auth", "--username", "backlog_admin"]);
    server.until_logged("everybody on this machine can remove rows");
    for path in ["/preview?target=generations&mode=regular", "/", &format!("{BASE}/status"), "/metrics"] {
        for site in ["cross-site", "same-site"] {
            assert_eq!(server.send("GET", path, &[("sec-fetch-site", site)], "").status, 403, "{path}");
        }
        assert_eq!(server.send("GET", path, &[("origin", "http://evil.example")], "").status, 403, "{path}");
        assert_eq!(server.send("GET", path, &[("sec-fetch-site", "none")], "").status, 200, "{path}");
        assert_eq!(server.send("GET", path, &[], "").status, 200, "{path}");
    }
    let dry = server.send("POST", &format!("{BASE}/run?dryRun=true"), &[("sec-fetch-site", "cross-site")], "");
    assert_eq!(dry.status, 403, "{dry:?}");
}

#[test]
fn h12_origin_and_cookie_are_those_of_the_scheme() {
    let (_cluster, _client, server) = start("scheme", &[]);
    let cookie = login(&server, OPERATOR);
    assert!(cookie.starts_with("backlog_cleanup_session="), "{cookie}");
    let post = |cookie: &str, headers: &[(&str, &str)]| {
        server.send("POST", &format!("{BASE}/run"), &[&[("cookie", cookie)], headers].concat(), "").status
    };
    let https = server.address.replace("http://", "https://");
    assert_eq!(post(&cookie, &[("origin", &server.address)]), 200);
    assert_eq!(post(&cookie, &[("origin", &https)]), 403);
    let proxied = [FORM[0], FORM[1], ("x-forwarded-proto", "https")];
    let login = server.send("POST", "/login", &proxied, &format!("token={OPERATOR}"));
    let secure = login.header("set-cookie").to_owned();
    assert!(secure.starts_with("__Host-backlog_cleanup_session=") && secure.contains("Secure"), "{secure}");
    let secure = secure.split(';').next().unwrap();
    assert_eq!(post(secure, &[("origin", &https), ("x-forwarded-proto", "https")]), 200);
    // A cookie without the prefix, which another host could have set, is none over TLS.
    assert_eq!(post(&cookie, &[("origin", &https), ("x-forwarded-proto", "https")]), 401);
}

#[test]
fn h12_the_key_of_the_form_is_checked() {
    let (_cluster, mut client, server) = start("form_key", &[]);
    fail(&mut client, 1, 15);
    let authorization = bearer(OPERATOR);
    let headers = [("authorization", &*authorization), FORM[0], FORM[1]];
    let form = |key: &str| {
        let rest = "target=generations&mode=regular&recipe=&failure_type=&status=&expected_count=5";
        server.send("POST", "/run", &headers, &format!("{rest}&idempotency_key={key}")).status
    };
    for key in ["", &"k".repeat(256), "a%0Ab", "%C3%A9"] {
        assert_eq!(form(key), 400, "{key}");
    }
    assert_eq!(form("page-1"), 303);
}
