use axum::Json;
use axum::body::to_bytes;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use backlog_cleanup_report::Level;
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::failure::{Exit, Failure, grant};

/// An error as in RFC 9457, `application/problem+json`.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Problem {
    /// The status in words.
    title: &'static str,
    /// The HTTP status.
    #[serde(serialize_with = "code")]
    #[schema(value_type = u16)]
    status: StatusCode,
    /// What is wrong.
    detail: String,
    /// The SQLSTATE that the database raised, or that PostgreSQL has for such an error.
    sqlstate: String,
    /// What to do about it.
    hint: String,
    #[serde(flatten)]
    members: Map<String, Value>,
}

fn code<S: serde::Serializer>(status: &StatusCode, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u16(status.as_u16())
}

impl Problem {
    pub fn new(status: StatusCode, detail: impl Into<String>) -> Problem {
        let title = status.canonical_reason().unwrap_or("Error");
        let (sqlstate, hint) = (usual_sqlstate(status).into(), usual_hint(status).into());
        Problem { title, status, detail: detail.into(), sqlstate, hint, members: Map::new() }
    }

    pub fn bad_request(detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::BAD_REQUEST, detail)
    }

    pub fn unauthorized(detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::UNAUTHORIZED, detail)
    }

    pub fn forbidden(detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::FORBIDDEN, detail)
    }

    pub fn not_found(detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::NOT_FOUND, detail)
    }

    pub fn internal(detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, detail)
    }

    pub fn hint(self, hint: impl Into<String>) -> Problem {
        Problem { hint: hint.into(), ..self }
    }

    /// Where the role lacks a privilege, hints at granting it the level that the request needs.
    pub fn of_level(self, level: Level, role: &str) -> Problem {
        match grant(Some(&self.sqlstate), &self.detail, level, role) {
            Some(grant) => self.hint(grant),
            None => self,
        }
    }

    /// Adds a member for programs.
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Problem {
        self.members.insert(name.into(), value.into());
        self
    }

    pub fn detail(&self) -> &str {
        &self.detail
    }

    pub fn hinted(&self) -> &str {
        &self.hint
    }

    /// Whether what was sent is wrong, and can be sent again when it is mended.
    pub fn is_of_input(&self) -> bool {
        matches!(self.status, StatusCode::BAD_REQUEST | StatusCode::CONFLICT)
    }
}

/// The SQLSTATE of an error of this server (PostgreSQL's documentation, Appendix A).
fn usual_sqlstate(status: StatusCode) -> &'static str {
    match status {
        // invalid_authorization_specification, insufficient_privilege
        StatusCode::UNAUTHORIZED => "28000",
        StatusCode::FORBIDDEN => "42501",
        // undefined_object
        StatusCode::NOT_FOUND => "42704",
        // object_not_in_prerequisite_state
        StatusCode::CONFLICT => "55000",
        // program_limit_exceeded, configuration_limit_exceeded
        StatusCode::PAYLOAD_TOO_LARGE => "54000",
        StatusCode::TOO_MANY_REQUESTS => "53400",
        // query_canceled
        StatusCode::REQUEST_TIMEOUT | StatusCode::GATEWAY_TIMEOUT => "57014",
        // cannot_connect_now
        StatusCode::SERVICE_UNAVAILABLE => "57P03",
        // system_error: outside of PostgreSQL
        status if status.is_server_error() => "58000",
        // invalid_parameter_value
        _ => "22023",
    }
}

/// The hint of an error without one of its own.
fn usual_hint(status: StatusCode) -> &'static str {
    match status {
        StatusCode::UNAUTHORIZED => "Authorization: Bearer <token>",
        StatusCode::FORBIDDEN => "a token of a higher level",
        StatusCode::CONFLICT | StatusCode::REQUEST_TIMEOUT => "try again in a moment",
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => "try again in a few seconds",
        StatusCode::GATEWAY_TIMEOUT => "try again, or backlog-cleanup serve --request-timeout 60",
        status if status.is_server_error() => "backlog-cleanup doctor, and the log of the server",
        _ => "GET /api/openapi.json describes every request",
    }
}

/// The HTTP status of an error of the database.
fn status(sqlstate: &str, exit: Exit) -> StatusCode {
    match sqlstate {
        // undefined_object: a target, a run
        "42704" => StatusCode::NOT_FOUND,
        // insufficient_privilege
        "42501" => StatusCode::FORBIDDEN,
        // lock_not_available: another run is in progress; deadlock_detected, serialization_failure
        "55P03" | "40P01" | "40001" => StatusCode::CONFLICT,
        // program_limit_exceeded, by the breaker
        "54000" if exit == Exit::Blocked => StatusCode::UNPROCESSABLE_ENTITY,
        // query_canceled: statement_timeout
        "57014" => StatusCode::GATEWAY_TIMEOUT,
        // read_only_sql_transaction: a standby
        "25006" => StatusCode::SERVICE_UNAVAILABLE,
        _ => match &sqlstate[..2] {
            // data_exception
            "22" => StatusCode::BAD_REQUEST,
            // connection_exception, invalid_authorization, insufficient_resources, operator_intervention
            "08" | "28" | "53" | "57" => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        },
    }
}

/// The HTTP status of an error of the database where a request was to write a target or a policy: what it refuses is bad input,
/// unless it is there already, or the caller may not.
fn status_of_write(sqlstate: &str, exit: Exit) -> StatusCode {
    match sqlstate {
        // unique_violation, dependent_objects_still_exist
        "23505" | "2BP01" => StatusCode::CONFLICT,
        "42501" | "42704" | "55P03" => status(sqlstate, exit),
        // feature_not_supported, data_exception, integrity_constraint_violation, syntax_error_or_access_rule_violation,
        // program_limit_exceeded, object_not_in_prerequisite_state
        _ if ["0A", "22", "23", "42", "54", "55"].contains(&&sqlstate[..2]) => StatusCode::BAD_REQUEST,
        _ => status(sqlstate, exit),
    }
}

/// The problem of a failure, whose status its SQLSTATE tells.
fn problem(failure: Failure, status: fn(&str, Exit) -> StatusCode) -> Problem {
    let sqlstate = failure.sqlstate.as_deref();
    let status = sqlstate.map_or(StatusCode::INTERNAL_SERVER_ERROR, |sqlstate| status(sqlstate, failure.exit));
    let detail = match failure.detail {
        Some(detail) => format!("{}: {detail}", failure.message),
        None => failure.message,
    };
    let problem = Problem::new(status, detail);
    Problem {
        sqlstate: failure.sqlstate.unwrap_or(problem.sqlstate),
        hint: failure.hint.unwrap_or(problem.hint),
        ..problem
    }
}

/// The problem of a target or a policy that the database does not write.
pub fn refused(error: impl Into<Failure>) -> Problem {
    problem(error.into(), status_of_write)
}

impl From<Failure> for Problem {
    fn from(failure: Failure) -> Problem {
        problem(failure, status)
    }
}

impl From<sqlx::Error> for Problem {
    fn from(error: sqlx::Error) -> Problem {
        Failure::from(error).into()
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(&self)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        match self.status {
            StatusCode::UNAUTHORIZED => {
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from_static("5"));
            }
            _ => (),
        }
        response
    }
}

/// Turns the plain-text errors of libraries into problems.
pub async fn as_problem(response: Response) -> Response {
    let (status, kind) = (response.status(), response.headers().get(header::CONTENT_TYPE));
    let is_plain = kind.is_none_or(|kind| kind.as_bytes().starts_with(b"text/plain"));
    if !(status.is_client_error() || status.is_server_error()) || !is_plain {
        return response;
    }
    let allow = response.headers().get(header::ALLOW).cloned();
    let text = to_bytes(response.into_body(), 64 * 1024).await.unwrap_or_default();
    let text = String::from_utf8_lossy(&text).trim().to_owned();
    let detail = if text.is_empty() { status.canonical_reason().unwrap_or("Error").to_lowercase() } else { text };
    // axum answers 422 to what serde cannot read; here that is bad input.
    let status = if status == StatusCode::UNPROCESSABLE_ENTITY { StatusCode::BAD_REQUEST } else { status };
    let mut problem = Problem::new(status, detail).into_response();
    if let Some(allow) = allow {
        problem.headers_mut().insert(header::ALLOW, allow);
    }
    problem
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_breakers_own_54000_is_its_status() {
        for (exit, status) in
            [(Exit::Blocked, StatusCode::UNPROCESSABLE_ENTITY), (Exit::Error, StatusCode::INTERNAL_SERVER_ERROR)]
        {
            let failure = Failure { exit, sqlstate: Some("54000".into()), ..Failure::error("a limit") };
            assert_eq!(Problem::from(failure).into_response().status(), status);
        }
    }
}
