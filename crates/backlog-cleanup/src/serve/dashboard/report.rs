//! The report of a target, as it is.

use std::sync::Arc;

use axum::extract::{Query, State};
use backlog_cleanup_report::Level;
use maud::{Markup, html};
use serde::Deserialize;

use super::page::{self, Viewer};
use super::query;
use crate::client::calls;
use crate::serve::app::App;
use crate::serve::middleware::Caller;
use crate::serve::response::Problem;

#[derive(Deserialize)]
pub struct Of {
    target: String,
}

/// Shows the report of a week. Errors: those of the admin API.
pub async fn report(
    State(app): State<Arc<App>>,
    caller: Caller,
    Query(Of { target }): Query<Of>,
) -> Result<Markup, Problem> {
    let read = async { Ok(calls::report(&mut *caller.begin().await?, calls::WEEK, &target, "text").await?) };
    let report = caller.with_level(Level::Monitor, read).await?;
    let back = query::Query { target, ..query::Query::default() }.link(|_| ());
    let body = html! {
        section #report .card aria-labelledby="report-title" {
            h1 #report-title tabindex="-1" { "Report of the week" }
            div .scroll tabindex="0" role="region" aria-label="the report" { pre .page { (report) } }
            div .buttons { a .button href=(back) { "Back" } }
        }
    };
    Ok(page::document("Report of the week", &Viewer::of(&app, &caller), body))
}
