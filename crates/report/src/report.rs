use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What a regular run did, or in a dry run would do.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct RegularReport {
    pub success: bool,
    pub message: String,
    /// NULL for a dry run, which is not recorded.
    pub run_id: Option<i64>,
    pub target: String,
    pub mode: String,
    pub dry_run: bool,
    /// Failed rows before this instant are old; NULL where the policy is disabled.
    pub cutoff: Option<String>,
    pub total_failed_generations: i64,
    pub cleaned_up_generations: i64,
    pub recipes_affected: i64,
    pub cleanup_details: Vec<CleanupDetail>,
    pub duration_ms: i64,
}

/// One recipe of a run; failed = cleaned + kept.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct CleanupDetail {
    pub recipe_id: Value,
    pub recipe_name: String,
    pub failed_count: i64,
    pub cleaned_count: i64,
    pub kept_count: i64,
}

/// What an emergency run did, or in a dry run would do.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct EmergencyReport {
    pub success: bool,
    pub message: String,
    pub run_id: Option<i64>,
    pub target: String,
    pub mode: String,
    pub dry_run: bool,
    pub removed_count: i64,
    pub recipes_affected: i64,
    /// 0.1.0 did not have it.
    #[serde(default)]
    pub cleanup_details: Vec<CleanupDetail>,
    pub duration_ms: i64,
}

/// What a batched run did: the report of its mode, and how it went, which a dry run does not tell.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Batched<Report> {
    #[serde(flatten)]
    pub report: Report,
    /// `completed`, or `stopped` by `max_duration`, `max_rows` or `backlog_cleanup_stop`.
    #[cfg_attr(feature = "openapi", schema(required = false))]
    pub state: String,
    /// Committed batches that removed rows.
    #[cfg_attr(feature = "openapi", schema(required = false))]
    pub batches: i64,
    /// Background workers that it got; 0 where the session did all itself.
    #[cfg_attr(feature = "openapi", schema(required = false))]
    pub workers: i64,
    /// Rows that somebody else had locked.
    #[cfg_attr(feature = "openapi", schema(required = false))]
    pub skipped_count: i64,
    /// Rows that a trigger, a rule or a foreign key did not let go.
    #[cfg_attr(feature = "openapi", schema(required = false))]
    pub kept_back_count: i64,
    #[cfg_attr(feature = "openapi", schema(required = false))]
    pub batch_milliseconds: BatchMilliseconds,
}

/// How long the batches of a run held their locks; 0 where there were none.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct BatchMilliseconds {
    pub median: f64,
    pub p99: f64,
    pub max: f64,
}

/// The state of a target: the account's rows by status, and the recipes that have failures.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct StatusReport {
    pub success: bool,
    pub total_generations: i64,
    pub completed_generations: i64,
    pub failed_generations: i64,
    pub pending_generations: i64,
    pub processing_generations: i64,
    pub removable_generations: i64,
    pub recipes_with_failed_generations: Vec<RecipeFailures>,
    pub schedule: Value,
    pub last_run: Value,
    pub warnings: Vec<Warning>,
}

/// What makes runs slow, and the statement that mends it.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Warning {
    pub message: String,
    pub hint: String,
}

/// One recipe that has failed rows.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct RecipeFailures {
    pub recipe_id: Value,
    pub recipe_name: String,
    pub failed_count: i64,
    pub removable_count: i64,
    pub oldest_failed_at: Option<String>,
    pub oldest_failed_age: Option<String>,
}

/// A recipe's id as JSON: a number where the column is a number, a string elsewhere, null for NULL.
pub fn recipe_id(id: Option<&str>, is_number: bool) -> Value {
    match id {
        None => Value::Null,
        Some(id) if is_number => match id.parse::<i64>() {
            Ok(id) => id.into(),
            Err(_) => serde_json::from_str(id).unwrap_or_else(|_| id.into()),
        },
        Some(id) => id.into(),
    }
}
