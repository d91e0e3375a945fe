use std::cell::Cell;
use std::time::Instant;

use pgrx::prelude::*;

use crate::postgres::error::Result;
use crate::postgres::owner::as_owner_of;
use crate::postgres::read::{read_one, read_prepared};
use crate::target::{Target, state};

thread_local! {
    /// Where the server's WAL stood before the last batch, and when.
    static WAL: Cell<Option<(u64, Instant)>> = const { Cell::new(None) };
}

/// Why a batched run is to wait before its next batch: what its target allows and the server does not have. Any one
/// reason is enough; the cheap ones are asked first.
pub fn reason(target: &Target) -> Result<Option<String>> {
    if let Some(reason) = wal_rate(target) {
        return Ok(Some(reason));
    }
    let observed =
        state(|| read_prepared::<String>(OBSERVED, &[target.name.as_str().into(), target.table.oid.into()]))?;
    observed.map_or_else(|| throttle(target), |reason| Ok(Some(reason)))
}

/// What the target's own query says: its first value as text, whatever its type.
pub fn throttle(target: &Target) -> Result<Option<String>> {
    let Some(query) = &target.throttle_query else { return Ok(None) };
    let query = query.trim_end().trim_end_matches(';');
    as_owner_of(&target.table, || {
        read_one::<String>(
            &format!("SELECT throttle.reason::pg_catalog.text FROM (\n{query}\n) throttle (reason)"),
            &[],
        )
    })
}

/// Remembers where the WAL stands when a batch starts.
pub fn batch_starts() {
    WAL.set(Some((unsafe { pg_sys::GetXLogInsertRecPtr() }, Instant::now())));
}

fn wal_rate(target: &Target) -> Option<String> {
    let allowed = target.max_wal_rate?;
    let now = unsafe { pg_sys::GetXLogInsertRecPtr() };
    let (before, since) = WAL.get()?;
    let rate = now.saturating_sub(before) as f64 / since.elapsed().as_secs_f64().max(0.001);
    (rate > allowed as f64).then(|| format!("the server writes {rate:.0} bytes of WAL per second"))
}

/// The first reason that the server's own views give, for target $1 on table $2.
const OBSERVED: &str = "
    SELECT reason FROM backlog_cleanup.target t, LATERAL (
        SELECT pg_catalog.format('standby \"%s\" replays %s late', application_name, replay_lag)
        FROM pg_catalog.pg_stat_replication
        WHERE replay_lag OPERATOR(pg_catalog.>) t.max_replica_lag
        UNION ALL
        SELECT pg_catalog.format('process %s has a transaction that is %s old', pid,
                                 pg_catalog.date_trunc('second', pg_catalog.age(pg_catalog.clock_timestamp(), xact_start)))
        FROM pg_catalog.pg_stat_activity
        WHERE (backend_xid IS NOT NULL OR backend_xmin IS NOT NULL) AND pid OPERATOR(pg_catalog.<>) pg_catalog.pg_backend_pid()
          AND xact_start OPERATOR(pg_catalog.<) (pg_catalog.clock_timestamp() OPERATOR(pg_catalog.-) t.max_transaction_age)
        UNION ALL
        SELECT pg_catalog.format('autovacuum works on the table, as process %s', v.pid)
        FROM pg_catalog.pg_stat_progress_vacuum v
        JOIN pg_catalog.pg_stat_activity a ON a.pid OPERATOR(pg_catalog.=) v.pid
        WHERE t.yield_to_autovacuum AND v.relid OPERATOR(pg_catalog.=) $2
          AND a.backend_type OPERATOR(pg_catalog.=) 'autovacuum worker') observed (reason)
    WHERE t.name OPERATOR(pg_catalog.=) $1
    LIMIT 1";
