//! Code that reads no row of a target: that of its ledger, of the names of recipes, of the users.

use std::cell::RefCell;

use pgrx::pg_sys::panic::CaughtError;

use crate::postgres::error::Result;
use crate::postgres::sqlstate::exact;
use crate::postgres::subtransaction::{caught, raise_again, reported, sqlstate};

thread_local! {
    /// The SQLSTATE and the message of what has failed last there.
    static FAILED: RefCell<Option<(String, String)>> = RefCell::default();
}

/// Does `work`, which reads no row of a target: what fails in it keeps none back.
pub fn elsewhere<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    FAILED.take();
    caught(work).or_else(|failure| {
        FAILED.set(Some(told(&failure)));
        raise_again(failure)
    })
}

/// Forgets what has failed there, since nothing raises it.
pub fn forget() {
    FAILED.take();
}

/// Whether a failure is the last one of there.
pub fn was_elsewhere(failure: &CaughtError) -> bool {
    FAILED.with_borrow(|failed| failed.as_ref() == Some(&told(failure)))
}

fn told(failure: &CaughtError) -> (String, String) {
    (exact(sqlstate(failure)), reported(failure).message().to_owned())
}
