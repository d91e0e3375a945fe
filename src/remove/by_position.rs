use std::collections::{HashMap, HashSet};

use pgrx::prelude::*;

use crate::postgres::datum::tid_array;
use crate::postgres::error::{Result, spi};
use crate::postgres::met::Met;
use crate::postgres::settings::set_local;
use crate::postgres::snapshot::with_new_snapshot;
use crate::postgres::stream::stream_writing;
use crate::postgres::subtransaction::{attempt, look};
use crate::rank::removable::Removable;
use crate::rank::tally::Tally;
use crate::remove::besides::Besides;
use crate::remove::find::{at_positions, removable_still};
use crate::remove::heap::{follow, made_here, removed_here};
use crate::remove::left::{INSUFFICIENT_PRIVILEGE, LOCK_NOT_AVAILABLE, Left, MESSAGE, Reason};
use crate::remove::order::{Linked, Waiting, can_dangle};
use crate::remove::pieces::Pieces;
use crate::remove::sample;
use crate::rules::Rules;
use crate::target::leaf::Leaf;

/// Removes the rows that can go, in one statement if all of them can. Halves what is refused until the rows are found that
/// cannot go; rows that they reference are not tried, and rows in a circle stay together. `tables` are the target's.
pub fn remove_around(
    rules: &Rules,
    leaf: &Leaf,
    tables: &[pg_sys::Oid],
    rows: &[Removable],
    tally: &mut Tally,
    left: &mut Left,
) -> Result<()> {
    let (sample, before) = (sample::of_positions(rules, leaf, rows)?, tally.removed());
    leaf.is_still_of(rules.target)?;
    remove_pieces(rules, leaf, tables, rows, tally, left)?;
    let removed = tally.removed() - before;
    tally.lost.add(sample, removed);
    Ok(())
}

fn remove_pieces(
    rules: &Rules,
    leaf: &Leaf,
    tables: &[pg_sys::Oid],
    rows: &[Removable],
    tally: &mut Tally,
    left: &mut Left,
) -> Result<()> {
    let mut pieces = Pieces::of(rows, left.patience);
    let before = left.again.len();
    let (mut waiting, mut held): (Option<Waiting>, _) = (None, Vec::new());
    let can_dangle = can_dangle(leaf, tables)?;
    let mut is_read = can_dangle;
    let read = |rows: &[Removable]| Waiting::of(&[leaf], tables, &vec![rows.to_vec()]);
    if can_dangle && let Some((read, in_order)) = read(rows)? {
        waiting = Some(read);
        pieces = Pieces::of(&rows_of(in_order), left.patience);
    }
    while let Some(mut piece) = pieces.next(|row| waiting.as_ref().is_none_or(|waiting| waiting.is_ready(0, row))) {
        if left.is_over()? {
            pieces.first(piece);
            left.untried += std::mem::replace(&mut pieces, Pieces::of(&[], left.patience)).rest().len() as i64;
            break;
        }
        if let Some(waiting) = &waiting {
            held.extend(piece.extract_if(.., |row| waiting.is_held(0, row)));
            if piece.is_empty() {
                continue;
            }
        }
        let besides = Besides::of(leaf, tables);
        let tried = piece.clone();
        let mut removed = attempt(|| remove_all(rules, leaf, &besides, &piece, tally));
        if matches!(removed, Ok(Some(_))) {
            waiting.iter_mut().for_each(|waiting| waiting.went(0, &piece));
            pieces.went();
            continue;
        }
        let changed;
        (piece, changed) = where_they_are(rules, leaf, &piece, tally)?;
        left.keep_changed(changed);
        // One that stays may reference one that goes.
        let go_together = leaf.table.has_rules || can_dangle && waiting.is_some();
        if matches!(removed, Ok(None)) && !go_together {
            removed = attempt(|| remove_some(rules, leaf, &besides, &piece, tally));
        }
        if matches!(removed, Ok(None)) {
            removed = attempt(|| remove_all_locked(rules, leaf, &besides, &piece, tally));
        }
        if let Ok(Some(removed)) = removed {
            if removed > 0 {
                pieces.went();
            }
            let mut stayed = Vec::new();
            if removed < piece.len() {
                let row;
                (row, stayed) = still_there(rules, leaf, &where_they_are(rules, leaf, &piece, tally)?.0)?;
                let changed = made_here(leaf, &follow(leaf, &piece)).saturating_sub(made_here(leaf, &stayed));
                left.keep(&stayed, || Reason::new(None, row));
                left.keep_changed(changed);
            }
            waiting.iter_mut().for_each(|waiting| waiting.tried(0, leaf, &tried, &stayed));
            continue;
        }
        pieces.lose();
        let met = removed.err().map(Met::on_a_row);
        match met.as_ref().map(|met| met.sqlstate.as_str()) {
            Some(LOCK_NOT_AVAILABLE) => {
                // The statement above has waited for the whole piece.
                set_local("lock_timeout", "1");
                let free = lock(rules, leaf, &besides, &piece)?;
                left.skipped += (piece.len() - free.len()) as i64;
                if free.len() < piece.len() {
                    pieces.first(free);
                    continue;
                }
            }
            // Raises the error again if it is about the table.
            Some(INSUFFICIENT_PRIVILEGE) if !leaf.table.has_rules => {
                leaf.table.allows_its_owner("DELETE")?;
                remove_some(rules, leaf, &besides, &[], tally)?;
            }
            _ => {}
        }
        if piece.len() > 1
            && !std::mem::replace(&mut is_read, true)
            && let Some((read, in_order)) = read(&piece)?
        {
            waiting = Some(read);
            pieces.first(rows_of(in_order));
            continue;
        }
        let is_ready = |row: &Removable| waiting.as_ref().is_none_or(|waiting| waiting.is_ready(0, row));
        let are_together =
            |a: &Removable, b: &Removable| waiting.as_ref().is_some_and(|waiting| waiting.are_together((0, a), (0, b)));
        if pieces.halve(&piece, is_ready, are_together) {
            continue;
        }
        let (row, stayed) = still_there(rules, leaf, &piece)?;
        left.keep(&stayed, || Reason::new(met, row));
        waiting.iter_mut().for_each(|waiting| waiting.tried(0, leaf, &tried, &stayed));
    }
    left.patience = pieces.patience();
    let is_held = |row: &mut Removable| waiting.as_ref().is_some_and(|waiting| waiting.is_held(0, row));
    let mut rest = pieces.rest();
    held.extend(rest.extract_if(.., is_held));
    left.give_up(&rest);
    if !held.is_empty() {
        let (there, changed) = where_they_are(rules, leaf, &held, tally)?;
        let (row, stayed) = still_there(rules, leaf, &there)?;
        left.keep(&stayed, || Reason::referenced(row));
        left.keep_changed(changed);
    }
    // A later pass tries them in the order of this one.
    if left.again.len() > before {
        let turns: HashMap<Removable, usize> = rows.iter().copied().zip(0..).collect();
        left.again[before..].sort_by_key(|row| turns.get(row).copied());
    }
    Ok(())
}

fn rows_of(linked: Vec<Linked>) -> Vec<Removable> {
    linked.into_iter().map(|linked| linked.row).collect()
}

/// The rows at their present positions, without those that were changed since they were ranked so that the run does not remove
/// them any more; and how many of these this transaction has changed.
pub fn where_they_are(
    rules: &Rules,
    leaf: &Leaf,
    rows: &[Removable],
    tally: &mut Tally,
) -> Result<(Vec<Removable>, usize)> {
    // In one snapshot, which shows what others have moved.
    with_new_snapshot(|| {
        let mut now = follow(leaf, rows);
        let moved: HashSet<Removable> =
            now.iter().zip(rows).filter(|(now, row)| now != row).map(|(now, _)| *now).collect();
        if !rules.is_regular() || moved.is_empty() {
            return Ok((now, 0));
        }
        let goes = removable_still(rules, leaf, &moved, tally)?;
        let stays: Vec<Removable> = now.extract_if(.., |row| moved.contains(row) && !goes.contains(row)).collect();
        Ok((now, made_here(leaf, &stays)))
    })
}

/// The DELETE of rows at positions. It repeats the run's condition: a row survives if another session retries, claims or
/// touches it while this one waits for it.
fn delete(rules: &Rules, leaf: &Leaf) -> String {
    format!("DELETE FROM ONLY {} g WHERE {}", leaf.table.name, at_positions(rules))
}

/// Removes rows that go in the recipes in which they were ranked, or none of them: RETURNING would cost a fifth more. Errors: those of
/// `Besides::are_none`.
fn remove_all(
    rules: &Rules,
    leaf: &Leaf,
    besides: &Besides,
    rows: &[Removable],
    tally: &mut Tally,
) -> Result<Option<usize>> {
    let recipe_of_each = rows.iter().map(Removable::recipe).collect::<Option<Vec<_>>>();
    let Some(recipe_of_each) = recipe_of_each.filter(|_| rules.is_regular() && !leaf.table.has_rules) else {
        return Ok(None);
    };
    let removed = Spi::connect_mut(|client| {
        client.update(delete(rules, leaf).as_str(), None, &[tid_array(&tids(rows))])?;
        // SAFETY: reads what the statement above has set.
        Ok(unsafe { pg_sys::SPI_processed })
    })
    .map_err(spi)?;
    if removed != rows.len() as u64 {
        return Ok(None);
    }
    besides.are_none(rows.len())?;
    recipe_of_each.into_iter().for_each(|recipe| tally.list[recipe].removed += 1);
    Ok(Some(rows.len()))
}

/// Removes those of the rows that go, counts them per recipe, and returns how many they are. `None`, with nothing removed, if
/// rows have gone that the statement does not return.
fn remove_some(
    rules: &Rules,
    leaf: &Leaf,
    besides: &Besides,
    rows: &[Removable],
    tally: &mut Tally,
) -> Result<Option<usize>> {
    let returning = format!("{} RETURNING {}, 1::bigint", delete(rules, leaf), group(rules));
    let mut gone = Tally::of(rules.target, &rules.policies);
    stream_writing(&returning, Some(tid_array(&tids(rows))), |row| gone.count_removed(row))?;
    let removed = gone.removed() as usize;
    if besides.are_gone(removed) {
        return Ok(None);
    }
    tally.add(gone);
    Ok(Some(removed))
}

/// The columns by which a tally counts a row `g`.
pub fn group(rules: &Rules) -> String {
    rules.policies.group_columns(rules.target, &rules.target.recipe_key())
}

/// Locks those of the rows that no other session has locked, and returns them. Errors: those of `Besides::are_none`.
pub fn lock(rules: &Rules, leaf: &Leaf, besides: &Besides, rows: &[Removable]) -> Result<Vec<Removable>> {
    let lock =
        format!("SELECT g.ctid FROM ONLY {} g WHERE {} FOR UPDATE SKIP LOCKED", leaf.table.name, at_positions(rules));
    let locked: Vec<pg_sys::ItemPointerData> = Spi::connect_mut(|client| {
        client
            .update(lock.as_str(), None, &[tid_array(&tids(rows))])?
            .filter_map(|row| row.get(1).transpose())
            .collect::<spi::Result<_>>()
    })
    .map_err(spi)?;
    besides.are_none(0)?;
    Ok(of_tids(rows, locked.into_iter()))
}

/// Removes rows of a leaf whose rules or triggers may make anything of a DELETE, or none of them: the rows are locked and
/// counted per recipe first, and all of them have to be gone afterwards. Errors: those of `Besides::are_none`.
fn remove_all_locked(
    rules: &Rules,
    leaf: &Leaf,
    besides: &Besides,
    rows: &[Removable],
    tally: &mut Tally,
) -> Result<Option<usize>> {
    let lock = format!(
        "SELECT {}, 1::bigint, g.ctid FROM ONLY {} g WHERE {} FOR UPDATE",
        group(rules),
        leaf.table.name,
        at_positions(rules)
    );
    let (mut counted, mut locked) = (Tally::of(rules.target, &rules.policies), Vec::new());
    stream_writing(&lock, Some(tid_array(&tids(rows))), |row| {
        counted.count_removed(row);
        // SAFETY: the column is a tid.
        locked.push(unsafe { row.tid(4) });
    })?;
    stream_writing(&delete(rules, leaf), Some(tid_array(&tids(rows))), |_| {})?;
    let gone = removed_here(leaf, &locked);
    besides.are_none(gone)?;
    if gone < locked.len() {
        return Ok(None);
    }
    tally.add(counted);
    Ok(Some(gone))
}

/// The rows that are still there, and still removable; with the id of the first, as text.
pub fn still_there(rules: &Rules, leaf: &Leaf, rows: &[Removable]) -> Result<(Option<String>, Vec<Removable>)> {
    let there = format!(
        "SELECT g.ctid, pg_catalog.left({}, {MESSAGE}) FROM ONLY {} g WHERE {}",
        rules.target.id.as_text(),
        leaf.table.name,
        at_positions(rules)
    );
    let (mut found, mut first) = (Vec::new(), None);
    // Only a statement that may write sees what this transaction has done.
    look(|| {
        stream_writing(&there, Some(tid_array(&tids(rows))), |row| {
            // SAFETY: the columns are a tid and a text.
            let (tid, id) = unsafe { (row.tid(0), row.text(1)) };
            found.push(tid);
            first.get_or_insert_with(|| id.map(str::to_owned));
        })
    })?;
    Ok((first.flatten(), of_tids(rows, found.into_iter())))
}

/// Those of the rows that are at these positions.
fn of_tids(rows: &[Removable], tids: impl Iterator<Item = pg_sys::ItemPointerData>) -> Vec<Removable> {
    let tids: HashSet<(u32, u16)> = tids.map(pgrx::itemptr::item_pointer_get_both).collect();
    rows.iter().copied().filter(|row| tids.contains(&(row.block(), row.offset()))).collect()
}

fn tids(rows: &[Removable]) -> Vec<pg_sys::ItemPointerData> {
    rows.iter().map(Removable::tid).collect()
}
