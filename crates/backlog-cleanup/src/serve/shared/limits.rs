use std::net::IpAddr;
use std::num::NonZeroU32;

use axum::http::StatusCode;
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::serve::response::Problem;

/// Concurrent requests; most of them share a query and cost little.
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

    /// Admits a request until the permit is dropped. Errors: 429 for too many from its address, 503 for too many at all.
    pub fn admit(&self, address: Option<IpAddr>) -> Result<SemaphorePermit<'_>, Problem> {
        if address.is_some_and(|address| self.requests.check_key(&network(address)).is_err()) {
            return Err(Problem::new(StatusCode::TOO_MANY_REQUESTS, "too many requests from this address"));
        }
        self.in_flight
            .try_acquire()
            .map_err(|_| Problem::new(StatusCode::SERVICE_UNAVAILABLE, "too many concurrent requests"))
    }

    /// Counts a wrong token: 401, or 429 after too many. A right token is never refused.
    pub fn failed_login(&self, address: IpAddr) -> Problem {
        match self.failed_logins.check_key(&network(address)) {
            Ok(()) => Problem::unauthorized("the token is unknown"),
            Err(_) => Problem::new(StatusCode::TOO_MANY_REQUESTS, "too many wrong tokens from this address"),
        }
    }

    /// Forgets addresses without recent requests.
    pub fn forget(&self) {
        self.requests.retain_recent();
        self.failed_logins.retain_recent();
    }
}

/// The /64 network of an IPv6 address, since a host has all of its addresses.
fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(address) if address.to_ipv4_mapped().is_none() => {
            IpAddr::V6((u128::from(address) & !u128::from(u64::MAX)).into())
        }
        address => address.to_canonical(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_one_network_share_a_limit() {
        for (address, same) in [("2001:db8::1", "2001:db8::ffff:2"), ("::ffff:192.0.2.1", "192.0.2.1")] {
            assert_eq!(network(address.parse().unwrap()), network(same.parse().unwrap()), "{address}");
        }
        for (address, other) in [("2001:db8::1", "2001:db8:0:1::1"), ("192.0.2.1", "192.0.2.2")] {
            assert_ne!(network(address.parse().unwrap()), network(other.parse().unwrap()), "{address}");
        }
    }
}
