//! H9: signals, and runs that the server leaves behind.

use std::thread;

use cluster::{Cluster, fail, until_holds, until_true};

use crate::server::{ADMIN, BASE, MONITOR, OPERATOR, Server, bearer, database, start};
use crate::{SLOW, login};

#[test]
fn h9_sighup_reloads_the_tokens_and_a_removed_one_has_no_session_left() {
    let (_cluster, _client, server) = start("reload", &[]);
    let status = format!("{BASE}/status");
    let [monitor, operator] = [MONITOR, OPERATOR].map(|token| login(&server, token));
    let with = |cookie: &str| server.send("GET", &status, &[("cookie", cookie)], "").status;
    assert_eq!((with(&monitor), with(&operator)), (200, 200));
    let new = "another-token-of-a-monitor";
    let lines = format!("monitor backlog_monitor {new}\noperator backlog_operator {OPERATOR}\n");
    std::fs::write(server.tokens(), lines).unwrap();
    server.signal("HUP");
    until_holds(|| server.get(new, &status).status == 200);
    assert_eq!([MONITOR, ADMIN, OPERATOR].map(|token| server.get(token, &status).status), [401, 401, 200]);
    assert_eq!((with(&monitor), with(&operator)), (401, 200));
    // What cannot be read changes nothing.
    std::fs::write(server.tokens(), "nonsense\n").unwrap();
    server.signal("HUP");
    server.until_logged("the tokens and channels stay as they were");
    assert_eq!(server.get(new, &status).status, 200);
}

#[test]
fn h9_runs_end_with_the_server_and_the_log_says_which_go_on() {
    for (name, signals) in [("killed", &["KILL"][..]), ("terminated_twice", &["TERM", "TERM"])] {
        let cluster = Cluster::shared("");
        let mut client = database(&cluster, name);
        client.batch_execute(SLOW).unwrap();
        fail(&mut client, 1, 1000);
        let mut server = Server::start(&cluster, name, &[]);
        thread::scope(|scope| {
            let address = server.address.trim_start_matches("http://").to_owned();
            let authorization = bearer(OPERATOR);
            // A request that waits, so that the first signal does not stop the run.
            scope.spawn(move || {
                use std::io::{Read, Write};
                let mut stream = std::net::TcpStream::connect(address).unwrap();
                let request = format!(
                    "POST {BASE}/emergency HTTP/1.1\r\nHost: localhost\r\nAuthorization: {authorization}\r\n\
                     Content-Length: 0\r\n\r\n"
                );
                stream.write_all(request.as_bytes()).unwrap();
                stream.read_to_end(&mut Vec::new()).ok();
            });
            until_true(&mut client, "SELECT count(*) = 1 FROM backlog_cleanup.progress WHERE batches > 0");
            for signal in signals {
                server.signal(signal);
                thread::sleep(std::time::Duration::from_millis(300));
            }
            assert!(!server.child.wait().unwrap().success());
        });
        let at_work =
            "SELECT count(*) = 0 FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'CALL%'";
        until_true(&mut client, at_work);
        let interrupted = "SELECT count(*) = 1 FROM backlog_cleanup.progress WHERE state = 'interrupted'";
        until_true(&mut client, interrupted);
        assert!(cluster::truth(&mut client, "SELECT count(*) > 0 FROM generations"), "the run was cut off");
        if signals.len() == 2 {
            server.until_logged("goes on in the database");
        }
    }
}
