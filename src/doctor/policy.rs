use backlog_cleanup_report::Mode;
use pgrx::spi::quote_literal;

use crate::obstacles::problem::{Problem, Status};
use crate::postgres::error::Result;
use crate::rules::matching::Policies;
use crate::target::Target;

/// Checks that there is a default policy, and that it is enabled.
pub fn policies(target: &Target) -> Result<Vec<Problem>> {
    if Policies::of(target, Mode::Regular)?.default_policy().is_enabled {
        return Ok(Vec::new());
    }
    let detail = "the default policy is disabled: a regular run removes nothing under it".into();
    let enable = format!(
        "UPDATE backlog_cleanup.policy SET enabled = true \
         WHERE target = {} AND recipe_id IS NULL AND failure_type IS NULL AND status IS NULL",
        quote_literal(&target.name)
    );
    Ok(vec![Problem { status: Status::Warn, detail, fix: Some(enable) }])
}
