use backlog_cleanup_report::Level;
use clap::{Args, Subcommand};
use serde_json::json;

use crate::client::alerts::{self, Alert};
use crate::client::calls;
use crate::client::connect::{Server, begin};
use crate::failure::{Exit, Result};
use crate::terminal::output::Output;
use crate::words::time;

/// Show the alerts that are open, snooze one, or take one on
#[derive(Args)]
pub struct Alerts {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Show the alerts that are open, of all targets
    List {
        /// Only those of this target, and those of none
        #[arg(long, value_name = "NAME")]
        target: Option<String>,
        /// Also those that have resolved
        #[arg(long)]
        all: bool,
    },
    /// Keep an alert from being told of for a while
    Snooze {
        /// Id of the alert
        #[arg(value_name = "ALERT")]
        id: i64,
        /// For how long, such as '2 hours'
        #[arg(value_name = "INTERVAL")]
        interval: String,
        /// Note for people
        #[arg(long, value_name = "TEXT")]
        note: Option<String>,
    },
    /// Say that you have taken an alert on
    Acknowledge {
        /// Id of the alert
        #[arg(value_name = "ALERT")]
        id: i64,
        /// Note for people
        #[arg(long, value_name = "TEXT")]
        note: Option<String>,
    },
}

impl Alerts {
    pub fn level(&self) -> Level {
        match self.action {
            Action::List { .. } => Level::Monitor,
            Action::Snooze { .. } | Action::Acknowledge { .. } => Level::Operator,
        }
    }

    pub async fn run(self, server: &Server, output: &Output) -> Result<Exit> {
        let mut connection = server.connect().await?;
        let mut work = begin(&mut connection).await?;
        match self.action {
            Action::List { target, all } => {
                let alerts = alerts::list(&mut work, target.as_deref(), all).await?;
                if output.json { output.json(&alerts)? } else { list(output, &alerts)? }
            }
            Action::Snooze { id, interval, note } => {
                let until = calls::snooze(&mut work, id, &interval, note.as_deref()).await?;
                match output.json {
                    true => output.json(&json!({ "alert": id, "snoozedUntil": until }))?,
                    false => output.line(format_args!("Alert {id} is snoozed until {} UTC", time(until)))?,
                }
            }
            Action::Acknowledge { id, note } => {
                calls::acknowledge(&mut work, id, note.as_deref()).await?;
                match output.json {
                    true => output.json(&json!({ "alert": id, "acknowledged": true }))?,
                    false => output.line(format_args!("Alert {id} is yours"))?,
                }
            }
        }
        work.commit().await?;
        Ok(Exit::Done)
    }
}

fn list(output: &Output, alerts: &[Alert]) -> Result<()> {
    if alerts.is_empty() {
        return output.line("No alert is open");
    }
    let mut table = output.table(["ALERT", "STATE", "OPENED (UTC)", "RULE", "WHAT IS WRONG"]);
    for alert in alerts {
        table.add_row([
            output.count(alert.id),
            output.cell(alert.state()),
            output.cell(time(alert.opened_at)),
            output.name(&alert.rule),
            output.cell(&alert.sentence),
        ]);
    }
    output.unbroken(&mut table, ["ALERT", "STATE"], ["RULE"]);
    output.line(table.trim_fmt())?;
    // As they stand: to be typed.
    for (alert, fix) in alerts.iter().filter_map(|alert| alert.fix.as_ref().map(|fix| (alert, fix))) {
        if alert.resolved_at.is_none() {
            output.whole(format_args!("alert {}: {}", alert.id, crate::printable::printable(fix)))?;
        }
    }
    Ok(())
}
