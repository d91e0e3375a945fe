use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use backlog_cleanup_report::Mode;
use sqlx::Executor;
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::Selection;
use crate::client::calls::{self, Pace, Raw};
use crate::client::connect::{pid, settle};
use crate::client::history;
use crate::serve::app::App;
use crate::serve::middleware::Caller;
use crate::serve::response::Problem;

/// How often to look for the id of a run that has begun.
const LOOK: Duration = Duration::from_millis(100);

/// What a run has to answer its request with.
pub enum Done {
    /// The report, as the database wrote it.
    Report(Raw),
    /// The id of a run that continues in batches.
    Continues(i64),
}

/// An entry of the list of server processes.
struct Listed {
    app: Arc<App>,
    process: i32,
}

impl Drop for Listed {
    fn drop(&mut self) {
        self.app.processes.lock().remove(&self.process);
    }
}

/// A run that a request starts.
pub struct Job {
    pub app: Arc<App>,
    pub caller: Caller,
    pub mode: Mode,
    pub selection: Selection,
    /// Cancelled when the request no longer waits.
    pub nobody_waits: CancellationToken,
}

impl Job {
    /// Runs in batches, and waits for the end at most for `patience`. When the server stops, a run finishes if its request
    /// waits for it, and else is asked to stop.
    pub async fn run(self, patience: Duration) -> Result<Done, Problem> {
        let job = Arc::new(self);
        let (tell, mut process) = watch::channel(None);
        let mut work = job.app.runs.spawn(Arc::clone(&job).supervise(tell, process.clone()));
        let lost = |_| Problem::internal("the run's task panicked");
        tokio::select! {
            report = &mut work => return report.map_err(lost)?.map(Done::Report),
            () = sleep(patience) => (),
        }
        tokio::select! {
            report = &mut work => report.map_err(lost)?.map(Done::Report),
            id = job.id(&mut process) => Ok(Done::Continues(id)),
        }
    }

    /// Logs the begin and the end of the run. Asks it to stop if the server stops and no request waits.
    async fn supervise(
        self: Arc<Self>,
        tell: watch::Sender<Option<i32>>,
        mut process: watch::Receiver<Option<i32>>,
    ) -> Result<Raw, Problem> {
        let Job { app, caller, mode, selection, nobody_waits } = &*self;
        tracing::info!(
            who = caller.who(),
            from = %caller.peer,
            mode = mode.as_str(),
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
                tracing::info!(run, "the server is stopping; the run is asked to stop");
                if let Err(error) = calls::stop(&caller.reserved, run).await {
                    tracing::error!(run, %error, "the run could not be asked to stop");
                }
                call.await
            }
        };
        self.log_end(&report);
        report
    }

    /// Logs the report without the recipes.
    fn log_end(&self, report: &Result<Raw, Problem>) {
        let (who, from, mode) = (self.caller.who(), self.caller.peer, self.mode.as_str());
        match report {
            Ok(report) => {
                let mut report: serde_json::Value = serde_json::from_str(report.get()).unwrap_or_default();
                report.as_object_mut().map(|report| report.remove("cleanupDetails"));
                tracing::info!(who, %from, mode, %report, "run ends");
            }
            Err(problem) => tracing::warn!(who, %from, mode, problem = problem.detail(), "run fails"),
        }
    }

    async fn call(&self, tell: watch::Sender<Option<i32>>) -> Result<Raw, Problem> {
        // One connection is left for requests that read.
        let Ok(_permit) = self.caller.runs.try_acquire() else {
            return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "too many concurrent runs")
                .hint("backlog-cleanup serve --pool-size 10"));
        };
        let mut connection = self.caller.pool.acquire().await?;
        // It does not return to the pool, because it loses its timeout.
        connection.close_on_drop();
        connection.execute("SET statement_timeout = 0").await?;
        // Ends the run when this process has gone without a word.
        connection.execute("SET client_connection_check_interval = '2 s'").await?;
        let process = pid(&mut connection).await?;
        tell.send_replace(Some(process));
        let _listed = self.list(process);
        let selection = self.selection.as_call();
        let report = calls::run(&mut *connection, self.mode, selection, &Pace::default()).await;
        if report.is_err() {
            settle(&mut connection).await;
        }
        Ok(report?)
    }

    /// Lists the server process of the run until the result is dropped.
    fn list(&self, process: i32) -> Listed {
        let run =
            format!("{} run on target \"{}\" by {}", self.mode.as_str(), self.selection.target, self.caller.who());
        self.app.processes.lock().insert(process, run);
        Listed { app: Arc::clone(&self.app), process }
    }

    /// Waits for the id of the run of a server process, which is visible after the first step of the run.
    async fn id(&self, process: &mut watch::Receiver<Option<i32>>) -> i64 {
        let process = process.wait_for(Option::is_some).await.ok().and_then(|process| *process);
        loop {
            if let Some(process) = process
                && let Ok(Some(run)) = history::run_of(&self.caller.reserved, process).await
            {
                return run.id;
            }
            sleep(LOOK).await;
        }
    }
}
