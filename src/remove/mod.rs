pub mod emergency;
pub mod find;
pub mod keys;
pub mod regular;

use std::collections::{HashMap, HashSet};

use pgrx::prelude::*;

use crate::postgres::error::{Result, spi};
use crate::postgres::owner::set_local;
use crate::postgres::subtransaction::{attempt, sqlstate};
use crate::rank::removable::{Removable, array};
use crate::rank::tally::Recipes;
use crate::target::Target;
use crate::target::leaf::Leaf;

/// Removes rows of a leaf by their positions, counts them per recipe, and returns how many went. The statement repeats
/// what made them removable, so that a row that another session retries, claims or touches while this one waits for it
/// survives.
pub fn remove(
    target: &Target,
    leaf: &Leaf,
    condition: &str,
    rows: &[Removable],
    recipes: &mut Recipes,
) -> Result<usize> {
    let tids: Vec<pg_sys::ItemPointerData> = rows.iter().map(Removable::tid).collect();
    // A TID scan whatever the planner believes of the table: the array's length is hidden from it by the subquery, and the
    // conditions, which an index could serve, by IS TRUE.
    let delete = format!(
        "DELETE FROM ONLY {} g
         WHERE g.ctid OPERATOR(pg_catalog.=) ANY ((SELECT $1)::pg_catalog.tid[])
           AND ({condition}) IS TRUE",
        leaf.table.name
    );
    // Where all of them go, the positions tell whose they were, and RETURNING would cost a fifth more.
    if let Some(recipe_of_each) = rows.iter().map(Removable::recipe).collect::<Option<Vec<_>>>() {
        let all_went = attempt(|| {
            Spi::connect_mut(|client| {
                client.update(delete.as_str(), None, &[array(&tids)])?;
                Ok((unsafe { pg_sys::SPI_processed } == rows.len() as u64).then_some(()))
            })
            .map_err(spi)
        });
        if all_went.unwrap_or_else(|failure| failure.rethrow()).is_some() {
            recipe_of_each.into_iter().for_each(|recipe| recipes.list[recipe].removed += 1);
            return Ok(rows.len());
        }
    }
    let tids: Vec<pg_sys::ItemPointerData> = leaf.follow(rows).iter().map(Removable::tid).collect();
    let counted = format!(
        "WITH gone AS ({delete} RETURNING {} AS recipe)
         SELECT recipe::pg_catalog.text, pg_catalog.count(*) FROM gone GROUP BY recipe",
        leaf.group_key(&target.recipe)
    );
    let gone: HashMap<Option<String>, i64> = Spi::connect_mut(|client| {
        client
            .update(counted.as_str(), None, &[array(&tids)])?
            .map(|row| Ok((row.get(1)?, row.get(2)?.unwrap_or_default())))
            .collect::<spi::Result<_>>()
    })
    .map_err(spi)?;
    for (recipe_id, removed) in &gone {
        let recipe = recipes.of_id(recipe_id.as_deref());
        recipes.list[recipe].removed += removed;
    }
    Ok(gone.values().sum::<i64>() as usize)
}

/// Rows that a run was to remove and that are still there.
#[derive(Default, Clone, Copy)]
pub struct Left {
    /// Locked by somebody else.
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

/// Removes what goes and goes round the rest: rows that stay locked for longer than `lock_timeout`, and rows that a
/// foreign key holds.
pub fn remove_around(
    target: &Target,
    leaf: &Leaf,
    condition: &str,
    rows: &[Removable],
    recipes: &mut Recipes,
) -> Result<Left> {
    if rows.is_empty() {
        return Ok(Left::default());
    }
    let removed = attempt(|| remove(target, leaf, condition, rows, recipes).map(Some));
    if matches!(removed, Ok(removed) if removed == Some(rows.len())) {
        return Ok(Left::default());
    }
    let rows = &leaf.follow(rows)[..];
    let failure = match removed {
        Ok(_) => return Ok(Left { kept_back: still_there(leaf, condition, rows)?, ..Left::default() }),
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
        // It has waited once for the whole batch.
        set_local("lock_timeout", "1");
        free = lock(leaf, condition, rows)?;
        left.skipped += (rows.len() - free.len()) as i64;
    }
    if free.len() < rows.len() {
        left += remove_around(target, leaf, condition, &free, recipes)?;
    } else if let [_] = rows {
        left += if is_locked { Left { skipped: 1, kept_back: 0 } } else { Left { skipped: 0, kept_back: 1 } };
    } else {
        let (first, second) = rows.split_at(rows.len() / 2);
        left += remove_around(target, leaf, condition, first, recipes)?;
        left += remove_around(target, leaf, condition, second, recipes)?;
    }
    Ok(left)
}

/// Locks those of the rows that nobody else has locked, and returns them.
fn lock(leaf: &Leaf, condition: &str, rows: &[Removable]) -> Result<Vec<Removable>> {
    let tids: Vec<pg_sys::ItemPointerData> = rows.iter().map(Removable::tid).collect();
    let lock = format!(
        "SELECT g.ctid FROM ONLY {} g
         WHERE g.ctid OPERATOR(pg_catalog.=) ANY ((SELECT $1)::pg_catalog.tid[]) AND ({condition}) IS TRUE
         FOR UPDATE SKIP LOCKED",
        leaf.table.name
    );
    let locked: HashSet<(u32, u16)> = Spi::connect_mut(|client| {
        client
            .update(lock.as_str(), None, &[array(&tids)])?
            .filter_map(|row| row.get::<pg_sys::ItemPointerData>(1).transpose())
            .map(|tid| tid.map(pgrx::itemptr::item_pointer_get_both))
            .collect::<spi::Result<_>>()
    })
    .map_err(spi)?;
    Ok(rows.iter().copied().filter(|row| locked.contains(&(row.block(), row.offset()))).collect())
}

/// How many of the rows are still as they were.
fn still_there(leaf: &Leaf, condition: &str, rows: &[Removable]) -> Result<i64> {
    let tids: Vec<pg_sys::ItemPointerData> = rows.iter().map(Removable::tid).collect();
    let count = format!(
        "SELECT pg_catalog.count(*) FROM ONLY {} g
         WHERE g.ctid OPERATOR(pg_catalog.=) ANY ((SELECT $1)::pg_catalog.tid[]) AND ({condition}) IS TRUE",
        leaf.table.name
    );
    // A statement that may write sees what this transaction has done.
    Spi::connect_mut(|client| client.update(count.as_str(), Some(1), &[array(&tids)])?.first().get_one::<i64>())
        .map(Option::unwrap_or_default)
        .map_err(spi)
}
