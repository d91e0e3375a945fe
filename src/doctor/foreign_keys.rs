use crate::obstacles::problem::{Problem, Status};
use crate::obstacles::replaced::actions_replaced;
use crate::postgres::error::Result;
use crate::target::Target;
use crate::target::foreign_keys::{disabled, of_session, settings};

/// Finds where foreign keys are switched off, at which a run is refused, since rows would stay that reference removed ones; and rules that
/// replace what they do.
pub fn obeyed(target: &Target) -> Result<Vec<Problem>> {
    let lasting = settings()?;
    // In a session of this database the lasting settings say it already.
    let of_session = if lasting.is_empty() { of_session()? } else { None };
    let found = of_session.into_iter().chain(lasting).chain(disabled(target)?);
    let found = found.map(|(detail, fix)| Problem { status: Status::Fail, detail, fix: Some(fix) });
    Ok(found.chain(actions_replaced(target)?).collect())
}
