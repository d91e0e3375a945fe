use clap::Args;
use serde::Serialize;
use sqlx::FromRow;
use sqlx::postgres::PgConnection;

use super::selection::Target;
use crate::client::connect::Server;
use crate::failure::{Exit, Result};
use crate::terminal::output::{Output, printable};

/// What is wrong with the target and around it, and the statement that mends it
///
/// Exit code 4 where a check fails.
#[derive(Args)]
pub struct Doctor {
    #[command(flatten)]
    target: Target,
    /// Exit code 4 also for warnings
    #[arg(long)]
    strict: bool,
}

/// A row of `backlog_cleanup_doctor()`.
#[derive(Serialize, FromRow)]
pub struct Finding {
    #[serde(rename = "check")]
    pub check_name: String,
    /// `ok`, `warn` or `fail`.
    pub status: String,
    pub detail: String,
    pub fix: Option<String>,
}

impl Doctor {
    pub async fn run(self, server: &Server, output: &Output) -> Result<Exit> {
        let findings = findings(&mut server.connect().await?, &self.target.target).await?;
        if output.json {
            output.json(&findings)?
        } else {
            show(output, &findings)?
        }
        let is_sick = |finding: &Finding| finding.status == "fail" || self.strict && finding.status == "warn";
        Ok(if findings.iter().any(is_sick) { Exit::Unhealthy } else { Exit::Done })
    }
}

pub async fn findings(connection: &mut PgConnection, target: &str) -> Result<Vec<Finding>> {
    let doctor = "SELECT check_name, status, detail, fix FROM backlog_cleanup_doctor($1)";
    Ok(sqlx::query_as(doctor).bind(target).fetch_all(connection).await?)
}

/// A line per check, then what to type, which no table breaks into lines.
pub fn show(output: &Output, findings: &[Finding]) -> Result<()> {
    let mut table = output.table(["CHECK", "STATUS", "DETAIL"]);
    for finding in findings {
        table.add_row([output.cell(&finding.check_name), output.state(&finding.status), output.cell(&finding.detail)]);
    }
    output.line(table.trim_fmt())?;
    let fixes: Vec<_> =
        findings.iter().filter_map(|finding| Some((&finding.check_name, finding.fix.as_ref()?))).collect();
    if !fixes.is_empty() {
        output.line("\nTo type in psql:")?;
    }
    for (check, fix) in fixes {
        output.line(format_args!("-- {check}\n{};", printable(fix).trim_end_matches(';')))?;
    }
    Ok(())
}
