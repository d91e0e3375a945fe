use pgrx::prelude::*;

use crate::extension;
use crate::history::batches;
use crate::history::report::details;
use crate::postgres::error::{Result, error, required};
use crate::postgres::json::Json;
use crate::postgres::read::read_one;
use crate::postgres::subtransaction::{briefly, is_cancel};
use crate::target::Target;
use crate::target::recipes::RecipeNames;

/// Returns what a run of the history did per recipe that lost rows, most removed first, as an array of `CleanupDetail`. Of a batched run
/// that is running or was interrupted, the committed batches count, and the other recipes are there, too. If the run's target is gone, recipes have no names.
/// Errors: 22004, 42704 (unknown run).
#[pg_extern(stable)]
fn backlog_cleanup_run_details(run_id: Option<i64>) -> Result<Json> {
    let latest = "SELECT max(id) FROM backlog_cleanup.run";
    let run_id = required(run_id, "run_id", latest)?;
    let target = "SELECT target FROM backlog_cleanup.run WHERE id = $1";
    let target = extension::as_owner(|| read_one::<String>(target, &[run_id.into()]))?.ok_or_else(|| {
        error(PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT, format!("run {run_id} does not exist"), latest.into())
    })?;
    let recipes = batches::recipes(run_id)?;
    let named = briefly(|| {
        let target = Target::load(Some(&target))?;
        let names = RecipeNames::of(&target, recipes.iter().map(|recipe| recipe.recipe_id.as_deref()))?;
        Ok((names, target.has_json_recipes()))
    });
    let (names, is_json) = match named {
        Ok(named) => named,
        Err(caught) if is_cancel(&caught) => caught.rethrow(),
        Err(_) => Default::default(),
    };
    Json::of(&details(&names, is_json, &recipes))
}
