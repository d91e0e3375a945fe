use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::Path;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use backlog_cleanup_report::Level;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::body::read_body;
use crate::client::columns::{self, Column, Row};
use crate::client::warnings::heard;
use crate::serve::app::App;
use crate::serve::middleware::Caller;
use crate::serve::response::{Problem, Problems, refused};

pub fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new().routes(routes!(list, add)).routes(routes!(one, set, drop))
}

#[derive(Serialize, ToSchema)]
struct Targets {
    success: bool,
    /// Rows of backlog_cleanup.target, by the names of its columns, in the order of the targets' names
    #[schema(value_type = Vec<Object>)]
    targets: Vec<Row>,
}

#[derive(Serialize, ToSchema)]
pub struct OneTarget {
    success: bool,
    pub name: String,
    /// All columns of backlog_cleanup.target
    columns: Vec<Column>,
}

#[derive(Serialize, ToSchema)]
pub struct WrittenTarget {
    #[serde(flatten)]
    pub target: OneTarget,
    /// What the database warned of
    pub warnings: Vec<String>,
}

#[derive(Serialize, ToSchema)]
struct DroppedTarget {
    success: bool,
    name: String,
    /// False if there was none
    dropped: bool,
}

/// All targets.
#[utoipa::path(get, path = "/api/admin/backlog-cleanup/targets", operation_id = "targets", tag = "targets",
    responses((status = 200, description = "The targets", body = Targets), Problems))]
async fn list(caller: Caller) -> Result<Json<Targets>, Problem> {
    let list = async { Ok(columns::list(&mut *caller.begin().await?).await?) };
    let targets = caller.with_level(Level::Monitor, list).await?;
    Ok(Json(Targets { success: true, targets }))
}

/// A target: each column, its value, and what it means.
#[utoipa::path(get, path = "/api/admin/backlog-cleanup/targets/{name}", operation_id = "one_target", tag = "targets",
    params(("name" = String, Path, description = "Name of the target")),
    responses((status = 200, description = "The target", body = OneTarget), Problems))]
async fn one(caller: Caller, Path(name): Path<String>) -> Result<Json<OneTarget>, Problem> {
    let one = async {
        let columns = columns::of(&mut *caller.begin().await?, &name).await?;
        if columns.is_empty() {
            return Err(columns::missing(&name).into());
        }
        Ok(OneTarget { success: true, name, columns })
    };
    caller.with_level(Level::Monitor, one).await.map(Json)
}

/// Adds a target. The body has its columns by their names; what it does not have has its default.
#[utoipa::path(post, path = "/api/admin/backlog-cleanup/targets", operation_id = "add_target", tag = "targets",
    request_body(content = Object, content_type = "application/json"),
    responses((status = 201, description = "The target, and its address in Location", body = WrittenTarget), Problems))]
async fn add(caller: Caller, headers: HeaderMap, body: Bytes) -> Result<Response, Problem> {
    let row = read_row(&headers, &body)?;
    if !row.get("name").is_some_and(Value::is_string) {
        return Err(Problem::bad_request("the body has no name").hint(EXAMPLE));
    }
    let written = write(&caller, None, &row).await?;
    let name: String = url::form_urlencoded::byte_serialize(written.target.name.as_bytes()).collect();
    let location = format!("/api/admin/backlog-cleanup/targets/{}", name.replace('+', "%20"));
    let location = HeaderValue::from_str(&location).expect("the name is encoded");
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], Json(written)).into_response())
}

/// Changes the columns of a target that the body has.
#[utoipa::path(patch, path = "/api/admin/backlog-cleanup/targets/{name}", operation_id = "set_target", tag = "targets",
    params(("name" = String, Path, description = "Name of the target")),
    request_body(content = Object, content_type = "application/json"),
    responses((status = 200, description = "The target", body = WrittenTarget), Problems))]
async fn set(
    caller: Caller,
    Path(name): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Json<WrittenTarget>, Problem> {
    let row = read_row(&headers, &body)?;
    if row.is_empty() {
        return Err(Problem::bad_request("the body has no column").hint(EXAMPLE));
    }
    write(&caller, Some(&name), &row).await.map(Json)
}

/// Removes a target and its policies; its history and its job stay.
#[utoipa::path(delete, path = "/api/admin/backlog-cleanup/targets/{name}", operation_id = "drop_target", tag = "targets",
    params(("name" = String, Path, description = "Name of the target")),
    responses((status = 200, description = "Whether there was one", body = DroppedTarget), Problems))]
async fn drop(caller: Caller, Path(name): Path<String>) -> Result<Json<DroppedTarget>, Problem> {
    let dropped = remove(&caller, &name).await?;
    Ok(Json(DroppedTarget { success: true, name, dropped }))
}

/// Removes a target, and says so in the log. Returns false if there was none.
pub async fn remove(caller: &Caller, name: &str) -> Result<bool, Problem> {
    let remove = async {
        let mut work = caller.begin().await?;
        let dropped = columns::drop(&mut work, name).await?;
        work.commit().await?;
        tracing::info!(who = caller.who(), from = %caller.peer, target_name = name, dropped, "target is dropped");
        Ok(dropped)
    };
    caller.with_level(Level::Admin, remove).await
}

const EXAMPLE: &str = r#"{"name": "jobs", "generations_table": "public.job", "statuses": ["failed"], "account": null}"#;

/// Reads the columns in a body. Errors: 400 for a document in one, which no column can have; 415.
fn read_row(headers: &HeaderMap, body: &[u8]) -> Result<Row, Problem> {
    let row: Row = read_body(headers, body, EXAMPLE)?;
    match row.iter().find(|(_, value)| value.is_object()) {
        Some((column, _)) => Err(Problem::bad_request(format!("\"{column}\" cannot be an object")).hint(EXAMPLE)),
        None => Ok(row),
    }
}

/// Adds a target, or changes the one that is named, and says so in the log.
pub async fn write(caller: &Caller, target: Option<&str>, row: &Row) -> Result<WrittenTarget, Problem> {
    let write = async {
        let mut work = caller.begin().await?;
        let name = match target {
            Some(target) => columns::set(&mut work, target, row).await.map_err(refused)?,
            None => columns::add(&mut work, row).await.map_err(refused)?,
        };
        let name = name.ok_or_else(|| columns::missing(target.unwrap_or_default()))?;
        let columns = columns::of(&mut work, &name).await?;
        work.commit().await?;
        tracing::info!(who = caller.who(), from = %caller.peer, target_name = name, "target is written");
        Ok(OneTarget { success: true, name, columns })
    };
    let (target, warnings) = heard(caller.with_level(Level::Admin, write)).await;
    Ok(WrittenTarget { target: target?, warnings })
}
