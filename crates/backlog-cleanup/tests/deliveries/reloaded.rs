//! SIGHUP reads the file of channels again; SIGTERM waits for no receiver.

use std::io::Write;
use std::net::TcpListener;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::receiver::Receiver;
use crate::server::{BASE, MONITOR};
use crate::{File, OPEN, RESOLVE, database, serve};
use cluster::{until_holds, until_true};

#[test]
fn sighup_reads_the_channels_again_and_a_bad_file_leaves_them() {
    let (before, after) = (Receiver::start([]), Receiver::start([]));
    let channel = |name: &str, receiver: &Receiver| format!("[webhook.{name}]\nurl = \"{}\"\n", receiver.address);
    let file = File::of(&channel("before", &before));
    let (cluster, mut client) = database("reloaded_channels");
    let server = serve(&cluster, "reloaded_channels", &file);
    let here = || server.get(MONITOR, &format!("{BASE}/channels")).json()["here"].clone();
    until_true(&mut client, "SELECT count(*) = 1 FROM backlog_cleanup.alert_channel");
    file.write("[webhook.after]\nurl = \"nonsense\"\n");
    server.signal("HUP");
    server.until_logged("the tokens and channels stay as they were");
    server.until_logged("channel \"webhook.after\": url is not valid");
    assert_eq!(here(), json!(["before"]));
    client.batch_execute(OPEN).unwrap();
    until_holds(|| before.came().len() == 1);
    file.write(&channel("after", &after));
    server.signal("HUP");
    until_holds(|| here() == json!(["after"]));
    until_holds(|| after.came().len() == 1);
    client.batch_execute(RESOLVE).unwrap();
    client
        .batch_execute("UPDATE backlog_cleanup.alert_channel SET next_attempt_at = now(); NOTIFY backlog_cleanup")
        .unwrap();
    until_holds(|| after.came().len() == 2);
    assert_eq!(before.came().len(), 1);
}

#[test]
fn a_channel_that_is_for_fewer_targets_now_resolves_what_it_has_opened() {
    let receiver = Receiver::start([]);
    let channel = |targets: &str| format!("[webhook.ops]\nurl = \"{}\"\ntargets = [\"{targets}\"]\n", receiver.address);
    let file = File::of(&channel("generations"));
    let (cluster, mut client) = database("reloaded_targets");
    let server = serve(&cluster, "reloaded_targets", &file);
    client.batch_execute(OPEN).unwrap();
    until_true(&mut client, "SELECT count(delivered_at) = 1 FROM backlog_cleanup.alert_delivery");
    file.write(&channel("another"));
    server.signal("HUP");
    server.until_logged("the tokens and channels are reloaded");
    client.batch_execute(RESOLVE).unwrap();
    client.batch_execute(OPEN).unwrap();
    client
        .batch_execute("UPDATE backlog_cleanup.alert_channel SET next_attempt_at = now(); NOTIFY backlog_cleanup")
        .unwrap();
    until_holds(|| receiver.came().len() == 2);
    let told = receiver.came()[1].json();
    assert_eq!((told["alerts"].as_array().unwrap().len(), &told["alerts"][0]["change"]), (1, &json!("resolved")));
}

#[test]
fn sigterm_waits_ten_seconds_for_a_receiver_that_stalls() {
    // A mail server that greets for ever, one letter after the other: no single read takes too long.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (came, comes) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            came.send(()).ok();
            std::thread::spawn(move || {
                while stream.write_all(b"2").is_ok() {
                    std::thread::sleep(Duration::from_secs(1));
                }
            });
        }
    });
    let file = File::of(&format!(
        "[mail.team]\nurl = \"smtp://{address}\"\nfrom = \"db@example.com\"\nto = [\"a@example.com\"]\n"
    ));
    let (cluster, mut client) = database("reloaded_stopped");
    let mut server = serve(&cluster, "reloaded_stopped", &file);
    client.batch_execute(OPEN).unwrap();
    comes.recv().unwrap();
    let began = Instant::now();
    server.terminate();
    until_holds(|| server.child.try_wait().unwrap().is_some());
    let took = began.elapsed();
    assert!(took < Duration::from_secs(15), "{took:?}");
}
