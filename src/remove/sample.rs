//! What the history says of rows that are gone: when they failed, and as what. To read that of each would take longer than to remove it.

use pgrx::datum::DatumWithOid;
use pgrx::itemptr::item_pointer_set_all;
use pgrx::pg_sys;

use crate::postgres::datum::tid_array;
use crate::postgres::error::Result;
use crate::postgres::now::one_now;
use crate::postgres::stream::stream_writing;
use crate::postgres::subtransaction::{briefly, is_cancel};
use crate::rank::lost::Failure;
use crate::rank::removable::Removable;
use crate::remove::find::at_positions;
use crate::rules::Rules;
use crate::target::leaf::Leaf;
use crate::target::recipes::bounded;

/// Up to twice as many rows are read all, and of more every so many-th.
const ALL: usize = 64;
const STEP: usize = 64;
/// Of rows without known positions, those of so many pages.
const PAGES: u32 = 200;
/// A page of 8 kB has no more rows (`MaxHeapTuplesPerPage`).
const MOST: u16 = 291;

/// A sample of rows at positions.
pub fn of_positions(rules: &Rules, leaf: &Leaf, rows: &[Removable]) -> Result<Vec<Failure>> {
    let step = (rows.len() / ALL).clamp(1, STEP);
    let tids: Vec<_> = rows.iter().step_by(step).map(Removable::tid).collect();
    sample(rules, leaf, &format!("g WHERE {}", at_positions(rules)), Some(tid_array(&tids)))
}

/// A sample of all rows of a leaf that an emergency run removes: those on pages at equal distances, since rows lie in the order of their time.
pub fn of_leaf(rules: &Rules, leaf: &Leaf) -> Result<Vec<Failure>> {
    const ROWS_OF_A_PAGE: &str = "
        SELECT CASE WHEN relpages OPERATOR(pg_catalog.>) 0 AND reltuples OPERATOR(pg_catalog.>) 0::pg_catalog.float4
                    THEN pg_catalog.ceil(reltuples OPERATOR(pg_catalog./) relpages)::pg_catalog.int4 END
        FROM pg_catalog.pg_class WHERE oid OPERATOR(pg_catalog.=) $1";
    // A page may have more than the mean, and has had others.
    let rows =
        one_now::<i32>(ROWS_OF_A_PAGE, &[leaf.table.oid.into()])?.map_or(MOST, |rows| 2 * rows as u16 + 8).min(MOST);
    let pages = leaf.pages.min(PAGES);
    let mut tids = Vec::new();
    for page in 0..pages {
        let block = (u64::from(page) * u64::from(leaf.pages) / u64::from(pages)) as u32;
        for offset in 1..=rows {
            let mut tid = pg_sys::ItemPointerData::default();
            item_pointer_set_all(&mut tid, block, offset);
            tids.push(tid);
        }
    }
    sample(rules, leaf, &format!("g WHERE {}", at_positions(rules)), Some(tid_array(&tids)))
}

/// Reads rows, and rolls back what code of the table's owner does in it. If that fails, nothing is known of them: that stops no run.
fn sample(rules: &Rules, leaf: &Leaf, rows: &str, tids: Option<DatumWithOid>) -> Result<Vec<Failure>> {
    let target = rules.target;
    let at = target.instant(&target.failed_at.of_row());
    let is_within = |time: &str| {
        format!("{at} OPERATOR(pg_catalog.>) (pg_catalog.now() OPERATOR(pg_catalog.-) '{time}'::pg_catalog.interval)")
    };
    let statement = format!(
        "SELECT CASE WHEN pg_catalog.isfinite({at}) THEN
                    EXTRACT(epoch FROM pg_catalog.date_trunc(CASE WHEN {} THEN 'hour' WHEN {} THEN 'day' ELSE 'month' END, {at}, 'UTC'))::pg_catalog.int8
                END,
                COALESCE({}, '(none)')::pg_catalog.text, COALESCE({}, '(none)')::pg_catalog.text
         FROM ONLY {} {rows}",
        is_within("7 days"),
        is_within("90 days"),
        target.failure_type_of_row(),
        target.recipe.as_text(),
        leaf.table.name,
    );
    let mut found = Vec::new();
    let read = briefly(|| {
        stream_writing(&statement, tids, |row| {
            // SAFETY: the second and third column of the statement are texts.
            let (failure_type, recipe_id) = unsafe { (row.text(1), row.text(2)) };
            let recipe_id = recipe_id.map(|id| bounded(id).into_owned());
            found.push(Failure { hour: row.number(0), failure_type: failure_type.map(str::to_owned), recipe_id });
        })
    });
    match read {
        Ok(()) => Ok(found),
        Err(failure) if is_cancel(&failure) => failure.rethrow(),
        Err(_) => Ok(Vec::new()),
    }
}
