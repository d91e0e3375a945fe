use std::borrow::Cow;

use std::time::Duration;

use backlog_cleanup_report::BatchMilliseconds;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use pgrx::spi::SpiClient;

use crate::extension;
use crate::history::failures::{self, Columns};
use crate::history::ledger;
use crate::history::run::Run;
use crate::plan::cutoff::Cutoffs;
use crate::postgres::error::{Result, spi};
use crate::postgres::now::{one_now, rows_now};
use crate::postgres::prepared;
use crate::postgres::subtransaction::{attempt, is_cancel, said};
use crate::postgres::wal;
use crate::rank::tally::OfRecipe;
use crate::remove::left::{CHANGED_INSTEAD, Left};
use crate::target::Target;

/// Marks the `running` runs of a target as interrupted, and sums up the runs that have ended without. The caller has locked the
/// target, so no process works on them. Whatever their rows hold, a new run starts: what fails is left, with a WARNING; what
/// another session has locked, as an open transaction does that has stopped a run, is left to a later run.
pub fn interrupt(target: &str) -> Result<()> {
    const LEFT: &str = "
        SELECT id FROM backlog_cleanup.run
        WHERE target = $1 AND state <> 'running'
          AND id IN (SELECT run_id FROM backlog_cleanup.run_part
                     UNION ALL SELECT run_id FROM backlog_cleanup.run_cutoff
                     UNION ALL SELECT run_id FROM backlog_cleanup.run_batch)
        ORDER BY id";
    or_warn(&format!("the interrupted runs of target \"{target}\" stay as they are"), || {
        // Until ALTER EXTENSION UPDATE the table has no such column.
        let why = if extension::is_updated()? { ", error_message = 'the session that ran it has ended'" } else { "" };
        let interrupt = format!(
            "UPDATE backlog_cleanup.run
             SET finished_at = coalesce((SELECT max(b.finished_at) FROM backlog_cleanup.run_batch b WHERE b.run_id = run.id),
                                        started_at),
                 state = 'interrupted'{why}
             WHERE id IN (SELECT id FROM backlog_cleanup.run WHERE target = $1 AND state = 'running' FOR UPDATE SKIP LOCKED)"
        );
        extension::as_owner(|| Spi::run_with_args(&interrupt, &[target.into()]).map_err(spi))
    });
    let left = extension::as_owner(|| rows_now(LEFT, &[target.into()], |row| row.get::<i64>(1)))?;
    left.into_iter().flatten().for_each(sum_up_or_warn);
    Ok(())
}

/// Sums up a run, whatever its rows hold.
pub fn sum_up_or_warn(run_id: i64) {
    if !or_warn(&format!("run {run_id} cannot be summed up"), || sum_up(run_id).map(drop)) {
        or_warn(&format!("the working state of run {run_id} stays"), || clear(run_id));
    }
}

/// Does `work` in a subtransaction. If it fails, raises a WARNING and returns false.
fn or_warn(otherwise: &str, work: impl FnOnce() -> Result<()>) -> bool {
    let Err(failure) = attempt(|| work().map(Some)) else { return true };
    if is_cancel(&failure) {
        failure.rethrow();
    }
    let message = format!("{otherwise}: {}", said(&failure));
    ErrorReport::new(PgSqlErrorCode::ERRCODE_WARNING, message, "backlog_cleanup").report(PgLogLevel::WARNING);
    false
}

/// What the committed batches of run `$1` have removed, until `sum_up` clears them. Policies and statuses are numbered as `run_policy` and
/// `run_status` have them.
const LOST: &str = "
    lost AS MATERIALIZED (
        SELECT lost.recipe_id, lost.policy, lost.status, sum(lost.removed)::bigint AS removed
        FROM backlog_cleanup.run_batch b, LATERAL ROWS FROM (unnest(b.recipe_ids), unnest(b.policies), unnest(b.statuses),
                                                            unnest(b.removed)) lost (recipe_id, policy, status, removed)
        WHERE b.run_id = $1
        GROUP BY lost.recipe_id, lost.policy, lost.status)";

/// The same per recipe, of `lost`. Rows that went as of other recipes than they had at first are counted among the failed rows of those
/// only, as `Tally::settle` does; what an emergency run passes over is added to those.
const COUNTED: &str = "
    SELECT recipe_id,
           (greatest(failed, removed) - least(gap, greatest(least(over_all, gaps - stayed) - before, 0)) + held)::bigint AS failed_count,
           removed::bigint AS cleaned_count
    FROM (SELECT *, sum(greatest(removed - failed, 0)) OVER () AS over_all, sum(gap) OVER () AS gaps,
                 sum(gap) OVER (ORDER BY gap DESC, recipe_id ROWS UNBOUNDED PRECEDING) - gap AS before
          FROM (SELECT recipe_id, sum(failed) AS failed, sum(removed) AS removed, sum(held) AS held,
                       greatest(sum(failed) - sum(removed), 0) AS gap
                FROM (SELECT recipe_id, CASE WHEN place < 0 THEN 0 ELSE failed END AS failed, 0 AS removed,
                             CASE WHEN place < 0 THEN failed ELSE 0 END AS held
                      FROM backlog_cleanup.run_cutoff WHERE run_id = $1
                      UNION ALL SELECT recipe_id, 0, removed, 0 FROM lost) counted
                GROUP BY recipe_id) of_recipe) counted
    CROSS JOIN (SELECT kept_back + skipped FROM backlog_cleanup.run WHERE id = $1) run (stayed)";

/// Counts as kept back what a run was to remove and has not found again, if code of the run has changed rows of the target: those in
/// batches behind the one that has changed them. A regular run keeps back no more than it was to remove, in however many recipes it has
/// met a row.
pub fn keep_changed(run_id: i64) -> Result<()> {
    const KEEP: &str = "
        UPDATE backlog_cleanup.run
        SET kept_back = greatest(kept_back + missing, unreadable),
            kept_back_sqlstate = CASE WHEN kept_back > 0 THEN kept_back_sqlstate END,
            kept_back_row = CASE WHEN kept_back > 0 THEN kept_back_row END,
            kept_back_message = CASE WHEN kept_back > 0 THEN kept_back_message ELSE $2 END
        FROM (SELECT r.id, sum(coalesce(c.removable, c.failed)) - r.removed - (r.kept_back - r.unreadable) - r.skipped AS missing
              FROM backlog_cleanup.run r JOIN backlog_cleanup.run_cutoff c ON c.run_id = r.id
              WHERE r.id = $1 AND r.state = 'running'
                -- A part that looks again.
                AND EXISTS (SELECT FROM backlog_cleanup.run_part p WHERE p.run_id = $1 AND p.pass > 1 AND p.first_block IS NOT NULL)
              GROUP BY r.id) wanted
        WHERE run.id = wanted.id AND (missing > 0 OR missing < 0 AND run.mode = 'regular')";
    let keep = || Spi::run_with_args(KEEP, &[run_id.into(), CHANGED_INSTEAD.into()]).map_err(spi);
    extension::as_owner(keep)
}

/// Sums up the rows that run `$1` has kept back of each policy or status: the rows of `table` are numbered as `of_cutoff` has it. First come those that the last pass has left for another, whose recipes are known;
/// then, of the recipes that the run should have removed more rows of, as many as are wanting: where a part looks through blocks, or code of
/// the run has changed rows.
fn sum_up_kept_back(table: &str, of_cutoff: &str) -> String {
    format!(
        "WITH known AS (
             SELECT tried.place, count(*) AS rows
             FROM backlog_cleanup.run_part p
             -- By key, steps are recipes.
             CROSS JOIN LATERAL unnest(
                 CASE WHEN p.first_recipe IS NOT NULL THEN p.places ELSE p.places[(p.steps_done + 1)::integer:] END
             ) AS tried (place)
             WHERE p.run_id = $1 AND p.kept_back > 0 AND (p.first_recipe IS NULL OR tried.place >= p.first_recipe + p.steps_done)
             GROUP BY tried.place),
         of_recipe AS (
             SELECT {of_cutoff} AS place, sum(known) AS known, greatest(sum(removable) - sum(removed) - sum(known), 0) AS wanting
             FROM (SELECT recipe_id, policy, status, coalesce(removable, failed) AS removable, 0 AS removed,
                          coalesce(known.rows, 0) AS known
                   FROM backlog_cleanup.run_cutoff LEFT JOIN known USING (place)
                   WHERE run_id = $1
                   UNION ALL
                   SELECT lost.recipe_id, lost.policy, lost.status, 0, lost.removed, 0
                   FROM backlog_cleanup.run_batch b, LATERAL ROWS FROM (unnest(b.recipe_ids), unnest(b.policies), unnest(b.statuses),
                                                                       unnest(b.removed)) lost (recipe_id, policy, status, removed)
                   WHERE b.run_id = $1) counted
             GROUP BY recipe_id, policy, status),
         share AS (
             SELECT of_place.place, turn.rows,
                    sum(turn.rows) OVER (ORDER BY turn.turn, of_place.place ROWS UNBOUNDED PRECEDING) - turn.rows AS before, run.kept_back
             FROM (SELECT place, sum(known) AS known, sum(wanting) AS wanting FROM of_recipe GROUP BY place) of_place
             CROSS JOIN (SELECT kept_back - unreadable AS kept_back FROM backlog_cleanup.run WHERE id = $1) run
             CROSS JOIN LATERAL (VALUES (1, of_place.known), (2, of_place.wanting)) turn (turn, rows))
         UPDATE backlog_cleanup.{table} counts SET kept_back = stayed.rows
         FROM (SELECT place, sum(least(rows, greatest(kept_back - before, 0)))::bigint AS rows FROM share GROUP BY place) stayed
         WHERE counts.run_id = $1 AND counts.place = stayed.place"
    )
}

/// Sums up the batches of a run per recipe, policy and status, and clears its working state. Returns all its recipes, as `recipes` does.
pub fn sum_up(run_id: i64) -> Result<Vec<OfRecipe<'static>>> {
    let of_place = |table: &str, place: &str| {
        format!(
            "UPDATE backlog_cleanup.{table} counts SET removed = sums.removed, in_scope = greatest(in_scope, sums.removed)
             FROM (SELECT {place} AS place, sum(removed)::bigint AS removed FROM lost GROUP BY {place}) sums
             WHERE counts.run_id = $1 AND counts.place = sums.place"
        )
    };
    // The run has the sums of all recipes; only those that lost rows have rows of their own.
    let recipes = format!(
        "WITH {LOST}, counted AS ({COUNTED}),
         of_recipes AS (
             INSERT INTO backlog_cleanup.run_recipe (run_id, recipe_id, failed_count, cleaned_count)
             SELECT $1, counted.* FROM counted WHERE cleaned_count > 0),
         of_policies AS ({policies}),
         of_statuses AS ({statuses}),
         of_run AS (
             UPDATE backlog_cleanup.run SET total_failed = counted.failed, recipes_affected = counted.recipes
             FROM (SELECT coalesce(sum(failed_count), 0)::bigint AS failed, count(*) AS recipes FROM counted) counted
             WHERE id = $1)
         SELECT * FROM counted ORDER BY {ORDER}",
        policies = of_place("run_policy", "policy"),
        statuses = of_place("run_status", "status"),
    );
    let recipes = extension::as_owner(|| {
        let write = |client: &mut SpiClient| -> spi::Result<Vec<_>> {
            client.update(recipes.as_str(), None, &[run_id.into()])?.map(count).collect()
        };
        Spi::connect_mut(write).map_err(spi)
    })?;
    let failures = failures::sum_up(
        "SELECT lost.* FROM backlog_cleanup.run_batch b,
                LATERAL ROWS FROM (unnest(b.hours), unnest(b.failure_types), unnest(b.failed_recipes), unnest(b.of_failures))
                    lost (hour, failure_type, recipe_id, removed)
         WHERE b.run_id = $1",
    );
    let mut steps = vec![failures];
    const HAS_KEPT_BACK: &str = "SELECT kept_back > 0 FROM backlog_cleanup.run WHERE id = $1";
    if extension::as_owner(|| prepared::get_one::<bool>(HAS_KEPT_BACK, &[run_id.into()]))? == Some(true) {
        steps.extend([sum_up_kept_back("run_policy", "policy"), sum_up_kept_back("run_status", "status")]);
    }
    each(&steps, run_id)?;
    clear(run_id)?;
    Ok(recipes)
}

/// Clears the working state of a run.
fn clear(run_id: i64) -> Result<()> {
    let steps = ["run_cutoff", "run_part", "run_batch"];
    each(&steps.map(|table| format!("DELETE FROM backlog_cleanup.{table} WHERE run_id = $1")), run_id)
}

fn each(steps: &[impl AsRef<str>], run_id: i64) -> Result<()> {
    let run = |step: &str| Spi::run_with_args(step, &[run_id.into()]).map_err(spi);
    extension::as_owner(|| steps.iter().try_for_each(|step| run(step.as_ref())))
}

/// Whether a run is to end: it was asked to stop, its time is over, or it has ended with an error.
pub fn is_to_end(run_id: i64) -> Result<bool> {
    const IS_TO_END: &str = "
        SELECT state <> 'running' OR max_duration <= clock_timestamp() - started_at FROM backlog_cleanup.run WHERE id = $1";
    extension::as_owner(|| one_now::<bool>(IS_TO_END, &[run_id.into()])).map(|is_to_end| is_to_end == Some(true))
}

/// Marks a run as stopped before its end.
pub fn stop(run_id: i64) -> Result<()> {
    let stop = "UPDATE backlog_cleanup.run SET state = 'stopped' WHERE id = $1 AND state = 'running'";
    extension::as_owner(|| Spi::run_with_args(stop, &[run_id.into()]).map_err(spi))
}

/// Records what a run waits for.
pub fn waiting(run_id: i64, reason: &str) -> Result<()> {
    let wait = "UPDATE backlog_cleanup.run SET waiting_for = $2
                WHERE id = $1 AND waiting_for IS DISTINCT FROM $2";
    extension::as_owner(|| Spi::run_with_args(wait, &[run_id.into(), reason.into()]).map_err(spi))
}

/// The order of recipes in a report: most removed first.
const ORDER: &str = "cleaned_count DESC, failed_count DESC, recipe_id";

/// What a run has removed so far per recipe: of one that is summed up, the recipes that lost rows.
pub fn recipes(run_id: i64) -> Result<Vec<OfRecipe<'static>>> {
    // Until ALTER EXTENSION UPDATE the table has no policies and statuses.
    let recipes = format!(
        "WITH lost AS (
             SELECT lost.recipe_id, lost.removed
             FROM backlog_cleanup.run_batch b, LATERAL ROWS FROM (unnest(b.recipe_ids), unnest(b.removed)) lost (recipe_id, removed)
             WHERE b.run_id = $1)
         SELECT recipe_id, failed_count, cleaned_count FROM backlog_cleanup.run_recipe WHERE run_id = $1
         UNION ALL {COUNTED}
         ORDER BY {ORDER}"
    );
    extension::as_owner(|| {
        let read = |client: &SpiClient| {
            client.select(recipes.as_str(), None, &[run_id.into()])?.map(count).collect::<spi::Result<_>>()
        };
        Spi::connect(read).map_err(spi)
    })
}

/// A recipe of a run, and its failed and its removed rows.
fn count(row: spi::SpiHeapTupleData) -> spi::Result<OfRecipe<'static>> {
    Ok(OfRecipe {
        recipe_id: row.get::<String>(1)?.map(Cow::from),
        failed: row.get(2)?.unwrap_or_default(),
        removed: row.get(3)?.unwrap_or_default(),
    })
}

/// How long the batches of a run held their locks.
pub fn milliseconds(run_id: i64) -> Result<BatchMilliseconds> {
    let figures = extension::as_owner(|| {
        Spi::get_one_with_args::<Vec<f64>>(
            "SELECT percentile_disc(ARRAY[0.5, 0.99, 1]::float8[]) WITHIN GROUP (ORDER BY milliseconds)
             FROM backlog_cleanup.run_batch WHERE run_id = $1",
            &[run_id.into()],
        )
        .map_err(spi)
    })?
    .unwrap_or_default();
    let figure = |place: usize| figures.get(place).copied().unwrap_or_default();
    Ok(BatchMilliseconds { median: figure(0), p99: figure(1), max: figure(2) })
}

/// Records a batch in the transaction that removed its rows: in the run, the ledger and the list of batches. What a row has met in
/// a later pass replaces what one has met before, which may be gone. Errors: 40001
/// (with it the run would have removed more than were ranked).
pub fn write(run: &Run, target: &Target, cutoffs: &mut Cutoffs, pass: i32, left: &Left, took: Duration) -> Result<()> {
    let (removed, reason, wal) = (cutoffs.tally.removed(), left.reason.as_ref(), wal::uncounted());
    let batch = extension::as_owner(|| {
        prepared::get_one::<i64>(
            "UPDATE backlog_cleanup.run
             SET removed = removed + $2, skipped = skipped + $3, kept_back = kept_back + $4,
                 batches = batches + CASE WHEN $2 > 0 THEN 1 ELSE 0 END,
                 given_up = given_up + $5,
                 kept_back_sqlstate = CASE WHEN kept_back_message IS NULL OR $9 AND $8 IS NOT NULL THEN $6 ELSE kept_back_sqlstate END,
                 kept_back_row = CASE WHEN kept_back_message IS NULL OR $9 AND $8 IS NOT NULL THEN $7 ELSE kept_back_row END,
                 kept_back_message = CASE WHEN kept_back_message IS NULL OR $9 AND $8 IS NOT NULL THEN $8 ELSE kept_back_message END,
                 wal_bytes = wal_bytes + $10, full_page_images = full_page_images + $11,
                 waiting_for = NULL
             WHERE id = $1
             RETURNING batches",
            &[
                run.id.into(),
                removed.into(),
                left.skipped.into(),
                left.kept_back.into(),
                left.given_up.into(),
                reason.and_then(|reason| reason.sqlstate.as_deref()).into(),
                reason.and_then(|reason| reason.row.as_deref()).into(),
                reason.map(|reason| reason.message.as_str()).into(),
                (pass > 1).into(),
                wal.bytes.into(),
                wal.full_page_images.into(),
            ],
        )
    })?;
    if removed == 0 {
        return Ok(());
    }
    cutoffs.check(&target.name)?;
    let lost: Vec<_> = cutoffs.tally.list.iter().filter(|recipe| recipe.removed > 0).collect();
    let recipe_ids: Vec<Option<String>> = lost.iter().map(|recipe| recipe.recipe_id.clone()).collect();
    let policies: Vec<i32> = lost.iter().map(|recipe| recipe.policy as i32).collect();
    let statuses: Vec<i32> = lost.iter().map(|recipe| recipe.status as i32).collect();
    let counts: Vec<i64> = lost.iter().map(|recipe| recipe.removed).collect();
    let failures = std::mem::take(&mut cutoffs.tally.lost).counted(removed);
    let Columns { hours, failure_types, recipe_ids: failed_recipes, rows } = Columns::of(failures);
    ledger::write(target, run.mode, run.id, batch, removed)?;
    extension::as_owner(|| {
        prepared::run(
            "INSERT INTO backlog_cleanup.run_batch (run_id, batch, recipe_ids, policies, statuses, removed, milliseconds, finished_at,
                                                    hours, failure_types, failed_recipes, of_failures)
             VALUES ($1, $2, $3, $4, $5, $6, $7, clock_timestamp(), $8, $9, $10, $11)",
            &[
                run.id.into(),
                batch.into(),
                recipe_ids.into(),
                policies.into(),
                statuses.into(),
                counts.into(),
                (took.as_secs_f64() * 1000.0).into(),
                hours.into(),
                failure_types.into(),
                failed_recipes.into(),
                rows.into(),
            ],
        )
    })
}
