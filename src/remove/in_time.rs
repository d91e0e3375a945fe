use std::slice::from_ref;
use std::time::{Duration, Instant};

use pgrx::pg_sys;

use crate::postgres::error::Result;
use crate::rank::removable::Removable;
use crate::rank::tally::Tally;
use crate::remove::by_position::{CHUNK, remove_around};
use crate::remove::left::Left;
use crate::remove::order::reference_each_other;
use crate::rules::Rules;
use crate::target::leaf::Leaf;

/// How long a statement is to take: between two of them a run can be stopped.
const STATEMENT: Duration = Duration::from_millis(500);
/// Rows of the first statement on a table whose triggers or rules may take any time.
const FIRST: usize = 100;
/// How much larger a statement may be than the one before.
const GROWTH: usize = 10;

/// Removes the rows that can go, in statements that take about as long as `STATEMENT`, until the run is to end.
/// Rows that may be in circles of references go in one statement or not at all, however long it takes. `tables` are
/// the target's.
pub fn remove_in_time(
    rules: &Rules,
    leaf: &Leaf,
    tables: &[pg_sys::Oid],
    rows: &[Removable],
    tally: &mut Tally,
    left: &mut Left,
) -> Result<()> {
    let may_be_slow = leaf.table.has_triggers || leaf.table.has_rules;
    let mut size = if may_be_slow { FIRST } else { CHUNK };
    if rows.len() > size && reference_each_other(from_ref(leaf))? {
        size = rows.len();
    }
    let mut tried = 0;
    while tried < rows.len() && !left.is_over()? {
        let chunk = &rows[tried..rows.len().min(tried + size)];
        let started = Instant::now();
        remove_around(rules, leaf, tables, chunk, tally, left)?;
        tried += chunk.len();
        let fitting = STATEMENT.as_secs_f64() / started.elapsed().as_secs_f64() * chunk.len() as f64;
        size = (fitting as usize).clamp(1, GROWTH * size);
    }
    left.untried += (rows.len() - tried) as i64;
    Ok(())
}
