use std::cell::{Cell, RefCell};

use pgrx::prelude::*;
use pgrx::spi::quote_literal;

use crate::postgres::error::{Result, error, spi};
use crate::postgres::owner::as_owner_of;
use crate::postgres::stream::stream;
use crate::rank::position::{Order, Position};
use crate::rank::tally::Recipes;
use crate::remove::keys::text_of;
use crate::target::{Target, state};

/// Keeps the cutoffs of a run where a crash cannot lose them.
pub fn save(target: &Target, run_id: i64, recipes: &Recipes) -> Result<()> {
    // An earlier run of this session may have had the same id, in another life of the extension.
    forget();
    let ids: Vec<Option<String>> = recipes.list.iter().map(|recipe| recipe.recipe_id.clone()).collect();
    let failed: Vec<i64> = recipes.list.iter().map(|recipe| recipe.failed).collect();
    let cutoffs = || recipes.list.iter().map(|recipe| recipe.cutoff);
    state(|| {
        let at: Vec<Option<String>> =
            cutoffs().map(|cutoff| cutoff.map(|cutoff| text_of(cutoff.at.into(), pg_sys::TIMESTAMPOID))).collect();
        let cutoff_ids: Vec<Option<String>> = cutoffs()
            .map(|cutoff| cutoff.and_then(|cutoff| cutoff.id).map(|id| text_of(id, target.id.type_oid)))
            .collect();
        Spi::run_with_args(
            "INSERT INTO backlog_cleanup.run_cutoff (run_id, place, recipe_id, failed, failed_at, id)
             SELECT $1, place OPERATOR(pg_catalog.-) 1, recipe_id, failed, failed_at::timestamp, id
             FROM ROWS FROM (pg_catalog.unnest($2), pg_catalog.unnest($3), pg_catalog.unnest($4), pg_catalog.unnest($5))
                  WITH ORDINALITY AS cutoff (recipe_id, failed, failed_at, id, place)",
            &[run_id.into(), ids.into(), failed.into(), at.into(), cutoff_ids.into()],
        )
        .map_err(spi)
    })
}

thread_local! {
    /// The cutoffs of the batched run that this process last worked on; their ids are in the context.
    static LOADED: RefCell<Option<(i64, Reading, Recipes)>> = const { RefCell::new(None) };
    static CONTEXT: Cell<pg_sys::MemoryContext> = const { Cell::new(std::ptr::null_mut()) };
}

/// What a cutoff's meaning hangs on: the names and types of the columns, and the time zone.
#[derive(PartialEq)]
struct Reading([(String, pg_sys::Oid); 3], String);

impl Reading {
    fn of(target: &Target) -> Reading {
        let columns = [&target.recipe, &target.failed_at, &target.id];
        Reading(columns.map(|column| (column.name.clone(), column.type_oid)), target.time_zone.clone())
    }
}

/// Does `work` with the recipes of a run and their cutoffs; nothing is counted yet. Errors: 55000 where the target is read in
/// another way than when they were loaded.
pub fn with<T>(target: &Target, run_id: i64, work: impl FnOnce(&mut Recipes) -> Result<T>) -> Result<T> {
    let reading = Reading::of(target);
    let mut recipes = match LOADED.take() {
        Some((run, before, _)) if run == run_id && before != reading => {
            return Err(error(
                PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!(
                    "target \"{}\": its columns or its time zone have changed since run {run_id} started",
                    target.name
                ),
                "CALL backlog_cleanup_run()".into(),
            ));
        }
        Some((run, _, recipes)) if run == run_id => recipes,
        _ => load(target, run_id)?,
    };
    recipes.list.iter_mut().for_each(|recipe| recipe.removed = 0);
    let done = work(&mut recipes);
    LOADED.set(Some((run_id, reading, recipes)));
    done
}

/// Forgets the cutoffs that this process has loaded.
pub fn forget() {
    LOADED.set(None);
    if !CONTEXT.get().is_null() {
        unsafe { pg_sys::MemoryContextReset(CONTEXT.get()) };
    }
}

fn load(target: &Target, run_id: i64) -> Result<Recipes> {
    forget();
    if CONTEXT.get().is_null() {
        CONTEXT.set(unsafe {
            pg_sys::AllocSetContextCreateInternal(
                pg_sys::TopMemoryContext,
                c"backlog_cleanup cutoffs".as_ptr(),
                pg_sys::ALLOCSET_DEFAULT_MINSIZE as usize,
                pg_sys::ALLOCSET_DEFAULT_INITSIZE as usize,
                pg_sys::ALLOCSET_DEFAULT_MAXSIZE as usize,
            )
        });
    }
    let before = unsafe { pg_sys::MemoryContextSwitchTo(CONTEXT.get()) };
    let order = Order::of(&target.id);
    unsafe { pg_sys::MemoryContextSwitchTo(before) };
    let mut recipes = Recipes::of(&target.recipe);
    let mut ids: Vec<String> = Vec::new();
    let rows = format!(
        "SELECT recipe_id, failed, failed_at, id FROM backlog_cleanup.run_cutoff
         WHERE run_id OPERATOR(pg_catalog.=) {run_id} ORDER BY place"
    );
    state(|| {
        stream(&rows, |row| {
            let place = recipes.of_id(row.text(0));
            recipes.list[place].failed = row.datum(1).map_or(0, |failed| failed.value() as i64);
            recipes.list[place].cutoff = row.instant(2).map(|at| Position { at, id: None });
            ids.push(row.text(3).map_or("NULL".into(), quote_literal));
        })
    })?;
    // The type's input is the table owner's business, as is all that reading it may set off.
    let parsed = format!(
        "SELECT kept.id::{} FROM pg_catalog.unnest(ARRAY[{}]::text[]) WITH ORDINALITY kept (id, place) ORDER BY place",
        target.id.sql_type,
        ids.join(", ")
    );
    let mut place = 0;
    as_owner_of(&target.table, || {
        stream(&parsed, |row| {
            if let Some(cutoff) = &mut recipes.list[place].cutoff {
                *cutoff = order.keep(Position { id: row.datum(0), ..*cutoff });
            }
            place += 1;
        })
    })?;
    Ok(recipes)
}
