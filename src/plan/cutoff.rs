use std::cell::{Cell, RefCell};
use std::rc::Rc;

use pgrx::PgMemoryContexts;
use pgrx::prelude::*;
use pgrx::spi::quote_literal;

use crate::extension;
use crate::plan::policies;
use crate::postgres::datum::instant_as_text;
use crate::postgres::error::{Result, error, spi};
use crate::postgres::memory::context_below;
use crate::postgres::now::rows_now;
use crate::postgres::owner::reading_as_owner_of;
use crate::postgres::snapshot::Horizon;
use crate::postgres::stream::stream;
use crate::rank::one_pass::rank;
use crate::rank::position::{Order, Position};
use crate::rank::tally::{RecipeCount, Tally};
use crate::rules::Rules;
use crate::rules::matching::Policies;
use crate::target::Target;
use crate::target::leaf::leaves;

/// Saves the recipes of a run under its policies, with their cutoffs, so that they survive a crash. An emergency run passes over the rows
/// of the entries from `held` on: their places are below 0, and only reports count them.
pub fn save(rules: &Rules, run_id: i64, tally: &Tally, held: usize) -> Result<()> {
    let target = rules.target;
    // An earlier run of this session has the same id if the extension was dropped and created again in between.
    forget();
    let is_held = |place: usize| place >= held;
    let places = 0..tally.list.len();
    let places: Vec<i32> = places.map(|place| if is_held(place) { -1 - place as i32 } else { place as i32 }).collect();
    let ids: Vec<Option<String>> = tally.list.iter().map(|recipe| recipe.recipe_id.clone()).collect();
    let policies: Vec<i32> = tally.list.iter().map(|recipe| recipe.policy as i32).collect();
    let statuses: Vec<i32> = tally.list.iter().map(|recipe| recipe.status as i32).collect();
    let failed: Vec<i64> = tally.list.iter().map(|recipe| recipe.failed).collect();
    let removable =
        |(place, recipe): (usize, &RecipeCount)| (rules.is_regular() || is_held(place)).then_some(recipe.removed);
    let removable: Vec<Option<i64>> = tally.list.iter().enumerate().map(removable).collect();
    let order = Order::of(&target.id.value);
    // Whoever writes rows decides how long the ids are.
    let cutoffs = || tally.list.iter().map(|recipe| recipe.cutoff.and_then(|cutoff| order.rounded(cutoff)));
    let at: Vec<Option<String>> =
        cutoffs().map(|cutoff| cutoff.map(|cutoff| instant_as_text(cutoff.at, pg_sys::TIMESTAMPOID))).collect();
    // SAFETY: the id of a position.
    let saved = |id| target.id.saved(unsafe { target.id.values_of(id) });
    // As the table's owner: the id type's output function may be any role's code.
    let cutoff_ids: Vec<Option<String>> = reading_as_owner_of(&target.table, || {
        Ok(cutoffs().map(|cutoff| cutoff.and_then(|cutoff| cutoff.id).and_then(saved)).collect())
    })?;
    extension::as_owner(|| {
        Spi::run_with_args(
            "INSERT INTO backlog_cleanup.run_cutoff (run_id, place, recipe_id, policy, status, failed, removable, failed_at, id)
             SELECT $1, place, recipe_id, policy, status, failed, removable, failed_at::timestamp, id
             FROM ROWS FROM (unnest($2), unnest($3), unnest($4), unnest($5), unnest($6), unnest($7), unnest($8), unnest($9))
                  AS cutoff (place, recipe_id, policy, status, failed, removable, failed_at, id)",
            &[
                run_id.into(),
                places.into(),
                ids.into(),
                policies.into(),
                statuses.into(),
                failed.into(),
                removable.into(),
                at.into(),
                cutoff_ids.into(),
            ],
        )
        .map_err(spi)
    })
}

thread_local! {
    /// The cutoffs of the batched run that this process last worked on. Their ids live in `CONTEXT`.
    static LOADED: RefCell<Option<Cutoffs>> = const { RefCell::new(None) };
    static CONTEXT: Cell<pg_sys::MemoryContext> = const { Cell::new(std::ptr::null_mut()) };
}

/// The recipes of a batched run with their cutoffs, and how many rows of each it may still remove. The limit is needed because
/// rows written since the ranking may be older than the cutoff, and the breaker has not counted them.
pub struct Cutoffs {
    run_id: i64,
    pub policies: Rc<Policies>,
    pub tally: Tally,
    /// In the order of the tally; empty in an emergency run, which has no limit.
    left: Vec<i64>,
    /// The last batch, of any process, that has been subtracted from `left`.
    batch: i64,
    /// Rows that were made since may not have been ranked in their recipe.
    pub horizon: Horizon,
}

/// Does `work` with the recipes of a run and their cutoffs, which were ranked at a horizon; nothing is counted yet.
pub fn with<T>(
    target: &Target,
    run_id: i64,
    horizon: Horizon,
    work: impl FnOnce(&mut Cutoffs) -> Result<T>,
) -> Result<T> {
    let mut cutoffs = match LOADED.take().filter(|loaded| loaded.run_id == run_id) {
        Some(loaded) => loaded,
        None => load(target, run_id, horizon)?,
    };
    cutoffs.catch_up()?;
    cutoffs.tally.list.iter_mut().for_each(|recipe| recipe.removed = 0);
    cutoffs.tally.list.iter_mut().zip(&cutoffs.left).for_each(|(recipe, left)| recipe.left = Some(*left));
    let done = work(&mut cutoffs);
    LOADED.set(Some(cutoffs));
    done
}

impl Cutoffs {
    /// Checks that this batch and all batches before it have removed no more rows than were ranked. The caller has numbered
    /// the batch, so that those before it are committed. Errors: 40001.
    pub fn check(&mut self, target: &str) -> Result<()> {
        self.catch_up()?;
        // A recipe that was not ranked has none left; an emergency run has no limits.
        let left = self.left.iter().copied().chain(std::iter::repeat(0));
        if self.left.is_empty() || self.tally.list.iter().zip(left).all(|(recipe, left)| recipe.removed <= left) {
            return Ok(());
        }
        Err(error(
            PgSqlErrorCode::ERRCODE_T_R_SERIALIZATION_FAILURE,
            format!("run {} would remove more rows than there were when it started", self.run_id),
            format!("CALL backlog_cleanup_run({})", quote_literal(target)),
        ))
    }

    /// Ranks the rows that there are now. A cutoff only moves back: rows that have been given a recipe since count among its
    /// newest, and none goes that would not have gone.
    pub fn rank_anew(&mut self, rules: &Rules) -> Result<()> {
        let target = rules.target;
        let mut now = rank(rules, &leaves(target)?)?.tally;
        let order = order(target);
        // The comparison of ids may be the code of their type's owner.
        reading_as_owner_of(&target.table, || {
            for recipe in &mut self.tally.list {
                let place = now.of_group(recipe.recipe_id.as_deref(), recipe.policy, recipe.status);
                let earlier = |cutoff: Position| {
                    let now = now.list[place].cutoff?;
                    Some(if order.compare(now, cutoff).is_lt() { order.keep(now) } else { cutoff })
                };
                recipe.cutoff = recipe.cutoff.and_then(earlier);
            }
            Ok(())
        })?;
        self.horizon = Horizon::now();
        Ok(())
    }

    /// Subtracts what committed batches have removed since the last call.
    fn catch_up(&mut self) -> Result<()> {
        const REMOVED: &str = "
            SELECT recipe_ids, policies, statuses, removed, batch FROM backlog_cleanup.run_batch WHERE run_id = $1 AND batch > $2
            ORDER BY batch";
        if self.left.is_empty() {
            return Ok(());
        }
        let arguments = [self.run_id.into(), self.batch.into()];
        let batches = extension::as_owner(|| {
            rows_now(REMOVED, &arguments, |row| {
                let groups = (row.get::<Vec<Option<String>>>(1)?, row.get::<Vec<i32>>(2)?, row.get::<Vec<i32>>(3)?);
                Ok((groups, row.get::<Vec<i64>>(4)?, row.get::<i64>(5)?))
            })
        })?;
        for ((recipe_ids, policies, statuses), removed, batch) in batches {
            let groups = recipe_ids.iter().flatten().zip(policies.iter().flatten().zip(statuses.iter().flatten()));
            for ((recipe_id, (policy, status)), removed) in groups.zip(removed.iter().flatten()) {
                let recipe = self.tally.of_group(recipe_id.as_deref(), *policy as usize, *status as usize);
                if let Some(left) = self.left.get_mut(recipe) {
                    *left -= removed;
                }
            }
            self.batch = batch.unwrap_or(self.batch);
        }
        Ok(())
    }
}

/// Forgets the cutoffs that this process has loaded.
pub fn forget() {
    LOADED.set(None);
    if !CONTEXT.get().is_null() {
        // SAFETY: no position of this context is left.
        unsafe { pg_sys::MemoryContextReset(CONTEXT.get()) };
    }
}

/// The order of rows, which keeps ids for as long as the cutoffs are loaded.
fn order(target: &Target) -> Order {
    // SAFETY: `Order::of` is called in the context that the ids are to live in.
    unsafe { PgMemoryContexts::For(CONTEXT.get()).switch_to(|_| Order::of(&target.id.value)) }
}

fn load(target: &Target, run_id: i64, horizon: Horizon) -> Result<Cutoffs> {
    forget();
    if CONTEXT.get().is_null() {
        // SAFETY: only reads which context lives as long as the process.
        CONTEXT.set(context_below(unsafe { pg_sys::TopMemoryContext }, c"backlog_cleanup cutoffs"));
    }
    let order = order(target);
    let policies = Rc::new(policies::load(run_id)?);
    let mut tally = Tally::of(target, &policies);
    let (mut ids, mut left): (Vec<String>, Vec<i64>) = Default::default();
    let rows = format!(
        "SELECT recipe_id, policy, failed, failed_at, id, removable, status FROM backlog_cleanup.run_cutoff
         WHERE run_id = {run_id} AND place >= 0 ORDER BY place"
    );
    extension::as_owner(|| {
        stream(&rows, |row| {
            // SAFETY: both columns are texts.
            let (recipe_id, id) = unsafe { (row.text(0), row.text(4)) };
            let [policy, status] = [1, 6].map(|column| row.number(column).unwrap_or_default() as i32 as usize);
            let place = tally.of_group(recipe_id, policy, status);
            tally.list[place].failed = row.number(2).unwrap_or_default();
            tally.list[place].cutoff = row.number(3).map(|at| Position { at, id: None });
            left.extend(row.number(5));
            ids.push(id.map_or("NULL".into(), quote_literal));
        })
    })?;
    // As the table's owner: the id type's input function may be any role's code.
    let parsed = format!(
        "SELECT {} FROM pg_catalog.unnest(ARRAY[{}]::pg_catalog.text[]) WITH ORDINALITY kept (id, place) ORDER BY place",
        target.id.of_saved("kept.id")?,
        ids.join(", ")
    );
    let mut place = 0;
    reading_as_owner_of(&target.table, || {
        stream(&parsed, |row| {
            if let Some(cutoff) = &mut tally.list[place].cutoff {
                *cutoff = order.keep(Position { id: row.datum(0), ..*cutoff });
            }
            place += 1;
        })
    })?;
    Ok(Cutoffs { run_id, policies, tally, left, batch: 0, horizon })
}
