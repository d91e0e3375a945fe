use clap::{Args, Subcommand};
use serde_json::{Value, json};
use sqlx::postgres::PgConnection;

use super::selection::Target;
use crate::client::connect::Server;
use crate::failure::{Exit, Result};
use crate::terminal::output::{Output, printable};

/// The pg_cron job that runs the target every night: show, set or remove it
#[derive(Args)]
pub struct Schedule {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// The job that runs the target
    Show {
        #[command(flatten)]
        target: Target,
    },
    /// Register the job, or change the one that is there
    Set {
        /// When it runs: minute hour day month weekday, in UTC
        #[arg(value_name = "CRON", default_value = "0 2 * * *")]
        schedule: String,
        /// In batches, with a commit after each
        #[arg(long)]
        batched: bool,
        #[command(flatten)]
        target: Target,
        #[command(flatten)]
        job: Job,
    },
    /// Remove the job
    Remove {
        #[command(flatten)]
        target: Target,
        #[command(flatten)]
        job: Job,
    },
}

#[derive(Args)]
struct Job {
    /// The job's name, if it is not backlog-cleanup-daily, or of another target backlog-cleanup- and its name
    #[arg(long, value_name = "NAME")]
    job_name: Option<String>,
}

impl Job {
    fn name(self, target: &str) -> String {
        self.job_name.unwrap_or_else(|| job_name(target))
    }
}

impl Schedule {
    pub async fn run(self, server: &Server, output: &Output) -> Result<Exit> {
        let mut connection = server.connect().await?;
        match self.action {
            Action::Show { target } => {
                let job = job(&mut connection, &target.target).await?;
                if output.json { output.json(&job)? } else { show(output, &target.target, &job)? }
            }
            Action::Set { schedule, batched, target, job } => {
                let name = job.name(&target.target);
                let id = set(&mut connection, &schedule, batched, &target.target, &name).await?;
                if output.json {
                    output.json(&json!({ "jobId": id, "jobName": name, "schedule": schedule }))?;
                } else {
                    output.line(format_args!("Job {id}, {}, runs at {}", printable(&name), printable(&schedule)))?;
                }
            }
            Action::Remove { target, job } => {
                let name = job.name(&target.target);
                let removed: bool = sqlx::query_scalar("SELECT backlog_cleanup_unschedule($1)")
                    .bind(&name)
                    .fetch_one(&mut connection)
                    .await?;
                if output.json {
                    output.json(&json!({ "jobName": name, "removed": removed }))?;
                } else {
                    let done = if removed { "is removed" } else { "was not there" };
                    output.line(format_args!("Job {} {done}", printable(&name)))?;
                }
            }
        }
        Ok(Exit::Done)
    }
}

/// The job that runs a target; null where there is none.
pub async fn job(connection: &mut PgConnection, target: &str) -> Result<Value> {
    let job = "SELECT backlog_cleanup_status_json($1) -> 'schedule'";
    Ok(sqlx::query_scalar(job).bind(target).fetch_one(connection).await?)
}

/// Registers or changes the job; returns its id.
pub async fn set(
    connection: &mut PgConnection,
    schedule: &str,
    batched: bool,
    target: &str,
    job_name: &str,
) -> Result<i64> {
    let set = "SELECT backlog_cleanup_schedule(schedule => $1, batched => $2, target => $3, job_name => $4)";
    let id = sqlx::query_scalar(set).bind(schedule).bind(batched).bind(target).bind(job_name);
    Ok(id.fetch_one(connection).await?)
}

/// As doctor names it: a job of its own for each target.
pub fn job_name(target: &str) -> String {
    if target == "generations" { "backlog-cleanup-daily".into() } else { format!("backlog-cleanup-{target}") }
}

fn show(output: &Output, target: &str, job: &Value) -> Result<()> {
    if job.is_null() {
        let target = printable(target);
        return output
            .line(format_args!("No job runs target {target}: backlog-cleanup schedule set --target {target}"));
    }
    let text = |key: &str| job[key].as_str().map(str::to_owned).unwrap_or_else(|| job[key].to_string());
    let mut table = output.table(["JOB", "NAME", "SCHEDULE", "COMMAND", "ROLE", "STATE"]);
    table.add_row([
        output.cell(text("jobId")),
        output.cell(text("jobName")),
        output.cell(text("schedule")),
        output.cell(text("command")),
        output.cell(text("username")),
        output.state(if job["active"] == true { "ok" } else { "paused" }),
    ]);
    output.line(table.trim_fmt())
}
