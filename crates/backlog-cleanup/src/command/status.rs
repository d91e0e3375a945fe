use backlog_cleanup_report::StatusReport;
use clap::Args;
use sqlx::types::Json;

use crate::connect::Server;
use crate::failure::{Exit, Result};
use crate::output::Output;

/// How many rows there are, and which recipes have failures
#[derive(Args)]
pub struct Status {
    /// The table to look after: a row of backlog_cleanup.target
    #[arg(long, default_value = "generations")]
    target: String,
}

impl Status {
    pub async fn run(self, server: &Server, output: &Output) -> Result<Exit> {
        let mut connection = server.connect().await?;
        let Json(report): Json<StatusReport> = sqlx::query_scalar("SELECT backlog_cleanup_status_json($1::text)")
            .bind(&self.target)
            .fetch_one(&mut connection)
            .await?;
        if output.json {
            output.json(&report);
            return Ok(Exit::Done);
        }
        let mut table = output.table(["recipe", "failed", "removable", "oldest"]);
        for recipe in &report.recipes_with_failed_generations {
            table.add_row([
                recipe.recipe_name.clone(),
                recipe.failed_count.to_string(),
                recipe.removable_count.to_string(),
                recipe.oldest_failed_age.clone().unwrap_or_default(),
            ]);
        }
        println!("{table}");
        Ok(Exit::Done)
    }
}
