//! What is in the file of channels is nowhere else, whatever a receiver says.

use std::process::Command;

use crate::receiver::{Answer, Receiver};
use crate::server::{ADMIN, BASE, MONITOR, Server, command};
use crate::{File, OPEN, database};
use cluster::until_true;

#[test]
fn no_part_of_an_address_and_no_key_is_told_whatever_a_receiver_says() {
    let receivers: Vec<Receiver> = (0..4).map(|_| Receiver::start(vec![Answer::Echo(500); 9])).collect();
    let at = |number: usize| &receivers[number].address;
    let file = File::of(&format!(
        "[slack.slack]\nurl = \"{}/services/T0SECRET/B0SECRET\"\n\
         [webhook.webhook]\nurl = \"{}?key=SECRETquery%2Fdecoded\"\nsecret = \"SECRETshared\"\nauthorization = \"Bearer SECRETbearer\"\n\
         [alertmanager.alertmanager]\nurl = \"{}/SECRETpath?token=SECRETtoken\"\nauthorization = \"Basic SECRETbasic\"\n\
         [pagerduty.pagerduty]\nurl = \"{}/SECRETenqueue\"\nrouting_key = \"SECRETrouting\"\n",
        at(0),
        at(1),
        at(2),
        at(3)
    ));
    let (cluster, mut client) = database("secrets");
    // A superuser of the machine who looks for something.
    let server = Server::start_with(&cluster, "secrets", &["--channels", &file.path()], &[("RUST_LOG", "trace")]);
    client.batch_execute(OPEN).unwrap();
    until_true(&mut client, "SELECT count(last_error) = 4 FROM backlog_cleanup.alert_channel");
    assert_eq!(receivers[2].came()[0].path, "/SECRETpath/api/v2/alerts?token=SECRETtoken");
    let mut said = Vec::new();
    for channel in ["slack", "webhook", "alertmanager", "pagerduty"] {
        said.push(server.post(ADMIN, &format!("{BASE}/channels/{channel}/test"), "").body);
        let tested = command(&cluster, "secrets")
            .args(["alerts", "test", channel, "--channels", &file.path()])
            .env("RUST_LOG", "trace")
            .output()
            .unwrap();
        said.push(String::from_utf8([tested.stdout, tested.stderr].concat()).unwrap());
    }
    assert!(said.iter().all(|said| said.contains("HTTP 500")), "{said:?}");
    said.push(server.get(MONITOR, &format!("{BASE}/channels")).body);
    let rows = "SELECT concat((SELECT jsonb_agg(c) FROM backlog_cleanup.alert_channel c), (SELECT jsonb_agg(d) FROM backlog_cleanup.alert_delivery d))";
    said.push(client.query_one(rows, &[]).unwrap().get(0));
    said.push(server.log());
    for said in said {
        let found = said.find("SECRET").map(|at| &said[at.saturating_sub(300)..(at + 40).min(said.len())]);
        assert_eq!(found, None);
    }
}

#[test]
fn no_part_of_a_secret_that_is_cut_off_is_told() {
    // Longer than what is read of an answer: 600 groups of digits, each another one.
    let secret: String = (1000..1600).map(|number| format!("{number}")).collect();
    let receiver = Receiver::start([Answer::Echo(500)]);
    let file =
        File::of(&format!("[webhook.ops]\nurl = \"{}/in\"\nauthorization = \"Bearer {secret}\"\n", receiver.address));
    let tested = Command::new(env!("CARGO_BIN_EXE_backlog-cleanup"))
        .args(["alerts", "test", "ops", "--channels", &file.path(), "--dbname", "app"])
        .env_remove("DATABASE_URL")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&tested.stderr).into_owned();
    assert!(said.contains("HTTP 500") && said.contains("authorization"), "{said}");
    let parts: Vec<&str> =
        (0..secret.len() - 8).map(|at| &secret[at..at + 8]).filter(|part| said.contains(part)).collect();
    assert!(parts.is_empty(), "{said}");
}
