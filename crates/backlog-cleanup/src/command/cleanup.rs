use clap::Args;

use super::selection::{Length, Selection, Trial};
use crate::client::calls;
use crate::client::connect::Server;
use crate::failure::{Exit, Result};
use crate::terminal::interrupt::Connections;
use crate::terminal::output::Output;
use crate::terminal::report::Report;

/// Remove the removable rows in one transaction
///
/// Removable are the rows in scope from before the cutoff, except the newest of each recipe. The transaction is all or nothing and holds its locks
/// to the end; for a large or busy table see `run`.
#[derive(Args)]
pub struct Cleanup {
    #[command(flatten)]
    pub selection: Selection,
    #[command(flatten)]
    pub trial: Trial,
    /// Remove even more rows than the target's limits allow
    #[arg(long)]
    pub force: bool,
    #[command(flatten)]
    pub length: Length,
}

impl Cleanup {
    pub async fn run(self, server: &Server, output: &Output) -> Result<Exit> {
        let Cleanup { mut selection, trial, force, length } = self;
        let mut connections = Connections::open(server).await?;
        let mut work = connections.begin().await?;
        selection.target.settle(&mut work).await?;
        let cleanup = calls::cleanup(&mut work, selection.as_call(), trial.as_call(), force).await?;
        work.commit().await?;
        let report: Report = connections.in_one_transaction(cleanup, output).await?;
        report.show(output, length.limit)?;
        Ok(Exit::Done)
    }
}
