use backlog_cleanup_report::{Nouns, StatusReport, plural};
use clap::Args;
use serde::Serialize;

use super::selection::{Length, Target};
use crate::client::calls::{self, Finding};
use crate::client::connect::{Server, begin};
use crate::failure::{Exit, Result};
use crate::printable::printable;
use crate::terminal::output::Output;
use crate::terminal::report::more;
use crate::words::{count, in_scope, number, recipe_id, time};

/// Show the rows by status, and the recipes that have rows in scope
#[derive(Args)]
pub struct Status {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    length: Length,
    /// Exit with 4 if a check of doctor fails
    #[arg(long)]
    check: bool,
    /// With --check, exit with 4 also if more rows than this are in scope
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
    pub async fn run(mut self, server: &Server, output: &Output) -> Result<Exit> {
        let mut connection = server.connect().await?;
        let mut work = begin(&mut connection).await?;
        self.target.settle(&mut work).await?;
        let report: StatusReport = calls::status(&mut work, &self.target.name).await?;
        let mut problems = Vec::new();
        if self.check {
            problems = calls::doctor(&mut work, &self.target.name).await?;
            problems.retain(|finding| finding.status == "fail");
            let failed = report.statuses.of("failed");
            problems.extend(self.max_failed.filter(|most| failed > *most).map(|most| Finding {
                check: "max_failed".into(),
                status: "fail".into(),
                detail: format!("there are {}, more than {}", in_scope(failed, &report.nouns.row_word), number(most)),
                fix: None,
            }));
        }
        work.commit().await?;
        let healthy = problems.is_empty();
        match (output.json, self.check) {
            (true, true) => output.json(&Checked { report: &report, healthy, problems: &problems })?,
            (true, false) => output.json(&report)?,
            (false, _) => {
                show(output, &report, self.length.limit)?;
                for problem in &problems {
                    output.line(format_args!("fail: {}: {}", problem.check, printable(&problem.detail)))?;
                }
            }
        }
        Ok(if healthy { Exit::Done } else { Exit::Unhealthy })
    }
}

/// Prints the sums, the recipes with most rows in scope, the last run and the schedule.
pub fn show(output: &Output, report: &StatusReport, limit: usize) -> Result<()> {
    let Nouns { group_word, row_word } = &report.nouns;
    let rows = plural(row_word).to_uppercase();
    let mut sums = output.table([&rows, "COMPLETED", "PENDING", "PROCESSING", "IN SCOPE", "REMOVABLE"]);
    sums.add_row([
        output.count(report.total_generations),
        output.count(report.statuses.of("completed")),
        output.count(report.statuses.of("pending")),
        output.count(report.statuses.of("processing")),
        output.count(report.statuses.of("failed")),
        output.count(report.removable_generations),
    ]);
    output.line(sums.trim_fmt())?;
    output.line("")?;
    if report.has_other_statuses() && limit > 0 {
        let mut statuses = output.table(["STATUS", &rows]);
        for status in report.every_status.iter().take(limit) {
            statuses.add_row([output.name(&status.status), output.count(status.count)]);
        }
        output.line(statuses.trim_fmt())?;
        more(output, "status", report.every_status.len(), limit)?;
    }
    let recipes = &report.recipes_with_failed_generations;
    if !recipes.is_empty() && limit > 0 {
        let mut table = output.table(["ID", &group_word.to_uppercase(), "IN SCOPE", "REMOVABLE", "OLDEST"]);
        for recipe in recipes.iter().take(limit) {
            table.add_row([
                output.name(recipe_id(&recipe.recipe_id)),
                output.name(&recipe.recipe_name),
                output.count(recipe.failed_count),
                output.count(recipe.removable_count),
                output.cell(recipe.oldest_failed_age.as_deref().unwrap_or_default()),
            ]);
        }
        output.line(table.trim_fmt())?;
        more(output, group_word, recipes.len(), limit)?;
    }
    let text = |value: &serde_json::Value| printable(value.as_str().unwrap_or_default());
    match report.last_run["runId"].as_i64() {
        Some(run) => {
            let removed = printable(&count(report.last_run["removed"].as_i64().unwrap_or_default(), row_word));
            let (mode, state) = (text(&report.last_run["mode"]), text(&report.last_run["state"]));
            output.line(format_args!(
                "last run   {run}, {mode}, {state}, removed {removed}, started {}",
                at(&text(&report.last_run["startedAt"]))
            ))?;
        }
        None => output.line("last run   none")?,
    }
    let job = &report.schedule;
    match job["check"].as_str() {
        None if job.is_null() => output.line("schedule   none")?,
        Some(check) => output.whole(format_args!("schedule   not known here: {}", printable(check)))?,
        None => output.line(format_args!(
            "schedule   {}, job {}{}",
            text(&job["schedule"]),
            text(&job["jobName"]),
            if job["active"] == true { "" } else { ", paused" }
        ))?,
    }
    for warning in &report.warnings {
        output.line(format_args!("warning    {}:", printable(&warning.message)))?;
        output.whole(format_args!("{};", printable(&warning.hint).trim_end_matches(';')))?;
    }
    Ok(())
}

/// Shortens an instant in ISO 8601 to seconds.
fn at(instant: &str) -> String {
    chrono::DateTime::parse_from_rfc3339(instant)
        .map(|at| format!("{} UTC", time(at.into())))
        .unwrap_or_else(|_| instant.into())
}
