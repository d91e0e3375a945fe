use crate::history::books::{Balance, balance};
use crate::postgres::error::Result;
use crate::status::alerts::measured::{Measured, Value};
use crate::status::alerts::rule::Rule;
use crate::target::steady::glance;

/// The difference between ledger and history, once an hour: the ledger is the platform's, and may have no index for this.
pub fn books(rule: &Rule) -> Result<Measured> {
    if !rule.is_due("1 hour")? {
        return Ok(Measured::Unknown("the ledger is compared once an hour".into()));
    }
    let Some(Balance { ledger, runs }) = glance(rule.target.as_deref(), balance)? else {
        return Ok(Measured::Known(Vec::new()));
    };
    rule.was_measured(false)?;
    Ok(Measured::Known(vec![Value {
        subject: None,
        value: (ledger - runs).abs() as f64,
        sentence: format!(
            "the ledger has {ledger} removed {rows}, the history {runs}: find out which of them somebody has changed by hand",
            rows = rule.rows()
        ),
        fix: None,
        opens: true,
    }]))
}
