use std::collections::{HashMap, HashSet, VecDeque};

use pgrx::prelude::*;

use crate::postgres::datum::tid_array;
use crate::postgres::error::{Result, spi};
use crate::postgres::met::Met;
use crate::postgres::settings::set_local;
use crate::postgres::subtransaction::attempt;
use crate::rank::removable::Removable;
use crate::rank::tally::Tally;
use crate::remove::heap::follow;
use crate::remove::left::{INSUFFICIENT_PRIVILEGE, LOCK_NOT_AVAILABLE, Left, Reason};
use crate::rules::Rules;
use crate::target::leaf::Leaf;

/// The condition on a row `g` that it is at one of the positions `$1` and the run may remove it. Forces a TID scan, whatever
/// the statistics: the subquery hides the array's length from the planner, and IS TRUE hides conditions that an index could
/// serve.
pub fn at_positions(rules: &Rules) -> String {
    format!("g.ctid OPERATOR(pg_catalog.=) ANY ((SELECT $1)::pg_catalog.tid[]) AND ({}) IS TRUE", rules.condition())
}

/// Rows per statement of a run in one transaction: few enough to need little memory, many enough that starting a statement
/// costs nothing.
pub const CHUNK: usize = 50_000;

/// Removes the rows that can go, in one statement if all of them can. Halves what is refused until the rows are found that
/// cannot go, the largest pieces first: should patience end, most of the others have gone by then.
pub fn remove_around(rules: &Rules, leaf: &Leaf, rows: &[Removable], tally: &mut Tally, left: &mut Left) -> Result<()> {
    let mut pieces = VecDeque::from([rows.to_vec()]);
    while let Some(piece) = pieces.pop_front() {
        if piece.is_empty() {
            continue;
        }
        if left.is_over()? {
            left.untried += piece.len() as i64;
            continue;
        }
        if left.patience.is_over() {
            left.give_up(&piece);
            continue;
        }
        let mut removed = match leaf.table.has_rules {
            true => attempt(|| remove_all_locked(rules, leaf, &piece, tally)),
            false => attempt(|| remove_all(rules, leaf, &piece, tally)),
        };
        if !leaf.table.has_rules && matches!(removed, Ok(None)) {
            removed = attempt(|| remove_some(rules, leaf, &piece, tally).map(Some));
        }
        if let Ok(Some(removed)) = removed {
            if removed > 0 {
                left.patience.renew();
            }
            if removed < piece.len() {
                let (row, stayed) = still_there(rules, leaf, &follow(leaf, &piece))?;
                left.keep(&stayed, || Reason::new(None, row));
            }
            continue;
        }
        left.patience.lose();
        let piece = follow(leaf, &piece);
        let met = removed.err().map(Met::on_a_row);
        match met.as_ref().map(|met| met.sqlstate.as_str()) {
            Some(LOCK_NOT_AVAILABLE) => {
                // The statement above has waited for the whole piece.
                set_local("lock_timeout", "1");
                let free = lock(rules, leaf, &piece)?;
                left.skipped += (piece.len() - free.len()) as i64;
                if free.len() < piece.len() {
                    pieces.push_front(free);
                    continue;
                }
            }
            // Raises the error again if it is about the table.
            Some(INSUFFICIENT_PRIVILEGE) => drop(remove_all(rules, leaf, &[], tally)?),
            _ => {}
        }
        if piece.len() == 1 {
            let (row, stayed) = still_there(rules, leaf, &piece)?;
            left.keep(&stayed, || Reason::new(met, row));
            continue;
        }
        let (first, second) = piece.split_at(piece.len() / 2);
        // Goes straight for the first reason.
        match left.reason {
            None => [second, first].map(|half| pieces.push_front(half.to_vec())),
            Some(_) => [first, second].map(|half| pieces.push_back(half.to_vec())),
        };
    }
    Ok(())
}

/// The DELETE of rows at positions. It repeats the run's condition: a row survives if another session retries, claims or
/// touches it while this one waits for it.
fn delete(rules: &Rules, leaf: &Leaf) -> String {
    format!("DELETE FROM ONLY {} g WHERE {}", leaf.table.name, at_positions(rules))
}

/// Removes rows whose recipes are known, or none of them: RETURNING would cost a fifth more.
fn remove_all(rules: &Rules, leaf: &Leaf, rows: &[Removable], tally: &mut Tally) -> Result<Option<usize>> {
    let Some(recipe_of_each) = rows.iter().map(Removable::recipe).collect::<Option<Vec<_>>>() else { return Ok(None) };
    let removed = Spi::connect_mut(|client| {
        client.update(delete(rules, leaf).as_str(), None, &[tid_array(&tids(rows))])?;
        // SAFETY: reads what the statement above has set.
        Ok(unsafe { pg_sys::SPI_processed })
    })
    .map_err(spi)?;
    if removed != rows.len() as u64 {
        return Ok(None);
    }
    recipe_of_each.into_iter().for_each(|recipe| tally.list[recipe].removed += 1);
    Ok(Some(rows.len()))
}

/// Removes those of the rows that go, counts them per recipe, and returns how many they are.
fn remove_some(rules: &Rules, leaf: &Leaf, rows: &[Removable], tally: &mut Tally) -> Result<usize> {
    let counted = format!(
        "WITH gone AS ({} RETURNING {} AS recipe)
         SELECT recipe::pg_catalog.text, pg_catalog.count(*) FROM gone GROUP BY recipe",
        delete(rules, leaf),
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

/// Locks those of the rows that no other session has locked, and returns them.
fn lock(rules: &Rules, leaf: &Leaf, rows: &[Removable]) -> Result<Vec<Removable>> {
    let lock =
        format!("SELECT g.ctid FROM ONLY {} g WHERE {} FOR UPDATE SKIP LOCKED", leaf.table.name, at_positions(rules));
    let locked: Vec<pg_sys::ItemPointerData> = Spi::connect_mut(|client| {
        client
            .update(lock.as_str(), None, &[tid_array(&tids(rows))])?
            .filter_map(|row| row.get(1).transpose())
            .collect::<spi::Result<_>>()
    })
    .map_err(spi)?;
    Ok(of_tids(rows, locked.into_iter()))
}

/// Removes rows of a leaf that has rules, or none of them. A rule may make anything of a DELETE and forbids RETURNING: the rows
/// are locked and counted per recipe first, and all of them have to go by the DELETE itself.
fn remove_all_locked(rules: &Rules, leaf: &Leaf, rows: &[Removable], tally: &mut Tally) -> Result<Option<usize>> {
    let place = at_positions(rules);
    let lock = format!(
        "WITH locked AS (SELECT {} AS recipe FROM ONLY {} g WHERE {place} FOR UPDATE)
         SELECT recipe::pg_catalog.text, pg_catalog.count(*) FROM locked GROUP BY recipe",
        leaf.group_key(&rules.target.recipe),
        leaf.table.name
    );
    let tids = tids(&follow(leaf, rows));
    let removed = Spi::connect_mut(|client| {
        let per_recipe: Vec<(Option<String>, i64)> = client
            .update(lock.as_str(), None, &[tid_array(&tids)])?
            .map(|row| Ok((row.get(1)?, row.get(2)?.unwrap_or_default())))
            .collect::<spi::Result<_>>()?;
        let locked: i64 = per_recipe.iter().map(|(_, rows)| rows).sum();
        client.update(delete(rules, leaf).as_str(), None, &[tid_array(&tids)])?;
        // SAFETY: reads what the statement above has set.
        Ok((unsafe { pg_sys::SPI_processed } == locked as u64).then_some((per_recipe, locked)))
    })
    .map_err(spi)?;
    let Some((per_recipe, locked)) = removed else { return Ok(None) };
    // A rule may delete as many rows of another table instead.
    if !still_there(rules, leaf, &follow(leaf, rows))?.1.is_empty() {
        return Ok(None);
    }
    for (recipe_id, rows) in per_recipe {
        let recipe = tally.of_id(recipe_id.as_deref());
        tally.list[recipe].removed += rows;
    }
    Ok(Some(locked as usize))
}

/// The rows that are still there, and still removable; with the id of the first, as text.
fn still_there(rules: &Rules, leaf: &Leaf, rows: &[Removable]) -> Result<(Option<String>, Vec<Removable>)> {
    let there = format!(
        "SELECT g.ctid, g.{}::pg_catalog.text FROM ONLY {} g WHERE {}",
        rules.target.id.name,
        leaf.table.name,
        at_positions(rules)
    );
    // Only a statement that may write sees what this transaction has done.
    let found: Vec<(pg_sys::ItemPointerData, Option<String>)> = Spi::connect_mut(|client| {
        client
            .update(there.as_str(), None, &[tid_array(&tids(rows))])?
            .map(|row| Ok((row.get(1)?.unwrap_or_default(), row.get(2)?)))
            .collect::<spi::Result<_>>()
    })
    .map_err(spi)?;
    let first = found.first().and_then(|(_, id)| id.clone());
    Ok((first, of_tids(rows, found.into_iter().map(|(tid, _)| tid))))
}

/// Those of the rows that are at these positions.
fn of_tids(rows: &[Removable], tids: impl Iterator<Item = pg_sys::ItemPointerData>) -> Vec<Removable> {
    let tids: HashSet<(u32, u16)> = tids.map(pgrx::itemptr::item_pointer_get_both).collect();
    rows.iter().copied().filter(|row| tids.contains(&(row.block(), row.offset()))).collect()
}

fn tids(rows: &[Removable]) -> Vec<pg_sys::ItemPointerData> {
    rows.iter().map(Removable::tid).collect()
}
