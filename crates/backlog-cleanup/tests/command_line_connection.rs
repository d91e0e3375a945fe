//! How the command line finds the database and verifies the server, like psql; what it does not support it refuses.

mod cli;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use cli::Ran;
use cluster::Cluster;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

/// An address of this machine that no other server listens on.
fn address() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    let number = std::process::id() * 8 + NEXT.fetch_add(1, Ordering::Relaxed);
    format!("127.{}.{}.{}", 1 + number / 64516 % 250, number / 254 % 254, 1 + number % 254)
}

fn ended(mut command: Command) -> Ran {
    command.output().expect("the binary starts").into()
}

/// Writes a file that belongs to the server's user.
fn give(cluster: &Cluster, name: &str, content: &str) -> PathBuf {
    let path = Path::new(cluster.socket()).join(name);
    std::fs::write(&path, content).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    let owner = std::fs::metadata(cluster.socket()).unwrap();
    std::os::unix::fs::chown(&path, Some(std::os::unix::fs::MetadataExt::uid(&owner)), None).unwrap();
    path
}

/// A server with passwords and TLS, its address, and the certificate of the authority. The server's certificate is for a
/// name, or else for its address.
fn secured(name: Option<&str>) -> (Cluster, String, String) {
    let address = address();
    let cluster = Cluster::start("");
    cluster.platform();
    cluster.connect().batch_execute("CREATE ROLE \"on duty\" LOGIN SUPERUSER PASSWORD 'sec:ret'").unwrap();
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let name = name.unwrap_or(&address).to_owned();
    let certificate = CertificateParams::new([name]).unwrap().signed_by(&key, &authority).unwrap();
    let certificate = give(&cluster, "server.crt", &certificate.pem());
    let key = give(&cluster, "server.key", &key.serialize_pem());
    let hba = give(
        &cluster,
        "hba.conf",
        "local all postgres trust\nlocal all all scram-sha-256\nhost all all all scram-sha-256\n",
    );
    for line in [
        format!("listen_addresses = '{address}'"),
        "ssl = on".into(),
        format!("ssl_cert_file = '{}'", certificate.display()),
        format!("ssl_key_file = '{}'", key.display()),
        format!("hba_file = '{}'", hba.display()),
    ] {
        cluster.set(&line);
    }
    cluster.restart();
    (cluster, address, authority.pem())
}

#[test]
fn the_server_must_be_the_one_that_its_certificate_names() {
    let (cluster, address, authority) = secured(None);
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("root.crt");
    std::fs::write(&root, authority).unwrap();
    let status = |environment: &[(&str, &str)]| {
        let mut command = cli::command(&cluster, "postgres", &["status", "--json"]);
        command.envs([("PGHOST", address.as_str()), ("PGUSER", "on duty"), ("PGPASSWORD", "sec:ret")]);
        command.envs(environment.iter().copied());
        ended(command)
    };
    let root = root.to_str().unwrap();
    assert_eq!(status(&[("PGSSLMODE", "verify-full"), ("PGSSLROOTCERT", root)]).code, 0);
    // The authority is unknown.
    let unknown = status(&[("PGSSLMODE", "verify-full")]);
    assert!(unknown.code == 1 && unknown.stderr.contains("UnknownIssuer"), "{unknown:?}");
    assert_eq!(status(&[("PGSSLMODE", "require")]).code, 0);
    // The certificate is for another name.
    let (cluster, address, authority) = secured(Some("elsewhere.example"));
    std::fs::write(root, authority).unwrap();
    let status = |mode: &str| {
        let mut command = cli::command(&cluster, "postgres", &["status", "--json"]);
        command.envs([("PGHOST", address.as_str()), ("PGUSER", "on duty"), ("PGPASSWORD", "sec:ret")]);
        command.envs([("PGSSLMODE", mode), ("PGSSLROOTCERT", root)]);
        ended(command)
    };
    let other = status("verify-full");
    assert!(other.code == 1 && other.stderr.contains("not valid for name"), "{other:?}");
    // sqlx 0.8.6 checks the name here as well, as documented.
    assert_eq!(status("verify-ca").code, 1);
}

#[test]
fn passwords_come_from_the_environment_and_from_pgpass_and_never_from_an_argument() {
    let (cluster, host, _) = secured(None);
    let home = tempfile::tempdir().unwrap();
    let pgpass = home.path().join(".pgpass");
    let line = |database: &str| format!("{host}:5432:{database}:on duty:sec:ret\n");
    let write = |content: &str, mode: u32| {
        std::fs::write(&pgpass, content).unwrap();
        std::fs::set_permissions(&pgpass, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    let status = |environment: &[(&str, &str)], arguments: &[&str]| {
        let mut command = cli::command(&cluster, "postgres", &[&["status", "--json"], arguments].concat());
        command.env("HOME", home.path()).envs(environment.iter().copied());
        ended(command)
    };
    let here = ["--host", &host, "--username", "on duty"];
    write(&line("other"), 0o600);
    assert_eq!(status(&[], &here).failure()["sqlstate"], "28P01");
    write(&line("postgres"), 0o600);
    assert_eq!(status(&[], &here).code, 0, "by what the arguments say, not by what they replace");
    // The default database is named as the role.
    cluster.connect().batch_execute("CREATE DATABASE \"on duty\"").unwrap();
    write(&line("on duty"), 0o600);
    let unnamed = status(&[("DATABASE_URL", &format!("postgres://on%20duty@{host}"))], &[]);
    assert_eq!(unnamed.failure()["sqlstate"], "28P01", "PGDATABASE names one");
    let mut unnamed = cli::command(&cluster, "", &["status"]);
    unnamed.env_remove("PGDATABASE").env("HOME", home.path()).args(here);
    let unnamed = ended(unnamed);
    assert!(unnamed.stderr.contains("backlog-cleanup setup"), "{unnamed:?}");
    // A file that others can read is ignored, with a warning.
    write(&line("*"), 0o644);
    let open = status(&[], &here);
    assert!(open.code == 1 && open.stderr.contains("Permissions are not strict enough"), "{open:?}");
    let file = home.path().join("elsewhere");
    std::fs::write(&file, line("*")).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(status(&[("PGPASSFILE", file.to_str().unwrap())], &here).code, 0);
    let url = format!("postgres://on%20duty:sec%3Aret@{host}/postgres");
    assert_eq!(status(&[("DATABASE_URL", &url)], &[]).code, 0);
    assert_eq!(status(&[("DATABASE_URL", &url), ("PGHOST", "nowhere.invalid")], &[]).code, 0);
    assert_eq!(status(&[("PGPASSWORD", "sec:ret")], &here).code, 0);
    for argument in [url, format!("postgres://{host}/postgres?user=on+duty&password=sec:ret")] {
        let refused = status(&[], &["--dbname", &argument]);
        assert_eq!(refused.code, 2);
        assert!(
            refused.stderr.contains("a password in an argument") && !refused.stderr.contains("ret@"),
            "{refused:?}"
        );
    }
}

#[test]
fn what_cannot_be_kept_is_refused() {
    let cluster = Cluster::shared("");
    let status = |name: &str, value: &str| {
        let mut command = cli::command(&cluster, "postgres", &["status", "--json"]);
        command.env(name, value);
        ended(command)
    };
    for (name, value) in [
        ("PGSERVICE", "production"),
        ("PGTARGETSESSIONATTRS", "read-write"),
        ("PGCHANNELBINDING", "require"),
        ("PGREQUIREPEER", "postgres"),
        ("PGSSLMODE", "verify_full"),
        ("PGPORT", "five"),
        ("PGCONNECT_TIMEOUT", "soon"),
        ("PGHOST", "one.example,two.example"),
        ("DATABASE_URL", "host=one password=secret"),
    ] {
        let refused = status(name, value);
        assert_eq!((refused.code, refused.stderr.contains("secret")), (2, false), "{name}: {refused:?}");
    }
    // Waiting for a server that does not answer ends.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port().to_string();
    let mut command = cli::command(&cluster, "postgres", &["status", "--host", "127.0.0.1", "--port", &port]);
    command.env("PGCONNECT_TIMEOUT", "1");
    let waited = ended(command);
    assert!(waited.code == 1 && waited.stderr.contains(&format!("\"127.0.0.1\", port {port}")), "{waited:?}");
    let nobody = ended(cli::command(&cluster, "postgres", &["status", "--host", "/nowhere"]));
    assert!(nobody.code == 1 && nobody.stderr.contains("could not connect to \"/nowhere\""), "{nobody:?}");
}
