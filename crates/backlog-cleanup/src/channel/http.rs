use std::sync::LazyLock;
use std::time::Duration;

use serde::Serialize;
use serde::de::{self, Deserialize, Deserializer};
use ureq::Agent;
use ureq::tls::{Certificate, RootCerts, TlsConfig};
use url::{Host, Url};

use super::{Delivered, STEP, Undelivered};
use crate::channel::secret::Secret;

/// The address of a receiver. Nobody is shown it: it may be a secret itself.
pub struct Address(String);

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Address, D::Error> {
        let secret = Secret::deserialize(deserializer)?;
        let url = Url::parse(secret.as_str()).map_err(|_| de::Error::custom("url is not valid"))?;
        match url.scheme() {
            "https" | "http" if url.has_host() && url.username().is_empty() && url.password().is_none() => {
                Ok(Address(secret.as_str().to_owned()))
            }
            _ => Err(de::Error::custom("url must be http:// or https://, without a user")),
        }
    }
}

impl Address {
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub fn of(url: &str) -> Address {
        Address(url.to_owned())
    }

    /// What a receiver must not be quoted with: all of it, and its path.
    pub fn secrets(&self) -> impl Iterator<Item = &str> {
        let path = self.0.splitn(4, '/').nth(3).filter(|path| path.len() > 3);
        [self.0.as_str()].into_iter().chain(path)
    }

    /// The same with a path below it.
    pub fn join(&self, path: &str) -> String {
        format!("{}{path}", self.0.trim_end_matches('/'))
    }

    /// Whether nobody on the way can read what is sent there.
    pub fn is_private(&self) -> bool {
        Url::parse(&self.0).is_ok_and(|url| {
            url.scheme() == "https"
                || match url.host() {
                    Some(Host::Ipv4(ip)) => ip.is_loopback(),
                    Some(Host::Ipv6(ip)) => ip.is_loopback(),
                    Some(Host::Domain(name)) => name == "localhost",
                    None => false,
                }
        })
    }
}

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
    let mut response = request.send(body).map_err(|error| Undelivered::later(error.to_string()))?;
    let status = response.status();
    if status.is_success() {
        return Ok(());
    }
    let said = response.body_mut().with_config().limit(2000).read_to_string().unwrap_or_default();
    let said = crate::printable::one_line(said.trim());
    Err(Undelivered { why: format!("HTTP {status}: {said}"), is_final: matches!(status.as_u16(), 400 | 413 | 422) })
}
