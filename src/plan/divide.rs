use pgrx::prelude::*;

use crate::extension;
use crate::plan::part::{Task, columns_of, insert};
use crate::postgres::error::Result;
use crate::rank::removable::Removable;
use crate::remove::order::{Ordered, reference_each_other};
use crate::target::leaf::{Leaf, Reach};

/// Ranges of recipes per worker: some have more rows than others.
const RANGES: usize = 4;

/// Splits a run into parts and saves them. A part is a list of row positions (with the WAL position at which they were read);
/// if there were too many to keep, a range of blocks, `ranges` per leaf; for a leaf reached by key, a range of the run's recipes. Rows that
/// are held come in the second pass. `table` is the target's.
pub fn save(
    run_id: i64,
    table: pg_sys::Oid,
    leaves: &[Leaf],
    positions: Option<(Ordered, u64)>,
    recipes: usize,
    batch_size: usize,
    ranges: u32,
) -> Result<()> {
    let are_backwards = positions.is_none() && reference_each_other(leaves)?;
    let mut part = 0;
    let mut insert = |pass: i32, of: (pg_sys::Oid, &[i16]), task: Task, steps: i64, are_held: bool| {
        part += 1;
        insert((run_id, pass, part), of, task, steps, (if are_held { steps } else { 0 }, 0))
    };
    extension::as_owner(|| {
        for leaf in leaves.iter().filter(|leaf| leaf.reach == Reach::Key) {
            let each = recipes.div_ceil(if ranges > 1 { RANGES * ranges as usize } else { 1 }).max(1);
            for first in (0..recipes).step_by(each) {
                let task = Task::Keys { first: first as i64, stayed: 0, kept_back: Vec::new() };
                insert(1, of(leaf), task, each.min(recipes - first) as i64, false)?;
            }
        }
        match positions {
            Some((Ordered { steps, circles, across, held }, lsn)) => {
                let mut save = |pass: i32, place: usize, rows: Vec<Removable>, in_circles: bool, are_held: bool| {
                    let count = rows.len() as i64;
                    insert(pass, of(&leaves[place]), Task::Positions { rows, lsn, in_circles }, count, are_held)
                };
                let in_chunks = |(place, rows): (usize, Vec<Removable>)| {
                    let chunks = chunks(&rows, batch_size, blocks_at_once()).map(<[Removable]>::to_vec);
                    chunks.map(|rows| (place, rows)).collect::<Vec<_>>()
                };
                let mut has_steps = vec![false; leaves.len()];
                steps.iter().chain(&circles).for_each(|(place, rows)| has_steps[*place] |= !rows.is_empty());
                // Where there is no first pass, those that are held are it.
                let is_first = leaves.iter().all(|leaf| leaf.reach == Reach::Position)
                    && !has_steps.contains(&true)
                    && across.is_empty();
                let pass_of_held = if is_first { 1 } else { 2 };
                steps
                    .into_iter()
                    .flat_map(in_chunks)
                    .try_for_each(|(place, rows)| save(1, place, rows, false, false))?;
                circles.into_iter().try_for_each(|(place, rows)| save(1, place, rows, true, false))?;
                held.into_iter()
                    .flat_map(in_chunks)
                    .try_for_each(|(place, rows)| save(pass_of_held, place, rows, false, true))?;
                // A part of no rows, so that `look_again` finds one of each leaf, and `is_lost` its file.
                for (place, leaf) in leaves.iter().enumerate() {
                    if across.iter().flatten().any(|of| of.place == place) {
                        let task = Task::Positions { rows: Vec::new(), lsn, in_circles: false };
                        insert(1, of(leaf), task, 0, false)?;
                    }
                }
                for rows in across {
                    let rows: Vec<_> = rows.iter().map(|of| (leaves[of.place].table.oid, of.row)).collect();
                    let (count, columns) = (rows.len() as i64, columns_of(&rows, leaves));
                    insert(1, (table, &columns), Task::Across { rows, lsn }, count, false)?;
                }
            }
            None => {
                for leaf in leaves.iter().filter(|leaf| leaf.reach == Reach::Position) {
                    // Rows that reference others are younger than those, as a rule: about a batch at a time, from the end.
                    let length = if are_backwards { pages_of(batch_size) } else { leaf.pages.div_ceil(ranges).max(1) };
                    let mut firsts: Vec<u32> = (0..leaf.pages).step_by(length as usize).collect();
                    if are_backwards {
                        firsts.reverse();
                    }
                    for first in firsts {
                        let task = Task::Blocks { first: first.into(), next_offset: 0 };
                        insert(1, of(leaf), task, length.min(leaf.pages - first).into(), false)?;
                    }
                }
            }
        }
        Ok(())
    })
}

fn of(leaf: &Leaf) -> (pg_sys::Oid, &[i16]) {
    (leaf.table.oid, &leaf.numbers)
}

/// About as many pages as have the rows of a batch.
fn pages_of(batch_size: usize) -> u32 {
    (batch_size / 100).max(1) as u32
}

/// How many blocks a batch reads: a quarter of shared_buffers, so that they are still cached when it removes, and at most
/// 128 MB.
pub fn blocks_at_once() -> usize {
    // SAFETY: a setting, read by the one thread of a backend.
    (unsafe { pg_sys::NBuffers } as usize / 4).min(16_384)
}

/// Splits rows in heap order into chunks of at most `batch_size` rows and `blocks` pages. A chunk ends at the end of a page
/// if it can: then the next batch need not recheck a page that this one has changed.
fn chunks(mut rows: &[Removable], batch_size: usize, blocks: usize) -> impl Iterator<Item = &[Removable]> {
    std::iter::from_fn(move || {
        let (mut length, mut pages) = (0, 0);
        for page in rows.chunk_by(|row, next| row.block() == next.block()) {
            if pages == blocks || length > 0 && length + page.len() > batch_size {
                break;
            }
            (length, pages) = (length + page.len(), pages + 1);
        }
        let (chunk, rest) = rows.split_at(length.min(batch_size));
        rows = rest;
        (!chunk.is_empty()).then_some(chunk)
    })
}

#[cfg(test)]
mod tests {
    use pgrx::itemptr::item_pointer_set_all;

    use super::*;

    /// Makes rows from (block, number of rows).
    fn rows(pages: &[(u32, u16)]) -> Vec<Removable> {
        let row = |block: u32, offset: u16| {
            let mut tid = pg_sys::ItemPointerData::default();
            item_pointer_set_all(&mut tid, block, offset);
            Removable::new(tid, 0)
        };
        pages.iter().flat_map(|(block, count)| (1..=*count).map(move |offset| row(*block, offset))).collect()
    }

    fn lengths(pages: &[(u32, u16)], batch_size: usize, blocks: usize) -> Vec<usize> {
        chunks(&rows(pages), batch_size, blocks).map(<[Removable]>::len).collect()
    }

    #[test]
    fn a_chunk_ends_with_a_page_unless_one_page_is_too_much() {
        assert_eq!(lengths(&[(0, 4), (1, 4), (2, 4)], 10, 100), [8, 4]);
        assert_eq!(lengths(&[(0, 4), (9, 4)], 8, 100), [8]);
        assert_eq!(lengths(&[(0, 25), (1, 1)], 10, 100), [10, 10, 6]);
        assert_eq!(lengths(&[(0, 1), (1, 1), (2, 1)], 10, 2), [2, 1]);
        assert_eq!(lengths(&[], 10, 2), [0; 0]);
    }
}
