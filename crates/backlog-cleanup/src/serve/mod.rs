//! The HTTP server: one file a concept, one route each beside its handler.

use std::net::SocketAddr;

use axum::Router;
use axum::routing::get;
use tokio::net::TcpListener;

use crate::connect::Server;
use crate::failure::Result;

/// Serves until the process is told to stop.
pub async fn serve(listen: SocketAddr, _server: Server) -> Result<()> {
    let router = Router::new().route("/healthz", get(|| async { "ok\n" }));
    axum::serve(TcpListener::bind(listen).await?, router).await?;
    Ok(())
}
