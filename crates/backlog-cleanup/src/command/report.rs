use clap::Args;
use serde_json::json;

use super::selection::Target;
use crate::client::calls;
use crate::client::connect::{Server, begin};
use crate::failure::{Exit, Result};
use crate::printable::printable;
use crate::terminal::output::Output;

/// Tell what has happened to the target in a week, on one page
#[derive(Args)]
pub struct Report {
    /// How far back, from 1 hour to 3 years
    #[arg(long, value_name = "INTERVAL", default_value = calls::WEEK)]
    since: String,
    /// As Markdown, for a mail
    #[arg(long)]
    markdown: bool,
    #[command(flatten)]
    target: Target,
}

impl Report {
    pub async fn run(mut self, server: &Server, output: &Output) -> Result<Exit> {
        let mut connection = server.connect().await?;
        let mut work = begin(&mut connection).await?;
        self.target.settle(&mut work).await?;
        let format = if self.markdown { "markdown" } else { "text" };
        let report = calls::report(&mut work, &self.since, &self.target.name, format).await?;
        work.commit().await?;
        match output.json {
            true => output.json(&json!({ "target": self.target.name, "since": self.since, "report": report }))?,
            false => report.lines().try_for_each(|line| output.whole(printable(line)))?,
        }
        Ok(Exit::Done)
    }
}
