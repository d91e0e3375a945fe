use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

/// The unit's TimeoutStopSec is longer.
pub const MOST_REQUEST_TIMEOUT: u32 = 600;

/// The arguments of the server.
#[derive(Args, Clone)]
pub struct Settings {
    /// Address to listen on
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8642")]
    pub listen: SocketAddr,
    /// File of tokens; each line has a level, a role, and the token or sha256:<its SHA-256 in hex>
    #[arg(long, value_name = "FILE", env = "BACKLOG_CLEANUP_TOKENS", required_unless_present = "insecure_no_auth")]
    pub tokens: Option<PathBuf>,
    /// Accept all requests from this machine without a token, with the privileges of the server's own role
    #[arg(long, conflicts_with = "tokens")]
    pub insecure_no_auth: bool,
    /// Other host names of this server, beside localhost and the address it listens on
    #[arg(long, value_name = "HOST", value_delimiter = ',')]
    pub allowed_host: Vec<String>,
    /// Certificate chain, PEM
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,
    /// Its private key, PEM
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
    /// Longest time for a request; a longer run continues in batches, and its client polls
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = seconds::<{ MOST_REQUEST_TIMEOUT }>)]
    pub request_timeout: Duration,
    /// Connections to the database per role
    #[arg(long, value_name = "CONNECTIONS", default_value_t = 5, value_parser = clap::value_parser!(u32).range(2..=100))]
    pub pool_size: u32,
    /// How often to count the rows for /metrics
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = seconds::<86_400>)]
    pub count_interval: Duration,
    /// Requests per second of one token, or of one address without a token; a hundredth of it is the limit of wrong tokens per minute
    #[arg(long, value_name = "REQUESTS", default_value = "1000")]
    pub rate_limit: NonZeroU32,
    /// File of the channels to which alerts are delivered; see docs/alerts.md
    #[arg(long, value_name = "FILE", env = "BACKLOG_CLEANUP_CHANNELS")]
    pub channels: Option<PathBuf>,
    /// How long the database may be away before the channels are told
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = seconds::<86_400>)]
    pub unreachable_after: Duration,
    /// Log in JSON
    #[arg(long)]
    pub log_json: bool,
}

fn seconds<const MOST: u32>(text: &str) -> Result<Duration, String> {
    match text.parse() {
        Ok(seconds) if (1.0..=f64::from(MOST)).contains(&seconds) => Ok(Duration::from_secs_f64(seconds)),
        _ => Err(format!("must be from 1 to {MOST} seconds")),
    }
}
