use clap::Args;
use serde_json::json;

use crate::client::connect::{Server, begin};
use crate::client::history;
use crate::failure::{Exit, Result};
use crate::terminal::output::Output;

/// Stop a batched run; its current batch ends early
///
/// Committed batches are permanent; the next run continues.
#[derive(Args)]
pub struct Stop {
    /// Id of the run
    #[arg(value_name = "RUN")]
    id: i64,
}

impl Stop {
    pub async fn run(self, server: &Server, output: &Output) -> Result<Exit> {
        let mut connection = server.connect().await?;
        let mut work = begin(&mut connection).await?;
        let stopping = history::stop(&mut work, self.id).await?;
        work.commit().await?;
        match (output.json, stopping) {
            (true, _) => output.json(&json!({ "runId": self.id, "stopping": stopping }))?,
            (false, true) => output.line(format_args!("Run {} stops; its current batch ends early", self.id))?,
            (false, false) => output.line(format_args!("Run {} has ended already", self.id))?,
        }
        Ok(Exit::Done)
    }
}
