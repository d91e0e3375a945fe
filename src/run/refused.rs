use pgrx::pg_sys::panic::ErrorReport;

use crate::postgres::error::Result;
use crate::target::passed_over::{PassedOver, passed_over};
use crate::target::{Target, foreign_keys};

/// Why a run on the target would be refused as it is now.
pub fn reasons(target: &Target) -> Result<Vec<ErrorReport>> {
    let off = foreign_keys::is_off(target)?;
    Ok(off.into_iter().chain(passed_over(target)?.iter().map(PassedOver::error)).collect())
}

/// Refuses the run. Errors: 55000 (foreign keys are switched off), 0A000 (what it would pass over).
pub fn check(target: &Target) -> Result<()> {
    reasons(target)?.into_iter().next().map_or(Ok(()), Err)
}
