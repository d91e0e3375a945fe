use backlog_cleanup_report::{BatchMilliseconds, Batched, EmergencyReport, RegularReport};
use pgrx::JsonB;
use pgrx::prelude::*;

use crate::history::report::{Report, as_json, details};
use crate::history::run::Run;
use crate::postgres::error::{Result, spi};
use crate::rank::tally::Swept;
use crate::target::{Target, state};

/// Marks the runs of a target that are said to be running and are not as interrupted; the target is held by the caller.
pub fn interrupt(target: &str) -> Result<()> {
    let runs = state(|| {
        Spi::connect_mut(|client| {
            client
                .update(
                    "UPDATE backlog_cleanup.run
                     SET state = 'interrupted',
                         finished_at = COALESCE((SELECT pg_catalog.max(b.finished_at) FROM backlog_cleanup.run_batch b
                                                 WHERE b.run_id OPERATOR(pg_catalog.=) run.id), started_at)
                     WHERE target OPERATOR(pg_catalog.=) $1 AND state OPERATOR(pg_catalog.=) 'running'
                     RETURNING id",
                    None,
                    &[target.into()],
                )?
                .filter_map(|row| row.get::<i64>(1).transpose())
                .collect::<spi::Result<Vec<_>>>()
        })
        .map_err(spi)
    })?;
    runs.into_iter().try_for_each(sum_up)
}

/// What the committed batches of a run `$1` have removed per recipe, as long as it is not summed up.
const COUNTED: &str = "
    SELECT recipe_id, GREATEST(pg_catalog.sum(failed), pg_catalog.sum(removed))::pg_catalog.int8 AS failed_count,
           pg_catalog.sum(removed)::pg_catalog.int8 AS cleaned_count
    FROM (SELECT recipe_id, failed, 0 AS removed FROM backlog_cleanup.run_cutoff
          WHERE run_id OPERATOR(pg_catalog.=) $1
          UNION ALL
          SELECT lost.recipe_id, 0, lost.removed
          FROM backlog_cleanup.run_batch b, LATERAL ROWS FROM (pg_catalog.unnest(b.recipe_ids),
                                                              pg_catalog.unnest(b.removed)) lost (recipe_id, removed)
          WHERE b.run_id OPERATOR(pg_catalog.=) $1) counted
    GROUP BY recipe_id";

/// Sums up the batches of a run per recipe, and clears its working state.
fn sum_up(run_id: i64) -> Result<()> {
    let steps: [&str; 5] = [
        &format!(
            "INSERT INTO backlog_cleanup.run_recipe (run_id, recipe_id, failed_count, cleaned_count)
             SELECT $1, counted.* FROM ({COUNTED}) counted"
        ),
        "UPDATE backlog_cleanup.run SET total_failed = counted.failed, recipes_affected = counted.recipes
         FROM (SELECT COALESCE(pg_catalog.sum(failed_count), 0)::pg_catalog.int8 AS failed, pg_catalog.count(*) AS recipes
               FROM backlog_cleanup.run_recipe WHERE run_id OPERATOR(pg_catalog.=) $1) counted
         WHERE id OPERATOR(pg_catalog.=) $1",
        "DELETE FROM backlog_cleanup.run_cutoff WHERE run_id OPERATOR(pg_catalog.=) $1",
        "DELETE FROM backlog_cleanup.run_part WHERE run_id OPERATOR(pg_catalog.=) $1",
        "DELETE FROM backlog_cleanup.run_batch WHERE run_id OPERATOR(pg_catalog.=) $1",
    ];
    state(|| steps.iter().try_for_each(|step| Spi::run_with_args(step, &[run_id.into()]).map_err(spi)))
}

/// Marks a run as stopped before its end.
pub fn stop(run_id: i64) -> Result<()> {
    let stop = "UPDATE backlog_cleanup.run SET state = 'stopped' WHERE id OPERATOR(pg_catalog.=) $1";
    state(|| Spi::run_with_args(stop, &[run_id.into()]).map_err(spi))
}

/// Says what a run waits for.
pub fn waiting(run_id: i64, reason: &str) -> Result<()> {
    let wait = "UPDATE backlog_cleanup.run SET waiting_for = $2
                WHERE id OPERATOR(pg_catalog.=) $1 AND waiting_for IS DISTINCT FROM $2";
    state(|| Spi::run_with_args(wait, &[run_id.into(), reason.into()]).map_err(spi))
}

/// Closes a run that has come to its end, and returns its report.
pub fn report(run: &Run, target: &Target) -> Result<Report> {
    let batch_milliseconds = batch_milliseconds(run.id)?;
    sum_up(run.id)?;
    let swept = recipes(run.id)?;
    let closed = state(|| {
        Spi::get_one_with_args::<JsonB>(
            "UPDATE backlog_cleanup.run
             SET state = CASE state WHEN 'running' THEN 'completed' ELSE state END,
                 waiting_for = NULL, finished_at = pg_catalog.clock_timestamp()
             WHERE id OPERATOR(pg_catalog.=) $1
             RETURNING pg_catalog.jsonb_build_object(
                 'state', state, 'batches', batches, 'skipped', skipped, 'keptBack', kept_back, 'workers', workers,
                 'removed', removed,
                 'milliseconds', (EXTRACT(epoch FROM (finished_at OPERATOR(pg_catalog.-) started_at))
                                  OPERATOR(pg_catalog.*) 1000)::pg_catalog.int8)",
            &[run.id.into()],
        )
        .map_err(spi)
    })?;
    let closed = closed.map_or(serde_json::Value::Null, |closed| closed.0);
    let number = |key: &str| closed[key].as_i64().unwrap_or_default();
    let is_complete = closed["state"] == "completed";
    let message = |done: &str| if is_complete { done.into() } else { "Stopped before its end".into() };
    macro_rules! batched {
        ($report:expr) => {
            as_json(&Batched {
                report: $report,
                state: closed["state"].as_str().unwrap_or_default().into(),
                batches: number("batches"),
                workers: number("workers"),
                skipped_count: number("skipped"),
                kept_back_count: number("keptBack"),
                batch_milliseconds,
            })
        };
    }
    match run.policy() {
        Some(policy) => batched!(RegularReport {
            success: true,
            message: message("Backlog cleanup completed successfully"),
            run_id: Some(run.id),
            target: run.target.clone(),
            mode: run.mode.clone(),
            dry_run: false,
            cutoff: policy.is_enabled().then_some(policy.cutoff),
            total_failed_generations: swept.iter().map(|recipe| recipe.failed).sum(),
            cleaned_up_generations: number("removed"),
            recipes_affected: swept.len() as i64,
            cleanup_details: details(target, &swept)?,
            duration_ms: number("milliseconds"),
        }),
        None => batched!(EmergencyReport {
            success: true,
            message: message("Emergency backlog cleanup completed successfully"),
            run_id: Some(run.id),
            target: run.target.clone(),
            mode: run.mode.clone(),
            dry_run: false,
            removed_count: number("removed"),
            recipes_affected: swept.len() as i64,
            cleanup_details: details(target, &swept)?,
            duration_ms: number("milliseconds"),
        }),
    }
}

/// What a run has removed so far per recipe, most first.
pub fn recipes(run_id: i64) -> Result<Vec<Swept>> {
    let recipes = format!(
        "SELECT recipe_id, failed_count, cleaned_count FROM backlog_cleanup.run_recipe
         WHERE run_id OPERATOR(pg_catalog.=) $1
         UNION ALL {COUNTED}
         ORDER BY cleaned_count DESC, failed_count DESC, recipe_id"
    );
    state(|| {
        Spi::connect(|client| {
            client
                .select(recipes.as_str(), None, &[run_id.into()])?
                .map(|row| {
                    Ok(Swept {
                        recipe_id: row.get(1)?,
                        failed: row.get(2)?.unwrap_or_default(),
                        removed: row.get(3)?.unwrap_or_default(),
                        cutoff: None,
                    })
                })
                .collect::<spi::Result<_>>()
        })
        .map_err(spi)
    })
}

/// How long the batches of a run held their locks.
fn batch_milliseconds(run_id: i64) -> Result<BatchMilliseconds> {
    let figures = state(|| {
        Spi::get_one_with_args::<Vec<f64>>(
            "SELECT pg_catalog.percentile_disc(ARRAY[0.5, 0.99, 1]::pg_catalog.float8[]) WITHIN GROUP (ORDER BY milliseconds)
             FROM backlog_cleanup.run_batch WHERE run_id OPERATOR(pg_catalog.=) $1",
            &[run_id.into()],
        )
        .map_err(spi)
    })?
    .unwrap_or_default();
    let figure = |place: usize| figures.get(place).copied().unwrap_or_default();
    Ok(BatchMilliseconds { median: figure(0), p99: figure(1), max: figure(2) })
}
