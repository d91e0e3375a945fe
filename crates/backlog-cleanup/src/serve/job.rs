use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use serde_json::value::RawValue;
use sqlx::Executor;
use sqlx::types::Json;
use tokio::sync::{oneshot, watch};
use tokio::time::sleep;

use super::cleanup::{Mode, Selection};
use super::{App, Caller, Problem};

/// How often it looks for the number of a run that has begun.
const LOOK: Duration = Duration::from_millis(100);

/// How a run stands when its request is to be answered.
pub enum Done {
    /// The report, as the database wrote it.
    Report(String),
    /// The id of a run that goes on in batches.
    GoesOn(i64),
}

/// Runs in batches, and waits for the end as long as a request may take, or not at all. A run that goes on then is asked
/// to stop when the server is; one that is waited for finishes.
pub async fn run(
    app: Arc<App>,
    caller: Caller,
    mode: Mode,
    selection: Selection,
    at_once: bool,
) -> Result<Done, Problem> {
    let caller = Arc::new(caller);
    let (tell_process, process) = oneshot::channel();
    let (tell_run, run) = watch::channel(None);
    let work = supervise(Arc::clone(&app), Arc::clone(&caller), mode, selection, tell_process, run);
    let mut work = app.runs.spawn(work);
    let lost = |_| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the run was lost");
    let patience = if at_once { Duration::ZERO } else { app.settings.request_timeout };
    tokio::select! {
        report = &mut work => return report.map_err(lost)?.map(Done::Report),
        () = sleep(patience) => (),
    }
    // Its first step, which fixes what goes, may still be at work.
    let process: Option<i32> = tokio::select! {
        report = &mut work => return report.map_err(lost)?.map(Done::Report),
        process = process => process.ok(),
    };
    loop {
        let id = sqlx::query_scalar("SELECT run_id FROM backlog_cleanup.progress WHERE pid = $1 AND state = 'running'");
        if let Ok(Some(id)) = id.bind(process).fetch_optional(&caller.pool).await {
            tell_run.send_replace(Some(id));
            return Ok(Done::GoesOn(id));
        }
        tokio::select! {
            report = &mut work => return report.map_err(lost)?.map(Done::Report),
            () = sleep(LOOK) => (),
        }
    }
}

/// Tells the log who removes what, and how it ended; asks a run that nobody waits for to stop when the server does.
async fn supervise(
    app: Arc<App>,
    caller: Arc<Caller>,
    mode: Mode,
    selection: Selection,
    tell_process: oneshot::Sender<i32>,
    mut run: watch::Receiver<Option<i64>>,
) -> Result<String, Problem> {
    let (who, from) = (caller.who(), caller.peer);
    tracing::info!(who, %from, mode = mode.name(), target = selection.target, recipe_id = selection.recipe_id,
                   failure_type = selection.failure_type, "run begins");
    let call = call(&caller, mode, &selection, tell_process);
    tokio::pin!(call);
    let stop = async {
        let id = run.wait_for(Option::is_some).await.ok().and_then(|id| *id);
        app.shutdown.cancelled().await;
        id
    };
    let report = tokio::select! {
        report = &mut call => report,
        id = stop => {
            if let Some(id) = id {
                tracing::info!(run = id, "the server stops, and asks the run to stop");
                if let Err(problem) = ask_to_stop(&caller, id).await {
                    tracing::error!(run = id, problem = problem.detail(), "the run could not be asked to stop");
                }
            }
            call.await
        }
    };
    match &report {
        Ok(report) => {
            tracing::info!(who, %from, mode = mode.name(), report = &report[..report.len().min(500)], "run ends")
        }
        Err(problem) => tracing::warn!(who, %from, mode = mode.name(), problem = problem.detail(), "run fails"),
    }
    report
}

async fn call(
    caller: &Caller,
    mode: Mode,
    selection: &Selection,
    tell_process: oneshot::Sender<i32>,
) -> Result<String, Problem> {
    // One connection stays for those who look.
    let Ok(_permit) = caller.runs.try_acquire() else {
        return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "too many runs at a time")
            .hint("backlog-cleanup serve --pool-size 10"));
    };
    let mut connection = caller.pool.acquire().await?;
    tell_process.send(sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(&mut *connection).await?).ok();
    connection.execute("SET statement_timeout = 0").await?;
    // Closed at the end, and not given back: it has no timeout any more.
    connection.close_on_drop();
    let report: Json<Box<RawValue>> = sqlx::query_scalar(
        "CALL backlog_cleanup_run(target => $1::text, mode => $2::text, recipe_id => $3::text, failure_type => $4::text)",
    )
    .bind(&selection.target)
    .bind(mode.name())
    .bind(&selection.recipe_id)
    .bind(&selection.failure_type)
    .fetch_one(&mut *connection)
    .await?;
    Ok(report.0.get().to_owned())
}

/// Asks a run to stop between two batches; false where it is over.
pub async fn ask_to_stop(caller: &Caller, run_id: i64) -> Result<bool, Problem> {
    let stop = sqlx::query_scalar("SELECT backlog_cleanup_stop($1::bigint)").bind(run_id);
    Ok(stop.fetch_one(&caller.pool).await?)
}
