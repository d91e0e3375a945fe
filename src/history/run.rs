use std::rc::Rc;

use backlog_cleanup_report::{Mode, State};
use pgrx::JsonB;
use pgrx::prelude::*;
use serde::Deserialize;

use crate::extension;
use crate::history::{failures, ledger};
use crate::plan::{policies, statuses};
use crate::postgres::error::{Result, error, required, spi};
use crate::postgres::read::read_prepared;
use crate::postgres::wal::Wal;
use crate::rank::tally::{OfRecipe, Tally};
use crate::remove::left::{Left, Reason};
use crate::rules::Rules;
use crate::rules::matching::Policies;
use crate::rules::selection::Selection;
use crate::target::Target;
use crate::target::guard::Unreadable;
use crate::target::leaf::Leaf;
use crate::target::pace::Pace;
use crate::target::reading::Reading;

/// The condition on a run `r` that it was a regular one of everything and has done its work: it completed, or removed rows until a limit of
/// its own stopped it. Also before ALTER EXTENSION UPDATE.
pub const WHOLE_AND_DONE: &str =
    "r.mode = 'regular' AND r.recipe_id IS NULL AND r.failure_type IS NULL AND to_jsonb(r.*) ->> 'status' IS NULL
    AND (r.state = 'completed'
         OR r.state = 'stopped' AND r.removed > 0 AND to_jsonb(r.*) ->> 'stop_requested_by' IS NULL)";

/// The seconds whose rows are one batch under a rate.
pub const PIECE: f64 = 0.25;

/// A batched run, read from its row.
#[derive(Deserialize)]
pub struct Run {
    pub id: i64,
    pub target: String,
    pub mode: Mode,
    pub state: State,
    pub recipe_id: Option<String>,
    pub failure_type: Option<String>,
    pub status: Option<String>,
    pub include_held: bool,
    /// How the target was read when the run started.
    pub reading: Option<Reading>,
    pub removed: i64,
    pub kept_back: i64,
    pub batches: i64,
    pub batch_size: i64,
    /// Seconds; `None` if the run finds its pace itself.
    pub pause: Option<f64>,
    /// Its own, or what a tick has slowed it down to.
    pub max_rows_per_second: Option<i64>,
    pub seconds_left: Option<f64>,
    pub stop_requested_by: Option<String>,
    pub max_rows: Option<i64>,
    pub workers: i32,
    pub finished_at: Option<String>,
}

impl Run {
    /// Errors: 22004, 42704 (no batched run has this id).
    pub fn load(run_id: Option<i64>) -> Result<Run> {
        let run_id = required(run_id, "run_id", "SELECT id FROM backlog_cleanup.run WHERE state = 'running'")?;
        let row = extension::as_owner(|| {
            read_prepared::<JsonB>(
                "SELECT to_jsonb(r) || jsonb_build_object(
                       'pause', extract(epoch FROM pause),
                       'max_rows_per_second', least(max_rows_per_second, backlog_cleanup.slowed_to(target, started_at)),
                       'seconds_left', extract(epoch FROM max_duration) - extract(epoch FROM clock_timestamp() - started_at))
                   FROM backlog_cleanup.run r
                   WHERE id = $1 AND batch_size IS NOT NULL",
                &[run_id.into()],
            )
        })?;
        row.and_then(|row| serde_json::from_value(row.0).ok()).ok_or_else(|| {
            error(
                PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT,
                format!("batched run {run_id} does not exist"),
                "SELECT id FROM backlog_cleanup.run WHERE state = 'running'".into(),
            )
        })
    }

    pub fn rules<'a>(&'a self, target: &'a Target, policies: &Rc<Policies>) -> Rules<'a> {
        Rules {
            target,
            mode: self.mode,
            policies: policies.clone(),
            include_held: self.include_held,
            selection: Selection {
                recipe_id: self.recipe_id.as_deref(),
                failure_type: self.failure_type.as_deref(),
                status: self.status.as_deref(),
            },
        }
    }

    /// Rows that `max_rows` leaves.
    pub fn rows_left(&self) -> Option<i64> {
        self.max_rows.map(|rows| rows - self.removed)
    }

    /// Rows of the next batch: `batch_size`, or as many as `max_rows` leaves, or as a process removes in a piece of a second.
    pub fn rows_at_once(&self) -> i64 {
        let in_a_piece = self.rows_per_second().map(|rows| ((rows * PIECE) as i64).max(1));
        [Some(self.batch_size), self.rows_left(), in_a_piece].into_iter().flatten().min().unwrap_or_default()
    }

    /// How many rows each of its processes removes per second at most.
    pub fn rows_per_second(&self) -> Option<f64> {
        self.max_rows_per_second.map(|rows| rows as f64 / f64::from(self.workers.max(1)))
    }

    /// The given seconds, or those that the run has left if they are fewer.
    pub fn in_time(&self, seconds: f64) -> f64 {
        self.seconds_left.map_or(seconds, |left| seconds.min(left.max(0.0)))
    }

    /// Whether it has reached its `max_duration` or `max_rows`.
    pub fn is_over(&self) -> bool {
        self.seconds_left.is_some_and(|left| left <= 0.0) || self.rows_left().is_some_and(|rows| rows <= 0)
    }
}

/// Records that a batched run starts; `referenced` rows, which others keep, count as kept back until they go, and `held` ones are passed
/// over. Returns its id.
pub fn start(
    rules: &Rules,
    leaves: &[Leaf],
    tally: &Tally,
    (referenced, held): (i64, i64),
    pace: &Pace,
    caller: &str,
) -> Result<i64> {
    let pace = serde_json::to_value(pace).unwrap_or_default();
    let reading = serde_json::to_value(Reading::of(rules.target, leaves)?).unwrap_or_default();
    extension::as_owner(|| {
        Spi::get_one_with_args::<i64>(
            "INSERT INTO backlog_cleanup.run (target, mode, state, requested_by, recipe_id, failure_type, cutoff,
                                              total_failed, removed, recipes_affected, batch_size, pause, max_duration,
                                              max_rows, max_rows_per_second, workers, reading, kept_back, held, include_held, status,
                                              wal_bytes, full_page_images, started_at)
             SELECT $1, $2, 'running', $3::name, $4, $5, $6::timestamptz, $7, 0, $8, p.batch_size, p.pause, p.max_duration,
                    p.max_rows, p.max_rows_per_second, p.workers, $10, $11, $12, $13, $14, 0, 0, clock_timestamp()
             FROM jsonb_populate_record(NULL::backlog_cleanup.run, $9) p
             RETURNING id",
            &[
                rules.target.name.as_str().into(),
                rules.mode.as_str().into(),
                caller.into(),
                rules.selection.recipe_id.into(),
                rules.selection.failure_type.into(),
                rules.is_regular().then(|| rules.policies.default_policy().cutoff.as_str()).into(),
                tally.failed().into(),
                (tally.recipes() as i64).into(),
                JsonB(pace).into(),
                JsonB(reading).into(),
                referenced.into(),
                held.into(),
                rules.include_held.into(),
                rules.selection.status.into(),
            ],
        )
        .map_err(spi)
    })
    .map(Option::unwrap_or_default)
}

/// Records a batched regular run of everything that an error ends before it has begun. Returns its id.
pub fn refused(target: &str, caller: &str) -> Result<i64> {
    const REFUSED: &str = "
        INSERT INTO backlog_cleanup.run (target, mode, state, requested_by, total_failed, removed, recipes_affected, batch_size, started_at)
        SELECT name, 'regular', 'running', $2::name, 0, 0, 0, batch_size, now() FROM backlog_cleanup.target WHERE name = $1
        RETURNING id";
    extension::as_owner(|| Spi::get_one_with_args::<i64>(REFUSED, &[target.into(), caller.into()]).map_err(spi))
        .map(Option::unwrap_or_default)
}

/// Records rows that a batched run keeps back from its start, since an expression of the target fails for them.
pub fn keep_unreadable(run_id: i64, unreadable: &Unreadable) -> Result<()> {
    let Reason { sqlstate, message, row } = Reason::unreadable(unreadable);
    let keep = "UPDATE backlog_cleanup.run
                SET kept_back = kept_back + $2, unreadable = $2, kept_back_sqlstate = $3, kept_back_message = $4, kept_back_row = $5
                WHERE id = $1";
    let arguments = [run_id.into(), unreadable.rows.into(), sqlstate.into(), message.into(), row.into()];
    extension::as_owner(|| Spi::run_with_args(keep, &arguments).map_err(spi))
}

/// Records a run of one transaction that has written this WAL, the recipes that lost rows and its ledger row, in the transaction that
/// removed. Returns the run's id.
pub fn record(
    rules: &Rules,
    tally: &Tally,
    recipes: &[OfRecipe],
    left: &Left,
    held: i64,
    wal: Wal,
    caller: &str,
) -> Result<i64> {
    let removed = tally.removed();
    let run_id = extension::as_owner(|| {
        let run_id = Spi::get_one_with_args::<i64>(
            "INSERT INTO backlog_cleanup.run (target, mode, requested_by, recipe_id, failure_type, cutoff,
                                              total_failed, removed, recipes_affected, started_at, finished_at)
             VALUES ($1, $2, $3::name, $4, $5, $6::timestamptz, $7, $8, $9, now(), clock_timestamp())
             RETURNING id",
            &[
                rules.target.name.as_str().into(),
                rules.mode.as_str().into(),
                caller.into(),
                rules.selection.recipe_id.into(),
                rules.selection.failure_type.into(),
                rules.is_regular().then(|| rules.policies.default_policy().cutoff.as_str()).into(),
                tally.failed().into(),
                removed.into(),
                (recipes.len() as i64).into(),
            ],
        )
        .map_err(spi)?
        .unwrap_or_default();
        if left.skipped + left.kept_back + held > 0 || rules.include_held || rules.selection.status.is_some() {
            leave(run_id, rules, left, held)?;
        }
        let lost = || recipes.iter().filter(|recipe| recipe.removed > 0);
        let ids: Vec<Option<&str>> = lost().map(|recipe| recipe.recipe_id.as_deref()).collect();
        let failed: Vec<i64> = lost().map(|recipe| recipe.failed).collect();
        let cleaned: Vec<i64> = lost().map(|recipe| recipe.removed).collect();
        Spi::run_with_args(
            "INSERT INTO backlog_cleanup.run_recipe (run_id, recipe_id, failed_count, cleaned_count)
             SELECT $1, unnest($2), unnest($3), unnest($4)",
            &[run_id.into(), ids.into(), failed.into(), cleaned.into()],
        )
        .map_err(spi)?;
        Ok(run_id)
    })?;
    if extension::is_updated()? {
        let written = "UPDATE backlog_cleanup.run SET wal_bytes = $2, full_page_images = $3 WHERE id = $1";
        let arguments = [run_id.into(), wal.bytes.into(), wal.full_page_images.into()];
        extension::as_owner(|| Spi::run_with_args(written, &arguments).map_err(spi))?;
        policies::save(run_id, &rules.policies, tally, true)?;
        statuses::save(run_id, rules.target, tally, true)?;
        failures::record(run_id, tally.lost.counted(removed))?;
    }
    ledger::write(rules.target, rules.mode, run_id, None, removed)?;
    Ok(run_id)
}

/// Records the rows that a run of one transaction has left, and what earlier versions could not be told.
fn leave(run_id: i64, rules: &Rules, left: &Left, held: i64) -> Result<()> {
    // Until ALTER EXTENSION UPDATE the database may have a table without these columns.
    extension::is_of_this_version()?;
    let reason = left.reason.as_ref();
    Spi::run_with_args(
        "UPDATE backlog_cleanup.run
         SET skipped = $2, kept_back = $3, given_up = $4, kept_back_sqlstate = $5, kept_back_message = $6, kept_back_row = $7,
             held = $8, include_held = $9, status = $10, unreadable = $11
         WHERE id = $1",
        &[
            run_id.into(),
            left.skipped.into(),
            left.kept_back.into(),
            left.given_up.into(),
            reason.and_then(|reason| reason.sqlstate.as_deref()).into(),
            reason.map(|reason| reason.message.as_str()).into(),
            reason.and_then(|reason| reason.row.as_deref()).into(),
            held.into(),
            rules.include_held.into(),
            rules.selection.status.into(),
            left.unreadable.into(),
        ],
    )
    .map_err(spi)
}
