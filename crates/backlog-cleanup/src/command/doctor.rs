use clap::Args;

use super::selection::Target;
use crate::client::calls::{self, Finding};
use crate::client::connect::{Server, begin};
use crate::failure::{Exit, Result};
use crate::printable::printable;
use crate::terminal::output::Output;

/// Check the target and its surroundings, and print the statements that fix what is wrong
///
/// Exits with 4 if a check fails.
#[derive(Args)]
pub struct Doctor {
    #[command(flatten)]
    target: Target,
    /// Exit with 4 also if a check warns
    #[arg(long)]
    strict: bool,
}

impl Doctor {
    pub async fn run(mut self, server: &Server, output: &Output) -> Result<Exit> {
        let mut connection = server.connect().await?;
        let mut work = begin(&mut connection).await?;
        self.target.settle(&mut work).await?;
        let findings = calls::doctor(&mut work, &self.target.name).await?;
        work.commit().await?;
        if output.json {
            output.json(&findings)?
        } else {
            show(output, &findings)?
        }
        let is_sick = |finding: &Finding| finding.status == "fail" || self.strict && finding.status == "warn";
        Ok(if findings.iter().any(is_sick) { Exit::Unhealthy } else { Exit::Done })
    }
}

/// Prints a line for each check, then the statements, outside of the table so that they can be copied.
pub fn show(output: &Output, findings: &[Finding]) -> Result<()> {
    let mut table = output.table(["CHECK", "STATUS", "DETAIL"]);
    for finding in findings {
        table.add_row([output.cell(&finding.check), output.state(&finding.status), output.cell(&finding.detail)]);
    }
    output.line(table.trim_fmt())?;
    let fixes: Vec<_> = findings.iter().filter_map(|finding| Some((&finding.check, finding.fix.as_ref()?))).collect();
    if !fixes.is_empty() {
        output.line("\nStatements that fix it:")?;
    }
    for (check, fix) in fixes {
        output.whole(format_args!("-- {check}\n{};", printable(fix).trim_end_matches(';')))?;
    }
    Ok(())
}
