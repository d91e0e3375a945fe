//! H1, H5, H8: a log without a reader, and text of the database in logs and in output.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use cluster::{Cluster, fail, until_holds};

use crate::cli;
use crate::server::{BASE, MONITOR, OPERATOR, Server, database, start};

/// Says in a WARNING what a log line would say, and sends an escape sequence.
const FORGES: &str = "
    CREATE FUNCTION forge() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        RAISE WARNING E'x\\n2000-01-01T00:00:00Z  INFO run ends who=\"backlog_admin\" \\x1b[2J\\u009b2J\\u202e';
        RETURN NULL;
    END $$;
    CREATE TRIGGER forge AFTER DELETE ON generations FOR EACH STATEMENT EXECUTE FUNCTION forge()";

fn is_escaped(text: &str) -> bool {
    let raw = ['\u{1b}', '\u{9b}', '\u{9d}', '\u{85}', '\u{61c}', '\u{202e}', '\u{2028}', '\u{200b}', '\u{e0041}'];
    !text.contains(raw)
}

#[test]
fn h1_a_log_that_nobody_reads_ends_neither_requests_nor_the_shutdown() {
    let cluster = Cluster::shared("");
    database(&cluster, "log_gone");
    let mut server = Server::start(&cluster, "log_gone", &[]);
    // A second server, whose standard error is closed once it listens.
    let mut child = crate::server::command(&cluster, "log_gone")
        .args(["serve", "--listen", "127.0.0.1:0", "--tokens"])
        .arg(server.tokens())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let listening = lines.find_map(|line| Some(line.ok()?.split_once("listening on ")?.1.to_owned())).unwrap();
    drop(lines);
    let first = std::mem::replace(&mut server.child, child);
    let address = std::mem::replace(&mut server.address, listening);
    for path in ["/healthz", "/readyz", &format!("{BASE}/status"), "/nothing"] {
        let answer = server.get(MONITOR, path);
        assert_eq!(answer.status, if path == "/nothing" { 404 } else { 200 }, "{path}: {answer:?}");
    }
    server.terminate();
    let mut ended = None;
    until_holds(|| {
        ended = server.child.try_wait().unwrap();
        ended.is_some()
    });
    assert!(ended.unwrap().success());
    (server.child, server.address) = (first, address);
}

#[test]
fn h5_text_of_the_database_forges_no_line_of_a_log() {
    for json in [false, true] {
        let name = if json { "forged_json" } else { "forged" };
        let (_cluster, mut client, server) = start(name, if json { &["--log-json"] } else { &[] });
        client.batch_execute(FORGES).unwrap();
        fail(&mut client, 1, 15);
        assert_eq!(server.post(OPERATOR, &format!("{BASE}/emergency"), "").status, 200);
        server.until_logged("x\\n2000-01-01");
        let log = server.log();
        assert!(log.lines().all(|line| !line.starts_with("2000")) && is_escaped(&log), "{log}");
        if json {
            assert!(log.lines().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()), "{log}");
        }
    }
}

#[test]
fn h5_text_of_the_database_forges_no_line_of_the_command_line() {
    let cluster = Cluster::shared("");
    let mut client = database(&cluster, "forged_notice");
    client.batch_execute(FORGES).unwrap();
    for arguments in [&["cleanup"][..], &["run"], &["run", "--json"]] {
        fail(&mut client, 1, 15);
        let ran: cli::Ran = cli::command(&cluster, "forged_notice", arguments).output().unwrap().into();
        assert_eq!(ran.code, 0, "{ran:?}");
        assert!(ran.stderr.contains("x\\n2000-01-01") && is_escaped(&ran.stderr), "{ran:?}");
        assert!(ran.stderr.lines().all(|line| !line.starts_with("2000")), "{ran:?}");
    }
}

#[test]
fn h8_recipe_names_control_no_terminal_and_stay_what_they_are_in_json() {
    let cluster = Cluster::shared("");
    let mut client = database(&cluster, "names");
    let name = "a\u{9b}2J\u{9d}\u{85}\u{61c}\u{202e}\u{2028}\u{200b}\u{e0041}é";
    client.execute("UPDATE recipes SET name = $1 WHERE id = 1", &[&name]).unwrap();
    fail(&mut client, 1, 15);
    for arguments in
        [&["status"][..], &["status", "--json"], &["cleanup", "--dry-run", "--json"], &["cleanup", "--dry-run"]]
    {
        let ran: cli::Ran = cli::command(&cluster, "names", arguments).output().unwrap().into();
        assert_eq!(ran.code, 0, "{ran:?}");
        assert!(is_escaped(&ran.stdout) && ran.stdout.contains('é'), "{ran:?}");
        if arguments == ["status", "--json"] {
            assert_eq!(ran.json()["recipesWithFailedGenerations"][0]["recipeName"], name);
        }
    }
}
