use serde::{Deserialize, Serialize};
use utoipa::IntoParams;

/// What is to be removed. A parameter that is not known is refused: it could be a mistyped `dryRun`.
#[derive(Clone, Deserialize, Serialize, IntoParams)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
pub struct Selection {
    /// A row of backlog_cleanup.target
    #[serde(default = "default_target")]
    #[param(required = false)]
    pub target: String,
    /// Only rows of this recipe
    pub recipe_id: Option<String>,
    /// Only rows of this failure type
    pub failure_type: Option<String>,
    /// Count, and remove nothing
    #[serde(default)]
    #[param(required = false)]
    pub dry_run: bool,
}

pub fn default_target() -> String {
    "generations".into()
}

#[derive(Clone, Copy, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    #[default]
    Regular,
    Emergency,
}

impl Mode {
    pub fn name(self) -> &'static str {
        match self {
            Mode::Regular => "regular",
            Mode::Emergency => "emergency",
        }
    }

    pub fn dry_run(self) -> &'static str {
        match self {
            Mode::Regular => {
                "SELECT backlog_cleanup_failed_generations($1::text, $2::text, $3::text, dry_run => true)::text"
            }
            Mode::Emergency => "SELECT backlog_cleanup_emergency($1::text, $2::text, $3::text, dry_run => true)::text",
        }
    }

    /// The number of a report that a person confirms.
    pub fn count(self) -> &'static str {
        match self {
            Mode::Regular => "cleanedUpGenerations",
            Mode::Emergency => "removedCount",
        }
    }
}
