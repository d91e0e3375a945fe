use std::io::Read;
use std::sync::LazyLock;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use ureq::tls::{Certificate, RootCerts, TlsConfig};
use ureq::{Agent, Error, Timeout};
use url::{Host, Position, Url};

use super::{Delivered, STEP, Undelivered};
use crate::channel::secret::Secret;
use crate::printable::one_line;

/// The address of a receiver. Nobody is shown it: it may be a secret itself.
#[derive(Deserialize)]
#[serde(try_from = "Secret")]
pub struct Address(Url);

impl TryFrom<Secret> for Address {
    type Error = &'static str;

    fn try_from(secret: Secret) -> Result<Address, &'static str> {
        let url = Url::parse(secret.as_str()).map_err(|_| "url is not valid")?;
        match url.scheme() {
            "https" | "http" if url.has_host() && url.username().is_empty() && url.password().is_none() => {
                Ok(Address(url))
            }
            _ => Err("url must be http:// or https://, without a user"),
        }
    }
}

impl Address {
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// What a receiver must not be quoted with: all that is after its host, and each part of that of more than three characters.
    pub fn secrets(&self) -> Vec<String> {
        let path = self.0.path_segments().into_iter().flatten().map(str::to_owned);
        let query = self.0.query().unwrap_or_default();
        let raw = query.split(['&', '=']).map(str::to_owned);
        let decoded = self.0.query_pairs().map(|(_, value)| value.into_owned());
        let whole = [self.0[Position::BeforePath..].to_owned(), query.to_owned()];
        let parts = whole.into_iter().chain(path).chain(raw).chain(decoded);
        parts.filter(|part| part.len() > 3).collect()
    }

    /// The same with a path below it.
    pub fn below(&self, path: &str) -> String {
        let mut url = self.0.clone();
        url.set_path(&format!("{}{path}", url.path().trim_end_matches('/')));
        url.into()
    }

    /// Whether nobody on the way can read what is sent there.
    pub fn is_private(&self) -> bool {
        self.0.scheme() == "https"
            || match self.0.host() {
                Some(Host::Ipv4(ip)) => ip.is_loopback(),
                Some(Host::Ipv6(ip)) => ip.is_loopback(),
                Some(Host::Domain(name)) => name == "localhost",
                None => false,
            }
    }
}

/// An address to which only what nobody on the way can read may go.
#[derive(Deserialize)]
#[serde(try_from = "Address")]
pub struct PrivateAddress(Address);

impl TryFrom<Address> for PrivateAddress {
    type Error = &'static str;

    fn try_from(address: Address) -> Result<PrivateAddress, &'static str> {
        if address.is_private() { Ok(PrivateAddress(address)) } else { Err("url must be https://") }
    }
}

impl std::ops::Deref for PrivateAddress {
    type Target = Address;

    fn deref(&self) -> &Address {
        &self.0
    }
}

/// The most bytes of an answer that are read.
const LONGEST_ANSWER: u64 = 2000;

/// Follows no redirect: the receiver could send a signed message, and the server's own place in the network, anywhere.
static AGENT: LazyLock<Agent> = LazyLock::new(|| {
    let trusted = rustls_native_certs::load_native_certs().certs;
    let trusted: Vec<Certificate<'static>> = trusted.iter().map(|it| Certificate::from_der(it).to_owned()).collect();
    Agent::config_builder()
        .timeout_global(Some(STEP))
        .timeout_connect(Some(Duration::from_secs(10)))
        .max_redirects(0)
        .http_status_as_error(false)
        .user_agent(concat!("backlog-cleanup/", env!("CARGO_PKG_VERSION")))
        .tls_config(TlsConfig::builder().root_certs(RootCerts::new_with_certs(&trusted)).build())
        .build()
        .into()
});

/// Posts JSON.
pub fn post_json(url: &str, headers: &[(&str, &str)], body: &impl Serialize) -> Delivered {
    post(url, headers, &serde_json::to_vec(body).expect("texts are JSON"))
}

/// Posts JSON that is bytes already. Bad requests, and those that are too large, stay so; anything else may pass: also a
/// wrong address or token, which somebody mends.
pub fn post(url: &str, headers: &[(&str, &str)], body: &[u8]) -> Delivered {
    let mut request = AGENT.post(url).header("content-type", "application/json");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = request.send(body).map_err(|error| match error {
        Error::Timeout(Timeout::Global) => {
            Undelivered::later(format!("it has not answered within {} seconds", STEP.as_secs()))
        }
        error => Undelivered::later(error.to_string()),
    })?;
    let status = response.status();
    if status.is_success() {
        return Ok(());
    }
    let mut said = Vec::new();
    // What has come of an answer that is too long, or does not end, is told.
    response.into_body().into_reader().take(LONGEST_ANSWER).read_to_end(&mut said).ok();
    let said = one_line(String::from_utf8_lossy(&said).trim());
    let is_final = matches!(status.as_u16(), 400 | 413 | 422);
    Err(Undelivered { is_final, ..Undelivered::later(format!("HTTP {status}: {said}")) })
}
