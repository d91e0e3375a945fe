//! A network that takes what is sent, and brings nothing: each wait for the database ends.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use tempfile::TempDir;

use crate::receiver::{Answer, Receiver};
use crate::server::Server;
use crate::{File, OPEN, database};
use cluster::{until_holds, until_true};

/// Between a server and its database.
struct Network {
    directory: TempDir,
    /// Connections with a lower number bring nothing any more.
    dead: Arc<AtomicUsize>,
    made: Arc<AtomicUsize>,
}

impl Network {
    fn to(socket: &str) -> Network {
        let directory = TempDir::new().unwrap();
        let file = ".s.PGSQL.5432";
        let listener = UnixListener::bind(directory.path().join(file)).unwrap();
        let database = PathBuf::from(socket).join(file);
        let (dead, made) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        thread::spawn({
            let (dead, made) = (Arc::clone(&dead), Arc::clone(&made));
            move || {
                for client in listener.incoming().map_while(Result::ok) {
                    let Ok(database) = UnixStream::connect(&database) else { continue };
                    let number = made.fetch_add(1, Ordering::SeqCst);
                    let [asks, answers] = [&client, &database].map(|end| end.try_clone().unwrap());
                    let is_dead = {
                        let dead = Arc::clone(&dead);
                        move || number < dead.load(Ordering::SeqCst)
                    };
                    thread::spawn(move || {
                        carry(asks, &database, || false);
                        database.shutdown(Shutdown::Both).ok();
                    });
                    thread::spawn(move || {
                        carry(answers, &client, &is_dead);
                        if !is_dead() {
                            client.shutdown(Shutdown::Both).ok();
                        }
                    });
                }
            }
        });
        Network { directory, dead, made }
    }

    /// Every connection that there is brings nothing any more; new ones do.
    fn stall(&self) {
        self.dead.store(self.made.load(Ordering::SeqCst), Ordering::SeqCst);
    }
}

/// Carries what comes, or takes it and carries nothing.
fn carry(mut from: UnixStream, mut to: &UnixStream, is_dead: impl Fn() -> bool) {
    let mut bytes = [0; 8192];
    while let Ok(read @ 1..) = from.read(&mut bytes) {
        if !is_dead() && to.write_all(&bytes[..read]).is_err() {
            return;
        }
    }
}

#[test]
fn a_database_that_stalls_as_the_result_is_recorded_holds_up_nothing() {
    let receiver = Receiver::start([Answer::Stall(Duration::from_secs(2))]);
    let file = File::of(&format!("[webhook.ops]\nurl = \"{}\"\n", receiver.address));
    let (cluster, mut client) = database("stalled");
    let network = Network::to(cluster.socket());
    let directory = network.directory.path().to_str().unwrap();
    let _server = Server::start_behind(directory, "stalled", &["--channels", &file.path(), "--request-timeout", "2"]);
    until_true(&mut client, "SELECT count(*) = 1 FROM backlog_cleanup.alert_channel");
    client.batch_execute(OPEN).unwrap();
    until_holds(|| receiver.came().len() == 1);
    let mut locks = client.transaction().unwrap();
    locks.batch_execute("SELECT FROM backlog_cleanup.alert_channel FOR UPDATE").unwrap();
    until_true(
        &mut cluster.connect(),
        "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = 'stalled' AND wait_event_type = 'Lock')",
    );
    network.stall();
    thread::sleep(Duration::from_secs(3));
    // Nobody knows that it was delivered. It goes again when the lease is over, as the same message.
    locks.batch_execute("UPDATE backlog_cleanup.alert_channel SET leased_until = now()").unwrap();
    locks.commit().unwrap();
    until_true(&mut client, "SELECT count(delivered_at) = 1 FROM backlog_cleanup.alert_delivery");
    let came = receiver.came();
    assert_eq!((came.len(), came[0].header("webhook-id")), (2, came[1].header("webhook-id")));
}

#[test]
fn a_server_that_has_lost_the_connection_on_which_it_listens_listens_again() {
    let receiver = Receiver::start([]);
    let file = File::of(&format!("[webhook.ops]\nurl = \"{}\"\n", receiver.address));
    let (cluster, mut client) = database("stalled_ear");
    let _server = crate::serve(&cluster, "stalled_ear", &file);
    let listens = "SELECT min(pid) FROM pg_stat_activity WHERE datname = 'stalled_ear' AND query LIKE 'LISTEN %'";
    let mut ear = |not: Option<i32>| {
        let mut found = None;
        until_holds(|| {
            found = client.query_one(listens, &[]).unwrap().get::<_, Option<i32>>(0).filter(|pid| Some(*pid) != not);
            found.is_some()
        });
        found
    };
    let first = ear(None);
    cluster.connect().execute("SELECT pg_terminate_backend($1)", &[&first]).unwrap();
    ear(first);
}
