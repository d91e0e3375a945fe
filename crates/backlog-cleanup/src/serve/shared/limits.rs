use std::net::IpAddr;
use std::num::NonZeroU32;

use axum::http::StatusCode;
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::serve::response::Problem;

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

    /// Lets a request in until the permit is dropped. Errors: 429 where its address has sent too many, 503 where all have.
    pub fn admit(&self, address: Option<IpAddr>) -> Result<SemaphorePermit<'_>, Problem> {
        if address.is_some_and(|address| self.requests.check_key(&network(address)).is_err()) {
            return Err(Problem::new(StatusCode::TOO_MANY_REQUESTS, "too many requests from this address"));
        }
        self.in_flight
            .try_acquire()
            .map_err(|_| Problem::new(StatusCode::SERVICE_UNAVAILABLE, "too many requests at a time"))
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
