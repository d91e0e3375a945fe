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
pub struct Length {
    /// Number of recipes to show; JSON has all
    #[arg(long, value_name = "NUMBER", default_value_t = 20)]
    pub limit: usize,
}
