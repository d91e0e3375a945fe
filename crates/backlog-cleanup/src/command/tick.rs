use clap::Args;

use crate::client::analytics;
use crate::client::connect::{Server, begin};
use crate::failure::{Exit, Result};
use crate::terminal::output::Output;

/// Tick once, as the job does every five minutes: samples, alerts, adaptive targets, pruning
#[derive(Args)]
pub struct Tick {}

impl Tick {
    pub async fn run(self, server: &Server, output: &Output) -> Result<Exit> {
        let mut connection = server.connect().await?;
        let mut work = begin(&mut connection).await?;
        let tick = analytics::tick(&mut work).await?;
        work.commit().await?;
        if output.json {
            output.json(&tick)?;
            return Ok(Exit::Done);
        }
        if let Some(skipped) = tick["skipped"].as_str() {
            output.line(format_args!("Nothing was done: {}", crate::printable::printable(skipped)))?;
            return Ok(Exit::Done);
        }
        let mut table = output.table(["STEP", "TARGET", "TOOK", "SKIPPED OR FAILED"]);
        for step in tick["steps"].as_array().into_iter().flatten() {
            table.add_row([
                output.cell(step["step"].as_str().unwrap_or_default()),
                output.name(step["target"].as_str().unwrap_or_default()),
                output.cell(format!("{:.1} ms", step["milliseconds"].as_f64().unwrap_or_default())),
                output.cell(step["error"].as_str().or(step["skipped"].as_str()).unwrap_or_default()),
            ]);
        }
        output.line(table.trim_fmt())?;
        Ok(Exit::Done)
    }
}
