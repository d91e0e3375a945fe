mod extension;
mod index;
mod job;
mod test_job;
mod tick;

use clap::Args;
use serde::Serialize;

use super::doctor;
use super::selection::Target;
use crate::client::calls::{self, Finding};
use crate::client::connect::{Server, begin};
use crate::failure::{Exit, Failure, Result};
use crate::printable::printable;
use crate::terminal::ask::ask;
use crate::terminal::output::Output;

/// Create the extension, register the job, build the index, and check the result
///
/// Keeps what exists, and asks before it registers the job, which removes rows every night. Prints the SQL that a more
/// privileged role must run. Exits with 1 if there is any or no job, with 4 if a check of doctor fails.
#[derive(Args)]
pub struct Setup {
    #[command(flatten)]
    target: Target,
    /// Schema in which to create the extension
    #[arg(long, value_name = "NAME", default_value = "public")]
    schema: String,
    /// Schedule of the job: minute, hour, day, month and weekday, in UTC; or auto, the quietest hour of the day [default of a new job: 0 2 * * *]
    #[arg(long, value_name = "CRON")]
    schedule: Option<String>,
    /// Run the job in batches, each committed
    #[arg(long)]
    batched: bool,
    /// Register the nightly job without asking
    #[arg(long)]
    arm: bool,
    /// Register the job of the tick without asking
    #[arg(long)]
    tick: bool,
    /// Fire a job that removes nothing, a dry run, and look whether it runs within two minutes
    #[arg(long)]
    test_job: bool,
    /// Register the job and change what exists without asking
    #[arg(long, short)]
    yes: bool,
}

/// The outcome of one part of the setup.
#[derive(Serialize)]
struct Step {
    step: &'static str,
    /// `created`, `changed`, `kept`, `ran`, `failed`, `not armed`, `left out` or `to do`.
    outcome: &'static str,
    detail: String,
    /// Statements for a more privileged role.
    statements: Vec<String>,
}

impl Step {
    fn new(step: &'static str, outcome: &'static str, detail: impl Into<String>) -> Step {
        Step { step, outcome, detail: detail.into(), statements: Vec::new() }
    }

    fn to_do(step: &'static str, why: &Failure, statements: Vec<String>) -> Step {
        Step { step, outcome: "to do", detail: why.message.clone(), statements }
    }
}

#[derive(Serialize)]
struct Done {
    steps: Vec<Step>,
    doctor: Vec<Finding>,
}

impl Setup {
    pub async fn run(mut self, server: &Server, output: &Output) -> Result<Exit> {
        let mut connection = server.connect_without_extension().await?;
        let mut done = Done { steps: Vec::new(), doctor: Vec::new() };
        let extension = extension::set_up(&self, &mut connection).await?;
        let is_there = extension.outcome != "to do";
        done.say(output, extension)?;
        if is_there {
            let mut work = begin(&mut connection).await?;
            self.target.settle(&mut work).await?;
            work.commit().await?;
            for step in job::set_up(&self, server, &mut connection, output).await? {
                done.say(output, step)?;
            }
            let tick = tick::set_up(&self, &mut connection, output).await?;
            done.say(output, tick)?;
            let index = index::set_up(&self, server, output).await?;
            done.say(output, index)?;
            let mut work = begin(&mut connection).await?;
            done.doctor = calls::doctor(&mut work, &self.target.name).await?;
            work.commit().await?;
        }
        let (is_left, is_sick) = (
            done.steps.iter().any(|step| ["to do", "failed", "not armed"].contains(&step.outcome)),
            done.doctor.iter().any(|finding| finding.status == "fail"),
        );
        match output.json {
            true => output.json(&done)?,
            false => done.show(output)?,
        }
        Ok(match (is_left, is_sick) {
            (true, _) => Exit::Error,
            (_, true) => Exit::Unhealthy,
            _ => Exit::Done,
        })
    }

    /// Asks a yes-or-no question that an argument answers, too. Without a terminal the answer is no.
    fn agrees(&self, is_given: bool, argument: &str, question: &str, output: &Output) -> Result<bool> {
        if is_given {
            return Ok(true);
        }
        let answer = ask(format_args!("{question} [y/N]"), output)?;
        if answer.is_none() {
            output.note(format_args!("{question} Not done; use {argument}."));
        }
        Ok(answer.is_some_and(|answer| matches!(answer.to_lowercase().as_str(), "y" | "yes")))
    }
}

impl Done {
    fn say(&mut self, output: &Output, step: Step) -> Result<()> {
        if !output.json {
            output.line(format_args!("{:<10} {:<9} {}", step.step, step.outcome, printable(&step.detail)))?;
        }
        self.steps.push(step);
        Ok(())
    }

    fn show(&self, output: &Output) -> Result<()> {
        let left: Vec<_> = self.steps.iter().filter(|step| !step.statements.is_empty()).collect();
        if !left.is_empty() {
            output.line("\nTo be run by a more privileged role:")?;
        }
        for step in left {
            output.line(format_args!("-- {}: {}", step.step, printable(&step.detail)))?;
            for statement in &step.statements {
                output.whole(format_args!("{};", printable(statement).trim_end_matches(';')))?;
            }
        }
        if self.doctor.is_empty() {
            return Ok(());
        }
        output.line("")?;
        doctor::show(output, &self.doctor)
    }
}
