use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum_server::tls_rustls::RustlsConfig;
use axum_server::{Handle, Server};
use futures::future::join_all;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{interval, timeout};

use crate::failure::{Failure, Result};

use crate::serve::app::App;

/// Longest time for the head of a request.
const HEAD_TIME: Duration = Duration::from_secs(10);
/// Longest time for a batch when the server stops, in addition to the time of a request.
const LAST_BATCH: Duration = Duration::from_secs(30);

/// Serves until SIGTERM or SIGINT. Running requests then finish, and runs for which no request waits stop after their current
/// batch. A second signal ends the process at once.
pub async fn listen(app: &Arc<App>, router: Router) -> Result<()> {
    let settings = &app.settings;
    let listener = TcpListener::bind(settings.listen)
        .map_err(|error| Failure::error(format!("could not listen on {}: {error}", settings.listen)))?;
    let address = listener.local_addr()?;
    let handle = Handle::new();
    let service = router.into_make_service_with_connect_info::<SocketAddr>();
    tokio::spawn(stop(Arc::clone(app), handle.clone()));
    tokio::spawn(tidy(Arc::clone(app)));
    match (&settings.tls_cert, &settings.tls_key) {
        (Some(certificate), Some(key)) => {
            // The only provider that is linked.
            rustls::crypto::ring::default_provider().install_default().ok();
            let config = RustlsConfig::from_pem_file(certificate, key)
                .await
                .map_err(|error| Failure::usage(format!("could not use the certificate and its key: {error}")))?;
            tracing::info!("listening on https://{address}");
            patient(axum_server::from_tcp_rustls(listener, config)?).handle(handle).serve(service).await?;
        }
        _ => {
            if !address.ip().is_loopback() {
                tracing::warn!(
                    "without --tls-cert, tokens are sent in clear text; use --tls-cert or a TLS-terminating proxy"
                );
            }
            tracing::info!("listening on http://{address}");
            patient(axum_server::from_tcp(listener)?).handle(handle).serve(service).await?;
        }
    }
    app.runs.close();
    if timeout(LAST_BATCH, app.runs.wait()).await.is_err() {
        tracing::error!("a batch took too long, and was ended with the server");
    }
    let pools = app.accesses.iter().map(|access| access.pool.close());
    timeout(Duration::from_secs(1), join_all(pools)).await.ok();
    tracing::info!("stopped");
    Ok(())
}

fn patient<Acceptor>(mut server: Server<SocketAddr, Acceptor>) -> Server<SocketAddr, Acceptor> {
    server.http_builder().http1().header_read_timeout(HEAD_TIME);
    server.http_builder().http2().keep_alive_interval(Some(HEAD_TIME)).max_concurrent_streams(100);
    server.first_request_timeout(HEAD_TIME)
}

async fn stop(app: Arc<App>, handle: Handle<SocketAddr>) {
    let (Ok(mut terminate), Ok(mut interrupt)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        return tracing::error!("signals cannot be received");
    };
    let mut told = async || {
        tokio::select! {
            _ = terminate.recv() => (),
            _ = interrupt.recv() => (),
        }
    };
    told().await;
    tracing::info!("stopping: requests finish, runs stop after their current batch");
    app.shutdown.cancel();
    handle.graceful_shutdown(Some(app.settings.request_timeout + LAST_BATCH));
    told().await;
    tracing::warn!("stopped at once");
    std::process::exit(1);
}

/// Frees the memory of unused rate limits, once a minute.
async fn tidy(app: Arc<App>) {
    let mut minutes = interval(Duration::from_secs(60));
    loop {
        minutes.tick().await;
        app.limits.forget();
    }
}
