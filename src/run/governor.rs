use std::cell::Cell;
use std::time::Instant;

use pgrx::prelude::*;

use crate::extension;
use crate::postgres::error::Result;
use crate::postgres::read::read_prepared;
use crate::target::Target;

thread_local! {
    /// The WAL position at the start of the last batch, and when that was.
    static WAL: Cell<Option<(u64, Instant)>> = const { Cell::new(None) };
}

/// Returns the first reason why a batched run has to wait before its next batch: the server exceeds a limit of the target.
/// Asks for the cheap ones first.
pub fn reason(target: &Target) -> Result<Option<String>> {
    if let Some(reason) = wal_rate(target) {
        return Ok(Some(reason));
    }
    let observed = extension::as_owner(|| {
        read_prepared::<String>(OBSERVED, &[target.name.as_str().into(), target.table.oid.into()])
    })?;
    observed.map_or_else(|| target.throttle(&target.table), |reason| Ok(Some(reason)))
}

/// Remembers the WAL position when a batch starts.
pub fn batch_starts() {
    // SAFETY: only reads the WAL position.
    WAL.set(Some((unsafe { pg_sys::GetXLogInsertRecPtr() }, Instant::now())));
}

fn wal_rate(target: &Target) -> Option<String> {
    let allowed = target.max_wal_rate?;
    // SAFETY: as above.
    let now = unsafe { pg_sys::GetXLogInsertRecPtr() };
    let (before, since) = WAL.get()?;
    let rate = now.saturating_sub(before) as f64 / since.elapsed().as_secs_f64().max(0.001);
    (rate > allowed as f64).then(|| format!("the server writes {rate:.0} bytes of WAL per second"))
}

/// The first reason in PostgreSQL's statistics views, for target $1 on table $2.
const OBSERVED: &str = "
    SELECT reason FROM backlog_cleanup.target t, LATERAL (
        SELECT format('standby \"%s\" replays %s late', application_name, replay_lag)
        FROM pg_stat_replication
        WHERE replay_lag > t.max_replica_lag
        UNION ALL
        SELECT format('process %s has a transaction that is %s old', pid,
                      date_trunc('second', age(clock_timestamp(), xact_start)))
        FROM pg_stat_activity
        WHERE (backend_xid IS NOT NULL OR backend_xmin IS NOT NULL) AND pid <> pg_backend_pid()
          AND xact_start < clock_timestamp() - t.max_transaction_age
        UNION ALL
        SELECT format('autovacuum works on the table, as process %s', v.pid)
        FROM pg_stat_progress_vacuum v
        JOIN pg_stat_activity a ON a.pid = v.pid
        WHERE t.yield_to_autovacuum AND v.relid = $2 AND a.backend_type = 'autovacuum worker') observed (reason)
    WHERE t.name = $1
    LIMIT 1";
