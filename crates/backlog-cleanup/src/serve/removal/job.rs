use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use serde_json::value::RawValue;
use sqlx::Executor;
use sqlx::types::Json;
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::{Mode, Selection};
use crate::client::history;
use crate::serve::app::App;
use crate::serve::middleware::Caller;
use crate::serve::response::Problem;

/// How often it looks for the id of a run that has begun.
const LOOK: Duration = Duration::from_millis(100);

/// How a run stands when its request is to be answered.
pub enum Done {
    /// The report, as the database wrote it.
    Report(String),
    /// The id of a run that goes on in batches.
    GoesOn(i64),
}

/// A run to be done.
pub struct Job {
    pub app: Arc<App>,
    pub caller: Caller,
    pub mode: Mode,
    pub selection: Selection,
    /// Cancelled when nobody waits for the answer any more.
    pub nobody_waits: CancellationToken,
}

impl Job {
    /// Runs in batches, and waits for the end for so long. When the server is to stop, a run that somebody waits for
    /// finishes, and another is asked to stop.
    pub async fn run(self, patience: Duration) -> Result<Done, Problem> {
        let job = Arc::new(self);
        let (tell, mut process) = watch::channel(None);
        let mut work = job.app.runs.spawn(Arc::clone(&job).supervise(tell, process.clone()));
        let lost = |_| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the run was lost");
        tokio::select! {
            report = &mut work => return report.map_err(lost)?.map(Done::Report),
            () = sleep(patience) => (),
        }
        tokio::select! {
            report = &mut work => report.map_err(lost)?.map(Done::Report),
            id = job.id(&mut process) => Ok(Done::GoesOn(id)),
        }
    }

    /// Tells the log who removes what, and how it ended; asks a run that nobody waits for to stop when the server does.
    async fn supervise(
        self: Arc<Self>,
        tell: watch::Sender<Option<i32>>,
        mut process: watch::Receiver<Option<i32>>,
    ) -> Result<String, Problem> {
        let Job { app, caller, mode, selection, nobody_waits } = &*self;
        let (who, from, mode) = (caller.who(), caller.peer, mode.name());
        tracing::info!(
            who,
            %from,
            mode,
            target = selection.target,
            recipe_id = selection.recipe_id,
            failure_type = selection.failure_type,
            "run begins"
        );
        let call = self.call(tell);
        tokio::pin!(call);
        let stop = async {
            nobody_waits.cancelled().await;
            app.shutdown.cancelled().await;
            self.id(&mut process).await
        };
        let report = tokio::select! {
            report = &mut call => report,
            run = stop => {
                tracing::info!(run, "the server stops, and asks the run to stop");
                if let Err(problem) = ask_to_stop(caller, run).await {
                    tracing::error!(run, problem = problem.detail(), "the run could not be asked to stop");
                }
                call.await
            }
        };
        match &report {
            Ok(report) => {
                // Without its recipes.
                let mut figures: serde_json::Value = serde_json::from_str(report).unwrap_or_default();
                figures.as_object_mut().map(|figures| figures.remove("cleanupDetails"));
                tracing::info!(who, %from, mode, report = %figures, "run ends");
            }
            Err(problem) => tracing::warn!(who, %from, mode, problem = problem.detail(), "run fails"),
        }
        report
    }

    async fn call(&self, tell: watch::Sender<Option<i32>>) -> Result<String, Problem> {
        // One connection stays for those who look.
        let Ok(_permit) = self.caller.runs.try_acquire() else {
            return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "too many runs at a time")
                .hint("backlog-cleanup serve --pool-size 10"));
        };
        let mut connection = self.caller.pool.acquire().await?;
        // Closed at the end, and not given back: it has no timeout any more.
        connection.close_on_drop();
        connection.execute("SET statement_timeout = 0").await?;
        tell.send_replace(Some(sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(&mut *connection).await?));
        let Json(report): Json<Box<RawValue>> = sqlx::query_scalar(
            "CALL backlog_cleanup_run(target => $1::text, mode => $2::text, recipe_id => $3::text,
                                      failure_type => $4::text)",
        )
        .bind(&self.selection.target)
        .bind(self.mode.name())
        .bind(&self.selection.recipe_id)
        .bind(&self.selection.failure_type)
        .fetch_one(&mut *connection)
        .await?;
        Ok(report.get().to_owned())
    }

    /// The id of the run that a process has begun. Its first step, which fixes what goes, may still be at work.
    async fn id(&self, process: &mut watch::Receiver<Option<i32>>) -> i64 {
        let process = process.wait_for(Option::is_some).await.ok().and_then(|process| *process);
        loop {
            if let Some(process) = process
                && let Ok(Some(run)) = history::run_of(&self.caller.pool, process).await
            {
                return run.id;
            }
            sleep(LOOK).await;
        }
    }
}

/// Asks a run to stop between two batches; false where it is over.
pub async fn ask_to_stop(caller: &Caller, run_id: i64) -> Result<bool, Problem> {
    let stop = sqlx::query_scalar("SELECT backlog_cleanup_stop($1::bigint)").bind(run_id);
    Ok(stop.fetch_one(&caller.pool).await?)
}
