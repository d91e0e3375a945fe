use clap::Args;

use super::confirmation::Confirmation;
use super::selection::{Length, Selection, Trial};
use crate::client::calls;
use crate::client::connect::Server;
use crate::failure::{Exit, Result};
use crate::terminal::interrupt::Connections;
use crate::terminal::output::Output;
use crate::terminal::report::Report;

/// Remove all rows in scope, including recent ones, in one transaction
///
/// Shows what would be removed, and asks for the name of the account, or of a target without one.
#[derive(Args)]
pub struct Emergency {
    #[command(flatten)]
    pub selection: Selection,
    #[command(flatten)]
    pub trial: Trial,
    /// Remove also what policies hold
    #[arg(long)]
    pub include_held: bool,
    #[command(flatten)]
    pub confirmation: Confirmation,
    #[command(flatten)]
    pub length: Length,
}

impl Emergency {
    pub async fn run(self, server: &Server, output: &Output) -> Result<Exit> {
        let Emergency { mut selection, trial, include_held, confirmation, length } = self;
        let mut connections = Connections::open(server).await?;
        let mut work = connections.begin().await?;
        selection.target.settle(&mut work).await?;
        work.commit().await?;
        if trial.as_call() == calls::Trial::No {
            let pace = calls::Pace { include_held, ..calls::Pace::default() };
            confirmation.ask(connections.second(), &selection, &pace, output, length.limit).await?;
        }
        let mut work = connections.begin().await?;
        let emergency = calls::emergency(&mut work, selection.as_call(), trial.as_call(), include_held).await?;
        work.commit().await?;
        let report: Report = connections.in_one_transaction(emergency, output).await?;
        report.show(output, length.limit)?;
        Ok(Exit::Done)
    }
}
