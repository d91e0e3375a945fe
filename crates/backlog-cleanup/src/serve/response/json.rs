use axum::body::Bytes;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde::de::DeserializeOwned;

use super::Problem;
use crate::client::calls::Raw;

/// A response with a body that is JSON already.
pub fn json(body: Bytes) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], body).into_response()
}

/// The text of JSON as the database wrote it.
pub fn bytes(json: Raw) -> Bytes {
    String::from(Box::<str>::from(json)).into()
}

/// Reads JSON of the database. Errors: 500.
pub fn read<T: DeserializeOwned>(json: &[u8]) -> Result<T, Problem> {
    serde_json::from_slice(json)
        .map_err(|error| Problem::internal(format!("the answer of the database could not be read: {error}")))
}
