use backlog_cleanup_report::StatusReport;
use clap::Args;
use serde::Serialize;
use sqlx::postgres::PgConnection;
use sqlx::types::Json;

use super::doctor::{self, Finding};
use super::selection::{Length, Target};
use crate::client::connect::Server;
use crate::failure::{Exit, Result};
use crate::terminal::output::{Output, count, counted, printable};
use crate::terminal::report::{id, more};

/// How many rows there are, and which recipes have failures
#[derive(Args)]
pub struct Status {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    length: Length,
    /// Exit code 4 where a check of doctor fails
    #[arg(long)]
    check: bool,
    /// With --check, exit code 4 also where there are more failed rows than this
    #[arg(long, value_name = "ROWS", requires = "check")]
    max_failed: Option<i64>,
}

#[derive(Serialize)]
struct Checked<'a> {
    #[serde(flatten)]
    report: &'a StatusReport,
    healthy: bool,
    problems: &'a [Finding],
}

impl Status {
    pub async fn run(self, server: &Server, output: &Output) -> Result<Exit> {
        let mut connection = server.connect().await?;
        let report = report(&mut connection, &self.target.target).await?;
        let mut problems = Vec::new();
        if self.check {
            problems = doctor::findings(&mut connection, &self.target.target).await?;
            problems.retain(|finding| finding.status == "fail");
            problems.extend(self.max_failed.filter(|most| report.failed_generations > *most).map(|most| Finding {
                check_name: "max_failed".into(),
                status: "fail".into(),
                detail: format!("{} failed rows are more than {}", count(report.failed_generations), count(most)),
                fix: None,
            }));
        }
        let healthy = problems.is_empty();
        match (output.json, self.check) {
            (true, true) => output.json(&Checked { report: &report, healthy, problems: &problems })?,
            (true, false) => output.json(&report)?,
            (false, _) => {
                show(output, &report, self.length.limit)?;
                for problem in &problems {
                    output.line(format_args!("fail: {}: {}", problem.check_name, printable(&problem.detail)))?;
                }
            }
        }
        Ok(if healthy { Exit::Done } else { Exit::Unhealthy })
    }
}

pub async fn report(connection: &mut PgConnection, target: &str) -> Result<StatusReport> {
    let status = "SELECT backlog_cleanup_status_json($1)";
    let Json(report) = sqlx::query_scalar(status).bind(target).fetch_one(connection).await?;
    Ok(report)
}

/// The sums, the recipes with most failures, and what there is around them.
pub fn show(output: &Output, report: &StatusReport, limit: usize) -> Result<()> {
    let mut sums = output.table(["ROWS", "COMPLETED", "PENDING", "PROCESSING", "FAILED", "REMOVABLE"]);
    sums.add_row([
        output.count(report.total_generations),
        output.count(report.completed_generations),
        output.count(report.pending_generations),
        output.count(report.processing_generations),
        output.count(report.failed_generations),
        output.count(report.removable_generations),
    ]);
    output.line(sums.trim_fmt())?;
    output.line("")?;
    let recipes = &report.recipes_with_failed_generations;
    if !recipes.is_empty() && limit > 0 {
        let mut table = output.table(["ID", "RECIPE", "FAILED", "REMOVABLE", "OLDEST"]);
        for recipe in recipes.iter().take(limit) {
            table.add_row([
                output.cell(id(&recipe.recipe_id)),
                output.cell(&recipe.recipe_name),
                output.count(recipe.failed_count),
                output.count(recipe.removable_count),
                output.cell(recipe.oldest_failed_age.as_deref().unwrap_or_default()),
            ]);
        }
        output.line(table.trim_fmt())?;
        more(output, recipes.len(), limit)?;
    }
    let text = |value: &serde_json::Value| printable(value.as_str().unwrap_or_default());
    match report.last_run["runId"].as_i64() {
        Some(run) => {
            let removed = counted(report.last_run["removed"].as_i64().unwrap_or_default(), "row", "rows");
            let (mode, state) = (text(&report.last_run["mode"]), text(&report.last_run["state"]));
            output.line(format_args!(
                "last run   {run}, {mode}, {state}, removed {removed}, started {}",
                at(&text(&report.last_run["startedAt"]))
            ))?;
        }
        None => output.line("last run   none")?,
    }
    match report.schedule.is_null() {
        true => output.line("schedule   none")?,
        false => output.line(format_args!(
            "schedule   {}, job {}{}",
            text(&report.schedule["schedule"]),
            text(&report.schedule["jobName"]),
            if report.schedule["active"] == true { "" } else { ", paused" }
        ))?,
    }
    for warning in &report.warnings {
        output.line(format_args!("warning    {}: {}", printable(&warning.message), printable(&warning.hint)))?;
    }
    Ok(())
}

/// An instant as PostgreSQL writes it into JSON, to the second.
fn at(instant: &str) -> String {
    chrono::DateTime::parse_from_rfc3339(instant)
        .map(|at| format!("{} UTC", super::runs::time(at.into())))
        .unwrap_or_else(|_| instant.into())
}
