//! The HTTP server: one file a concept, each route beside its handler in a `routes()` of its file.

pub mod auth;
mod health;
mod problem;
mod state;
mod status;
mod tokens;

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use utoipa_axum::router::OpenApiRouter;

use crate::connect::Server;
use crate::failure::Result;

pub use auth::{Caller, Level};
pub use problem::Problem;
pub use state::App;

/// What the server is told on its command line.
#[derive(Args, Clone)]
pub struct Settings {
    /// Address to listen on
    #[arg(long, default_value = "127.0.0.1:8642")]
    pub listen: SocketAddr,
    /// File of tokens, one a line: level, role, and the token or sha256:<its SHA-256 in hex>
    #[arg(long, value_name = "FILE", env = "BACKLOG_CLEANUP_TOKENS", required_unless_present = "insecure_no_auth")]
    pub tokens: Option<PathBuf>,
    /// Let everybody on this machine do everything, as the role that the server itself connects as
    #[arg(long, conflicts_with = "tokens")]
    pub insecure_no_auth: bool,
    /// How long a request may take; a run goes on in batches, and its client polls
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = seconds)]
    pub request_timeout: Duration,
    /// Connections to the database per role
    #[arg(long, value_name = "CONNECTIONS", default_value_t = 5, value_parser = clap::value_parser!(u32).range(2..=100))]
    pub pool_size: u32,
}

fn seconds(text: &str) -> std::result::Result<Duration, String> {
    match text.parse() {
        Ok(seconds) if (1.0..=86_400.0).contains(&seconds) => Ok(Duration::from_secs_f64(seconds)),
        _ => Err("from 1 to 86400 seconds".into()),
    }
}

/// What `/api/openapi.json` describes.
fn api() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new().merge(health::routes()).merge(status::routes())
}

/// Serves until the process is told to stop.
pub async fn serve(settings: Settings, server: &Server) -> Result<()> {
    let app = Arc::new(App::new(settings.clone(), server)?);
    let listener = TcpListener::bind(settings.listen)?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    let (api, _document) = api().split_for_parts();
    let router = api.with_state(app).into_make_service_with_connect_info::<SocketAddr>();
    eprintln!("backlog-cleanup: listening on http://{address}");
    axum_server::from_tcp(listener)?.serve(router).await?;
    Ok(())
}
