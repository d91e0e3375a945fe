use backlog_cleanup_report::{DEFAULT_SCHEDULE, Level, job_name};
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::selection::Target;
use crate::client::calls;
use crate::client::connect::{Server, begin};
use crate::failure::{Exit, Result};
use crate::printable::printable;
use crate::terminal::output::Output;
use crate::words::argument;

/// Show the pg_cron jobs of the target, set or remove one
#[derive(Args)]
pub struct Schedule {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Show the jobs that run the target
    Show {
        #[command(flatten)]
        target: Target,
    },
    /// Register the job, or change an existing one
    Set {
        /// Minute, hour, day, month and weekday, in UTC; or auto, the quietest hour of the day
        #[arg(value_name = "CRON", default_value = DEFAULT_SCHEDULE)]
        schedule: String,
        /// Run in batches, each committed
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
    /// Name of the job [default: backlog-cleanup-daily; for other targets backlog-cleanup-<target>]
    #[arg(long, value_name = "NAME")]
    job_name: Option<String>,
}

impl Job {
    fn name(self, target: &str) -> String {
        self.job_name.unwrap_or_else(|| job_name(target))
    }
}

impl Schedule {
    pub fn level(&self) -> Level {
        if let Action::Show { .. } = self.action { Level::Monitor } else { Level::Admin }
    }

    pub async fn run(self, server: &Server, output: &Output) -> Result<Exit> {
        let mut connection = server.connect().await?;
        let mut work = begin(&mut connection).await?;
        match self.action {
            Action::Show { mut target } => {
                target.settle(&mut work).await?;
                let job = calls::job(&mut work, &target.name).await?;
                if output.json {
                    output.json(&job)?;
                } else {
                    show(output, &target.name, &job)?;
                    // The doctor names all of them where there are several.
                    let findings = calls::doctor(&mut work, &target.name).await?;
                    let jobs = findings.iter().find(|finding| finding.check == "job");
                    if let Some(jobs) = jobs.filter(|jobs| jobs.detail.matches(" of role ").count() > 1) {
                        output.line(format_args!("\n{}", printable(&jobs.detail)))?;
                    }
                }
            }
            Action::Set { schedule, batched, mut target, job } => {
                target.settle(&mut work).await?;
                let name = job.name(&target.name);
                let id = calls::schedule(&mut work, &schedule, batched, &target.name, &name).await?;
                if output.json {
                    output.json(&json!({ "jobId": id, "jobName": name, "schedule": schedule }))?;
                } else {
                    output.line(format_args!(
                        "Job {id}, {}, has the schedule {}",
                        printable(&name),
                        printable(&schedule)
                    ))?;
                }
            }
            Action::Remove { mut target, job } => {
                if job.job_name.is_none() {
                    target.settle(&mut work).await?;
                }
                let name = job.name(&target.name);
                let removed = calls::unschedule(&mut work, &name).await?;
                if output.json {
                    output.json(&json!({ "jobName": name, "removed": removed }))?;
                } else {
                    let name = printable(&name);
                    match removed {
                        true => output.line(format_args!("Job {name} was removed"))?,
                        false => {
                            let there = match calls::job_names(&mut work).await? {
                                names if names.is_empty() => "there is none".into(),
                                names => format!("there is: {}", printable(&names.join(", "))),
                            };
                            output.line(format_args!("Job {name} does not exist; {there}"))?;
                        }
                    }
                }
            }
        }
        work.commit().await?;
        Ok(Exit::Done)
    }
}

fn show(output: &Output, target: &str, job: &Value) -> Result<()> {
    if job.is_null() {
        output.line(format_args!("No job runs target {}. To register one:", printable(target)))?;
        return output.whole(format_args!("backlog-cleanup schedule set --target {}", printable(&argument(target))));
    }
    if let Some(check) = job["check"].as_str() {
        output.line("pg_cron is in another database. To see the job:")?;
        return output.whole(printable(check));
    }
    let text = |key: &str| job[key].as_str().map(str::to_owned).unwrap_or_else(|| job[key].to_string());
    let mut table = output.table(["JOB", "NAME", "SCHEDULE", "COMMAND", "ROLE", "STATE"]);
    table.add_row([
        output.cell(text("jobId")),
        output.name(text("jobName")),
        output.cell(text("schedule")),
        output.cell(text("command")),
        output.name(text("username")),
        output.state(if job["active"] == true { "ok" } else { "paused" }),
    ]);
    output.line(table.trim_fmt())
}
