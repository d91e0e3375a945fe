use clap::{Args, ValueEnum};

use super::cleanup::Cleanup;
use super::confirmation::Confirmation;
use super::emergency::Emergency;
use super::selection::{Length, Selection};
use crate::client::connect::Server;
use crate::client::history;
use crate::failure::{Exit, Result};
use crate::terminal::bar::Bar;
use crate::terminal::interrupt::Work;
use crate::terminal::output::{Output, count, counted};

/// Remove in batches, with a commit after each, and show how far it is
///
/// What is committed stays, whatever happens then. Ctrl-C stops it, and says what was done.
#[derive(Args)]
pub struct Run {
    #[command(flatten)]
    selection: Selection,
    /// What goes: `regular` as `cleanup`, `emergency` as `emergency`
    #[arg(long, default_value = "regular")]
    mode: Mode,
    /// Rows per batch; the target has one to start from
    #[arg(long, value_name = "ROWS")]
    batch_size: Option<i32>,
    /// How long to sleep between batches, such as '100 ms'
    #[arg(long, value_name = "INTERVAL", default_value = "0")]
    pause: String,
    /// After how long to stop, such as '10 minutes'
    #[arg(long, value_name = "INTERVAL")]
    max_duration: Option<String>,
    /// After how many rows to stop
    #[arg(long, value_name = "ROWS")]
    max_rows: Option<i64>,
    /// How many background workers of the server
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    workers: i32,
    /// Let a regular run through though it would remove more than the target allows
    #[arg(long)]
    force: bool,
    /// Only count what would go
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    confirmation: Confirmation,
    #[command(flatten)]
    length: Length,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Mode {
    Regular,
    Emergency,
}

const RUN: &str = "
    CALL backlog_cleanup_run(target => $1, mode => $2, batch_size => $3, pause => $4::interval,
                             max_duration => $5::interval, max_rows => $6, workers => $7, recipe_id => $8,
                             failure_type => $9, force => $10)";

impl Run {
    pub async fn run(self, server: &Server, output: &Output) -> Result<Exit> {
        let limit = self.length.limit;
        if self.dry_run {
            let Run { selection, force, dry_run, confirmation, length, .. } = self;
            return match self.mode {
                Mode::Regular => Cleanup { selection, dry_run, force, length }.run(server, output).await,
                Mode::Emergency => Emergency { selection, dry_run, confirmation, length }.run(server, output).await,
            };
        }
        let mut work = Work::start(server).await?;
        if self.mode == Mode::Emergency {
            self.confirmation.ask(work.second(), &self.selection, output, limit).await?;
        }
        let statement = sqlx::query_scalar(RUN)
            .bind(self.selection.target)
            .bind(match self.mode {
                Mode::Regular => "regular",
                Mode::Emergency => "emergency",
            })
            .bind(self.batch_size)
            .bind(self.pause)
            .bind(self.max_duration)
            .bind(self.max_rows)
            .bind(self.workers)
            .bind(self.selection.recipe_id)
            .bind(self.selection.failure_type)
            .bind(self.force);
        let (pid, mut bar, mut run_id) = (work.pid(), Bar::new(), None);
        let done = work
            .report(statement, output, async |second, stops| {
                // What cannot be seen now is seen the next time.
                if let Ok(Some(run)) = history::run_of(second, pid).await {
                    run_id = Some(run.id);
                    if !stops {
                        bar.show(&run, output);
                    }
                }
            })
            .await;
        bar.finish(done.is_ok(), output);
        match (done, run_id) {
            (Ok(report), _) => report.show(output, limit).map(|()| Exit::Done),
            (Err(failure), None) => Err(failure),
            (Err(failure), Some(run_id)) => {
                let Some(run) = history::run(work.second(), run_id).await? else { return Err(failure) };
                if output.json {
                    output.json(&run)?;
                } else {
                    let (removed, batches) = (count(run.removed), counted(run.batches, "batch", "batches"));
                    output.line(format_args!(
                        "Run {run_id} had removed {removed} rows in {batches}, which stay removed"
                    ))?;
                }
                Err(failure.or_hint("backlog-cleanup run goes on with the rest"))
            }
        }
    }
}
