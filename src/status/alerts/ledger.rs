use crate::history::books::{Balance, balance};
use crate::postgres::error::Result;
use crate::postgres::read::read_one;
use crate::status::alerts::measured::{Measured, Value};
use crate::status::alerts::rule::Rule;
use crate::target::steady::glance;

/// Whether this is the first tick of an hour: the ledger is the platform's, and may have no index for this.
const IS_DUE: &str = "
    SELECT NOT EXISTS (SELECT FROM backlog_cleanup.tick
                       WHERE started_at >= date_trunc('hour', now()) AND started_at < now())";

/// The difference between ledger and history, once an hour.
pub fn books(rule: &Rule) -> Result<Measured> {
    if crate::extension::as_owner(|| read_one::<bool>(IS_DUE, &[]))? != Some(true) {
        return Ok(Measured::Unknown("the ledger is compared once an hour".into()));
    }
    let Some(Balance { ledger, runs }) = glance(rule.target.as_deref(), balance)? else {
        return Ok(Measured::Known(Vec::new()));
    };
    Ok(Measured::Known(vec![Value {
        subject: None,
        value: (ledger - runs).abs() as f64,
        sentence: format!(
            "the ledger has {ledger} removed {rows}, the history {runs}: find out which of them somebody has changed by hand",
            rows = rule.rows()
        ),
        fix: None,
    }]))
}
