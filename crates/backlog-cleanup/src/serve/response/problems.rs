use std::collections::BTreeMap;

use utoipa::IntoResponses;
use utoipa::openapi::{ContentBuilder, Ref, RefOr, ResponseBuilder};

/// What any request may be answered instead.
pub struct Problems;

const PROBLEMS: [(&str, &str); 14] = [
    ("400", "Bad input"),
    ("401", "Neither a token nor a session"),
    ("403", "Not allowed at this level, or from another site's page"),
    ("404", "There is no such target or run"),
    ("405", "Another method"),
    ("408", "The body did not come in time"),
    ("409", "Another run is in progress, or what was confirmed is not what would go"),
    ("413", "The body is too long"),
    ("415", "The body is not JSON"),
    ("421", "Not one of this server's hosts"),
    ("422", "The breaker holds, or the Idempotency-Key is another request's"),
    ("429", "Too many requests"),
    ("503", "The database is away; it reconnects"),
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
