use std::io::{IsTerminal, Write, stdin, stdout};
use std::time::{Duration, Instant};

use backlog_cleanup_report::StatusReport;
use clap::Args;
use serde::Serialize;
use sqlx::postgres::PgConnection;
use tokio::select;
use tokio::time::sleep;

use super::selection::Target;
use super::{runs, status};
use crate::client::calls;
use crate::client::connect::{Server, begin};
use crate::client::history::{self, Run};
use crate::failure::{Exit, Failure, Result};
use crate::printable::{json, printable};
use crate::terminal::bar;
use crate::terminal::output::Output;
use crate::terminal::screen::Screen;
use crate::words::time;

/// Show status, progress and the last runs, and refresh them; q quits
///
/// With --json it prints a line of JSON at each refresh.
#[derive(Args)]
pub struct Watch {
    #[command(flatten)]
    target: Target,
    /// Seconds between two refreshes; more if the server is slow
    #[arg(long, value_name = "SECONDS", default_value_t = 2.0)]
    interval: f64,
}

#[derive(Serialize)]
struct View {
    status: StatusReport,
    running: Vec<Run>,
    runs: Vec<Run>,
}

impl Watch {
    pub async fn run(mut self, server: &Server, output: &Output) -> Result<Exit> {
        if !self.interval.is_finite() || self.interval < 0.1 {
            return Err(Failure::usage("argument \"--interval\" is out of range").hint("--interval 2"));
        }
        let is_terminal = stdout().is_terminal() && stdin().is_terminal();
        if !output.json && !is_terminal {
            return Err(Failure::usage("watch needs a terminal").hint("backlog-cleanup watch --json"));
        }
        // An error now ends the command; a later one is shown, and the refresh repeated.
        let mut connection = Some(server.connect().await?);
        let mut work = begin(connection.as_mut().expect("connected")).await?;
        self.target.settle(&mut work).await?;
        calls::status::<calls::Raw>(&mut work, &self.target.name).await?;
        work.commit().await?;
        let mut screen = if output.json { None } else { Some(Screen::open()?) };
        loop {
            let begun = Instant::now();
            let viewed = select! {
                viewed = self.view(&mut connection, server) => viewed,
                () = quits(&mut screen) => return Ok(Exit::Done),
            };
            let took = begun.elapsed();
            match (&mut screen, viewed) {
                (Some(screen), viewed) => screen.show(&self.page(output, screen.height(), viewed)?)?,
                (None, Ok(view)) => {
                    let line = json(&serde_json::to_string(&view).expect("a view is JSON"));
                    if writeln!(stdout(), "{line}").is_err() {
                        return Ok(Exit::Done);
                    }
                }
                (None, Err(failure)) => output.failure(&failure),
            }
            // A refresh takes a fifth of the time at most.
            let pause = Duration::from_secs_f64(self.interval).max(took * 4);
            select! {
                () = sleep(pause) => {}
                () = quits(&mut screen) => return Ok(Exit::Done),
            }
        }
    }

    /// Reads what the page shows, over a new connection if the last read has failed.
    async fn view(&self, connection: &mut Option<PgConnection>, server: &Server) -> Result<View> {
        let mut open = match connection.take() {
            Some(open) => open,
            None => server.connect().await?,
        };
        let target = &self.target.name;
        let mut work = begin(&mut open).await?;
        let view = View {
            status: calls::status(&mut work, target).await?,
            running: history::running(&mut work).await?,
            runs: history::runs(&mut work, Some(target), None, 5).await?,
        };
        work.commit().await?;
        *connection = Some(open);
        Ok(view)
    }

    fn page(&self, output: &Output, height: usize, viewed: Result<View>) -> Result<String> {
        let page = output.page();
        page.line(format_args!("{}   {} UTC   q quits\n", printable(&self.target.name), time(chrono::Utc::now())))?;
        match viewed {
            Ok(view) => {
                for run in &view.running {
                    let done = run.share_done.unwrap_or_default() * 100.0;
                    page.line(format_args!("run {} {done:.0} %: {}\n", run.id, bar::line(run)))?;
                }
                // The recipes get the lines that are left.
                let statuses = if view.status.has_other_statuses() { 2 + view.status.every_status.len() } else { 0 };
                let others = 13 + statuses + view.runs.len() + 2 * view.running.len() + view.status.warnings.len();
                status::show(&page, &view.status, height.saturating_sub(others))?;
                page.line("")?;
                page.line(runs::table(&page, &view.runs).trim_fmt())?;
            }
            Err(failure) => {
                page.line(printable(&failure.message))?;
                page.line("\nretrying")?;
            }
        }
        Ok(page.into_text())
    }
}

async fn quits(screen: &mut Option<Screen>) {
    match screen {
        Some(screen) => screen.quits().await,
        None => std::future::pending().await,
    }
}
