//! Problems as pages for browsers; programs get them as JSON.

use axum::body::to_bytes;
use axum::extract::Request;
use axum::http::{Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Redirect, Response};
use maud::{Markup, html};
use serde_json::Value;

use super::login;
use super::page::{self, Viewer};

/// The longest body of a problem.
const LONGEST: usize = 1024 * 1024;

/// Turns problems into pages for browsers, and sends those without a session to the login.
pub async fn as_page(request: Request, next: Next) -> Response {
    let accept = request.headers().get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
    let is_browser = accept.is_some_and(|accept| accept.contains("text/html"));
    let is_login = request.uri().path() == "/login";
    let is_get = request.method() == Method::GET;
    let response = next.run(request).await;
    let kind = response.headers().get(header::CONTENT_TYPE);
    if !is_browser || kind.is_none_or(|kind| kind != "application/problem+json") {
        return response;
    }
    let status = response.status();
    if status == StatusCode::UNAUTHORIZED && !is_login {
        return Redirect::to("/login").into_response();
    }
    let body = to_bytes(response.into_body(), LONGEST).await.unwrap_or_default();
    let problem: Value = serde_json::from_slice(&body).unwrap_or_default();
    let page = match is_login {
        true => login::page(problem["detail"].as_str()),
        false => {
            let is_away = status == StatusCode::SERVICE_UNAVAILABLE && is_get;
            page::document("✕ Not done", &Viewer::nobody(), words(&problem, is_away))
        }
    };
    (status, page).into_response()
}

/// With `is_away` the page reloads by itself.
fn words(problem: &Value, is_away: bool) -> Markup {
    html! {
        section #alert .card .danger role="alert" tabindex="-1" data-reload[is_away] {
            h1 { "Not done" }
            p { strong { (problem["detail"].as_str().unwrap_or_default()) } }
            @if let Some(hint) = problem["hint"].as_str() { pre { code { (hint) } } }
            @if let Some(sqlstate) = problem["sqlstate"].as_str() { p .note { "SQLSTATE " (sqlstate) } }
            @if is_away { p .note { "The page reloads in a moment." } }
            div .buttons { a .button href="/" { "Back" } }
        }
    }
}
