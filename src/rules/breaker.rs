use pgrx::prelude::*;

use crate::postgres::error::{Result, error};
use crate::rank::tally::Swept;
use crate::target::Target;

/// Refuses a regular run that would remove more than its target allows at once: a clock that is a year ahead makes
/// everything old. `force` lets one run through. Errors: 54000 with the numbers.
pub fn check(target: &Target, recipes: &[Swept], force: bool) -> Result<()> {
    match reason(target, recipes) {
        Some(reason) if !force => Err(error(
            PgSqlErrorCode::ERRCODE_PROGRAM_LIMIT_EXCEEDED,
            reason,
            "look at a dry run; force => true lets one run through".into(),
        )),
        _ => Ok(()),
    }
}

/// What a run would do that its target does not allow.
pub fn reason(target: &Target, recipes: &[Swept]) -> Option<String> {
    let removable: i64 = recipes.iter().map(|recipe| recipe.removed).sum();
    let failed: i64 = recipes.iter().map(|recipe| recipe.failed).sum();
    let share = removable as f64 * 100.0 / failed.max(1) as f64;
    let would = format!("target \"{}\": a run would remove {removable} of {failed} failed rows", target.name);
    if share > target.max_share {
        return Some(format!("{would}, more than max_share allows ({} %)", target.max_share));
    }
    let allowed = target.max_rows_per_run.filter(|allowed| removable > *allowed)?;
    Some(format!("{would}, more than max_rows_per_run allows ({allowed})"))
}
