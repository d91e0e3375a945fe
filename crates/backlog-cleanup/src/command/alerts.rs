use std::path::{Path, PathBuf};

use backlog_cleanup_report::Level;
use clap::{Args, Subcommand};
use serde_json::json;

use crate::channel::Channels;
use crate::client::alerts::{self, Alert, Rule};
use crate::client::calls;
use crate::client::connect::{Server, begin};
use crate::client::deliveries::{self, State};
use crate::client::targets;
use crate::failure::{Exit, Failure, Result};
use crate::printable::printable;
use crate::terminal::output::Output;
use crate::words::time;

/// Show alerts, rules and channels; snooze an alert, or take it on
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
    /// Show the rules, by which alerts open and resolve
    Rules,
    /// Send an alert that is none to a channel, and its resolution
    Test {
        /// Name of the channel
        #[arg(value_name = "CHANNEL")]
        channel: String,
        /// File of the channels, as of `backlog-cleanup serve`
        #[arg(long, value_name = "FILE", env = "BACKLOG_CLEANUP_CHANNELS")]
        channels: PathBuf,
    },
    /// Show how the deliveries to each channel go
    Channels,
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
            Action::List { .. } | Action::Rules | Action::Channels | Action::Test { .. } => Level::Monitor,
            Action::Snooze { .. } | Action::Acknowledge { .. } => Level::Operator,
        }
    }

    pub async fn run(self, server: &Server, output: &Output) -> Result<Exit> {
        if let Action::Test { channel, channels } = self.action {
            return test(&channel, &channels, server, output).await;
        }
        let mut connection = server.connect().await?;
        let mut work = begin(&mut connection).await?;
        match self.action {
            Action::List { target, all } => {
                let alerts = alerts::list(&mut work, target.as_deref(), all).await?;
                targets::known(&mut work, target.as_deref()).await?;
                if output.json { output.json(&alerts)? } else { list(output, &alerts)? }
            }
            Action::Snooze { id, interval, note } => {
                let until = calls::snooze(&mut work, id, &interval, note.as_deref()).await?;
                match output.json {
                    true => output.json(&json!({ "alert": id, "snoozedUntil": until }))?,
                    false => output.line(format_args!("Alert {id} is snoozed until {} UTC", time(until)))?,
                }
            }
            Action::Rules => {
                let rules = alerts::rules(&mut work).await?;
                if output.json { output.json(&rules)? } else { show_rules(output, &rules)? }
            }
            Action::Channels => {
                let channels = deliveries::states(&mut work).await?;
                if output.json { output.json(&channels)? } else { show_channels(output, &channels)? }
            }
            Action::Test { .. } => (),
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
            output.cell(alert.id.to_string()),
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
            output.whole(format_args!("alert {}: {}", alert.id, printable(fix)))?;
        }
    }
    Ok(())
}

/// Needs no database: what is tested is the way to the receiver.
async fn test(name: &str, file: &Path, server: &Server, output: &Output) -> Result<Exit> {
    let channels = Channels::read(file)?;
    let channel = channels.find(name)?;
    let database = match channels.database {
        Some(database) => database,
        None => server.options()?.get_database().unwrap_or("test").to_owned(),
    };
    channel
        .test(&database)
        .await
        .map_err(|failed| Failure::error(format!("channel \"{name}\" did not take the test: {}", failed.why)))?;
    match output.json {
        true => output.json(&json!({ "channel": name, "delivered": true }))?,
        false => output.line(format_args!("Channel {} took the test", printable(name)))?,
    }
    Ok(Exit::Done)
}

fn show_rules(output: &Output, rules: &[Rule]) -> Result<()> {
    let mut table = output.table(["RULE", "KIND", "TARGET", "OPENS ABOVE", "RESOLVES AT", "WITHIN", "STATE"]);
    for rule in rules {
        table.add_row([
            output.name(&rule.name),
            output.cell(&rule.kind),
            output.name(rule.target.as_deref().unwrap_or("all")),
            output.cell(rule.threshold.to_string()),
            output.cell(rule.resolve_at.unwrap_or(rule.threshold).to_string()),
            output.cell(rule.within.as_deref().unwrap_or("")),
            output.state(if rule.enabled { "ok" } else { "off" }),
        ]);
    }
    output.line(table.trim_fmt())
}

fn show_channels(output: &Output, channels: &[State]) -> Result<()> {
    if channels.is_empty() {
        return output.line("No server delivers alerts: backlog-cleanup serve --channels FILE");
    }
    let mut table = output.table(["CHANNEL", "KIND", "DELIVERED (UTC)", "STATE", "LAST ERROR"]);
    for channel in channels {
        let unserved =
            channel.is_unserved().then(|| format!("no server has served it since {} UTC", time(channel.seen_at)));
        let wrong = channel.last_error.clone().or(unserved);
        table.add_row([
            output.name(&channel.name),
            output.cell(&channel.kind),
            output.cell(channel.delivered_at.map_or(String::new(), time)),
            output.state(match (channel.failures, &wrong) {
                (0, None) => "ok",
                (0, Some(_)) => "warn",
                _ => "fail",
            }),
            output.cell(wrong.unwrap_or_default()),
        ]);
    }
    output.line(table.trim_fmt())
}
