//! H9, H12: certificates, addresses of the database, and the files of `deploy/`.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use cluster::{Cluster, until_holds};

use crate::cli;
use crate::server::{MONITOR, Server, database};

/// Writes a certificate for localhost and its key; returns the certificate.
fn certify(directory: &Path) -> Vec<u8> {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
    let certificate = made.cert.pem();
    std::fs::write(directory.join("cert.pem"), &certificate).unwrap();
    std::fs::write(directory.join("key.pem"), made.signing_key.serialize_pem()).unwrap();
    std::fs::set_permissions(directory.join("key.pem"), PermissionsExt::from_mode(0o600)).unwrap();
    certificate.into_bytes()
}

fn agent(certificate: &[u8]) -> ureq::Agent {
    let certificate = ureq::tls::Certificate::from_pem(certificate).unwrap();
    let roots = ureq::tls::RootCerts::new_with_certs(&[certificate]);
    let trust = ureq::tls::TlsConfig::builder().root_certs(roots).build();
    ureq::Agent::config_builder().tls_config(trust).max_redirects(0).build().into()
}

#[test]
fn h9_h12_tls_keeps_its_key_tells_browsers_and_is_reloaded() {
    let cluster = Cluster::shared("");
    database(&cluster, "tls_reload");
    let files = tempfile::TempDir::new().unwrap();
    let first = certify(files.path());
    let [certificate, key] = ["cert.pem", "key.pem"].map(|name| files.path().join(name).to_str().unwrap().to_owned());
    let tls = ["--tls-cert", &certificate, "--tls-key", &key];
    std::fs::set_permissions(&key, PermissionsExt::from_mode(0o644)).unwrap();
    let said = Server::try_start(&cluster, "tls_reload", &tls).err().expect("refused");
    assert!(said.contains("other users may read the private key") && said.contains("chmod 600"), "{said}");
    std::fs::set_permissions(&key, PermissionsExt::from_mode(0o600)).unwrap();
    let server = Server::start(&cluster, "tls_reload", &tls);
    let healthz = format!("{}/healthz", server.address);
    let answer = agent(&first).get(&healthz).call().unwrap();
    assert!(answer.headers()["strict-transport-security"].to_str().unwrap().starts_with("max-age="));
    let form = [("token", MONITOR)];
    let login = agent(&first).post(format!("{}/login", server.address)).send_form(form).unwrap();
    let cookie = login.headers()["set-cookie"].to_str().unwrap();
    assert!(cookie.starts_with("__Host-") && cookie.contains("Secure") && !cookie.contains("Domain"), "{cookie}");
    // Another certificate.
    let second = certify(files.path());
    server.signal("HUP");
    until_holds(|| agent(&second).get(&healthz).call().is_ok());
    assert!(agent(&first).get(&healthz).call().is_err());
    // One that does not fit to its key.
    std::fs::write(&certificate, &first).unwrap();
    server.signal("HUP");
    server.until_logged("the certificate stays as it was");
    assert!(agent(&second).get(&healthz).call().is_ok());
}

#[test]
fn h12_a_password_in_an_argument_is_neither_taken_nor_printed() {
    let cluster = Cluster::shared("");
    for parameter in ["password", "Password", "PASSWORD", "sslpassword", "pass%77ord"] {
        let address = format!("postgres:///postgres?{parameter}=hunter2");
        let ran: cli::Ran =
            cli::command(&cluster, "postgres", &["status", "--dbname", &address]).output().unwrap().into();
        assert_eq!(ran.code, 2, "{ran:?}");
        assert!(!ran.stderr.contains("hunter2") && ran.stderr.contains("PGPASSWORD"), "{ran:?}");
    }
}

#[test]
fn h12_the_unit_has_limits_and_waits_longer_than_the_longest_request() {
    let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy");
    let unit = std::fs::read_to_string(deploy.join("backlog-cleanup.service")).unwrap();
    let setting = |name: &str| unit.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('=')).expect(name);
    assert_eq!(setting("LimitCORE"), "0");
    for name in ["MemoryMax", "TasksMax"] {
        assert_ne!(setting(name), "infinity");
    }
    assert!(setting("LimitNOFILE").parse::<u32>().unwrap() > 1024);
    let cluster = Cluster::shared("");
    let ran: cli::Ran =
        cli::command(&cluster, "postgres", &["serve", "--request-timeout", "601"]).output().unwrap().into();
    assert!(ran.code == 2 && ran.stderr.contains("must be from 1 to 600 seconds"), "{ran:?}");
    assert!(setting("TimeoutStopSec").parse::<u32>().unwrap() > 600 + 2 * 30);
    // Secrets of compose.yaml get neither into the repository nor into an image, and no image changes by itself.
    for (file, line) in [(".gitignore", "/deploy/secrets/"), (".dockerignore", "deploy/secrets")] {
        let lines = std::fs::read_to_string(deploy.join("..").join(file)).unwrap();
        assert!(lines.lines().any(|it| it == line), "{file}");
    }
    let compose = std::fs::read_to_string(deploy.join("compose.yaml")).unwrap();
    let images = compose.lines().filter_map(|line| line.trim().strip_prefix("image: "));
    assert!(images.into_iter().all(|image| image.contains(':') && !image.ends_with(":latest")), "{compose}");
}
