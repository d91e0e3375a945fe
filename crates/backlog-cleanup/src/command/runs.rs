use backlog_cleanup_report::CleanupDetail;
use chrono::{DateTime, Utc};
use clap::Args;
use serde::Serialize;

use crate::client::connect::Server;
use crate::client::history::{self, Run};
use crate::failure::{Exit, Failure, Result};
use crate::terminal::output::{Output, count, counted, printable};
use crate::terminal::report::{milliseconds, recipes};

/// The history of runs, newest first, or one run with its recipes
#[derive(Args)]
pub struct Runs {
    /// The run to show
    #[arg(value_name = "RUN")]
    id: Option<i64>,
    /// Only runs of this target
    #[arg(long, value_name = "NAME")]
    target: Option<String>,
    /// How many runs to show, or of one run how many recipes, of which JSON has all
    #[arg(long, value_name = "NUMBER", default_value_t = 20)]
    limit: usize,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Detailed {
    #[serde(flatten)]
    run: Run,
    cleanup_details: Vec<CleanupDetail>,
}

impl Runs {
    pub async fn run(self, server: &Server, output: &Output) -> Result<Exit> {
        let mut connection = server.connect().await?;
        let limit = self.limit;
        match self.id {
            Some(id) => {
                let run = history::run(&mut connection, id)
                    .await?
                    .ok_or_else(|| Failure::error(format!("run {id} does not exist")).hint("backlog-cleanup runs"))?;
                let cleanup_details = history::recipes(&mut connection, id).await?;
                detailed(output, Detailed { run, cleanup_details }, limit)?;
            }
            None => {
                let limit = i64::try_from(limit).unwrap_or(i64::MAX);
                let runs = history::runs(&mut connection, self.target.as_deref(), None, limit).await?;
                if output.json { output.json(&runs)? } else { output.line(table(output, &runs).trim_fmt())? }
            }
        }
        Ok(Exit::Done)
    }
}

/// One line per run.
pub fn table(output: &Output, runs: &[Run]) -> comfy_table::Table {
    let mut table = output.table(["RUN", "STARTED (UTC)", "TARGET", "MODE", "STATE", "REMOVED", "TOOK", "BY"]);
    for run in runs {
        table.add_row([
            output.cell(run.id.to_string()),
            output.cell(time(run.started_at)),
            output.cell(&run.target),
            output.cell(&run.mode),
            output.state(&run.state),
            output.count(run.removed),
            output.cell(run.duration_ms.map(milliseconds).unwrap_or_default()),
            output.cell(&run.requested_by),
        ]);
    }
    table
}

fn detailed(output: &Output, detailed: Detailed, limit: usize) -> Result<()> {
    if output.json {
        return output.json(&detailed);
    }
    let Detailed { run, cleanup_details } = detailed;
    let mut table = output.table(["RUN", &run.id.to_string()]);
    let selected = [("recipe", &run.recipe_id), ("failure type", &run.failure_type)];
    let selected = selected.iter().filter_map(|(what, value)| Some(format!("{what} {}", value.as_ref()?)));
    let rows = [
        ("target", run.target.clone()),
        ("mode", run.mode.clone()),
        ("selected", selected.collect::<Vec<_>>().join(", ")),
        ("state", run.state.clone()),
        ("waits for", run.waiting_for.clone().unwrap_or_default()),
        ("requested by", run.requested_by.clone()),
        ("started", format!("{} UTC", time(run.started_at))),
        ("finished", run.finished_at.map(|at| format!("{} UTC", time(at))).unwrap_or_default()),
        ("took", run.duration_ms.map(milliseconds).unwrap_or_default()),
        ("old before", run.cutoff.map(|at| format!("{} UTC", time(at))).unwrap_or_default()),
        ("removed", format!("{} of {}", count(run.removed), counted(run.total_failed, "failed row", "failed rows"))),
        (
            "batches",
            run.batch_size
                .map(|size| format!("{} of {} rows", count(run.batches), count(size.into())))
                .unwrap_or_default(),
        ),
        ("workers", run.workers.filter(|workers| *workers > 0).map(|workers| workers.to_string()).unwrap_or_default()),
        ("skipped", if run.skipped > 0 { count(run.skipped) } else { String::new() }),
        ("kept back", if run.kept_back > 0 { count(run.kept_back) } else { String::new() }),
    ];
    for (name, value) in rows.iter().filter(|(_, value)| !value.is_empty()) {
        table.add_row([
            output.cell(name),
            if *name == "state" { output.state(value) } else { output.cell(printable(value)) },
        ]);
    }
    output.line(table.trim_fmt())?;
    output.line("")?;
    recipes(output, &cleanup_details, limit)
}

/// 2026-11-24 02:00:05
pub fn time(at: DateTime<Utc>) -> String {
    at.format("%Y-%m-%d %H:%M:%S").to_string()
}
