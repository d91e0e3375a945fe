use crate::obstacles::problem::{Problem, Status};
use crate::target::Ledger;

pub fn refuses(ledger: &Ledger, reason: &str) -> Problem {
    let detail = format!("ledger {} cannot take the row of a run: {reason}", ledger.table.name);
    Problem { status: Status::Fail, detail, fix: None }
}

pub fn cannot_be_told(reason: String) -> Problem {
    let detail = format!("whether the ledger can take the row of a run cannot be told beforehand: {reason}");
    Problem { status: Status::Ok, detail, fix: None }
}
