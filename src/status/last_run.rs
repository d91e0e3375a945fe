use pgrx::JsonB;
use pgrx::prelude::*;
use serde_json::Value;

use crate::extension;
use crate::history::nights;
use crate::postgres::error::Result;
use crate::postgres::read::read_one;
use crate::run::lock;

/// The newest run of a target, or the newest night that failed without one, as JSON; null before the first. `running` without a
/// lock holder is reported as `interrupted` (a status may not write). On a standby locks are not visible, so the row's state is
/// taken as it is.
pub fn last_run(target: &str) -> Result<Value> {
    const LAST: &str = "
        SELECT report
        FROM (SELECT started_at,
                     jsonb_build_object('runId', id, 'mode', mode, 'removed', removed,
                                        'state', CASE WHEN state = 'running' AND NOT $2 THEN 'interrupted' ELSE state END,
                                        'requestedBy', requested_by, 'startedAt', started_at, 'finishedAt', finished_at,
                                        'waitingFor', CASE WHEN state = 'running' AND $2 THEN waiting_for END,
                                        'error', CASE WHEN state = 'running' AND NOT $2 THEN to_jsonb('the session that ran it has ended'::text)
                                                      ELSE to_jsonb(r) -> 'error_message' END)
              FROM (SELECT * FROM backlog_cleanup.run WHERE target = $1 ORDER BY id DESC LIMIT 1) r
              UNION ALL
              SELECT $3, jsonb_build_object('runId', NULL, 'mode', $4, 'removed', 0, 'state', 'failed', 'requestedBy', $5,
                                            'startedAt', $3, 'finishedAt', $6, 'error', $7)
              WHERE $3 IS NOT NULL) last (started_at, report)
        ORDER BY started_at DESC
        LIMIT 1";
    // SAFETY: only reads what the server is.
    let is_running = lock::holder(target)?.is_some() || unsafe { pg_sys::RecoveryInProgress() };
    let night = nights::failed()?.into_iter().find(|night| night.target == target);
    let of_night = |text: fn(&nights::Night) -> &String| night.as_ref().map(|night| text(night).as_str());
    let arguments = [
        target.into(),
        is_running.into(),
        night.as_ref().and_then(|night| night.started_at).into(),
        of_night(|night| &night.mode).into(),
        of_night(|night| &night.requested_by).into(),
        night.as_ref().and_then(|night| night.finished_at).into(),
        of_night(|night| &night.message).into(),
    ];
    let run = extension::as_owner(|| read_one::<JsonB>(LAST, &arguments))?;
    Ok(run.map_or(Value::Null, |run| run.0))
}
