use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use backlog_cleanup_report::Level;
use futures::{Stream, StreamExt, stream};
use serde::Deserialize;
use tokio::time::{MissedTickBehavior, interval};
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::client::{history, targets};
use crate::serve::app::App;
use crate::serve::middleware::Caller;
use crate::serve::response::{Problem, Problems, json};

/// How often to look.
const LOOK: Duration = Duration::from_secs(1);

pub fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new().routes(routes!(progress))
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Which {
    /// Only runs of this target
    #[serde(default)]
    #[param(required = false)]
    target: String,
}

/// The running runs: with `Accept: application/json` once, as a list; else as server-sent events, `progress` with a list after
/// each change, `problem` while the database is away. A browser that listens in six tabs has no connection left for this
/// server: ask again instead.
#[utoipa::path(get, path = "/api/admin/backlog-cleanup/progress", tag = "cleanup", params(Which),
    responses((status = 200, description = "The running runs",
               content((Vec<Object> = "application/json"), (String = "text/event-stream"))), Problems))]
async fn progress(
    State(app): State<Arc<App>>,
    caller: Caller,
    Query(Which { target }): Query<Which>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
    if accept.is_some_and(|accept| accept.contains("application/json")) {
        return Ok(json(caller.with_level(Level::Monitor, look(&app, &caller, target)).await?));
    }
    Ok(events(app, caller, target)?.into_response())
}

/// The running runs as JSON; concurrent requests share a query.
async fn look(app: &Arc<App>, caller: &Caller, target: String) -> Result<Bytes, Problem> {
    let access = Arc::clone(caller);
    let question = (caller.role.clone(), "progress", target.clone());
    let look = async move {
        let mut work = access.begin().await?;
        targets::known(&mut work, Some(target.as_str()).filter(|target| !target.is_empty())).await?;
        Ok(history::progress(&mut work, &target).await?.into())
    };
    app.flights.join(question, look).await
}

fn events(
    app: Arc<App>,
    caller: Caller,
    target: String,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Problem> {
    let Ok(permit) = Arc::clone(&caller.token.streams).try_acquire_owned() else {
        return Err(Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "too many concurrent streams of events of this token",
        ));
    };
    let mut ticks = interval(LOOK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let shutdown = app.shutdown.clone().cancelled_owned();
    let looks = stream::unfold((app, caller, ticks, String::new(), permit), move |mut state| {
        let target = target.clone();
        async move {
            let (app, caller, ticks, last, _) = &mut state;
            loop {
                ticks.tick().await;
                if !caller.is_still_in(app) {
                    return None;
                }
                let (name, data) = match look(app, caller, target.clone()).await {
                    Ok(runs) => ("progress", String::from_utf8_lossy(&runs).into_owned()),
                    Err(problem) => ("problem", serde_json::to_string(&problem).unwrap_or_default()),
                };
                if data != *last {
                    last.clone_from(&data);
                    return Some((Ok(Event::default().event(name).data(data)), state));
                }
            }
        }
    });
    Ok(Sse::new(looks.take_until(shutdown)).keep_alive(KeepAlive::default()))
}
