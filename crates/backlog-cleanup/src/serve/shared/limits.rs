use std::net::IpAddr;
use std::num::NonZeroU32;

use axum::http::StatusCode;
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};

use crate::serve::response::Problem;
use crate::serve::shared::places::network;

/// Who a request counts for.
#[derive(Clone, PartialEq, Eq, Hash)]
pub enum Payer {
    /// A token, by its SHA-256.
    Token([u8; 32]),
    /// Requests without a token, which thus take nothing from those with one.
    Address(IpAddr),
}

pub struct Limits {
    requests: DefaultKeyedRateLimiter<Payer>,
    failed_logins: DefaultKeyedRateLimiter<IpAddr>,
}

impl Limits {
    pub fn new(requests_per_second: NonZeroU32) -> Limits {
        let failed_logins = NonZeroU32::new(requests_per_second.get() / 100).unwrap_or(NonZeroU32::MIN);
        Limits {
            requests: RateLimiter::keyed(Quota::per_second(requests_per_second)),
            failed_logins: RateLimiter::keyed(Quota::per_minute(failed_logins)),
        }
    }

    /// Counts a request. Errors: 429 for too many.
    pub fn admit(&self, payer: Payer) -> Result<(), Problem> {
        let (payer, from) = match payer {
            Payer::Address(address) => (Payer::Address(network(address)), "address"),
            Payer::Token(_) => (payer, "token"),
        };
        self.requests
            .check_key(&payer)
            .map_err(|_| Problem::new(StatusCode::TOO_MANY_REQUESTS, format!("too many requests from this {from}")))
    }

    /// Counts a wrong token: 401, or 429 after too many. A right token is never refused.
    pub fn failed_login(&self, address: IpAddr) -> Problem {
        match self.failed_logins.check_key(&network(address)) {
            Ok(()) => Problem::unauthorized("the token is unknown"),
            Err(_) => Problem::new(StatusCode::TOO_MANY_REQUESTS, "too many wrong tokens from this address"),
        }
    }

    /// Forgets addresses and tokens without recent requests.
    pub fn forget(&self) {
        self.requests.retain_recent();
        self.failed_logins.retain_recent();
    }
}
