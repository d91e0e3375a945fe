use pgrx::spi::quote_literal;

use crate::obstacles::problem::{Problem, Status};
use crate::postgres::error::Result;
use crate::rules::policy::{Policy, forget_ignored, ignored};
use crate::target::Target;

/// Checks that the default policy exists and is enabled, and that there are no policies that no run obeys.
pub fn policies(target: &Target) -> Result<Vec<Problem>> {
    let mut found = Vec::new();
    if Policy::of(target)?.cutoff.instant().is_none() {
        let detail = "the default policy is disabled: a regular run removes nothing".into();
        let enable = format!(
            "UPDATE backlog_cleanup.policy SET enabled = true \
             WHERE target = {} AND recipe_id IS NULL AND failure_type IS NULL",
            quote_literal(&target.name)
        );
        found.push(Problem { status: Status::Warn, detail, fix: Some(enable) });
    }
    let ignored = ignored(target)?;
    if ignored > 0 {
        let detail = format!("no run obeys the policies for a recipe or a failure type: {ignored}");
        found.push(Problem { status: Status::Fail, detail, fix: Some(forget_ignored(target)) });
    }
    Ok(found)
}
