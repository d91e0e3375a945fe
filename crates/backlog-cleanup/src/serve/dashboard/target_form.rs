//! Writing targets: a form with a field for each column, what the database refuses of it, and dropping one.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Form;
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Redirect, Response};
use backlog_cleanup_report::Level;
use maud::{Markup, html};
use serde::Deserialize;
use serde_json::Value;

use super::names::name;
use super::page::{self, Viewer};
use super::query::target_page;
use crate::client::columns::{self, Column, Row};
use crate::client::policies;
use crate::serve::api::targets;
use crate::serve::app::App;
use crate::serve::middleware::Caller;
use crate::serve::response::Problem;
use crate::words;

/// The columns that say which rows a target is for, and how they are read; the others are behind a summary.
const FIRST: [&str; 21] = [
    "name",
    "generations_table",
    "id_column",
    "id_columns",
    "account_column",
    "account",
    "condition",
    "recipe_column",
    "recipe_columns",
    "status_column",
    "statuses",
    "failed_at_column",
    "failure_type_column",
    "fingerprint",
    "recipes_table",
    "users_table",
    "ledger_table",
    "group_word",
    "row_word",
    "max_rows_per_run",
    "max_share",
];

/// Columns that triggers set.
const SET_BY_TRIGGERS: [&str; 2] = ["named_by", "named_at"];

/// Typed for no value.
const NULL: &str = "NULL";

/// The target of a page; empty for a new one.
#[derive(Default, Deserialize)]
#[serde(default)]
pub struct Which {
    target: String,
}

/// A form as it was sent.
#[derive(Deserialize)]
pub struct Sent {
    /// Empty for a new one.
    target: String,
    /// What the fields had in them, as JSON: what somebody else changes meanwhile stays.
    was: String,
    /// Texts by the names of columns.
    #[serde(flatten)]
    columns: BTreeMap<String, String>,
}

impl Sent {
    /// The target to change; `None` to add one.
    fn target(&self) -> Option<&str> {
        Some(self.target.as_str()).filter(|target| !target.is_empty())
    }

    /// The columns whose fields were changed and not emptied.
    fn changes(&self) -> Row {
        let was: BTreeMap<String, String> = serde_json::from_str(&self.was).unwrap_or_default();
        let changed = self.columns.iter().filter_map(|(column, text)| {
            let text = text.replace("\r\n", "\n");
            let is_changed = !text.trim().is_empty() && was.get(column) != Some(&text);
            let value = if text.trim().eq_ignore_ascii_case(NULL) { Value::Null } else { text.into() };
            is_changed.then(|| (column.clone(), value))
        });
        changed.collect()
    }
}

/// The address of a page that writes a target.
pub fn link(path: &str, target: &str) -> String {
    format!("{path}?{}", serde_urlencoded::to_string([("target", target)]).unwrap_or_default())
}

/// Shows the form. Errors: 404; those of the admin API.
pub async fn form(State(app): State<Arc<App>>, caller: Caller, Query(which): Query<Which>) -> Result<Markup, Problem> {
    let target = Some(which.target.as_str()).filter(|target| !target.is_empty());
    let columns = caller.with_level(Level::Admin, read(&caller, target)).await?;
    Ok(page::document(&title(target), &Viewer::of(&app, &caller), shown(target, &columns, None)))
}

/// Writes the target and shows it, or what the database warned of; what it refuses is shown above the form as it was sent. Errors:
/// those of the admin API.
pub async fn write(State(app): State<Arc<App>>, caller: Caller, Form(sent): Form<Sent>) -> Result<Response, Problem> {
    let (target, changes) = (sent.target(), sent.changes());
    if let Some(target) = target.filter(|_| changes.is_empty()) {
        return Ok(Redirect::to(&target_page(target)).into_response());
    }
    let viewer = Viewer::of(&app, &caller);
    match targets::write(&caller, target, &changes).await {
        Ok(written) if written.warnings.is_empty() => {
            Ok(Redirect::to(&target_page(&written.target.name)).into_response())
        }
        Ok(written) => {
            let body = warned(&written.target.name, &written.warnings);
            Ok(page::document("Target written", &viewer, body).into_response())
        }
        Err(problem) if problem.is_of_input() => {
            let mut columns = caller.with_level(Level::Admin, read(&caller, target)).await?;
            for column in &mut columns {
                column.literal = sent.columns.get(&column.column).cloned();
            }
            let body = shown(target, &columns, Some((&sent, &problem)));
            let status = problem.into_response().status();
            Ok((status, page::document("✕ Not written", &viewer, body)).into_response())
        }
        Err(problem) => Err(problem),
    }
}

/// Asks whether a target is to be dropped. Errors: 404; those of the admin API.
pub async fn ask(State(app): State<Arc<App>>, caller: Caller, Query(which): Query<Which>) -> Result<Markup, Problem> {
    let find = async {
        read(&caller, Some(&which.target)).await?;
        Ok(policies::list(&mut *caller.begin().await?, &which.target).await?.len())
    };
    let policies = caller.with_level(Level::Admin, find).await?;
    Ok(page::document("Drop a target", &Viewer::of(&app, &caller), question(&which.target, policies)))
}

/// Drops the target, and shows those that are left. Errors: those of the admin API.
pub async fn drop(caller: Caller, Form(which): Form<Which>) -> Result<Redirect, Problem> {
    targets::remove(&caller, &which.target).await?;
    Ok(Redirect::to("/targets"))
}

/// The columns that a form has, those of `FIRST` first. Errors: 404.
async fn read(caller: &Caller, target: Option<&str>) -> Result<Vec<Column>, Problem> {
    let mut work = caller.begin().await?;
    let mut columns = match target {
        Some(target) => columns::of(&mut work, target).await?,
        None => columns::of_new(&mut work).await?,
    };
    if columns.is_empty() {
        return Err(columns::missing(target.unwrap_or_default()).into());
    }
    columns.retain(|column| !SET_BY_TRIGGERS.contains(&column.column.as_str()));
    columns.sort_by_key(|column| FIRST.iter().position(|first| *first == column.column).unwrap_or(FIRST.len()));
    Ok(columns)
}

fn title(target: Option<&str>) -> String {
    target.map_or("Add a target".into(), |target| format!("Change target {target}"))
}

/// The text of a field.
fn text(column: &Column) -> &str {
    match &column.literal {
        Some(text) => text,
        None if column.column == "name" => "",
        None => NULL,
    }
}

/// The form, below what was refused of it.
fn shown(target: Option<&str>, columns: &[Column], refused: Option<(&Sent, &Problem)>) -> Markup {
    let mistakes = refused.map(|(_, problem)| mistakes(problem.detail(), columns)).unwrap_or_default();
    let texts = || columns.iter().map(|column| (column.column.as_str(), text(column))).collect::<BTreeMap<_, _>>();
    let was = match refused {
        Some((sent, _)) => sent.was.clone(),
        None => serde_json::to_string(&texts()).unwrap_or_default(),
    };
    let is_wrong = |column: &Column| mistakes.iter().any(|(of, _)| *of == Some(column.column.as_str()));
    let (first, others) = columns.split_at(columns.len().min(FIRST.len()));
    html! {
        @if let Some((_, problem)) = refused { (refusal(&mistakes, problem.hinted())) }
        section #confirm .card aria-labelledby="confirm-title" {
            h1 #confirm-title tabindex="-1" {
                @match target { Some(target) => { "Change target " (name(target)) }, None => "Add a target" }
            }
            p .note {
                "Values as SQL reads them: " code { "{failed,cancelled}" } ", " code { "(coalesce(a, b))" } ". " code { (NULL) }
                " is no value. An empty field " @if target.is_some() { "leaves what is there." } @else { "has the default." }
            }
            form .columns-of-target action="/target" method="post" {
                input type="hidden" name="target" value=(target.unwrap_or_default());
                input type="hidden" name="was" value=(was);
                fieldset {
                    legend .hidden { "Which rows, and how to read them" }
                    @for column in first { (field(column, is_wrong(column))) }
                }
                details open[others.iter().any(is_wrong)] {
                    summary { "More columns: statuses of reports, pace, limits, time" }
                    fieldset {
                        legend .hidden { "More columns" }
                        @for column in others { (field(column, is_wrong(column))) }
                    }
                }
                div .buttons {
                    button .primary type="submit" { @if target.is_some() { "Write the changes" } @else { "Add the target" } }
                    a .button href=(target.map_or("/targets".into(), target_page)) { "Cancel" }
                }
            }
        }
    }
}

fn field(column: &Column, is_wrong: bool) -> Markup {
    let id = format!("column-{}", column.column);
    let note = format!("{id}-meaning");
    let (text, invalid) = (text(column), is_wrong.then_some("true"));
    html! {
        div {
            label for=(id) { code { (column.column) } }
            @if column.sql_type == "boolean" {
                select #(id) name=(column.column) aria-describedby=(note) aria-invalid=[invalid] {
                    @for value in ["true", "false"] { option value=(value) selected[text == value] { (value) } }
                }
            } @else if column.column == "throttle_query" || text.contains('\n') {
                textarea #(id) name=(column.column) rows="3" spellcheck="false" aria-describedby=(note) aria-invalid=[invalid] { (text) }
            } @else {
                input #(id) name=(column.column) value=(text) required[column.column == "name"] autocomplete="off" spellcheck="false"
                    aria-describedby=(note) aria-invalid=[invalid];
            }
            p #(note) .note { (column.meaning.as_deref().unwrap_or_default()) }
        }
    }
}

fn refusal(mistakes: &[(Option<&str>, String)], hint: &str) -> Markup {
    html! {
        section #alert .card .danger role="alert" tabindex="-1" {
            h2 { "Not written" }
            ul .reasons {
                @for (column, wrong) in mistakes {
                    li {
                        @if let Some(column) = column { a href={ "#column-" (column) } { code { (column) } } ": " }
                        bdi { (wrong) }
                    }
                }
            }
            div .fix {
                pre { code { (hint) } }
                button .copy type="button" { "Copy" }
            }
        }
    }
}

/// What is wrong with which column: the extension has a line for each of several mistakes, and the column of a single one in
/// parentheses.
fn mistakes<'a>(detail: &str, columns: &'a [Column]) -> Vec<(Option<&'a str>, String)> {
    let known = |name: &str| columns.iter().map(|column| column.column.as_str()).find(|column| *column == name);
    let of_line = |line: &str| match line.split_once(": ").and_then(|(column, wrong)| Some((known(column)?, wrong))) {
        Some((column, wrong)) => (Some(column), wrong.to_owned()),
        None => (None, line.to_owned()),
    };
    match detail.split_once(" mistakes: ") {
        Some((_, lines)) => lines.lines().map(of_line).collect(),
        None => {
            let column = detail.rsplit_once(" of target \"").and_then(|(before, _)| known(before.rsplit_once('(')?.1));
            vec![(column, detail.to_owned())]
        }
    }
}

fn warned(target: &str, warnings: &[String]) -> Markup {
    html! {
        section #confirm .card .light-amber aria-labelledby="confirm-title" {
            h1 #confirm-title tabindex="-1" { "Target " (name(target)) " is written, with a warning" }
            @for warning in warnings { p .reason { bdi { (warning) } } }
            div .buttons { a .button href=(target_page(target)) { "To the target" } }
        }
    }
}

fn question(target: &str, policies: usize) -> Markup {
    html! {
        section #confirm .card .danger aria-labelledby="confirm-title" {
            h1 #confirm-title tabindex="-1" { "Drop target " (name(target)) "?" }
            p {
                "It goes with its " (words::count(policies as i64, "policy")) ", and no row of its table does. Its history and its job stay. \
                 To remove its job: "
                code { "backlog-cleanup schedule remove --target " (words::argument(target)) }
            }
            form action="/target/drop" method="post" {
                input type="hidden" name="target" value=(target);
                div .buttons {
                    button .danger type="submit" { "Drop this target" }
                    a .button href=(target_page(target)) { "Cancel" }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistake_is_of_its_column() {
        let column = |name: &str| Column {
            column: name.into(),
            sql_type: "text".into(),
            value: None,
            literal: None,
            default: None,
            meaning: None,
        };
        let columns = [column("condition"), column("users_table")];
        let several =
            "target \"a\" has 2 mistakes: users_table: table \"u\" does not exist; there is public.v\nof no column";
        let said = [
            (Some("users_table"), "table \"u\" does not exist; there is public.v".into()),
            (None, "of no column".into()),
        ];
        assert_eq!(mistakes(several, &columns), said);
        let one = "expression \"(x)\" cannot be used: no column x (condition of target \"a\")";
        assert_eq!(mistakes(one, &columns), [(Some("condition"), one.into())]);
    }

    #[test]
    fn what_is_as_it_was_is_not_written() {
        let columns =
            [("statuses", "{failed}"), ("account", "null"), ("pause", ""), ("throttle_query", "SELECT 1\r\nLIMIT 0")];
        let sent = Sent {
            target: "a".into(),
            was: r#"{"statuses": "{failed}", "account": "x", "pause": "NULL", "throttle_query": "SELECT 1\nLIMIT 0"}"#
                .into(),
            columns: columns.iter().map(|(column, text)| ((*column).to_owned(), (*text).to_owned())).collect(),
        };
        assert_eq!(Value::Object(sent.changes()), serde_json::json!({ "account": null }));
    }
}
