use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::extract::{ConnectInfo, Request, State};
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::Response;
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::{App, Problem};

/// The longest body: those of this API hold a number.
const BODY: usize = 16 * 1024;
/// How long a body may take, all of it.
const BODY_TIME: Duration = Duration::from_secs(10);
/// Requests that are worked on at a time; those that share a query are as cheap as they look.
const IN_FLIGHT: usize = 1000;

pub struct Limits {
    in_flight: Semaphore,
    requests: DefaultKeyedRateLimiter<IpAddr>,
    failed_logins: DefaultKeyedRateLimiter<IpAddr>,
}

impl Limits {
    pub fn new(requests_per_second: NonZeroU32) -> Limits {
        let failed_logins = NonZeroU32::new(requests_per_second.get() / 100).unwrap_or(NonZeroU32::MIN);
        Limits {
            in_flight: Semaphore::new(IN_FLIGHT),
            requests: RateLimiter::keyed(Quota::per_second(requests_per_second)),
            failed_logins: RateLimiter::keyed(Quota::per_minute(failed_logins)),
        }
    }

    /// Counts a wrong token: 401, and 429 after too many of them. The right one is never refused.
    pub fn failed_login(&self, address: IpAddr) -> Problem {
        match self.failed_logins.check_key(&network(address)) {
            Ok(()) => Problem::unauthorized("the token is unknown"),
            Err(_) => Problem::new(StatusCode::TOO_MANY_REQUESTS, "too many wrong tokens from this address"),
        }
    }

    /// Forgets addresses that have not been here for a while.
    pub fn forget(&self) {
        self.requests.retain_recent();
        self.failed_logins.retain_recent();
    }
}

/// An IPv6 host has all addresses of its network.
fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(address) if address.to_ipv4_mapped().is_none() => {
            IpAddr::V6((u128::from(address) & !u128::from(u64::MAX)).into())
        }
        address => address.to_canonical(),
    }
}

/// Sheds what is too much, and reads the body: all of it, short and soon, before anybody works on the request.
pub async fn limit(State(app): State<Arc<App>>, request: Request, next: Next) -> Result<Response, Problem> {
    let limits = &app.limits;
    let address = request.extensions().get::<ConnectInfo<std::net::SocketAddr>>().map(|peer| network(peer.ip()));
    if address.is_some_and(|address| limits.requests.check_key(&address).is_err()) {
        return Err(Problem::new(StatusCode::TOO_MANY_REQUESTS, "too many requests from this address"));
    }
    let Ok(_permit) = limits.in_flight.try_acquire() else {
        return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "too many requests at a time"));
    };
    let (parts, body) = request.into_parts();
    let body = match timeout(BODY_TIME, to_bytes(body, BODY)).await {
        Ok(Ok(body)) => body,
        Ok(Err(error)) if is_too_long(&error) => {
            return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, format!("the body is longer than {BODY} bytes")));
        }
        Ok(Err(_)) => return Err(Problem::bad_request("the body could not be read")),
        Err(_) => return Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "the body did not come in time")),
    };
    Ok(next.run(Request::from_parts(parts, Body::from(body))).await)
}

fn is_too_long(error: &axum::Error) -> bool {
    std::error::Error::source(error).is_some_and(|source| source.is::<http_body_util::LengthLimitError>())
}
