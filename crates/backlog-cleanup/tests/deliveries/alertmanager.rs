//! Prometheus' Alertmanager itself.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use crate::{File, OPEN, RESOLVE, database, serve};
use cluster::{until_holds, until_true};

struct Alertmanager {
    child: Child,
    address: String,
    _files: TempDir,
}

impl Alertmanager {
    /// On a free port, which it tells. `None` where it is not installed.
    fn start() -> Option<Alertmanager> {
        let files = TempDir::new().unwrap();
        let config = files.path().join("config.yml");
        std::fs::write(&config, "route: {receiver: nobody}\nreceivers: [{name: nobody}]\n").unwrap();
        let started = Command::new("prometheus-alertmanager")
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.path={}", files.path().join("data").display()))
            .args(["--web.listen-address=127.0.0.1:0", "--cluster.listen-address=", "--log.format=json"])
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn();
        let mut child = started.ok()?;
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
        let said = lines.find_map(|line| {
            let said: Value = serde_json::from_str(&line).ok()?;
            (said["msg"] == "Listening on").then(|| said["address"].as_str().map(str::to_owned))?
        });
        std::thread::spawn(move || lines.for_each(drop));
        let address = format!("http://{}", said.expect("it says where it listens"));
        Some(Alertmanager { child, address, _files: files })
    }

    /// The alerts that it has as active.
    fn active(&self) -> Vec<Value> {
        let mut answer = ureq::get(format!("{}/api/v2/alerts?active=true", self.address)).call().unwrap();
        let alerts: Value = serde_json::from_str(&answer.body_mut().read_to_string().unwrap()).unwrap();
        alerts.as_array().unwrap().clone()
    }
}

impl Drop for Alertmanager {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

#[test]
fn an_alert_is_active_in_alertmanager_until_it_resolves() {
    let Some(alertmanager) = Alertmanager::start() else {
        return eprintln!("left out: prometheus-alertmanager is not installed");
    };
    let file = File::of(&format!(
        "database = \"app\"\n[alertmanager.am]\nurl = \"{}\"\nlabels = {{ severity = \"page\" }}\n",
        alertmanager.address
    ));
    let (cluster, mut client) = database("alertmanager");
    let _server = serve(&cluster, "alertmanager", &file);
    client.batch_execute(OPEN).unwrap();
    until_holds(|| alertmanager.active().len() == 1);
    let alert = &alertmanager.active()[0];
    let labels = serde_json::json!({
        "alertname": "rows in scope", "target": "generations", "database": "app", "job": "backlog-cleanup", "severity": "page"
    });
    assert_eq!((&alert["labels"], &alert["annotations"]["fix"]), (&labels, &"SELECT 1".into()));
    until_true(&mut client, "SELECT leased_by IS NULL FROM backlog_cleanup.alert_channel");
    client.batch_execute(RESOLVE).unwrap();
    client
        .batch_execute("UPDATE backlog_cleanup.alert_channel SET next_attempt_at = now(); NOTIFY backlog_cleanup")
        .unwrap();
    until_holds(|| alertmanager.active().is_empty());
}
