use std::collections::BTreeMap;

use utoipa::IntoResponses;
use utoipa::openapi::{ContentBuilder, Ref, RefOr, ResponseBuilder};

/// The problems with which any request may be answered.
pub struct Problems;

const PROBLEMS: [(&str, &str); 14] = [
    ("400", "Bad input"),
    ("401", "Neither a token nor a session"),
    ("403", "Not allowed at this level, or sent by a page of another site"),
    ("404", "No such target or run"),
    ("405", "Wrong method"),
    ("408", "The body took too long"),
    ("409", "Another run is in progress, or the confirmed number of rows has changed"),
    ("413", "The body is too long"),
    ("415", "The body is not JSON"),
    ("421", "The host is not a name of this server"),
    ("422", "The breaker refused the run, or the Idempotency-Key was used for another request"),
    ("429", "Too many requests"),
    ("503", "The database is away, the server stops, or it is busy"),
    ("504", "It took longer than --request-timeout"),
];

impl IntoResponses for Problems {
    fn responses() -> BTreeMap<String, RefOr<utoipa::openapi::Response>> {
        let problem = || ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build();
        PROBLEMS
            .iter()
            .map(|(status, description)| {
                let response =
                    ResponseBuilder::new().description(*description).content("application/problem+json", problem());
                (status.to_string(), response.build().into())
            })
            .collect()
    }
}
