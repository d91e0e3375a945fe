use backlog_cleanup_report::capitalized;
use clap::Args;
use sqlx::postgres::PgConnection;

use super::selection::Selection;
use crate::client::calls::{self, Pace};
use crate::client::connect::begin;
use crate::client::targets::{self, Confirming};
use crate::failure::{Failure, Result};
use crate::printable::printable;
use crate::terminal::ask::ask;
use crate::terminal::output::Output;
use crate::terminal::report::Report;
use crate::words::{argument, in_scope, number};

/// How many of the rows in scope a run of a pace removes: all but those that are held.
fn bounded(report: &Report, pace: &Pace) -> String {
    let (removed, held) = (report.removed(), report.held());
    let rows = printable(&in_scope(removed + held, &report.nouns().row_word));
    match (pace.max_rows, &pace.max_duration) {
        (Some(most), _) if most < removed => format!("at most {} of {rows}", number(most)),
        (_, Some(_)) if held == 0 => format!("at most {rows}"),
        (_, Some(_)) => format!("at most {} of {rows}", number(removed)),
        _ if held == 0 => format!("all {rows}"),
        _ => format!("{} of {rows}", number(removed)),
    }
}

#[derive(Args)]
pub struct Confirmation {
    /// Confirm with the account's name, or the target's where it has no account, instead of typing it
    #[arg(long, value_name = "NAME")]
    confirm: Option<String>,
}

impl Confirmation {
    /// Shows what an emergency run would remove at this pace, and asks for the name that confirms it. Errors: the answer is
    /// another name.
    pub async fn ask(
        &self,
        connection: &mut PgConnection,
        selection: &Selection,
        pace: &Pace,
        output: &Output,
        limit: usize,
    ) -> Result<()> {
        let mut work = begin(connection).await?;
        // An unknown target is reported by the dry run.
        let Confirming { what, name } =
            targets::confirming(&mut work, &selection.target.name).await?.unwrap_or_default();
        let named = format!("--confirm {}", argument(&name));
        match &self.confirm {
            Some(confirmed) if *confirmed == name => return Ok(work.commit().await?),
            Some(confirmed) => {
                return Err(Failure::usage(format!("\"{confirmed}\" is not the {what}'s name")).hint(named));
            }
            None => {}
        }
        let emergency =
            calls::emergency(&mut work, selection.as_call(), calls::Trial::DryRun, pace.include_held).await?;
        let report: Report = emergency.report(&mut work).await?;
        work.commit().await?;
        let rows = bounded(&report, pace);
        if !output.json {
            let preview = output.page();
            report.show_recipes(&preview, limit)?;
            output.note(format_args!("{}\n", preview.into_text().trim_end()));
        }
        let question = format!(
            "{} of {} will be gone. Type the {what}'s name, {}, to continue:",
            capitalized(&rows),
            printable(&selection.words(&report.nouns().group_word, &what)),
            printable(&name)
        );
        let refusal = match ask(question, output)? {
            Some(typed) if typed == name => return Ok(()),
            Some(_) => "not confirmed: nothing was removed".to_owned(),
            None => format!("not confirmed: would remove {rows}"),
        };
        Err(Failure::usage(refusal).hint(named))
    }
}
