use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use axum::extract::{ConnectInfo, Request};
use axum::middleware::Next;
use axum::response::Response;
use tracing::Level;
use tracing_subscriber::filter::{FilterExt, filter_fn};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, fmt};

use crate::client::warnings;
use crate::terminal::log::Log;

/// The caller's name, once it is known.
#[derive(Clone, Default)]
pub struct Who(pub Arc<OnceLock<String>>);

/// Logs a line for each request. Runs have lines of their own.
pub async fn log(mut request: Request, next: Next) -> Response {
    let started = Instant::now();
    let who = Who::default();
    request.extensions_mut().insert(who.clone());
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let from = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|peer| peer.0);
    let response = next.run(request).await;
    // A page asks every second.
    let is_poll = path.ends_with("/progress") && response.status().is_success();
    if is_poll && !tracing::enabled!(Level::DEBUG) {
        return response;
    }
    tracing::info!(
        who = who.0.get().map_or("nobody", String::as_str),
        from = from.map(tracing::field::display),
        %method,
        path,
        status = response.status().as_u16(),
        milliseconds = started.elapsed().as_millis() as u64,
        "request"
    );
    response
}

/// Logs to standard error, by default everything of this program and the warnings of its libraries; `RUST_LOG` overrides it.
pub fn start(is_json: bool) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn,backlog_cleanup=info"));
    // At level trace the HTTP client writes whole addresses of receivers, which may be secrets.
    let filter = filter.and(filter_fn(|line| !line.target().starts_with("ureq") || *line.level() <= Level::WARN));
    let lines = fmt::layer().with_writer(move || Log { is_json }).with_ansi(false);
    let lines = if is_json { lines.json().flatten_event(true).boxed() } else { lines.boxed() };
    tracing_subscriber::registry().with(lines.with_filter(filter)).with(warnings::layer()).init();
}
