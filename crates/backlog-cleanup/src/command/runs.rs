use backlog_cleanup_report::{CleanupDetail, Nouns, PolicyDetail, StatusDetail};
use clap::Args;
use serde::Serialize;

use super::selection::selected;
use crate::client::calls;
use crate::client::connect::{Server, begin};
use crate::client::history::{self, Night, Run};
use crate::client::targets;
use crate::failure::{Exit, Failure, Result};
use crate::printable::printable;
use crate::terminal::output::Output;
use crate::terminal::report::{show_policies, show_recipes, show_statuses};
use crate::words::{count, duration, in_scope, number, time};

/// Show the history of runs, newest first, or one run with its recipes, statuses and policies
#[derive(Args)]
pub struct Runs {
    /// Id of the run to show
    #[arg(value_name = "RUN")]
    id: Option<i64>,
    /// Only runs of this target
    #[arg(long, value_name = "NAME")]
    target: Option<String>,
    /// Number of runs to show, or of recipes and policies of one run; of those JSON has all
    #[arg(long, value_name = "NUMBER", default_value_t = 20)]
    limit: usize,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Detailed {
    #[serde(flatten)]
    run: Run,
    cleanup_details: Vec<CleanupDetail>,
    policies: Vec<PolicyDetail>,
    statuses: Vec<StatusDetail>,
}

impl Runs {
    pub async fn run(self, server: &Server, output: &Output) -> Result<Exit> {
        let mut connection = server.connect().await?;
        let mut work = begin(&mut connection).await?;
        let limit = self.limit;
        match self.id {
            Some(id) => {
                let run = history::run(&mut work, id)
                    .await?
                    .ok_or_else(|| Failure::error(format!("run {id} does not exist")).hint("backlog-cleanup runs"))?;
                let cleanup_details = calls::run_details(&mut work, id).await?;
                let policies = history::policies(&mut work, id).await?;
                let statuses = history::statuses(&mut work, id).await?;
                detailed(output, Detailed { run, cleanup_details, policies, statuses }, limit)?;
            }
            None => {
                let limit = i64::try_from(limit).unwrap_or(i64::MAX);
                let target = self.target.as_deref();
                let runs = history::runs(&mut work, target, None, limit).await?;
                let nights = history::nights(&mut work, target, None, &runs, limit).await?;
                if runs.is_empty() && nights.is_empty() {
                    targets::known(&mut work, target).await?;
                }
                if output.json { output.json(&runs)? } else { list(output, &runs, &nights)? }
            }
        }
        work.commit().await?;
        Ok(Exit::Done)
    }
}

/// Prints the runs, and below them the nights that failed without one.
fn list(output: &Output, runs: &[Run], nights: &[Night]) -> Result<()> {
    output.line(table(output, runs).trim_fmt())?;
    if nights.is_empty() {
        return Ok(());
    }
    let mut table = output.table(["JOB", "STARTED (UTC)", "TARGET", "MODE", "STATE", "ERROR"]);
    for night in nights {
        table.add_row([
            output.cell(night.job_id.to_string()),
            output.cell(time(night.started_at)),
            output.cell(&night.target),
            output.cell(night.mode.as_str()),
            output.state(night.state.as_str()),
            output.cell(printable(&night.error())),
        ]);
    }
    output.line("")?;
    output.line(table.trim_fmt())
}

/// A table with a line for each run.
pub fn table(output: &Output, runs: &[Run]) -> comfy_table::Table {
    let mut table = output.table(["RUN", "STARTED (UTC)", "TARGET", "MODE", "STATE", "REMOVED", "TOOK", "BY"]);
    for run in runs {
        table.add_row([
            output.cell(run.id.to_string()),
            output.cell(time(run.started_at)),
            output.name(&run.target),
            output.cell(run.mode.as_str()),
            output.state(run.state.as_str()),
            output.count(run.removed),
            output.cell(run.duration_ms.map(duration).unwrap_or_default()),
            output.name(&run.requested_by),
        ]);
    }
    output.unbroken(&mut table, ["MODE", "STATE", "REMOVED", "TOOK"], ["TARGET", "BY"]);
    table
}

fn detailed(output: &Output, detailed: Detailed, limit: usize) -> Result<()> {
    if output.json {
        return output.json(&detailed);
    }
    let Detailed { run, cleanup_details, policies, statuses } = detailed;
    let Nouns { group_word, row_word } = &run.nouns;
    let mut table = output.table(["RUN", &run.id.to_string()]);
    let rows = [
        ("target", run.target.clone()),
        ("mode", run.mode.to_string()),
        ("selected", selected(group_word, &run.recipe_id, &run.failure_type, &run.status)),
        ("state", run.state.to_string()),
        ("error", run.error().unwrap_or_default()),
        ("waiting for", run.waiting_for.clone().unwrap_or_default()),
        ("requested by", run.requested_by.clone()),
        ("stop requested by", run.stop_requested_by.clone().unwrap_or_default()),
        ("started", format!("{} UTC", time(run.started_at))),
        ("finished", run.finished_at.map(|at| format!("{} UTC", time(at))).unwrap_or_default()),
        ("took", run.duration_ms.map(duration).unwrap_or_default()),
        ("cutoff", run.cutoff.map(|at| format!("{} UTC", time(at))).unwrap_or_default()),
        (
            "removed",
            match run.total_failed {
                Some(failed) => format!("{} of {}", number(run.removed), in_scope(failed, row_word)),
                None => count(run.removed, row_word),
            },
        ),
        (
            "batches",
            run.batch_size
                .map(|size| format!("{} of {}", number(run.batches), count(size.into(), row_word)))
                .unwrap_or_default(),
        ),
        ("workers", run.workers.filter(|workers| *workers > 0).map(|workers| workers.to_string()).unwrap_or_default()),
        ("skipped", if run.skipped > 0 { number(run.skipped) } else { String::new() }),
        ("kept back", if run.kept_back > 0 { number(run.kept_back) } else { String::new() }),
        ("of these, unreadable", if run.unreadable > 0 { number(run.unreadable) } else { String::new() }),
        ("the first of them", run.kept_back_reason().unwrap_or_default()),
        ("held", if run.held > 0 { number(run.held) } else { String::new() }),
        ("WAL", run.wal().unwrap_or_default()),
    ];
    for (name, value) in rows.iter().filter(|(_, value)| !value.is_empty()) {
        table.add_row([
            output.cell(name),
            if *name == "state" { output.state(value) } else { output.cell(printable(value)) },
        ]);
    }
    output.line(table.trim_fmt())?;
    output.line("")?;
    show_recipes(output, &run.nouns, &cleanup_details, limit, false)?;
    show_statuses(output, &statuses, limit, false)?;
    show_policies(output, &run.nouns, &policies, limit, false)
}
