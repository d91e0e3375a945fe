use clap::Args;

use super::selection::Target;
use crate::client::connect::{Server, begin};
use crate::client::policies::{self, Verdict};
use crate::client::targets;
use crate::failure::{Exit, Result};
use crate::terminal::output::Output;
use crate::words::{number, time};

/// Show why a row stays or goes, of a run that starts now
#[derive(Args)]
pub struct Explain {
    /// Id of the row
    #[arg(value_name = "ID", allow_negative_numbers = true)]
    id: String,
    #[command(flatten)]
    target: Target,
}

impl Explain {
    pub async fn run(mut self, server: &Server, output: &Output) -> Result<Exit> {
        let mut connection = server.connect().await?;
        let mut work = begin(&mut connection).await?;
        self.target.settle(&mut work).await?;
        let verdict = policies::explain(&mut work, &self.target.name, &self.id).await?;
        let nouns = targets::nouns(&mut work, &self.target.name).await?;
        work.commit().await?;
        if output.json {
            output.json(&verdict)?
        } else {
            show(output, &nouns.row_word, &self.id, &verdict)?
        }
        Ok(Exit::Done)
    }
}

fn show(output: &Output, row_word: &str, id: &str, verdict: &Verdict) -> Result<()> {
    let mut table = output.table([&row_word.to_uppercase(), id]);
    let at = |instant: Option<chrono::DateTime<chrono::Utc>>| instant.map(|at| format!("{} UTC", time(at)));
    let rows = [
        ("verdict", Some(verdict.verdict.clone())),
        ("reason", Some(verdict.reason.clone())),
        ("policy", verdict.policy.clone()),
        ("keep", verdict.keep.map(|keep| number(keep.into()))),
        ("rank", verdict.rank.map(number)),
        ("expires", at(verdict.expires_at)),
        ("removable", at(verdict.removable_at)),
    ];
    for (name, value) in rows {
        if let Some(value) = value {
            table.add_row([output.cell(name), output.cell(value)]);
        }
    }
    output.line(table.trim_fmt())
}
