use std::collections::{HashMap, HashSet};

use pgrx::prelude::*;

use crate::postgres::datum::tid_array;
use crate::postgres::error::{Result, spi};
use crate::postgres::settings::set_local;
use crate::postgres::subtransaction::{attempt, sqlstate};
use crate::rank::removable::Removable;
use crate::rank::tally::Tally;
use crate::remove::heap::follow;
use crate::rules::Rules;
use crate::target::leaf::Leaf;

/// The condition on a row `g` that it is at one of the positions `$1` and the run may remove it. Forces a TID scan, whatever
/// the statistics: the subquery hides the array's length from the planner, and IS TRUE hides conditions that an index could
/// serve.
pub fn at_positions(rules: &Rules) -> String {
    format!("g.ctid OPERATOR(pg_catalog.=) ANY ((SELECT $1)::pg_catalog.tid[]) AND ({}) IS TRUE", rules.condition())
}

/// Removes rows of a leaf by their positions, counts them per recipe, and returns how many went. The statement repeats the
/// run's condition: a row survives if another session retries, claims or touches it while this one waits for it.
pub fn remove(rules: &Rules, leaf: &Leaf, rows: &[Removable], tally: &mut Tally) -> Result<usize> {
    let delete = format!("DELETE FROM ONLY {} g WHERE {}", leaf.table.name, at_positions(rules));
    // If all of them go, their recipes are known; RETURNING would cost a fifth more.
    if let Some(recipe_of_each) = rows.iter().map(Removable::recipe).collect::<Option<Vec<_>>>() {
        let all_went = attempt(|| {
            Spi::connect_mut(|client| {
                client.update(delete.as_str(), None, &[tid_array(&tids(rows))])?;
                // SAFETY: reads what the statement above has set.
                Ok((unsafe { pg_sys::SPI_processed } == rows.len() as u64).then_some(()))
            })
            .map_err(spi)
        });
        if all_went.unwrap_or_else(|failure| failure.rethrow()).is_some() {
            recipe_of_each.into_iter().for_each(|recipe| tally.list[recipe].removed += 1);
            return Ok(rows.len());
        }
    }
    let counted = format!(
        "WITH gone AS ({delete} RETURNING {} AS recipe)
         SELECT recipe::pg_catalog.text, pg_catalog.count(*) FROM gone GROUP BY recipe",
        leaf.group_key(&rules.target.recipe)
    );
    let gone: HashMap<Option<String>, i64> = Spi::connect_mut(|client| {
        client
            .update(counted.as_str(), None, &[tid_array(&tids(&follow(leaf, rows)))])?
            .map(|row| Ok((row.get(1)?, row.get(2)?.unwrap_or_default())))
            .collect::<spi::Result<_>>()
    })
    .map_err(spi)?;
    for (recipe_id, removed) in &gone {
        let recipe = tally.of_id(recipe_id.as_deref());
        tally.list[recipe].removed += removed;
    }
    Ok(gone.values().sum::<i64>() as usize)
}

/// Rows that a run should have removed and could not.
#[derive(Default, Clone, Copy)]
pub struct Left {
    /// Locked by other sessions.
    pub skipped: i64,
    /// Held by a trigger, a rule or a foreign key.
    pub kept_back: i64,
}

impl std::ops::AddAssign for Left {
    fn add_assign(&mut self, other: Left) {
        self.skipped += other.skipped;
        self.kept_back += other.kept_back;
    }
}

/// Removes the rows that can go. Leaves and counts those that stay locked for longer than `lock_timeout`, and those that a
/// trigger, a rule or a foreign key holds.
pub fn remove_around(rules: &Rules, leaf: &Leaf, rows: &[Removable], tally: &mut Tally) -> Result<Left> {
    if rows.is_empty() {
        return Ok(Left::default());
    }
    let removed = attempt(|| remove(rules, leaf, rows, tally).map(Some));
    if matches!(removed, Ok(removed) if removed == Some(rows.len())) {
        return Ok(Left::default());
    }
    let rows = &follow(leaf, rows)[..];
    let failure = match removed {
        Ok(_) => return Ok(Left { kept_back: still_there(rules, leaf, rows)?, ..Left::default() }),
        Err(failure) => failure,
    };
    let is_locked = match sqlstate(&failure) {
        PgSqlErrorCode::ERRCODE_LOCK_NOT_AVAILABLE => true,
        PgSqlErrorCode::ERRCODE_FOREIGN_KEY_VIOLATION | PgSqlErrorCode::ERRCODE_RESTRICT_VIOLATION => false,
        _ => failure.rethrow(),
    };
    let mut left = Left::default();
    let mut free = rows.to_vec();
    if is_locked {
        // The statement above has waited for the whole batch.
        set_local("lock_timeout", "1");
        free = lock(rules, leaf, rows)?;
        left.skipped += (rows.len() - free.len()) as i64;
    }
    if free.len() < rows.len() {
        left += remove_around(rules, leaf, &free, tally)?;
    } else if let [_] = rows {
        left += if is_locked { Left { skipped: 1, kept_back: 0 } } else { Left { skipped: 0, kept_back: 1 } };
    } else {
        let (first, second) = rows.split_at(rows.len() / 2);
        left += remove_around(rules, leaf, first, tally)?;
        left += remove_around(rules, leaf, second, tally)?;
    }
    Ok(left)
}

/// Locks those of the rows that no other session has locked, and returns them.
fn lock(rules: &Rules, leaf: &Leaf, rows: &[Removable]) -> Result<Vec<Removable>> {
    let lock =
        format!("SELECT g.ctid FROM ONLY {} g WHERE {} FOR UPDATE SKIP LOCKED", leaf.table.name, at_positions(rules));
    let locked: HashSet<(u32, u16)> = Spi::connect_mut(|client| {
        client
            .update(lock.as_str(), None, &[tid_array(&tids(rows))])?
            .filter_map(|row| row.get::<pg_sys::ItemPointerData>(1).transpose())
            .map(|tid| tid.map(pgrx::itemptr::item_pointer_get_both))
            .collect::<spi::Result<_>>()
    })
    .map_err(spi)?;
    Ok(rows.iter().copied().filter(|row| locked.contains(&(row.block(), row.offset()))).collect())
}

/// Counts the rows that are still there, and still removable.
fn still_there(rules: &Rules, leaf: &Leaf, rows: &[Removable]) -> Result<i64> {
    let count = format!("SELECT pg_catalog.count(*) FROM ONLY {} g WHERE {}", leaf.table.name, at_positions(rules));
    // Only a statement that may write sees what this transaction has done.
    Spi::connect_mut(|client| {
        client.update(count.as_str(), Some(1), &[tid_array(&tids(rows))])?.first().get_one::<i64>()
    })
    .map(Option::unwrap_or_default)
    .map_err(spi)
}

fn tids(rows: &[Removable]) -> Vec<pg_sys::ItemPointerData> {
    rows.iter().map(Removable::tid).collect()
}
