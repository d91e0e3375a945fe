use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

/// What the server is told on its command line.
#[derive(Args, Clone)]
pub struct Settings {
    /// Address to listen on
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8642")]
    pub listen: SocketAddr,
    /// File of tokens, a line each: level, role, and the token or sha256:<its SHA-256 in hex>
    #[arg(long, value_name = "FILE", env = "BACKLOG_CLEANUP_TOKENS", required_unless_present = "insecure_no_auth")]
    pub tokens: Option<PathBuf>,
    /// No tokens: everybody on this machine may do all that the server's own role may
    #[arg(long, conflicts_with = "tokens")]
    pub insecure_no_auth: bool,
    /// Host name under which it may be called, beside localhost and the address that it listens on
    #[arg(long, value_name = "HOST", value_delimiter = ',')]
    pub allowed_host: Vec<String>,
    /// Certificate chain, PEM
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,
    /// Its private key, PEM
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
    /// How long a request may take; a run that takes longer goes on in batches, and its client polls
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = seconds)]
    pub request_timeout: Duration,
    /// Connections to the database per role
    #[arg(long, value_name = "CONNECTIONS", default_value_t = 5, value_parser = clap::value_parser!(u32).range(2..=100))]
    pub pool_size: u32,
    /// How often the rows are counted for /metrics
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = seconds)]
    pub count_interval: Duration,
    /// Requests per second from one address; of wrong tokens a hundredth of it, per minute
    #[arg(long, value_name = "REQUESTS", default_value = "1000")]
    pub rate_limit: NonZeroU32,
    /// Log in JSON
    #[arg(long)]
    pub log_json: bool,
}

fn seconds(text: &str) -> Result<Duration, String> {
    match text.parse() {
        Ok(seconds) if (1.0..=86_400.0).contains(&seconds) => Ok(Duration::from_secs_f64(seconds)),
        _ => Err("not from 1 to 86400 seconds".into()),
    }
}
