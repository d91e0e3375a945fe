use backlog_cleanup_report::{CleanupDetail, recipe_id};
use pgrx::prelude::*;

use crate::history::batches;
use crate::history::report::{Report, as_json, details};
use crate::postgres::error::{Result, error, required};
use crate::postgres::read::read_one;
use crate::postgres::subtransaction::{attempt, sqlstate};
use crate::rank::tally;
use crate::target::{Target, state};

/// What a run of the history did per recipe, most removed first; of a batched run that is at work, or was interrupted,
/// what its committed batches did. Returns an array of `CleanupDetail`. Where the run's target is no longer there, recipes
/// have no names. Errors: 22004, 42704 (unknown run).
#[pg_extern(stable)]
fn backlog_cleanup_run_details(run_id: Option<i64>) -> Result<Report> {
    let latest = "SELECT max(id) FROM backlog_cleanup.run";
    let run_id = required(run_id, "run_id", latest)?;
    let target = "SELECT target FROM backlog_cleanup.run WHERE id OPERATOR(pg_catalog.=) $1";
    let target = state(|| read_one::<String>(target, &[run_id.into()]))?.ok_or_else(|| {
        error(PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT, format!("run {run_id} does not exist"), latest.into())
    })?;
    let swept = batches::recipes(run_id)?;
    let named = attempt(|| details(&Target::load(Some(&target))?, &swept).map(Some));
    let details = match named {
        Ok(details) => details.unwrap_or_default(),
        Err(caught) => match sqlstate(&caught) {
            PgSqlErrorCode::ERRCODE_QUERY_CANCELED | PgSqlErrorCode::ERRCODE_ADMIN_SHUTDOWN => caught.rethrow(),
            _ => swept
                .iter()
                .map(|swept| CleanupDetail {
                    recipe_id: recipe_id(swept.recipe_id.as_deref(), false),
                    recipe_name: tally::name(&Default::default(), swept.recipe_id.as_deref()),
                    failed_count: swept.failed,
                    cleaned_count: swept.removed,
                    kept_count: swept.failed - swept.removed,
                })
                .collect(),
        },
    };
    as_json(&details)
}
