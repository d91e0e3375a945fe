use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use backlog_cleanup_report::Mode;
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::Selection;
use crate::client::calls::{self, Mark, Pace, Raw};
use crate::client::connect::settle;
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

/// An entry of the list of calls.
struct Listed {
    app: Arc<App>,
    mark: Mark,
}

impl Drop for Listed {
    fn drop(&mut self) {
        self.app.calls.lock().remove(&self.mark);
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
        let (tell, mut mark) = watch::channel(None);
        let mut work = job.app.runs.spawn(Arc::clone(&job).supervise(tell, mark.clone()));
        let lost = |_| Problem::internal("the run's task panicked");
        tokio::select! {
            report = &mut work => return report.map_err(lost)?.map(Done::Report),
            () = sleep(patience) => (),
        }
        tokio::select! {
            report = &mut work => report.map_err(lost)?.map(Done::Report),
            id = job.id(&mut mark) => Ok(Done::Continues(id)),
        }
    }

    /// Logs the begin and the end of the run. Asks it to stop if the server stops and no request waits.
    async fn supervise(
        self: Arc<Self>,
        tell: watch::Sender<Option<Mark>>,
        mut mark: watch::Receiver<Option<Mark>>,
    ) -> Result<Raw, Problem> {
        let Job { app, caller, mode, selection, nobody_waits } = &*self;
        tracing::info!(
            who = caller.who(),
            from = %caller.peer,
            mode = mode.as_str(),
            target_name = selection.target,
            recipe_id = selection.recipe_id,
            failure_type = selection.failure_type,
            status = selection.status,
            include_held = selection.include_held,
            "run begins"
        );
        let call = self.call(tell);
        tokio::pin!(call);
        let stop = async {
            nobody_waits.cancelled().await;
            app.shutdown.cancelled().await;
            self.id(&mut mark).await
        };
        let report = tokio::select! {
            report = &mut call => report,
            run = stop => {
                tracing::info!(run, "the server is stopping; the run is asked to stop");
                if let Err(error) = self.stop(run).await {
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

    async fn stop(&self, run: i64) -> sqlx::Result<()> {
        let mut work = self.caller.begin_reserved().await?;
        calls::stop(&mut work, run).await?;
        work.commit().await
    }

    async fn call(&self, tell: watch::Sender<Option<Mark>>) -> Result<Raw, Problem> {
        // One connection is left for requests that read.
        let Ok(_permit) = self.caller.runs.try_acquire() else {
            return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "too many concurrent runs")
                .hint("backlog-cleanup serve --pool-size 10"));
        };
        let mut work = self.caller.begin().await?;
        let pace = Pace { include_held: self.selection.include_held, ..Pace::default() };
        let run = calls::run(&mut work, self.mode, self.selection.as_call(), &pace).await?;
        drop(work);
        let mark = Mark::new()?;
        let mut connection = self.caller.pool.acquire().await?;
        tell.send_replace(Some(mark.clone()));
        let _listed = self.list(&mark);
        let report = run.marked(&mark).report(&mut connection).await;
        if report.is_err() {
            settle(&mut connection).await;
            self.cancel_what_is_left(&mark).await.ok();
        }
        Ok(report?)
    }

    /// A pooler that gives a call up leaves the server at work on it.
    async fn cancel_what_is_left(&self, mark: &Mark) -> sqlx::Result<()> {
        let mut work = self.caller.begin_reserved().await?;
        history::cancel(&mut work, mark).await?;
        work.commit().await
    }

    /// Lists the call until the result is dropped.
    fn list(&self, mark: &Mark) -> Listed {
        let run =
            format!("{} run on target \"{}\" by {}", self.mode.as_str(), self.selection.target, self.caller.who());
        self.app.calls.lock().insert(mark.clone(), run);
        Listed { app: Arc::clone(&self.app), mark: mark.clone() }
    }

    /// Waits for the id of the run of a call, which is visible after the first step of the run.
    async fn id(&self, mark: &mut watch::Receiver<Option<Mark>>) -> i64 {
        let mark = mark.wait_for(Option::is_some).await.ok().and_then(|mark| mark.clone());
        loop {
            if let Some(mark) = &mark
                && let Ok(mut work) = self.caller.begin_reserved().await
                && let Ok(Some(run)) = history::run_of(&mut work, mark).await
            {
                return run.id;
            }
            sleep(LOOK).await;
        }
    }
}
