use std::collections::BTreeSet;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use croner::Cron;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use toml::{Table, Value};

use super::{Channel, Kind, alertmanager, webhook};
use crate::failure::{Failure, Result};
use crate::private;

/// The file of channels.
#[derive(Default)]
pub struct Channels {
    /// What messages call the database.
    pub database: Option<String>,
    pub channels: Vec<Arc<Channel>>,
}

/// When a channel is sent the report: a schedule, UTC.
#[derive(Deserialize)]
#[serde(try_from = "String")]
pub struct Report(Cron);

impl TryFrom<String> for Report {
    type Error = String;

    fn try_from(schedule: String) -> std::result::Result<Report, String> {
        Cron::from_str(&schedule).map(Report).map_err(|error| error.to_string())
    }
}

impl Report {
    /// When the next one is due.
    pub fn after(&self, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        self.0.find_next_occurrence(&now, false).ok()
    }
}

const EXAMPLE: &str = "[slack.ops]\nurl = { file = \"/etc/backlog-cleanup/slack\" }";

impl Channels {
    /// Reads a file. Errors: other users may read it; it is not TOML; a channel has a setting that it does not know, or lacks one.
    pub fn read(file: &Path) -> Result<Channels> {
        let name = file.display();
        let text = private::read(file, "the file of channels")?;
        let refuse = |what: String| {
            Failure::usage(format!("the file of channels \"{name}\" is not valid: {what}")).hint(EXAMPLE)
        };
        let mut table: Table = text.parse().map_err(|error: toml::de::Error| {
            // The error's own text shows the line, which may have a secret.
            let line = error.span().map_or(1, |span| text[..span.start].matches('\n').count() + 1);
            refuse(format!("line {line}: {}", error.message()))
        })?;
        let database = taken(&mut table, "database").map_err(refuse)?;
        let (mut names, mut channels) = (BTreeSet::new(), Vec::new());
        for (kind, of_kind) in table {
            let Value::Table(of_kind) = of_kind else { return Err(refuse(format!("\"{kind}\" is not a table"))) };
            for (name, settings) in of_kind {
                let Value::Table(settings) = settings else {
                    return Err(refuse(format!("\"{kind}.{name}\" is not a table")));
                };
                let channel = channel(&kind, &name, settings)
                    .map_err(|what| refuse(format!("channel \"{kind}.{name}\": {what}")))?;
                if !names.insert(name.clone()) {
                    return Err(refuse(format!("two channels have the name \"{name}\"")));
                }
                channels.push(Arc::new(channel));
            }
        }
        Ok(Channels { database, channels })
    }

    /// Whether a channel is the first of them by its name.
    pub fn is_first(&self, name: &str) -> bool {
        self.channels.iter().all(|channel| name <= channel.name.as_str())
    }

    /// A channel by its name. Errors: there is none.
    pub fn find(&self, name: &str) -> Result<Arc<Channel>> {
        self.channels.iter().find(|channel| channel.name == name).cloned().ok_or_else(|| {
            let there: Vec<&str> = self.channels.iter().map(|channel| channel.name.as_str()).collect();
            let missing = Failure::error(format!("channel \"{name}\" does not exist"));
            // undefined_object
            let missing = Failure { sqlstate: Some("42704".into()), ..missing };
            missing.hint(if there.is_empty() { EXAMPLE.into() } else { format!("there is {}", there.join(", ")) })
        })
    }
}

fn channel(kind: &str, name: &str, mut settings: Table) -> std::result::Result<Channel, String> {
    let targets = taken(&mut settings, "targets")?.unwrap_or_default();
    let report = taken(&mut settings, "report")?;
    let of_kind = Table::from_iter([(kind.to_owned(), Value::Table(settings))]);
    let settings: Kind = of_kind.try_into().map_err(|error: toml::de::Error| error.message().to_owned())?;
    if report.is_some() && matches!(settings, Kind::Alertmanager(_) | Kind::Pagerduty(_)) {
        return Err("it takes no report".into());
    }
    if let Kind::Webhook(webhook::Webhook { authorization: Some(_), url, .. })
    | Kind::Alertmanager(alertmanager::Alertmanager { authorization: Some(_), url, .. }) = &settings
        && !url.is_private()
    {
        return Err("authorization takes a url with https://".into());
    }
    if name.is_empty() || name.chars().count() > 100 {
        return Err("its name must have from 1 to 100 characters".into());
    }
    let secrets = settings.secrets();
    Ok(Channel { name: name.to_owned(), targets, report, kind: kind.to_owned(), settings, secrets })
}

/// Takes one setting out of a table.
fn taken<T: DeserializeOwned>(table: &mut Table, key: &str) -> std::result::Result<Option<T>, String> {
    table.remove(key).map(|value| value.try_into().map_err(|error| format!("{key}: {}", error.message()))).transpose()
}
