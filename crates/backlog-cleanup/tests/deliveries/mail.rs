//! Mail over TLS, with a login.

use std::process::{Command, Output};
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tempfile::TempDir;

use crate::File;
use crate::receiver::MailServer;

/// What a mail server at an address is with TLS, and the certificate of who vouches for it.
fn secured(ip: &str) -> (Arc<ServerConfig>, File) {
    let files = TempDir::new().unwrap();
    std::fs::write(files.path().join("extensions"), format!("subjectAltName = IP:{ip}")).unwrap();
    for arguments in [
        "req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.pem -subj /CN=authority -days 2",
        "req -new -newkey rsa:2048 -nodes -keyout key.pem -out request -subj /CN=mail",
        "x509 -req -in request -CA ca.pem -CAkey ca.key -CAcreateserial -extfile extensions -out certificate.pem -days 2",
    ] {
        let made = Command::new("openssl").args(arguments.split(' ')).current_dir(files.path()).output().unwrap();
        assert!(made.status.success(), "{made:?}");
    }
    let read = |name: &str| std::fs::read_to_string(files.path().join(name)).unwrap();
    let certificate = CertificateDer::from_pem_slice(read("certificate.pem").as_bytes()).unwrap();
    let key = PrivateKeyDer::from_pem_slice(read("key.pem").as_bytes()).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    (Arc::new(config), File::of(&read("ca.pem")))
}

/// Sends a test to the mail server, as somebody who trusts an authority.
fn test(mails: &MailServer, authority: &File) -> Output {
    let file = File::of(&format!(
        "[mail.team]\nurl = \"{}\"\nuser = \"alerts\"\npassword = \"SECRETpassword\"\n\
         from = \"db@example.com\"\nto = [\"a@example.com\"]\n",
        mails.address
    ));
    Command::new(env!("CARGO_BIN_EXE_backlog-cleanup"))
        .args(["alerts", "test", "team", "--channels", &file.path(), "--dbname", "app"])
        .env_remove("DATABASE_URL")
        .env("SSL_CERT_FILE", authority.path())
        .output()
        .unwrap()
}

#[test]
fn a_mail_is_encrypted_and_so_is_the_login() {
    let (tls, authority) = secured("127.0.0.2");
    let mails = MailServer::listen("127.0.0.2", [], Some(tls));
    let sent = test(&mails, &authority);
    assert!(sent.status.success(), "{sent:?}");
    let login = base64::Engine::encode(&base64::prelude::BASE64_STANDARD, "\0alerts\0SECRETpassword");
    assert_eq!(mails.logins()[0], (format!("AUTH PLAIN {login}"), true));
    assert!(mails.came()[0].contains("this is a test"), "{:?}", mails.came());
}

#[test]
fn a_mail_server_that_nobody_vouches_for_or_without_tls_gets_nothing() {
    let (tls, _) = secured("127.0.0.2");
    let (_, another) = secured("127.0.0.2");
    for mails in [MailServer::listen("127.0.0.2", [], Some(tls)), MailServer::listen("127.0.0.2", [], None)] {
        let refused = test(&mails, &another);
        assert_eq!(refused.status.code(), Some(1), "{refused:?}");
        assert!(String::from_utf8_lossy(&refused.stderr).contains("did not take the test"), "{refused:?}");
        assert!(mails.logins().is_empty() && mails.came().is_empty());
    }
}

#[test]
fn a_mail_server_that_quotes_the_login_tells_nobody() {
    let (tls, authority) = secured("127.0.0.2");
    let login = base64::Engine::encode(&base64::prelude::BASE64_STANDARD, "\0alerts\0SECRETpassword");
    let quoted: &'static str = format!("550 5.5.1 what is \"AUTH PLAIN {login}\" and SECRETpassword").leak();
    let mails = MailServer::listen("127.0.0.2", [quoted], Some(tls));
    let refused = test(&mails, &authority);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(said.contains("AUTH PLAIN ***") && said.contains("and ***") && !said.contains(&login), "{said}");
}
