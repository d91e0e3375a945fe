use backlog_cleanup_report::{Level, Nouns};
use clap::{Args, Subcommand};
use serde_json::json;

use super::selection::{Length, Target};
use crate::client::columns;
use crate::client::connect::{Server, begin};
use crate::client::policies::{self, Simulated};
use crate::client::targets;
use crate::failure::{Exit, Result};
use crate::printable::printable;
use crate::terminal::output::Output;
use crate::terminal::report::more;
use crate::words::{count, number};

/// Show the policies of the target, write or drop one, or simulate it
///
/// A policy is for a recipe, a failure type, a status, any combination of them, or for all other rows. A row has one: that which
/// names its recipe, or else its failure type, or else its status.
#[derive(Args)]
pub struct Policy {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Show the policies, with their rows in the last regular run
    List {
        #[command(flatten)]
        target: Target,
    },
    /// Write a policy; what is not given stays as it is, or has its default
    Set {
        #[command(flatten)]
        names: Names,
        #[command(flatten)]
        values: Values,
        /// Note for people; an empty one is none
        #[arg(long, value_name = "TEXT")]
        note: Option<String>,
        #[command(flatten)]
        target: Target,
    },
    /// Remove a policy; its rows have the next one then
    Drop {
        #[command(flatten)]
        names: Names,
        #[command(flatten)]
        target: Target,
    },
    /// Show what would go and stay if `set` were called so, beside what goes and stays now; nothing changes
    Simulate {
        #[command(flatten)]
        names: Names,
        #[command(flatten)]
        values: Values,
        #[command(flatten)]
        target: Target,
        #[command(flatten)]
        length: Length,
    },
}

/// What the policy is for.
#[derive(Args)]
struct Names {
    /// For rows of this recipe
    #[arg(long, alias = "recipe", value_name = "ID", allow_negative_numbers = true)]
    recipe_id: Option<String>,
    /// For rows of this failure type
    #[arg(long, value_name = "TYPE")]
    failure_type: Option<String>,
    /// For rows of this status
    #[arg(long)]
    status: Option<String>,
}

#[derive(Args)]
struct Values {
    /// A row older than this is expired, such as '30 days'
    #[arg(long, value_name = "INTERVAL")]
    max_age: Option<String>,
    /// Number of the newest expired rows of a recipe that stay
    #[arg(long, value_name = "ROWS", allow_negative_numbers = true)]
    keep: Option<i32>,
    /// Rows older than this go even if they are among those newest
    #[arg(long, value_name = "INTERVAL")]
    max_keep_age: Option<String>,
    /// Take the maximal age of those newest back
    #[arg(long, conflicts_with = "max_keep_age")]
    no_max_keep_age: bool,
    /// Enable it
    #[arg(long)]
    enabled: bool,
    /// Make it a hold, under which nothing goes; of the default policy, regular runs remove nothing under it
    #[arg(long, conflicts_with = "enabled")]
    hold: bool,
}

impl From<Names> for policies::Names {
    fn from(Names { recipe_id, failure_type, status }: Names) -> policies::Names {
        policies::Names { recipe_id, failure_type, status }
    }
}

impl Values {
    fn with(self, note: Option<String>) -> policies::Values {
        let Values { max_age, keep, max_keep_age, no_max_keep_age, enabled, hold } = self;
        let enabled = (enabled || hold).then_some(enabled);
        policies::Values { max_age, keep, max_keep_age, no_max_keep_age, enabled, note }
    }
}

impl Policy {
    pub fn level(&self) -> Level {
        match self.action {
            Action::List { .. } | Action::Simulate { .. } => Level::Monitor,
            Action::Set { .. } | Action::Drop { .. } => Level::Admin,
        }
    }

    pub async fn run(self, server: &Server, output: &Output) -> Result<Exit> {
        let mut connection = server.connect().await?;
        let mut work = begin(&mut connection).await?;
        match self.action {
            Action::List { mut target } => {
                target.settle(&mut work).await?;
                let policies = policies::list(&mut work, &target.name).await?;
                // Each target has a default policy.
                if policies.is_empty() {
                    return Err(columns::missing(&target.name));
                }
                if output.json { output.json(&policies)? } else { list(output, &policies)? }
            }
            Action::Set { names, values, note, mut target } => {
                target.settle(&mut work).await?;
                let policy = policies::set(&mut work, &target.name, &names.into(), &values.with(note)).await?;
                if output.json { output.json(&policy)? } else { list(output, &[policy])? }
            }
            Action::Drop { names, mut target } => {
                target.settle(&mut work).await?;
                let (name, dropped) = policies::drop(&mut work, &target.name, &names.into()).await?;
                match (output.json, dropped) {
                    (true, _) => output.json(&json!({ "policy": name, "dropped": dropped }))?,
                    (false, true) => output.line(format_args!("Policy {} was dropped", printable(&name)))?,
                    (false, false) => output.line(format_args!("Policy {} does not exist", printable(&name)))?,
                }
            }
            Action::Simulate { names, values, mut target, length } => {
                target.settle(&mut work).await?;
                let groups = policies::simulate(&mut work, &target.name, &names.into(), &values.with(None)).await?;
                let nouns = targets::nouns(&mut work, &target.name).await?;
                if output.json { output.json(&groups)? } else { simulated(output, &groups, &nouns, length.limit)? }
            }
        }
        work.commit().await?;
        Ok(Exit::Done)
    }
}

fn list(output: &Output, policies: &[policies::Policy]) -> Result<()> {
    let mut table =
        output.table(["POLICY", "STATE", "MAX AGE", "KEEP", "MAX KEEP AGE", "IN SCOPE", "REMOVED", "RUN", "NOTE"]);
    let known = |figure: Option<i64>| figure.map_or(output.cell(""), |figure| output.count(figure));
    for policy in policies {
        table.add_row([
            output.name(&policy.policy),
            output.cell(policy.state()),
            output.cell(&policy.max_age),
            output.count(policy.keep.into()),
            output.cell(policy.max_keep_age.as_deref().unwrap_or_default()),
            known(policy.in_scope),
            known(policy.removed),
            output.cell(policy.run_id.map(|run| run.to_string()).unwrap_or_default()),
            output.name(policy.note.as_deref().unwrap_or_default()),
        ]);
    }
    output.unbroken(&mut table, ["STATE", "KEEP", "IN SCOPE", "REMOVED"], ["RUN", "NOTE"]);
    output.line(table.trim_fmt())
}

/// Prints the recipes for which something changes, at most `limit` of them, and the sum.
fn simulated(output: &Output, groups: &[Simulated], nouns: &Nouns, limit: usize) -> Result<()> {
    let Nouns { group_word, row_word } = nouns;
    let changed: Vec<&Simulated> = groups.iter().filter(|group| group.changes()).collect();
    if !changed.is_empty() && limit > 0 {
        let group = group_word.to_uppercase();
        let mut table =
            output.table(["POLICY", "ID", &group, "REMOVABLE NOW", "KEPT NOW", "REMOVABLE THEN", "KEPT THEN"]);
        for group in changed.iter().take(limit) {
            table.add_row([
                output.name(&group.policy),
                output.name(group.recipe_id.as_deref().unwrap_or_default()),
                output.name(&group.recipe_name),
                output.count(group.removable_now),
                output.count(group.kept_now),
                output.count(group.removable_then),
                output.count(group.kept_then),
            ]);
        }
        output.line(table.trim_fmt())?;
        more(output, group_word, changed.len(), limit)?;
    }
    if changed.is_empty() {
        output.line(format_args!("Nothing changes for any {}", printable(group_word)))?;
    }
    let sum = |of: fn(&Simulated) -> i64| groups.iter().map(of).sum::<i64>();
    let (now, then) = (sum(|group| group.removable_now), sum(|group| group.removable_then));
    let all = printable(&count(now + sum(|group| group.kept_now), row_word));
    output.line(format_args!("Removable are {} of {all} in scope now, and {} then", number(now), number(then)))
}
