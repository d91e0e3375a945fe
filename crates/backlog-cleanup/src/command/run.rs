use backlog_cleanup_report::Mode;
use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use sqlx::postgres::PgConnection;

use super::cleanup::Cleanup;
use super::confirmation::Confirmation;
use super::emergency::Emergency;
use super::selection::{Length, Selection, Trial};
use crate::client::calls::{self, Pace};
use crate::client::connect::Server;
use crate::client::history;
use crate::failure::{Exit, Failure, Result};
use crate::printable::printable;
use crate::terminal::bar::Bar;
use crate::terminal::interrupt::Connections;
use crate::terminal::output::Output;
use crate::terminal::report::Report;
use crate::words::count;

/// Remove in batches, each committed, and show the progress
///
/// Committed batches are permanent; the next run continues. Ctrl-C cancels the run and prints what it has removed.
#[derive(Args)]
pub struct Run {
    #[command(flatten)]
    selection: Selection,
    /// Remove what `cleanup` removes, or what `emergency` removes
    #[arg(long, default_value = Mode::Regular.as_str(), value_parser = modes())]
    mode: Mode,
    /// Rows per batch [default: the target's `batch_size`]
    #[arg(long, value_name = "ROWS")]
    batch_size: Option<i32>,
    /// Pause between batches, such as '100 ms' [default: the target's `pause`]
    #[arg(long, value_name = "INTERVAL")]
    pause: Option<String>,
    /// Rows per second at most [default: the target's `max_rows_per_second`]
    #[arg(long, value_name = "ROWS")]
    max_rows_per_second: Option<i32>,
    /// Stop after this time, such as '10 minutes' [default: the target's `max_duration`]
    #[arg(long, value_name = "INTERVAL")]
    max_duration: Option<String>,
    /// Stop after this many rows [default: the target's `max_rows`]
    #[arg(long, value_name = "ROWS")]
    max_rows: Option<i64>,
    /// Number of background workers [default: the target's `workers`]
    #[arg(long, value_name = "NUMBER")]
    workers: Option<i32>,
    /// Remove even more rows than the target's limits allow
    #[arg(long)]
    force: bool,
    /// With --mode emergency, remove also what policies hold
    #[arg(long)]
    include_held: bool,
    #[command(flatten)]
    trial: Trial,
    #[command(flatten)]
    confirmation: Confirmation,
    #[command(flatten)]
    length: Length,
}

fn modes() -> impl TypedValueParser<Value = Mode> {
    PossibleValuesParser::new(Mode::ALL.iter().map(|mode| mode.as_str())).try_map(|word| word.parse::<Mode>())
}

impl Run {
    pub async fn run(self, server: &Server, output: &Output) -> Result<Exit> {
        let Run { mut selection, mode, confirmation, length, force, include_held, trial, .. } = self;
        if include_held && mode != Mode::Emergency {
            return Err(Failure::usage("only an emergency run removes what policies hold").hint("--mode emergency"));
        }
        if trial.as_call() != calls::Trial::No {
            return match mode {
                Mode::Regular => Cleanup { selection, trial, force, length }.run(server, output).await,
                Mode::Emergency => {
                    Emergency { selection, trial, include_held, confirmation, length }.run(server, output).await
                }
            };
        }
        let mut connections = Connections::open(server).await?;
        let mut work = connections.begin().await?;
        selection.target.settle(&mut work).await?;
        work.commit().await?;
        let pace = Pace {
            batch_size: self.batch_size,
            pause: self.pause,
            max_rows_per_second: self.max_rows_per_second,
            max_duration: self.max_duration,
            max_rows: self.max_rows,
            workers: self.workers,
            force,
            include_held,
        };
        if mode == Mode::Emergency {
            confirmation.ask(connections.second(), &selection, &pace, output, length.limit).await?;
        }
        let mut work = connections.begin().await?;
        let run = calls::run(&mut work, mode, selection.as_call(), &pace).await?;
        work.commit().await?;
        let (mark, mut bar, mut run_id) = (connections.mark(), Bar::new(), None);
        let watch = async |second: &mut PgConnection, stops: bool| {
            // A failed look is repeated at the next tick.
            if let Ok(Some(run)) = history::run_of(second, &mark).await {
                run_id = Some(run.id);
                if !stops {
                    bar.show(&run, output);
                }
            }
        };
        let done: Result<Report> = connections.in_batches(run, output, watch).await;
        bar.finish(done.is_ok(), output);
        match (done, run_id) {
            (Ok(report), _) => report.show(output, length.limit).map(|()| Exit::Done),
            (Err(failure), None) => Err(failure),
            (Err(failure), Some(run_id)) => {
                let mut work = connections.begin().await?;
                let Some(run) = history::run(&mut work, run_id).await? else { return Err(failure) };
                work.commit().await?;
                if output.json {
                    output.json(&run)?;
                } else {
                    let (rows, batches) = (count(run.removed, &run.nouns.row_word), count(run.batches, "batch"));
                    output.line(format_args!(
                        "Run {run_id} did not finish; it removed {} in {batches}",
                        printable(&rows)
                    ))?;
                }
                Err(failure.or_hint(format!("backlog-cleanup runs {run_id}")))
            }
        }
    }
}
