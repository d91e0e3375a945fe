use std::cell::Cell;
use std::time::{Duration, Instant};

use pgrx::prelude::*;

use crate::extension;
use crate::obstacles::used::on_tables;
use crate::postgres::error::Result;
use crate::postgres::nodes::{SHARDS, asked, has_nodes};
use crate::postgres::read::{read_one, read_prepared};
use crate::target::Target;

thread_local! {
    /// The WAL position at the start of the last batch, and when that was.
    static WAL: Cell<Option<(u64, Instant)>> = const { Cell::new(None) };
    /// When the nodes of Citus were asked last.
    static ASKED: Cell<Option<Instant>> = const { Cell::new(None) };
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
    match observed {
        None if has_nodes()? => Ok(on_nodes(target)?.or(target.throttle(&target.table)?)),
        None => target.throttle(&target.table),
        reason => Ok(reason),
    }
}

/// The first reason on another node of Citus that has shards of the target. A second may go by between two questions: each connects anew.
fn on_nodes(target: &Target) -> Result<Option<String>> {
    const SECOND: Duration = Duration::from_secs(1);
    if ASKED.get().is_some_and(|asked| asked.elapsed() < SECOND) {
        return Ok(None);
    }
    let ask = format!(
        "SELECT format($ask${OBSERVED_THERE}$ask$, t.max_replica_lag, t.max_transaction_age, t.yield_to_autovacuum, names)
         FROM backlog_cleanup.target t, (SELECT array_agg(name) FROM {SHARDS}) shards (names)
         WHERE t.name = $2 AND names IS NOT NULL
           AND (t.max_replica_lag IS NOT NULL OR t.max_transaction_age IS NOT NULL OR t.yield_to_autovacuum)"
    );
    let reason = format!(
        "SELECT format('on node %s, %s', node, result) FROM {} WHERE success AND NOT is_here AND result <> '' ORDER BY 1 LIMIT 1",
        asked("$1")
    );
    let tables: Vec<pg_sys::Oid> = vec![target.table.oid];
    let reason = extension::as_owner(|| {
        match read_one::<String>(&on_tables(&ask), &[tables.into(), target.name.as_str().into()])? {
            Some(statement) => read_one::<String>(&reason, &[statement.into()]),
            None => Ok(None),
        }
    })?;
    // While there is one, the run waits, and asks again when it wakes up.
    ASKED.set(reason.is_none().then(Instant::now));
    Ok(reason)
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

/// The same on another node, whose search path is not ours: a format of the target's limits and the names of its shards.
const OBSERVED_THERE: &str = "
    SELECT COALESCE((SELECT reason FROM (
        SELECT pg_catalog.format('standby \"%%s\" replays %%s late', application_name, replay_lag)
        FROM pg_catalog.pg_stat_replication
        WHERE replay_lag OPERATOR(pg_catalog.>) %1$L::pg_catalog.interval
        UNION ALL
        SELECT pg_catalog.format('process %%s has a transaction that is %%s old', pid, pg_catalog.date_trunc('second', pg_catalog.age(
            pg_catalog.clock_timestamp(), xact_start)))
        FROM pg_catalog.pg_stat_activity
        WHERE (backend_xid IS NOT NULL OR backend_xmin IS NOT NULL) AND pid OPERATOR(pg_catalog.<>) pg_catalog.pg_backend_pid()
          AND xact_start OPERATOR(pg_catalog.<) (pg_catalog.clock_timestamp() OPERATOR(pg_catalog.-) %2$L::pg_catalog.interval)
        UNION ALL
        SELECT pg_catalog.format('autovacuum works on shard %%s, as process %%s', v.relid::pg_catalog.regclass, v.pid)
        FROM pg_catalog.pg_stat_progress_vacuum v
        JOIN pg_catalog.pg_stat_activity a ON a.pid OPERATOR(pg_catalog.=) v.pid
        JOIN pg_catalog.unnest(%4$L::pg_catalog.text[]) AS shard (name) ON v.relid OPERATOR(pg_catalog.=) pg_catalog.to_regclass(name)::pg_catalog.oid
        WHERE %3$L::pg_catalog.bool AND a.backend_type OPERATOR(pg_catalog.=) 'autovacuum worker') observed (reason)
    LIMIT 1), '')";

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
