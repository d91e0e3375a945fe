use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::sse::{Event, KeepAlive, Sse};
use futures::{Stream, StreamExt, stream};
use serde::Deserialize;
use tokio::time::{MissedTickBehavior, interval};
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::client::history;
use crate::serve::app::App;
use crate::serve::middleware::Caller;
use crate::serve::response::{Problem, Problems};

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

/// The running runs as server-sent events: `progress` with a list of runs after each change, `problem` while the database is
/// away.
#[utoipa::path(get, path = "/api/admin/backlog-cleanup/progress", tag = "cleanup", params(Which),
    responses((status = 200, content_type = "text/event-stream", body = String), Problems))]
async fn progress(
    State(app): State<Arc<App>>,
    caller: Caller,
    Query(Which { target }): Query<Which>,
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
                let pool = caller.pool.clone();
                let question = (caller.role.clone(), "progress", target.clone());
                let target = target.clone();
                let look =
                    app.flights.join(question, async move { Ok(history::progress(&pool, &target).await?.into()) });
                let (name, data) = match look.await {
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
