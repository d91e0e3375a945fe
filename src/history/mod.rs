pub mod batches;
pub mod books;
pub mod details;
pub mod report;
pub mod run;
pub mod total;

use pgrx::prelude::*;

use crate::postgres::error::{Result, spi};
use crate::postgres::owner::as_owner_of;
use crate::postgres::read::read_one;
use crate::rank::tally::Swept;
use crate::rules::policy::Policy;
use crate::rules::selection::Selection;
use crate::run::lock;
use crate::target::{Target, state};

/// Writes the run, its recipes and the ledger in the transaction that removed; returns the run's id.
pub fn write(
    target: &Target,
    policy: Option<&Policy>,
    selection: &Selection,
    swept: &[Swept],
    caller: &str,
) -> Result<Option<i64>> {
    let mode = if policy.is_some() { "regular" } else { "emergency" };
    let removed: i64 = swept.iter().map(|recipe| recipe.removed).sum();
    let failed: i64 = swept.iter().map(|recipe| recipe.failed).sum();
    let run_id = state(|| {
        let run_id = Spi::get_one_with_args::<i64>(
            "INSERT INTO backlog_cleanup.run (target, mode, requested_by, recipe_id, failure_type, cutoff,
                                              total_failed, removed, recipes_affected, started_at, finished_at)
             VALUES ($1, $2, $3::pg_catalog.name, $4, $5, $6::pg_catalog.timestamptz, $7, $8, $9,
                     pg_catalog.now(), pg_catalog.clock_timestamp())
             RETURNING id",
            &[
                target.name.as_str().into(),
                mode.into(),
                caller.into(),
                selection.recipe_id.into(),
                selection.failure_type.into(),
                policy.map(|policy| policy.cutoff.as_str()).into(),
                failed.into(),
                removed.into(),
                (swept.len() as i64).into(),
            ],
        )
        .map_err(spi)?;
        // About in the order of the index, which then grows at its end.
        let mut swept: Vec<&Swept> = swept.iter().collect();
        swept.sort_unstable_by_key(|recipe| &recipe.recipe_id);
        let ids: Vec<Option<&str>> = swept.iter().map(|recipe| recipe.recipe_id.as_deref()).collect();
        let failed: Vec<i64> = swept.iter().map(|recipe| recipe.failed).collect();
        let removed: Vec<i64> = swept.iter().map(|recipe| recipe.removed).collect();
        Spi::run_with_args(
            "INSERT INTO backlog_cleanup.run_recipe (run_id, recipe_id, failed_count, cleaned_count)
             SELECT $1, pg_catalog.unnest($2), pg_catalog.unnest($3), pg_catalog.unnest($4)",
            &[run_id.into(), ids.into(), failed.into(), removed.into()],
        )
        .map_err(spi)?;
        Ok(run_id)
    })?;
    ledger(target, mode, run_id.unwrap_or_default(), None, removed)?;
    Ok(run_id)
}

/// Writes one row into the platform's ledger, where the target has one: of a whole run, or of one of its batches.
pub fn ledger(target: &Target, mode: &str, run_id: i64, batch: Option<i64>, removed: i64) -> Result<()> {
    let Some(ledger) = &target.ledger else { return Ok(()) };
    let batch = batch.map_or(String::new(), |batch| format!(", batch {batch}"));
    as_owner_of(&ledger.table, || {
        Spi::run_with_args(
            &format!(
                "INSERT INTO {} (user_id, amount, type, description, created_at)
                 VALUES ($1, $2, 'backlog_cleanup', $3, {})",
                ledger.table.name,
                target.in_time_zone(&ledger.created_at, "pg_catalog.now()")
            ),
            &[
                target.account.as_str().into(),
                removed.into(),
                format!("{mode} backlog cleanup, run {run_id}{batch}: removed {removed} failed rows").into(),
            ],
        )
        .map_err(spi)
    })
}

/// The newest run of a target, as JSON; null before the first. A run that is not at work any more is told from one that is
/// by the lock, since this only reads; a standby, which does not see the lock, believes the row.
pub fn last_run(target: &str) -> Result<serde_json::Value> {
    let is_running = lock::holder(target)?.is_some() || unsafe { pg_sys::RecoveryInProgress() };
    let run = state(|| {
        read_one::<pgrx::JsonB>(
            "SELECT pg_catalog.jsonb_build_object('runId', id, 'mode', mode, 'removed', removed,
                                                  'state', CASE WHEN state OPERATOR(pg_catalog.=) 'running' AND NOT $2
                                                                THEN 'interrupted' ELSE state END,
                                                  'requestedBy', requested_by,
                                                  'startedAt', started_at, 'finishedAt', finished_at)
             FROM backlog_cleanup.run
             WHERE target OPERATOR(pg_catalog.=) $1
             ORDER BY id DESC",
            &[target.into(), is_running.into()],
        )
    })?;
    Ok(run.map_or(serde_json::Value::Null, |run| run.0))
}
