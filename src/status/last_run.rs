use pgrx::prelude::*;

use crate::extension;
use crate::postgres::error::Result;
use crate::postgres::read::read_one;
use crate::run::lock;

/// The newest run of a target, as JSON; null before the first. `running` without a lock holder is reported as `interrupted`
/// (a status may not write). On a standby locks are not visible, so the row's state is taken as it is.
pub fn last_run(target: &str) -> Result<serde_json::Value> {
    // SAFETY: only reads what the server is.
    let is_running = lock::holder(target)?.is_some() || unsafe { pg_sys::RecoveryInProgress() };
    let run = extension::as_owner(|| {
        read_one::<pgrx::JsonB>(
            "SELECT jsonb_build_object('runId', id, 'mode', mode, 'removed', removed,
                                       'state', CASE WHEN state = 'running' AND NOT $2 THEN 'interrupted' ELSE state END,
                                       'requestedBy', requested_by, 'startedAt', started_at, 'finishedAt', finished_at)
             FROM backlog_cleanup.run
             WHERE target = $1
             ORDER BY id DESC",
            &[target.into(), is_running.into()],
        )
    })?;
    Ok(run.map_or(serde_json::Value::Null, |run| run.0))
}
