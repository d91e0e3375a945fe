//! The server under load: many status requests in flight on the outage.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::outage::{Outage, SETTINGS, index};
use crate::report::Table;
use crate::size;
use cluster::Cluster;

const TOKEN: &str = "the-token-of-the-measured-monitor";

pub fn measure() -> Vec<Table> {
    let outage = Outage { rows: size("ROWS", 1_000_000), recipes: size("RECIPES", 2000), failed: 0.7 };
    let (clients, seconds) = (size("CLIENTS", 200), size("SECONDS", 30));
    let cluster = Cluster::start(SETTINGS);
    outage.load(&cluster, "outage");
    index(&cluster, "outage");
    let mut client = cluster.connect_to("outage");
    client
        .batch_execute("CREATE ROLE monitor LOGIN; SELECT backlog_cleanup_grant('monitor', 'monitor')")
        .expect("the role");
    client.batch_execute("VACUUM generations").expect("the table is vacuumed");
    let (server, address) = serve(&cluster);
    let status = format!("{address}/api/admin/backlog-cleanup/status");
    let alone: Vec<f64> = (0..10).map(|_| request(&agent(), &status).0).collect();
    let before = resident(&server);
    let is_over = AtomicBool::new(false);
    let (mut connections, mut memory) = (0, Vec::new());
    let mut answers: Vec<(f64, bool, usize)> = Vec::new();
    thread::scope(|scope| {
        let load = || {
            let (agent, mut answers) = (agent(), Vec::new());
            while !is_over.load(Ordering::Relaxed) {
                answers.push(request(&agent, &status));
            }
            answers
        };
        let clients: Vec<_> = (0..clients).map(|_| scope.spawn(load)).collect();
        let started = Instant::now();
        while started.elapsed() < Duration::from_secs(seconds as u64) {
            thread::sleep(Duration::from_millis(500));
            let count = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'monitor'";
            connections = connections.max(client.query_one(count, &[]).expect("a count").get::<_, i64>(0));
            memory.push(resident(&server));
        }
        is_over.store(true, Ordering::Relaxed);
        answers = clients.into_iter().flat_map(|client| client.join().expect("a client ends")).collect();
    });
    let errors = answers.iter().filter(|(_, is_right, _)| !is_right).count();
    let mut times: Vec<f64> = answers.iter().map(|answer| answer.0).collect();
    times.sort_by(f64::total_cmp);
    let at = |share: f64| format!("{:.0}", times[(times.len() as f64 * share) as usize]);
    let mebibytes = |kilobytes: u64| format!("{:.1}", kilobytes as f64 / 1024.0);
    let row = |name: &str, value: String| vec![name.to_owned(), value];
    vec![Table {
        title: format!("Status over HTTP: {clients} requests in flight for {seconds} s"),
        columns: vec!["", "measured"],
        rows: vec![
            row("requests", answers.len().to_string()),
            row("errors", errors.to_string()),
            row("requests per second", format!("{:.0}", answers.len() as f64 / seconds as f64)),
            row("bytes per answer", answers[0].2.to_string()),
            row("one request alone, ms (median)", format!("{:.0}", crate::median(alone))),
            row("median, ms", at(0.5)),
            row("p99, ms", at(0.99)),
            row("longest, ms", at(0.999_999)),
            row("connections to the database, at most", connections.to_string()),
            row("memory before, MiB", mebibytes(before)),
            row("memory after a third of the time, MiB", mebibytes(memory[memory.len() / 3])),
            row("memory at the end, MiB", mebibytes(memory[memory.len() - 1])),
            row("memory at most, MiB", mebibytes(memory.into_iter().max().unwrap_or_default())),
        ],
    }]
}

/// The server, and its address; ended when dropped.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

fn serve(cluster: &Cluster) -> (Server, String) {
    let tokens = PathBuf::from(cluster.socket()).join("tokens");
    let file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&tokens).expect("a file");
    std::io::Write::write_all(&mut &file, format!("monitor monitor {TOKEN}\n").as_bytes()).expect("a token");
    // Beside the directory of this program.
    let binary = std::env::current_exe().expect("a program").with_file_name("../backlog-cleanup");
    let mut server = Command::new(&binary)
        .args(["serve", "--listen", "127.0.0.1:0", "--tokens"])
        .arg(&tokens)
        .env("PGHOST", cluster.socket())
        .env("PGDATABASE", "outage")
        .env("RUST_LOG", "warn,backlog_cleanup::serve::listen=info")
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{}: {error}", binary.display()));
    let lines = BufReader::new(server.stderr.take().expect("its log"));
    let server = Server(server);
    let mut lines = lines.lines().map_while(Result::ok);
    let listening = lines.find(|line| line.contains("listening on")).expect("it listens");
    thread::spawn(move || lines.for_each(drop));
    let address = listening.rsplit(' ').next().expect("an address").to_owned();
    (server, address)
}

fn agent() -> ureq::Agent {
    ureq::Agent::config_builder().http_status_as_error(false).build().into()
}

/// Milliseconds of a request, whether its answer was right, and its length.
fn request(agent: &ureq::Agent, address: &str) -> (f64, bool, usize) {
    let started = Instant::now();
    let answer = agent.get(address).header("authorization", format!("Bearer {TOKEN}")).call();
    let body = answer.and_then(|mut answer| match answer.status().as_u16() {
        200 => answer.body_mut().read_to_string(),
        _ => Ok(String::new()),
    });
    let milliseconds = started.elapsed().as_secs_f64() * 1000.0;
    let length = body.map_or(0, |body| body.len());
    (milliseconds, length > 0, length)
}

/// Resident memory of a process in kilobytes.
fn resident(server: &Server) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.0.id())).expect("a process");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("its memory");
    line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).expect("a number")
}
