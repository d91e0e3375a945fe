//! The targets: all of them, and each column of one.

use std::sync::Arc;

use axum::extract::{Query, State};
use backlog_cleanup_report::Level;
use maud::{Markup, html};
use serde::Deserialize;
use serde_json::Value;

use super::data::{Tabs, findings};
use super::health;
use super::names::name;
use super::page::{self, Viewer};
use super::query::target_page;
use super::simulate::back;
use super::target_form::link;
use crate::client::calls::{self, Finding};
use crate::client::columns::{self, Column, Row};
use crate::serve::app::App;
use crate::serve::middleware::Caller;
use crate::serve::response::Problem;
use crate::words;

#[derive(Deserialize)]
pub struct Which {
    target: String,
}

/// Shows all targets. Errors: those of the admin API.
pub async fn list(State(app): State<Arc<App>>, caller: Caller) -> Result<Markup, Problem> {
    let look = async {
        let rows = columns::list(&mut *caller.begin().await?).await?;
        Ok((rows, Tabs::read(&app, &caller).await?))
    };
    let (rows, tabs) = caller.with_level(Level::Monitor, look).await?;
    let body = all(&rows, &tabs, caller.level >= Level::Admin);
    Ok(page::document("Targets", &Viewer::of(&app, &caller), body))
}

/// Shows a target. Errors: 404; those of the admin API.
pub async fn show(
    State(app): State<Arc<App>>,
    caller: Caller,
    Query(Which { target }): Query<Which>,
) -> Result<Markup, Problem> {
    let look = async {
        let columns = columns::of(&mut *caller.begin().await?, &target).await?;
        if columns.is_empty() {
            return Err(columns::missing(&target).into());
        }
        let findings = findings(&app, &caller, &target).await?;
        // A target that cannot be used has columns, too.
        let index = calls::index_sql(&mut *caller.begin().await?, &target).await.map_err(Problem::from);
        Ok((columns, findings, index))
    };
    let (columns, findings, index) = caller.with_level(Level::Monitor, look).await?;
    let body = html! {
        (doctor(&target, &findings, caller.level >= Level::Admin))
        (table(&columns))
        (index_statement(&index))
    };
    Ok(page::document(&format!("Target {target}"), &Viewer::of(&app, &caller), body))
}

fn all(rows: &[Row], tabs: &Tabs, may_write: bool) -> Markup {
    html! {
        section #all-targets .card aria-labelledby="all-targets-title" {
            h1 #all-targets-title { "Targets" }
            div .scroll tabindex="0" role="region" aria-label="targets, the table" {
                table .targets {
                    thead {
                        tr {
                            th scope="col" { "target" }
                            th scope="col" { "table" }
                            th scope="col" { "account" }
                            th scope="col" { "statuses" }
                        }
                    }
                    tbody {
                        @for row in rows {
                            @let text = |column: &str| row.get(column).and_then(Value::as_str);
                            @let target = text("name").unwrap_or_default();
                            tr {
                                th scope="row" {
                                    @if let Some(light) = tabs.lights.get(target) { (health::sign(*light, 16)) " " }
                                    a href=(target_page(target)) { (name(target)) }
                                }
                                td { (name(text("generations_table").unwrap_or_default())) }
                                td { @match text("account") { Some(account) => (name(account)), None => span .muted { "every row" } } }
                                td { (name(&statuses(row))) }
                            }
                        }
                    }
                }
            }
            @if may_write {
                div .buttons { a .button href="/target/form" { "Add a target…" } }
            } @else {
                p .note { "To add one, sign in with a token of level admin." }
            }
        }
    }
}

fn statuses(row: &Row) -> String {
    if row.get("status_column").is_some_and(Value::is_null) {
        return "no status".into();
    }
    let statuses = row.get("statuses").and_then(Value::as_array).into_iter().flatten();
    statuses.filter_map(Value::as_str).collect::<Vec<_>>().join(", ")
}

fn doctor(target: &str, findings: &[Finding], may_write: bool) -> Markup {
    let wrong: Vec<&Finding> = findings.iter().filter(|finding| finding.status != "ok").collect();
    html! {
        section #target .card aria-labelledby="target-title" {
            h1 #target-title { "Target " (name(target)) }
            p .note { a href=(back(target)) { "Its dashboard" } " · " a href="/targets" { "All targets" } }
            @if wrong.is_empty() {
                p { "All " (findings.len()) " checks of the doctor pass." }
            } @else {
                p { (words::count(wrong.len() as i64, "check")) " of " (findings.len()) " of the doctor do not pass:" }
                ul .reasons { @for finding in wrong { (health::item(finding)) } }
            }
            @if may_write {
                div .buttons {
                    a .button href=(link("/target/form", target)) { "Change…" }
                    a .button href=(link("/target/drop", target)) { "Drop…" }
                }
            }
        }
    }
}

fn table(columns: &[Column]) -> Markup {
    html! {
        section #columns .card aria-labelledby="columns-title" {
            h2 #columns-title { "Columns" }
            div .scroll tabindex="0" role="region" aria-label="columns, the table" {
                table .target-columns {
                    thead { tr { th scope="col" { "column" } th scope="col" { "value" } } }
                    tbody {
                        @for column in columns {
                            tr {
                                th scope="row" {
                                    code { (column.column) }
                                    @if let Some(meaning) = &column.meaning { p .note { (meaning) } }
                                }
                                td {
                                    @match &column.literal {
                                        Some(value) => code { (value) },
                                        None => code .muted { "NULL" },
                                    }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn index_statement(index: &Result<String, Problem>) -> Markup {
    html! {
        section #index .card aria-labelledby="index-title" {
            h2 #index-title { "Index" }
            @match index {
                Ok(statement) => {
                    p .note { "The statement that builds the index with which runs read no more than they must. The doctor says whether it is there." }
                    div .fix {
                        pre { code { (statement) } }
                        button .copy type="button" { "Copy" }
                    }
                },
                Err(problem) => p { bdi { (problem.detail()) } },
            }
        }
    }
}
