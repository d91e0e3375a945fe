use axum::body::Bytes;
use axum::http::header;
use axum::response::{IntoResponse, Response};

/// JSON as the database wrote it.
pub fn json(body: Bytes) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], body).into_response()
}
