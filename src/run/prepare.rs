use pgrx::prelude::*;
use pgrx::{PgXactCallbackEvent, register_xact_callback};

use crate::postgres::error::error;

/// Refuses PREPARE TRANSACTION for the current transaction (0A000). A prepared one would hold the target, or a row of its
/// history, for as long as nobody finds it: no process is there to be seen.
pub fn cannot_be_prepared() {
    register_xact_callback(PgXactCallbackEvent::PrePrepare, || {
        error(
            PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
            "cannot PREPARE a transaction that has run a cleanup".into(),
            "COMMIT".into(),
        )
        .report(PgLogLevel::ERROR);
    });
}
