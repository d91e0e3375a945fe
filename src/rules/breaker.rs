use pgrx::prelude::*;
use pgrx::spi::quote_literal;

use crate::postgres::error::{Result, error};
use crate::target::Target;

/// Refuses a regular run that would remove more than its target allows: if the clock is a year ahead, every row is expired.
/// `force` lets one run through. Errors: 54000 with the numbers.
pub fn check(target: &Target, removable: i64, failed: i64, force: bool) -> Result<()> {
    match reason(target, removable, failed) {
        Some(reason) if !force => Err(error(
            PgSqlErrorCode::ERRCODE_PROGRAM_LIMIT_EXCEEDED,
            reason,
            format!(
                "SELECT backlog_cleanup_failed_generations({}, dry_run => true); -- force => true allows one run",
                quote_literal(&target.name)
            ),
        )),
        _ => Ok(()),
    }
}

/// Why a target does not allow a run that would remove `removable` of `failed` rows.
pub fn reason(target: &Target, removable: i64, failed: i64) -> Option<String> {
    let share = removable as f64 * 100.0 / failed.max(1) as f64;
    let rows = target.nouns.in_scope(failed);
    let would = format!("target \"{}\": a run would remove {removable} of {rows}", target.name);
    if share > target.max_share {
        return Some(format!("{would}, more than max_share allows ({} %)", target.max_share));
    }
    let allowed = target.max_rows_per_run.filter(|allowed| removable > *allowed)?;
    Some(format!("{would}, more than max_rows_per_run allows ({allowed})"))
}
