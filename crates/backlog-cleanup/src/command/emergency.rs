use clap::Args;

use super::confirmation::{Confirmation, EMERGENCY};
use super::selection::{Length, Selection};
use crate::client::connect::Server;
use crate::failure::{Exit, Result};
use crate::terminal::interrupt::Work;
use crate::terminal::output::Output;

/// Remove every failed row of the account, whatever its age, in one transaction
///
/// Shows what would go, and goes on when the account's name is typed.
#[derive(Args)]
pub struct Emergency {
    #[command(flatten)]
    pub selection: Selection,
    /// Only count what would go
    #[arg(long)]
    pub dry_run: bool,
    #[command(flatten)]
    pub confirmation: Confirmation,
    #[command(flatten)]
    pub length: Length,
}

impl Emergency {
    pub async fn run(self, server: &Server, output: &Output) -> Result<Exit> {
        let mut work = Work::start(server).await?;
        if !self.dry_run {
            self.confirmation.ask(work.second(), &self.selection, output, self.length.limit).await?;
        }
        let Selection { target, recipe_id, failure_type } = self.selection;
        let statement =
            sqlx::query_scalar(EMERGENCY).bind(target).bind(recipe_id).bind(failure_type).bind(self.dry_run);
        let report = work.report(statement, output, async |_, _| ()).await?;
        report.show(output, self.length.limit)?;
        Ok(Exit::Done)
    }
}
