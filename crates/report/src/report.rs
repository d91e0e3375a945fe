use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{Mode, Nouns, State, StatusCounts};

/// What a regular run did, or in a dry run or a rehearsal would do.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct RegularReport {
    pub success: bool,
    pub message: String,
    /// NULL for a dry run and a rehearsal, which are not in the history.
    pub run_id: Option<i64>,
    pub target: String,
    #[serde(flatten)]
    pub nouns: Nouns,
    pub mode: Mode,
    pub dry_run: bool,
    /// Rows in scope from before this instant are expired; NULL if the policy is disabled.
    pub cutoff: Option<String>,
    pub total_failed_generations: i64,
    pub cleaned_up_generations: i64,
    pub recipes_affected: i64,
    pub cleanup_details: Vec<CleanupDetail>,
    #[serde(flatten)]
    pub foreseen: Foreseen,
    /// Rows that stayed because of what their deletion met: a trigger, a rule, a foreign key, any error.
    #[serde(default)]
    pub kept_back_count: i64,
    /// What the first of them met; null if there are none.
    #[serde(default)]
    pub kept_back_reason: Option<String>,
    /// Rows that another session had locked for longer than `lock_timeout`.
    #[serde(default)]
    pub skipped_count: i64,
    /// Rows that policies hold, and that the run has passed over.
    #[serde(default)]
    pub held_count: i64,
    /// The rows of each policy, of the first thousand; those that name most come first.
    #[serde(default)]
    pub policies: Vec<PolicyDetail>,
    /// The rows of each status that runs remove.
    #[serde(default)]
    pub statuses: Vec<StatusDetail>,
    /// The WAL that the run has written, in bytes, without its last commit; a dry run has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wal_bytes: Option<i64>,
    /// The full-page images in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub full_page_images: Option<i64>,
    pub duration_ms: i64,
}

/// What a dry run says of a real one, in sentences, as far as that is known beforehand.
#[derive(Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Foreseen {
    /// Why it would be refused.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub would_fail: Vec<String>,
    /// Which rows it would keep back.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub would_keep_back: Vec<String>,
}

/// What a run did to one recipe: failed = cleaned + kept.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct CleanupDetail {
    pub recipe_id: Value,
    pub recipe_name: String,
    /// Rows in scope before the run; of a selective emergency run, only the rows that were selected.
    pub failed_count: i64,
    pub cleaned_count: i64,
    pub kept_count: i64,
}

/// What a run did under one policy: in scope = removed + kept.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct PolicyDetail {
    /// What it names; null is any.
    pub recipe_id: Option<String>,
    pub failure_type: Option<String>,
    pub status: Option<String>,
    /// Of a selective emergency run, only the rows that were selected.
    pub in_scope: i64,
    pub removed: i64,
    pub kept: i64,
    /// Of these, rows that stayed because of what their deletion met. Where there are several policies, those of whose policy the run
    /// knows; it does not of rows on another server, of rows that code has changed, and of an emergency run in batches.
    #[serde(default)]
    pub kept_back: i64,
}

/// What a run did to the rows of one status: in scope = removed + kept.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct StatusDetail {
    /// As rows have it; null if the target has no status.
    pub status: Option<String>,
    /// Of a selective emergency run, only the rows that were selected.
    pub in_scope: i64,
    pub removed: i64,
    pub kept: i64,
    /// Of these, rows that stayed because of what their deletion met, as far as for a policy.
    #[serde(default)]
    pub kept_back: i64,
}

/// What an emergency run did, or in a dry run or a rehearsal would do.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct EmergencyReport {
    pub success: bool,
    pub message: String,
    pub run_id: Option<i64>,
    pub target: String,
    #[serde(flatten)]
    pub nouns: Nouns,
    pub mode: Mode,
    pub dry_run: bool,
    pub removed_count: i64,
    pub recipes_affected: i64,
    /// Version 0.1.0 did not write it.
    #[serde(default)]
    pub cleanup_details: Vec<CleanupDetail>,
    #[serde(flatten)]
    pub foreseen: Foreseen,
    /// Rows that stayed because of what their deletion met: a trigger, a rule, a foreign key, any error.
    #[serde(default)]
    pub kept_back_count: i64,
    /// What the first of them met; null if there are none.
    #[serde(default)]
    pub kept_back_reason: Option<String>,
    /// Rows that another session had locked for longer than `lock_timeout`.
    #[serde(default)]
    pub skipped_count: i64,
    /// Rows that policies hold, and that the run has passed over.
    #[serde(default)]
    pub held_count: i64,
    /// The rows of each policy, of the first thousand; those that name most come first.
    #[serde(default)]
    pub policies: Vec<PolicyDetail>,
    /// The rows of each status that runs remove.
    #[serde(default)]
    pub statuses: Vec<StatusDetail>,
    /// The WAL that the run has written, in bytes, without its last commit; a dry run has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wal_bytes: Option<i64>,
    /// The full-page images in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub full_page_images: Option<i64>,
    pub duration_ms: i64,
}

/// What a batched run did: the report of its mode, and members that a dry run does not have.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Batched<Report> {
    #[serde(flatten)]
    pub report: Report,
    #[cfg_attr(feature = "openapi", schema(required = false))]
    pub state: State,
    /// Batches that removed rows, each committed.
    #[cfg_attr(feature = "openapi", schema(required = false))]
    pub batches: i64,
    /// Background workers that it had; 0 if the session did the work itself.
    #[cfg_attr(feature = "openapi", schema(required = false))]
    pub workers: i64,
    #[cfg_attr(feature = "openapi", schema(required = false))]
    pub batch_milliseconds: BatchMilliseconds,
}

/// How long the batches of a run held their locks; 0 without batches.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct BatchMilliseconds {
    pub median: f64,
    pub p99: f64,
    pub max: f64,
}

/// The state of a target: its rows by status, and the recipes that have rows in scope.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct StatusReport {
    pub success: bool,
    #[serde(flatten)]
    pub nouns: Nouns,
    pub total_generations: i64,
    #[serde(flatten)]
    pub statuses: StatusCounts,
    /// Rows that runs may remove, if policies let them go.
    #[serde(default)]
    pub in_scope: i64,
    /// The rows of every status that is there, most first; `(none)` is NULL, `(other)` sums up those behind the first hundred.
    #[serde(default, rename = "statuses")]
    pub every_status: Vec<StatusRows>,
    pub removable_generations: i64,
    pub recipes_with_failed_generations: Vec<RecipeFailures>,
    pub schedule: Value,
    pub last_run: Value,
    pub warnings: Vec<Warning>,
}

impl StatusReport {
    /// Whether rows have a status that the four counts do not show.
    pub fn has_other_statuses(&self) -> bool {
        self.every_status.iter().any(|rows| self.statuses.of(&rows.status) != rows.count)
    }
}

/// The rows of a status, whatever reports count it as.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct StatusRows {
    pub status: String,
    pub count: i64,
}

/// What makes runs slow, and the statement that fixes it.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Warning {
    pub message: String,
    pub hint: String,
}

/// A recipe that has rows in scope.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct RecipeFailures {
    pub recipe_id: Value,
    pub recipe_name: String,
    /// Rows in scope.
    pub failed_count: i64,
    pub removable_count: i64,
    pub oldest_failed_at: Option<String>,
    pub oldest_failed_age: Option<String>,
}

/// What a row that was kept back has met: `row 40: MESSAGE (23503)`.
pub fn kept_back_reason(row: Option<&str>, message: &str, sqlstate: Option<&str>) -> String {
    let row = row.map_or(String::new(), |row| format!("row {row}: "));
    let sqlstate = sqlstate.map_or(String::new(), |sqlstate| format!(" ({sqlstate})"));
    format!("{row}{message}{sqlstate}")
}

/// A recipe's id as JSON: a number if the column is a number, an object if the recipe is several columns, else a string; null for
/// NULL. One that was shortened is a string.
pub fn recipe_id(id: Option<&str>, is_json: bool) -> Value {
    match id {
        None => Value::Null,
        Some(id) if is_json => match id.parse::<i64>() {
            Ok(id) => id.into(),
            Err(_) => serde_json::from_str(id).unwrap_or_else(|_| id.into()),
        },
        Some(id) => id.into(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::StatusReport;
    use crate::statuses::STATUSES;

    #[test]
    fn the_statuses_of_a_report_are_members_of_it_in_their_order() {
        let text = r#"{"success":true,"groupWord":"worker","rowWord":"job","totalGenerations":9,"completedGenerations":1,"failedGenerations":2,"pendingGenerations":3,"processingGenerations":2,"inScope":2,"statuses":[{"status":"failed","count":2}],"removableGenerations":1,"recipesWithFailedGenerations":[],"schedule":null,"lastRun":null,"warnings":[]}"#;
        let report: StatusReport = serde_json::from_str(text).unwrap();
        assert_eq!(STATUSES.map(|name| report.statuses.of(name)), [1, 2, 3, 2]);
        assert_eq!(serde_json::to_string(&report).unwrap(), text);
        assert_eq!(json!(report)["failedGenerations"], 2);
    }
}
