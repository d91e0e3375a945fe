use pgrx::prelude::*;

use crate::postgres::error::{Result, error, required, spi};
use crate::postgres::read::{read_one, refuse_read_only};
use crate::target::state;

/// Asks a batched run to stop after the batch, or the pause, that it is at; what it has committed stays. Returns false
/// where it is over already. Errors: 22004, 25006, 42704 (no run has this id).
#[pg_extern]
fn backlog_cleanup_stop(run_id: Option<i64>) -> Result<bool> {
    let hint = "SELECT run_id FROM backlog_cleanup.progress";
    let run_id = required(run_id, "run_id", hint)?;
    refuse_read_only("stop a run")?;
    let running =
        "SELECT state OPERATOR(pg_catalog.=) 'running' FROM backlog_cleanup.run WHERE id OPERATOR(pg_catalog.=) $1";
    // Its time is up: the run itself says that it is stopped, in the transaction that ends it.
    let stop = "UPDATE backlog_cleanup.run
                SET max_duration = LEAST(max_duration, pg_catalog.clock_timestamp() OPERATOR(pg_catalog.-) started_at)
                WHERE id OPERATOR(pg_catalog.=) $1 AND state OPERATOR(pg_catalog.=) 'running'
                RETURNING true";
    state(|| match read_one::<bool>(running, &[run_id.into()])? {
        Some(true) => Ok(Spi::get_one_with_args::<bool>(stop, &[run_id.into()]).map_err(spi)?.is_some()),
        Some(false) => Ok(false),
        None => {
            Err(error(PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT, format!("run {run_id} does not exist"), hint.into()))
        }
    })
}
