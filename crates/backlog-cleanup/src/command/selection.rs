use backlog_cleanup_report::DEFAULT_TARGET;
use clap::Args;

use crate::client::calls;

#[derive(Args)]
pub struct Target {
    /// Name of the target: a row of backlog_cleanup.target
    #[arg(long = "target", value_name = "NAME", default_value = DEFAULT_TARGET)]
    pub name: String,
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
}

impl Selection {
    /// The selection as an argument of a call.
    pub fn as_call(&self) -> calls::Selection<'_> {
        let Selection { target, recipe_id, failure_type } = self;
        calls::Selection {
            target: &target.name,
            recipe_id: recipe_id.as_deref(),
            failure_type: failure_type.as_deref(),
        }
    }
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
