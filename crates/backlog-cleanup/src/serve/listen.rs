use std::future::{Ready, ready};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum_server::accept::Accept;
use axum_server::tls_rustls::{RustlsAcceptor, RustlsConfig};
use axum_server::{Handle, Server};
use futures::future::join_all;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpStream;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{interval, timeout};
use tower_http::add_extension::AddExtension;

use crate::failure::{Failure, Result};
use crate::private;
use crate::serve::app::App;
use crate::serve::shared::places::{Place, Places};

/// Longest time for the head of a request, and between two requests of a connection.
const HEAD_TIME: Duration = Duration::from_secs(10);
/// Longest time for a batch when the server stops, in addition to the time of a request.
pub const LAST_BATCH: Duration = Duration::from_secs(30);
/// Longest time for a message then.
const LAST_MESSAGE: Duration = Duration::from_secs(10);

/// Serves until SIGTERM or SIGINT. Running requests then finish, and runs for which no request waits stop after their current
/// batch. A second signal ends the process at once. SIGHUP reads the file of tokens and the certificate again.
pub async fn listen(app: &Arc<App>, router: Router) -> Result<()> {
    let settings = &app.settings;
    let listener = TcpListener::bind(settings.listen)
        .map_err(|error| Failure::error(format!("could not listen on {}: {error}", settings.listen)))?;
    let address = listener.local_addr()?;
    let handle = Handle::new();
    let service = router.into_make_service_with_connect_info::<SocketAddr>();
    tokio::spawn(stop(Arc::clone(app), handle.clone()));
    tokio::spawn(tidy(Arc::clone(app)));
    let bounded = Bounded(Arc::default());
    match certificate(app)? {
        Some(config) => {
            let config = RustlsConfig::from_config(config);
            tokio::spawn(reload(Arc::clone(app), Some(config.clone())));
            tracing::info!("listening on https://{address}");
            let acceptor = RustlsAcceptor::new(config).acceptor(bounded);
            patient(axum_server::from_tcp(listener)?.acceptor(acceptor)).handle(handle).serve(service).await?;
        }
        None => {
            tokio::spawn(reload(Arc::clone(app), None));
            if !address.ip().is_loopback() {
                tracing::warn!(
                    "without --tls-cert, tokens are sent in clear text; use --tls-cert or a TLS-terminating proxy"
                );
            }
            tracing::info!("listening on http://{address}");
            patient(axum_server::from_tcp(listener)?.acceptor(bounded)).handle(handle).serve(service).await?;
        }
    }
    app.runs.close();
    if timeout(LAST_BATCH, app.runs.wait()).await.is_err() {
        tracing::error!("a batch took too long");
        app.warn_of_runs();
    }
    // A message that is under way is recorded, so that no other server sends it again.
    app.deliveries.close();
    timeout(LAST_MESSAGE, app.deliveries.wait()).await.ok();
    let keyring = app.keyring();
    let pools = keyring.accesses.iter().flat_map(|access| [access.pool.close(), access.reserved.close()]);
    timeout(Duration::from_secs(1), join_all(pools)).await.ok();
    tracing::info!("stopped");
    Ok(())
}

/// HTTP/1.1 only: a connection has one request at a time, so that the bounds on connections bound requests too, and none is
/// idle for long.
fn patient<Acceptor>(mut server: Server<SocketAddr, Acceptor>) -> Server<SocketAddr, Acceptor> {
    server.http_builder().http1().header_read_timeout(HEAD_TIME);
    server.first_request_timeout(HEAD_TIME).http1_only()
}

/// Closes a connection at once that has no place, before TLS.
#[derive(Clone)]
struct Bounded(Arc<Places>);

impl<Service> Accept<TcpStream, Service> for Bounded {
    type Stream = TcpStream;
    /// Has the place as long as the connection has the service.
    type Service = AddExtension<Service, Arc<Place>>;
    type Future = Ready<io::Result<(Self::Stream, Self::Service)>>;

    fn accept(&self, stream: TcpStream, service: Service) -> Self::Future {
        let place = stream.peer_addr().ok().and_then(|peer| self.0.take(peer.ip()));
        ready(match place {
            Some(place) => Ok((stream, AddExtension::new(service, Arc::new(place)))),
            None => Err(io::ErrorKind::ConnectionRefused.into()),
        })
    }
}

/// The certificate and its key, if the settings have them.
fn certificate(app: &App) -> Result<Option<Arc<ServerConfig>>> {
    let (Some(certificate), Some(key)) = (&app.settings.tls_cert, &app.settings.tls_key) else { return Ok(None) };
    // The only provider that is linked.
    rustls::crypto::ring::default_provider().install_default().ok();
    let failure = |error: String| Failure::usage(format!("could not use the certificate and its key: {error}"));
    let key = private::read(key, "the private key")?;
    read(certificate, &key).map(Some).map_err(|error| failure(error.to_string()))
}

fn read(certificate: &Path, key: &str) -> std::result::Result<Arc<ServerConfig>, Box<dyn std::error::Error>> {
    let chain = CertificateDer::pem_file_iter(certificate)?.collect::<std::result::Result<_, _>>()?;
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes())?;
    let mut config = ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// Reads tokens and certificate again at each SIGHUP. What cannot be read stays as it was.
async fn reload(app: Arc<App>, tls: Option<RustlsConfig>) {
    let Ok(mut hangup) = signal(SignalKind::hangup()) else { return tracing::error!("signals cannot be received") };
    while hangup.recv().await.is_some() {
        match app.reload().await {
            Ok(()) => tracing::info!("the tokens and channels are reloaded"),
            Err(failure) => tracing::error!("the tokens and channels stay as they were: {}", failure.message),
        }
        match (certificate(&app), &tls) {
            (Ok(Some(config)), Some(tls)) => {
                tls.reload_from_config(config);
                tracing::info!("the certificate is reloaded");
            }
            (Err(failure), _) => tracing::error!("the certificate stays as it was: {}", failure.message),
            _ => (),
        }
    }
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
    app.shutdown.cancel();
    handle.graceful_shutdown(Some(app.settings.request_timeout + LAST_BATCH));
    tracing::info!("stopping: requests finish, runs stop after their current batch");
    told().await;
    app.warn_of_runs();
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
