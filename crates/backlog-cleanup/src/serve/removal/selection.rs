use backlog_cleanup_report::DEFAULT_TARGET;
use serde::{Deserialize, Serialize};
use utoipa::IntoParams;

use crate::client::calls;

/// The rows to remove. Unknown parameters are refused: one could be a mistyped `dryRun`.
#[derive(Clone, Deserialize, Serialize, IntoParams)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
pub struct Selection {
    /// Name of the target: a row of backlog_cleanup.target
    #[serde(default = "default_target")]
    #[param(required = false)]
    pub target: String,
    /// Only rows of this recipe
    pub recipe_id: Option<String>,
    /// Only rows of this failure type
    pub failure_type: Option<String>,
    /// Count the rows, remove nothing
    #[serde(default)]
    #[param(required = false)]
    pub dry_run: bool,
    /// Remove the rows and roll it back: tells what would be kept back, how long it takes and how much WAL it writes
    #[serde(default)]
    #[param(required = false)]
    pub rehearse: bool,
}

pub fn default_target() -> String {
    DEFAULT_TARGET.into()
}

impl Selection {
    /// The selection as an argument of a call.
    pub fn as_call(&self) -> calls::Selection<'_> {
        calls::Selection {
            target: &self.target,
            recipe_id: self.recipe_id.as_deref(),
            failure_type: self.failure_type.as_deref(),
        }
    }
}
