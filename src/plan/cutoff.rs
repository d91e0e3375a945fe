use std::cell::{Cell, RefCell};

use pgrx::PgMemoryContexts;
use pgrx::prelude::*;
use pgrx::spi::quote_literal;

use crate::extension;
use crate::postgres::datum::{instant_as_text, text_of};
use crate::postgres::error::{Result, error, spi};
use crate::postgres::owner::as_owner_of;
use crate::postgres::stream::stream;
use crate::rank::position::{Order, Position};
use crate::rank::tally::Tally;
use crate::target::Target;

/// Keeps the cutoffs of a run where a crash cannot lose them.
pub fn save(target: &Target, run_id: i64, tally: &Tally) -> Result<()> {
    // An earlier run of this session may have had the same id, in another life of the extension.
    forget();
    let ids: Vec<Option<String>> = tally.list.iter().map(|recipe| recipe.recipe_id.clone()).collect();
    let failed: Vec<i64> = tally.list.iter().map(|recipe| recipe.failed).collect();
    let cutoffs = || tally.list.iter().map(|recipe| recipe.cutoff);
    extension::as_owner(|| {
        let at: Vec<Option<String>> =
            cutoffs().map(|cutoff| cutoff.map(|cutoff| instant_as_text(cutoff.at, pg_sys::TIMESTAMPOID))).collect();
        // SAFETY: the id of a position is of the id column's type.
        let text_of_id = |id| unsafe { text_of(id, target.id.type_oid) };
        let cutoff_ids: Vec<Option<String>> =
            cutoffs().map(|cutoff| cutoff.and_then(|cutoff| cutoff.id).map(text_of_id)).collect();
        Spi::run_with_args(
            "INSERT INTO backlog_cleanup.run_cutoff (run_id, place, recipe_id, failed, failed_at, id)
             SELECT $1, place - 1, recipe_id, failed, failed_at::timestamp, id
             FROM ROWS FROM (unnest($2), unnest($3), unnest($4), unnest($5))
                  WITH ORDINALITY AS cutoff (recipe_id, failed, failed_at, id, place)",
            &[run_id.into(), ids.into(), failed.into(), at.into(), cutoff_ids.into()],
        )
        .map_err(spi)
    })
}

thread_local! {
    /// The cutoffs of the batched run that this process last worked on. Their ids are in the context.
    static LOADED: RefCell<Option<(i64, Reading, Tally)>> = const { RefCell::new(None) };
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

/// Does `work` with the recipes of a run and their cutoffs; nothing is counted yet. Errors: 55000 (the columns' mapping or the
/// time zone has changed since they were loaded).
pub fn with<T>(target: &Target, run_id: i64, work: impl FnOnce(&mut Tally) -> Result<T>) -> Result<T> {
    let reading = Reading::of(target);
    let mut tally = match LOADED.take() {
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
        Some((run, _, tally)) if run == run_id => tally,
        _ => load(target, run_id)?,
    };
    tally.list.iter_mut().for_each(|recipe| recipe.removed = 0);
    let done = work(&mut tally);
    LOADED.set(Some((run_id, reading, tally)));
    done
}

/// Forgets the cutoffs that this process has loaded.
pub fn forget() {
    LOADED.set(None);
    if !CONTEXT.get().is_null() {
        // SAFETY: no position of this context is left.
        unsafe { pg_sys::MemoryContextReset(CONTEXT.get()) };
    }
}

fn load(target: &Target, run_id: i64) -> Result<Tally> {
    forget();
    if CONTEXT.get().is_null() {
        // SAFETY: a context below one that lives as long as the process.
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
    // SAFETY: `Order::of` is called in the context that the ids are to live in.
    let order = unsafe { PgMemoryContexts::For(CONTEXT.get()).switch_to(|_| Order::of(&target.id)) };
    let mut tally = Tally::of(target.recipe.is_integer());
    let mut ids: Vec<String> = Vec::new();
    let rows = format!(
        "SELECT recipe_id, failed, failed_at, id FROM backlog_cleanup.run_cutoff
         WHERE run_id = {run_id} ORDER BY place"
    );
    extension::as_owner(|| {
        stream(&rows, |row| {
            // SAFETY: the first and the last column are texts.
            let (recipe_id, id) = unsafe { (row.text(0), row.text(3)) };
            let place = tally.of_id(recipe_id);
            tally.list[place].failed = row.number(1).unwrap_or_default();
            tally.list[place].cutoff = row.number(2).map(|at| Position { at, id: None });
            ids.push(id.map_or("NULL".into(), quote_literal));
        })
    })?;
    // As the table's owner, whose type's input function may be anybody's.
    let parsed = format!(
        "SELECT kept.id::{} FROM pg_catalog.unnest(ARRAY[{}]::pg_catalog.text[]) WITH ORDINALITY kept (id, place) ORDER BY place",
        target.id.sql_type,
        ids.join(", ")
    );
    let mut place = 0;
    as_owner_of(&target.table, || {
        stream(&parsed, |row| {
            if let Some(cutoff) = &mut tally.list[place].cutoff {
                *cutoff = order.keep(Position { id: row.datum(0), ..*cutoff });
            }
            place += 1;
        })
    })?;
    Ok(tally)
}
