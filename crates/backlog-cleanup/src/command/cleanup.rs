use clap::Args;

use super::selection::{Length, Selection};
use crate::client::connect::Server;
use crate::failure::{Exit, Result};
use crate::terminal::interrupt::Work;
use crate::terminal::output::Output;

/// Remove the old failed rows beyond the newest of each recipe, in one transaction
///
/// All or nothing; locks are held to the end. On a large table, or beside others, see `run`.
#[derive(Args)]
pub struct Cleanup {
    #[command(flatten)]
    pub selection: Selection,
    /// Only count what would go
    #[arg(long)]
    pub dry_run: bool,
    /// Let the run through though it would remove more than the target allows
    #[arg(long)]
    pub force: bool,
    #[command(flatten)]
    pub length: Length,
}

const CLEANUP: &str = "
    SELECT backlog_cleanup_failed_generations(target => $1, recipe_id => $2, failure_type => $3, dry_run => $4, force => $5)";

impl Cleanup {
    pub async fn run(self, server: &Server, output: &Output) -> Result<Exit> {
        let Selection { target, recipe_id, failure_type } = self.selection;
        let statement = sqlx::query_scalar(CLEANUP)
            .bind(target)
            .bind(recipe_id)
            .bind(failure_type)
            .bind(self.dry_run)
            .bind(self.force);
        let report = Work::start(server).await?.report(statement, output, async |_, _| ()).await?;
        report.show(output, self.length.limit)?;
        Ok(Exit::Done)
    }
}
