//! Problems as pages for browsers; programs get them as JSON.

use axum::body::to_bytes;
use axum::extract::Request;
use axum::http::{Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Redirect, Response};
use maud::{Markup, html};
use serde_json::Value;

use super::data::Tabs;
use super::login;
use super::page::{self, Viewer};
use super::query::Query;

/// The longest body of a problem.
const LONGEST: usize = 1024 * 1024;

/// Turns problems into pages for browsers, and sends those without a session to the login.
pub async fn as_page(request: Request, next: Next) -> Response {
    let accept = request.headers().get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
    let is_browser = accept.is_some_and(|accept| accept.contains("text/html"));
    let is_login = request.uri().path() == "/login";
    let is_get = request.method() == Method::GET;
    let asked = request.uri().path_and_query().map_or_else(String::new, ToString::to_string);
    let target = target(&request);
    let path = request.uri().path().to_owned();
    let response = next.run(request).await;
    let around = response.extensions().get::<Around>().cloned();
    let kind = response.headers().get(header::CONTENT_TYPE);
    if !is_browser || kind.is_none_or(|kind| kind != "application/problem+json") {
        return response;
    }
    let status = response.status();
    if status == StatusCode::UNAUTHORIZED && !is_login {
        let next = serde_urlencoded::to_string([("next", asked)]).unwrap_or_default();
        return Redirect::to(&if is_get && next != "next=%2F" { format!("/login?{next}") } else { "/login".into() })
            .into_response();
    }
    let body = to_bytes(response.into_body(), LONGEST).await.unwrap_or_default();
    let problem: Value = serde_json::from_slice(&body).unwrap_or_default();
    let page = match is_login {
        true => login::page("", problem["detail"].as_str()),
        false => {
            let is_away = status == StatusCode::SERVICE_UNAVAILABLE && is_get;
            let (viewer, tabs) = around.map_or((Viewer::nobody(), html! {}), |Around { viewer, tabs, target }| {
                (viewer, page::tabs(&tabs, &target))
            });
            let again = path == "/";
            let title = if is_get { "Not shown" } else { "Not done" };
            let body = html! { (tabs) (words(title, &problem, is_away, target, again)) };
            page::document(&format!("✕ {title}"), &viewer, body)
        }
    };
    (status, page).into_response()
}

/// What a page that cannot be shown has around it: the way to the other targets.
#[derive(Clone)]
pub struct Around {
    pub viewer: Viewer,
    pub tabs: Tabs,
    pub target: String,
}

/// With `is_away` the page reloads by itself; with `again` the way back is this page.
fn words(title: &str, problem: &Value, is_away: bool, target: Option<String>, again: bool) -> Markup {
    let back = Query { target: target.unwrap_or_default(), ..Query::default() }.link(|_| ());
    html! {
        section #alert .card .danger role="alert" tabindex="-1" data-reload[is_away] {
            h1 { (title) }
            p { strong { (problem["detail"].as_str().unwrap_or_default()) } }
            @if let Some(hint) = problem["hint"].as_str() { pre { code { (hint) } } }
            @if let Some(sqlstate) = problem["sqlstate"].as_str() { p .note { "SQLSTATE " (sqlstate) } }
            @if is_away { p .note { "The page reloads in a moment." } }
            div .buttons { a .button href=(back) { @if again { "Try again" } @else { "Back" } } }
        }
    }
}

/// The target that the address names, or the page with the form.
fn target(request: &Request) -> Option<String> {
    let came_from = request.headers().get(header::REFERER).and_then(|from| from.to_str().ok());
    let queries = [request.uri().query(), came_from.and_then(|from| from.split_once('?')).map(|(_, query)| query)];
    queries.into_iter().flatten().find_map(|query| {
        let pairs: Vec<(String, String)> = serde_urlencoded::from_str(query).ok()?;
        pairs.into_iter().find(|(name, _)| name == "target").map(|(_, target)| target)
    })
}
