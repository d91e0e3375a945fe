use std::io::{IsTerminal, stdin};

use clap::Args;
use sqlx::postgres::PgConnection;
use sqlx::types::Json;

use super::selection::Selection;
use crate::failure::{Failure, Result};
use crate::terminal::output::{Output, counted, printable};
use crate::terminal::report::{Report, recipes};

/// That every failed row may go, whatever its age.
#[derive(Args)]
pub struct Confirmation {
    /// The account whose failed rows go, instead of typing it
    #[arg(long, value_name = "ACCOUNT")]
    confirm: Option<String>,
}

pub const EMERGENCY: &str =
    "SELECT backlog_cleanup_emergency(target => $1, recipe_id => $2, failure_type => $3, dry_run => $4)";

impl Confirmation {
    /// Shows what an emergency run would remove, per recipe, and asks for the account's name. Errors: it is not that.
    pub async fn ask(
        &self,
        connection: &mut PgConnection,
        selection: &Selection,
        output: &Output,
        limit: usize,
    ) -> Result<()> {
        let account = "SELECT account FROM backlog_cleanup.target WHERE name = $1";
        let account: Option<String> =
            sqlx::query_scalar(account).bind(&selection.target).fetch_optional(&mut *connection).await?;
        // The dry run says better than we that there is no such target.
        let account = account.unwrap_or_default();
        let named = format!("--confirm {account}");
        match &self.confirm {
            Some(confirmed) if *confirmed == account => return Ok(()),
            Some(confirmed) => {
                return Err(Failure::usage(format!("\"{confirmed}\" is not the account of this target")).hint(named));
            }
            None => {}
        }
        let Json(report): Json<Report> = sqlx::query_scalar(EMERGENCY)
            .bind(&selection.target)
            .bind(&selection.recipe_id)
            .bind(&selection.failure_type)
            .bind(true)
            .fetch_one(connection)
            .await?;
        let rows = counted(report.removed(), "failed row", "failed rows");
        if !output.json {
            let preview = output.page();
            recipes(&preview, report.details(), limit)?;
            output.note(format_args!("{}\n", preview.into_text().trim_end()));
        }
        if !stdin().is_terminal() {
            return Err(Failure::usage(format!("not confirmed: {rows} would go")).hint(named));
        }
        output.note(format_args!(
            "All {rows} of {} will be gone. Type the account's name to go on:",
            printable(&account)
        ));
        let mut typed = String::new();
        stdin().read_line(&mut typed)?;
        if typed.trim() == account {
            return Ok(());
        }
        Err(Failure::usage("not confirmed: nothing was removed").hint(named))
    }
}
