use backlog_cleanup_report::CleanupDetail;
use pgrx::JsonB;
use pgrx::prelude::*;

use crate::error::{Result, error};
use crate::recipe::{self, Swept};
use crate::target::Target;

/// What a run did per recipe.
pub fn details(target: &Target, swept: &[Swept]) -> Result<Vec<CleanupDetail>> {
    let names = recipe::names(target)?;
    let detail = |recipe: &Swept| CleanupDetail {
        recipe_id: target.json_recipe_id(recipe.recipe_id.as_deref()),
        recipe_name: recipe::name(&names, recipe.recipe_id.as_deref()),
        failed_count: recipe.failed,
        cleaned_count: recipe.removed,
        kept_count: recipe.failed - recipe.removed,
    };
    Ok(swept.iter().map(detail).collect())
}

/// A report as SQL returns it.
pub fn as_json(report: &impl serde::Serialize) -> Result<JsonB> {
    serde_json::to_value(report).map(JsonB).map_err(|failure| {
        error(PgSqlErrorCode::ERRCODE_INTERNAL_ERROR, failure.to_string(), "report this as a bug".into())
    })
}
