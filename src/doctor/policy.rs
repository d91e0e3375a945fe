use pgrx::spi::quote_literal;

use crate::obstacles::problem::{Problem, Status};
use crate::postgres::error::Result;
use crate::rules::policy::Policy;
use crate::target::Target;

/// Checks that the default policy exists and is enabled.
pub fn default_policy(target: &Target) -> Result<Vec<Problem>> {
    if Policy::of(target)?.cutoff.instant().is_some() {
        return Ok(Vec::new());
    }
    let detail = "the default policy is disabled: a regular run removes nothing".into();
    let enable = format!(
        "UPDATE backlog_cleanup.policy SET enabled = true \
         WHERE target = {} AND recipe_id IS NULL AND failure_type IS NULL",
        quote_literal(&target.name)
    );
    Ok(vec![Problem { status: Status::Warn, detail, fix: Some(enable) }])
}
