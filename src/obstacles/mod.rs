//! What would stop a run, or keep rows back, as far as the catalogs tell it beforehand, without running anybody's code. A dry run
//! reports it, and the doctor has a check for each. Knows nothing of either.

pub mod actions;
pub mod ledger;
pub mod privileges;
pub mod problem;
pub mod published;
pub mod referenced;
pub mod replaced;
pub mod used;

use backlog_cleanup_report::Foreseen;
use pgrx::PgSqlErrorCode;

use crate::obstacles::problem::{Problem, Status};
use crate::postgres::error::Result;
use crate::postgres::settings::{set_local, with_settings};
use crate::postgres::subtransaction::{briefly, sqlstate};
use crate::rules::Rules;
use crate::target::leaf::Leaf;

/// What a run by these rules that removes so many rows would meet. Waits for no lock: what is locked is left out.
pub fn foresee(rules: &Rules, leaves: &[Leaf], removed: i64) -> Result<Foreseen> {
    let found = with_settings(|| {
        set_local("lock_timeout", "50ms");
        briefly(|| {
            let mut stopping = ledger::ledger(rules.target, rules.mode, removed)?;
            stopping.extend(lacking_privileges(rules, leaves)?);
            let mut keeping = Vec::new();
            if removed > 0 {
                keeping.extend(actions::actions(rules.target)?);
                keeping.extend(published::replica_identity(rules.target)?);
                keeping.extend(replaced::replaced(leaves)?);
                let replaced = replaced::actions_replaced(rules.target)?;
                keeping.extend(replaced.into_iter().filter(|problem| problem.status == Status::Fail));
                keeping.extend(referenced::kept_back(rules, leaves)?);
            }
            Ok((stopping, keeping))
        })
    });
    let (mut stopping, keeping) = match found {
        Ok(found) => found,
        Err(caught) if sqlstate(&caught) == PgSqlErrorCode::ERRCODE_LOCK_NOT_AVAILABLE => Default::default(),
        Err(caught) => caught.rethrow(),
    };
    stopping.retain(|problem| problem.status == Status::Fail);
    let details = |found: Vec<Problem>| found.into_iter().map(|problem| problem.detail).collect();
    Ok(Foreseen { would_fail: details(stopping), would_keep_back: details(keeping) })
}

/// The privileges that the owners lack. A run needs those on a leaf only if it removes rows from it.
fn lacking_privileges(rules: &Rules, leaves: &[Leaf]) -> Result<Vec<Problem>> {
    let of = |leaves: &[&Leaf]| {
        let oids: Vec<_> = leaves.iter().map(|leaf| leaf.table.oid).collect();
        privileges::privileges(rules.target, &oids)
    };
    let lacking = of(&leaves.iter().collect::<Vec<_>>())?;
    if lacking.is_empty() {
        return Ok(lacking);
    }
    let mut needed = Vec::new();
    for leaf in leaves {
        if leaf.has_row(rules.target, &rules.condition())? {
            needed.push(leaf);
        }
    }
    of(&needed)
}
