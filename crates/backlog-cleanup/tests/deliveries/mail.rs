//! Mail over TLS, with a login.

use std::process::{Command, Output};
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::File;
use crate::receiver::MailServer;

/// What the mail server is with TLS, and the certificate of who vouches for it.
fn secured(ip: &str) -> (Arc<ServerConfig>, String) {
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new([ip.to_owned()]).unwrap().signed_by(&key, &authority).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .unwrap();
    (Arc::new(config), authority.pem())
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
    let authority = File::of(&authority);
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
    let another = File::of(&another);
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
    let refused = test(&mails, &File::of(&authority));
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(said.contains("AUTH PLAIN ***") && said.contains("and ***") && !said.contains(&login), "{said}");
}
