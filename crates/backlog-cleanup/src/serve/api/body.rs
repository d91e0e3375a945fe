use axum::http::{HeaderMap, StatusCode, header};
use serde::de::DeserializeOwned;

use crate::serve::response::Problem;

/// Reads a body of JSON; without one, or with `null`, it is the default. Errors: 415; 400 with an example.
pub fn read_body<T: DeserializeOwned + Default>(headers: &HeaderMap, body: &[u8], example: &str) -> Result<T, Problem> {
    if body.trim_ascii().is_empty() {
        return Ok(T::default());
    }
    let is_json = headers
        .get(header::CONTENT_TYPE)
        .and_then(|it| it.to_str().ok())
        .is_some_and(|it| it.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("application/json"));
    if !is_json {
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "the body must be application/json"));
    }
    let read: Result<Option<T>, _> = serde_json::from_slice(body);
    read.map(Option::unwrap_or_default)
        .map_err(|error| Problem::bad_request(format!("the body is not valid: {error}")).hint(example))
}
