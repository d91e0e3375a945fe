use pgrx::datum::DatumWithOid;
use pgrx::prelude::*;

use crate::postgres::error::{Result, spi};
use crate::postgres::prepared::{self, prepared};
use crate::rank::removable::{PerLeaf, Removable, array};
use crate::target::leaf::{Leaf, Reach};
use crate::target::state;

/// A part of a batched run: what is left to do in a leaf. Any process that works on the run takes any part, for one
/// batch; the row says where to go on.
pub struct Part {
    pub run_id: i64,
    pub part: i32,
    pub leaf: pg_sys::Oid,
    pub task: Task,
    /// Blocks, positions or recipes.
    pub steps: i64,
    pub steps_done: i64,
    pub attempts: i32,
}

pub enum Task {
    /// The blocks from `first` on; of the next, the rows up to `next_offset` have been looked at.
    Blocks { first: i64, next_offset: u16 },
    /// Rows in heap order, as they were when the write-ahead log was at `lsn`.
    Positions { rows: Vec<Removable>, lsn: u64 },
    /// The recipes of the run.
    Keys,
}

/// Divides the work of a run: the positions, where they are known, as of their place in the write-ahead log, else each leaf's blocks, in `ranges` of equal length;
/// where positions mean nothing, the recipes.
pub fn save(
    run_id: i64,
    leaves: &[Leaf],
    positions: Option<(&PerLeaf, u64)>,
    recipes: usize,
    batch_size: usize,
    ranges: u32,
) -> Result<()> {
    let mut part = 0;
    let mut insert = |leaf: &Leaf, task: Task, steps: i64| {
        let (first_block, rows, lsn) = match task {
            Task::Blocks { first, .. } => (Some(first), None, 0),
            Task::Positions { rows, lsn } => (None, Some(rows), lsn),
            Task::Keys => (None, None, 0),
        };
        let tids = rows.as_ref().map(|rows| rows.iter().map(Removable::tid).collect::<Vec<_>>());
        let place = |row: &Removable| row.recipe().map(|place| place as i32);
        prepared::run(
            "INSERT INTO backlog_cleanup.run_part (run_id, part, leaf, filenode, first_block, tids, places, lsn, steps)
             VALUES ($1, $2, $3, pg_catalog.pg_relation_filenode($3), $4, $5, $6, $7, $8)",
            &[
                run_id.into(),
                part.into(),
                leaf.table.oid.into(),
                first_block.into(),
                tids.as_deref().map_or(DatumWithOid::null_oid(pg_sys::TIDARRAYOID), array),
                rows.map(|rows| rows.iter().map(place).collect::<Vec<_>>()).into(),
                unsafe { DatumWithOid::new(pg_sys::Datum::from(lsn), pg_sys::PG_LSNOID) },
                steps.into(),
            ],
        )?;
        part += 1;
        Ok(())
    };
    state(|| {
        for (leaf, place) in leaves.iter().zip(0..) {
            match (leaf.reach, positions) {
                (Reach::Key, _) => insert(leaf, Task::Keys, recipes as i64)?,
                (Reach::Position, Some((positions, lsn))) => {
                    for chunk in chunks(&positions[place], batch_size) {
                        insert(leaf, Task::Positions { rows: chunk.to_vec(), lsn }, chunk.len() as i64)?;
                    }
                }
                (Reach::Position, None) => {
                    let length = leaf.pages.div_ceil(ranges).max(1);
                    for first in (0..leaf.pages).step_by(length as usize) {
                        let task = Task::Blocks { first: first.into(), next_offset: 0 };
                        insert(leaf, task, length.min(leaf.pages - first).into())?;
                    }
                }
            }
        }
        Ok(())
    })
}

/// How many blocks a batch looks at: no more than are still in shared_buffers when it removes, or 128 MB.
pub fn blocks_at_once() -> usize {
    (unsafe { pg_sys::NBuffers } as usize / 4).min(16_384)
}

/// Rows in heap order, in chunks of a batch at most, which end with a page where they can: what a batch has changed, the
/// next need not look at again.
fn chunks(mut rows: &[Removable], batch_size: usize) -> impl Iterator<Item = &[Removable]> {
    std::iter::from_fn(move || {
        let (mut length, mut blocks) = (0, 0);
        for page in rows.chunk_by(|row, next| row.block() == next.block()) {
            if blocks == blocks_at_once() || length > 0 && length + page.len() > batch_size {
                break;
            }
            (length, blocks) = (length + page.len(), blocks + 1);
        }
        let (chunk, rest) = rows.split_at(length.min(batch_size));
        rows = rest;
        (!chunk.is_empty()).then_some(chunk)
    })
}

/// Whether a run has parts that are not finished.
pub fn are_left(run_id: i64) -> Result<bool> {
    state(|| {
        prepared::get_one::<bool>(
            "SELECT EXISTS (SELECT FROM backlog_cleanup.run_part
                            WHERE run_id OPERATOR(pg_catalog.=) $1 AND steps_done OPERATOR(pg_catalog.<) steps)",
            &[run_id.into()],
        )
    })
    .map(|left| left == Some(true))
}

impl Part {
    /// Takes a part of the run that is not finished and that nobody else works on, until the transaction ends.
    pub fn take(run_id: i64) -> Result<Option<Part>> {
        const NEXT: &str = "
            SELECT part, leaf, first_block, next_offset, tids, places,
                   (lsn OPERATOR(pg_catalog.-) '0/0'::pg_catalog.pg_lsn)::pg_catalog.int8,
                   steps, steps_done, attempts
            FROM backlog_cleanup.run_part
            WHERE run_id OPERATOR(pg_catalog.=) $1 AND steps_done OPERATOR(pg_catalog.<) steps
            ORDER BY part
            LIMIT 1
            FOR NO KEY UPDATE SKIP LOCKED";
        state(|| {
            Spi::connect_mut(|client| {
                let arguments = [run_id.into()];
                let rows = client.update(prepared(client, NEXT, &arguments)?, None, &arguments)?;
                let mut parts = rows.map(|row| -> spi::Result<Part> {
                    let tids: Option<Vec<pg_sys::ItemPointerData>> = row.get(5)?;
                    let task = match (row.get::<i64>(3)?, tids) {
                        (Some(first), _) => {
                            Task::Blocks { first, next_offset: row.get::<i32>(4)?.unwrap_or_default() as u16 }
                        }
                        (None, Some(tids)) => {
                            let places: Vec<Option<i32>> = row.get(6)?.unwrap_or_default();
                            let place = |place: Option<i32>| place.map_or(usize::MAX, |place| place as usize);
                            let rows = tids.into_iter().zip(places).map(|(tid, p)| Removable::new(tid, place(p)));
                            Task::Positions { rows: rows.collect(), lsn: row.get::<i64>(7)?.unwrap_or_default() as u64 }
                        }
                        (None, None) => Task::Keys,
                    };
                    Ok(Part {
                        run_id,
                        part: row.get(1)?.unwrap_or_default(),
                        leaf: row.get(2)?.unwrap_or(pg_sys::InvalidOid),
                        task,
                        steps: row.get(8)?.unwrap_or_default(),
                        steps_done: row.get(9)?.unwrap_or_default(),
                        attempts: row.get(10)?.unwrap_or_default(),
                    })
                });
                parts.next().transpose()
            })
            .map_err(spi)
        })
    }

    /// Starts the part over from the leaf's first block where the table was rewritten, since its rows are elsewhere now;
    /// false where it was not. The caller has locked the leaf.
    pub fn restart_if_rewritten(&self) -> Result<bool> {
        state(|| {
            prepared::get_one::<i32>(
                "UPDATE backlog_cleanup.run_part
                 SET filenode = pg_catalog.pg_relation_filenode(leaf), first_block = 0, tids = NULL, next_offset = 0,
                     steps = pg_catalog.pg_relation_size(leaf)
                             OPERATOR(pg_catalog./) pg_catalog.current_setting('block_size')::pg_catalog.int8,
                     steps_done = 0
                 WHERE run_id OPERATOR(pg_catalog.=) $1 AND part OPERATOR(pg_catalog.=) $2
                   AND filenode OPERATOR(pg_catalog.<>) pg_catalog.pg_relation_filenode(leaf)
                 RETURNING part",
                &[self.run_id.into(), self.part.into()],
            )
            .map(|part| part.is_some())
        })
    }

    /// Remembers where to go on.
    pub fn advance(&self, steps_done: i64, next_offset: u16) -> Result<()> {
        self.update(steps_done, next_offset, 0)
    }

    /// Remembers that a batch was rolled back and is to be tried again.
    pub fn failed_once_more(&self) -> Result<()> {
        let next_offset = if let Task::Blocks { next_offset, .. } = self.task { next_offset } else { 0 };
        self.update(self.steps_done, next_offset, self.attempts + 1)
    }

    fn update(&self, steps_done: i64, next_offset: u16, attempts: i32) -> Result<()> {
        state(|| {
            prepared::run(
                "UPDATE backlog_cleanup.run_part SET steps_done = $3, next_offset = $4, attempts = $5
                 WHERE run_id OPERATOR(pg_catalog.=) $1 AND part OPERATOR(pg_catalog.=) $2",
                &[
                    self.run_id.into(),
                    self.part.into(),
                    steps_done.into(),
                    i32::from(next_offset).into(),
                    attempts.into(),
                ],
            )
        })
    }
}
