//! H4, H10: times that PostgreSQL has and calendars have not, and runs that end while they are stopped.

use cluster::{Cluster, fail, until_holds};

use crate::SLOW;
use crate::server::{ADMIN, BASE, MONITOR, OPERATOR, Server, bearer, database, start};

#[test]
fn h4_every_time_of_a_row_is_shown_or_left_out() {
    let (_cluster, mut client, server) = start("times", &[]);
    for time in ["10000-01-01", "infinity", "-infinity", "4713-01-01 BC", "0001-01-01 BC", "294276-01-01"] {
        fail(&mut client, 1, 1);
        client
            .execute(
                "UPDATE generations SET updated_at = $1::text::timestamp
                 WHERE ctid = (SELECT max(ctid) FROM generations)",
                &[&time],
            )
            .unwrap();
        let authorization = bearer(MONITOR);
        let page = [("authorization", &*authorization), ("accept", "text/html")];
        for path in ["/", "/?hours=720", &format!("{BASE}/status"), &format!("{BASE}/doctor"), "/metrics"] {
            let answer = server.send("GET", path, &page, "");
            assert_eq!(answer.status, 200, "{time} {path}: {answer:?}");
        }
    }
    // A run's cutoff is in another age of the calendar where the policy has a long one.
    for age in ["10 years", "1000 years"] {
        client.execute("UPDATE backlog_cleanup.policy SET max_age = $1::text::interval", &[&age]).unwrap();
        assert_eq!(server.post(OPERATOR, &format!("{BASE}/run"), "").status, 200, "{age}");
        assert_eq!(server.get(MONITOR, &format!("{BASE}/runs")).status, 200, "{age}");
        assert_eq!(server.get(ADMIN, "/").status, 200, "{age}");
    }
}

#[test]
fn h10_a_run_that_failed_is_not_stopping() {
    let cluster = Cluster::shared("");
    let mut client = database(&cluster, "failed_run");
    client.batch_execute(SLOW).unwrap();
    client
        .batch_execute(
            "CREATE SEQUENCE batches;
             CREATE FUNCTION fails() RETURNS trigger LANGUAGE plpgsql AS $$
             BEGIN IF nextval('batches') > 3 THEN RAISE EXCEPTION 'no'; END IF; RETURN NULL; END $$;
             CREATE TRIGGER zzz AFTER DELETE ON generations FOR EACH STATEMENT EXECUTE FUNCTION fails()",
        )
        .unwrap();
    fail(&mut client, 1, 100);
    let server = Server::start(&cluster, "failed_run", &[]);
    let authorization = bearer(OPERATOR);
    let headers = [("authorization", &*authorization), ("prefer", "respond-async")];
    let accepted = server.send("POST", &format!("{BASE}/emergency"), &headers, "");
    assert_eq!(accepted.status, 202, "{accepted:?}");
    let run = accepted.header("location").to_owned();
    until_holds(|| server.get(MONITOR, &run).json()["state"] != "running");
    let stop = server.post(OPERATOR, &format!("{run}/stop"), "");
    assert_eq!((stop.status, &stop.json()["stopping"]), (200, &false.into()), "{stop:?}");
}
