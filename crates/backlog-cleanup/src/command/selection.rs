use clap::Args;
use sqlx::postgres::PgConnection;

use crate::client::{calls, targets};
use crate::failure::{Failure, Result};
use crate::words::argument;

#[derive(Args)]
pub struct Target {
    /// Name of the target: a row of backlog_cleanup.target [default: generations, or the only one with a table]
    #[arg(long = "target", value_name = "NAME")]
    given: Option<String>,
    #[arg(skip)]
    pub name: String,
}

impl Target {
    /// Sets `name`. Errors: the argument is missing, and there are several usable targets, none named `generations`.
    pub async fn settle(&mut self, database: &mut PgConnection) -> Result<()> {
        self.name = match &self.given {
            Some(given) => given.clone(),
            None => {
                let names = targets::usable(database).await?;
                let meant = targets::meant(&names);
                meant
                    .map_err(|it| Failure::usage(it.to_string()).hint(format!("--target {}", argument(&it.names[0]))))?
                    .to_owned()
            }
        };
        Ok(())
    }
}

#[derive(Args)]
pub struct Selection {
    #[command(flatten)]
    pub target: Target,
    /// Only rows of this recipe
    #[arg(long, value_name = "ID")]
    recipe_id: Option<String>,
    /// Only rows of this failure type
    #[arg(long, value_name = "TYPE")]
    failure_type: Option<String>,
    /// Only rows of this status, one of those that runs remove
    #[arg(long)]
    status: Option<String>,
}

impl Selection {
    /// What is selected, where people call a recipe so; else all that a run is about: `the account` or `the target`.
    pub fn words(&self, group_word: &str, what: &str) -> String {
        match selected(group_word, &self.recipe_id, &self.failure_type, &self.status) {
            words if words.is_empty() => format!("the {what}"),
            words => words,
        }
    }

    /// The selection as an argument of a call.
    pub fn as_call(&self) -> calls::Selection<'_> {
        let Selection { target, recipe_id, failure_type, status } = self;
        calls::Selection {
            target: &target.name,
            recipe_id: recipe_id.as_deref(),
            failure_type: failure_type.as_deref(),
            status: status.as_deref(),
        }
    }
}

/// `recipe 1, failure type timeout`; empty if nothing is selected.
pub fn selected(
    group_word: &str,
    recipe_id: &Option<String>,
    failure_type: &Option<String>,
    status: &Option<String>,
) -> String {
    let selected = [(group_word, recipe_id), ("failure type", failure_type), ("status", status)];
    let selected = selected.iter().filter_map(|(what, value)| Some(format!("{what} {}", value.as_ref()?)));
    selected.collect::<Vec<_>>().join(", ")
}

#[derive(Args)]
pub struct Trial {
    /// Count the rows, remove nothing
    #[arg(long)]
    dry_run: bool,
    /// Remove the rows and roll it back: tells what would be kept back, how long it takes and how much WAL it writes
    #[arg(long, conflicts_with = "dry_run")]
    rehearse: bool,
}

impl Trial {
    /// As an argument of a call.
    pub fn as_call(&self) -> calls::Trial {
        match self {
            Trial { dry_run: true, .. } => calls::Trial::DryRun,
            Trial { rehearse: true, .. } => calls::Trial::Rehearsal,
            _ => calls::Trial::No,
        }
    }
}

#[derive(Args)]
pub struct Length {
    /// Number of recipes to show; JSON has all
    #[arg(long, value_name = "NUMBER", default_value_t = 20)]
    pub limit: usize,
}
