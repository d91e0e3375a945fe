use pgrx::prelude::*;

use crate::error::{Result, spi};
use crate::leaf::{Leaf, Reach};
use crate::removable::{PerLeaf, Removable};
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
    Blocks {
        first: i64,
        next_offset: u16,
    },
    Positions(Vec<pg_sys::ItemPointerData>),
    /// The recipes of the run.
    Keys,
}

/// Divides the work of a run: the positions, where they are known, else each leaf's blocks, in `ranges` of equal length;
/// where positions mean nothing, the recipes.
pub fn save(
    run_id: i64,
    leaves: &[Leaf],
    positions: Option<&PerLeaf>,
    recipes: usize,
    batch_size: usize,
    ranges: u32,
) -> Result<()> {
    let mut part = 0;
    let mut insert = |leaf: &Leaf, first_block: Option<i64>, tids: Option<Vec<pg_sys::ItemPointerData>>, steps: i64| {
        Spi::run_with_args(
            "INSERT INTO backlog_cleanup.run_part (run_id, part, leaf, filenode, first_block, tids, steps)
             VALUES ($1, $2, $3, pg_catalog.pg_relation_filenode($3), $4, $5, $6)",
            &[run_id.into(), part.into(), leaf.table.oid.into(), first_block.into(), tids.into(), steps.into()],
        )
        .map_err(spi)?;
        part += 1;
        Ok(())
    };
    state(|| {
        for leaf in leaves {
            match (leaf.reach, positions) {
                (Reach::Key, _) => insert(leaf, None, None, recipes as i64)?,
                (Reach::Position, Some(positions)) => {
                    let rows = positions.get(&leaf.table.oid.to_u32()).map(Vec::as_slice).unwrap_or_default();
                    for chunk in chunks(rows, batch_size) {
                        let tids: Vec<_> = chunk.iter().map(Removable::tid).collect();
                        insert(leaf, None, Some(tids), chunk.len() as i64)?;
                    }
                }
                (Reach::Position, None) => {
                    let length = leaf.pages.div_ceil(ranges).max(1);
                    for first in (0..leaf.pages).step_by(length as usize) {
                        insert(leaf, Some(first.into()), None, length.min(leaf.pages - first).into())?;
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

/// Rows in heap order, in chunks of a batch at most.
fn chunks(rows: &[Removable], batch_size: usize) -> impl Iterator<Item = &[Removable]> {
    let (mut length, mut blocks, mut last) = (0, 0, None);
    rows.chunk_by(move |_, next| {
        let is_new = last.replace(next.block()) != Some(next.block());
        (length, blocks) = (length + 1, blocks + usize::from(is_new));
        let fits = length < batch_size && blocks < blocks_at_once();
        if !fits {
            (length, blocks) = (0, 0);
        }
        fits
    })
}

/// Whether a run has parts that are not finished.
pub fn are_left(run_id: i64) -> Result<bool> {
    state(|| {
        Spi::get_one_with_args::<bool>(
            "SELECT EXISTS (SELECT FROM backlog_cleanup.run_part
                            WHERE run_id OPERATOR(pg_catalog.=) $1 AND steps_done OPERATOR(pg_catalog.<) steps)",
            &[run_id.into()],
        )
        .map_err(spi)
    })
    .map(|left| left == Some(true))
}

impl Part {
    /// Takes a part of the run that is not finished and that nobody else works on, until the transaction ends.
    pub fn take(run_id: i64) -> Result<Option<Part>> {
        state(|| {
            Spi::connect_mut(|client| {
                let rows = client.update(
                    "SELECT part, leaf, first_block, next_offset, tids, steps, steps_done, attempts
                     FROM backlog_cleanup.run_part
                     WHERE run_id OPERATOR(pg_catalog.=) $1 AND steps_done OPERATOR(pg_catalog.<) steps
                     ORDER BY part
                     LIMIT 1
                     FOR NO KEY UPDATE SKIP LOCKED",
                    None,
                    &[run_id.into()],
                )?;
                let mut parts = rows.map(|row| -> spi::Result<Part> {
                    let task = match (row.get::<i64>(3)?, row.get::<Vec<pg_sys::ItemPointerData>>(5)?) {
                        (Some(first), _) => {
                            Task::Blocks { first, next_offset: row.get::<i32>(4)?.unwrap_or_default() as u16 }
                        }
                        (None, Some(tids)) => Task::Positions(tids),
                        (None, None) => Task::Keys,
                    };
                    Ok(Part {
                        run_id,
                        part: row.get(1)?.unwrap_or_default(),
                        leaf: row.get(2)?.unwrap_or(pg_sys::InvalidOid),
                        task,
                        steps: row.get(6)?.unwrap_or_default(),
                        steps_done: row.get(7)?.unwrap_or_default(),
                        attempts: row.get(8)?.unwrap_or_default(),
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
            Spi::connect_mut(|client| {
                let rows = client.update(
                    "UPDATE backlog_cleanup.run_part
                 SET filenode = pg_catalog.pg_relation_filenode(leaf), first_block = 0, tids = NULL, next_offset = 0,
                     steps = pg_catalog.pg_relation_size(leaf)
                             OPERATOR(pg_catalog./) pg_catalog.current_setting('block_size')::pg_catalog.int8,
                     steps_done = 0
                 WHERE run_id OPERATOR(pg_catalog.=) $1 AND part OPERATOR(pg_catalog.=) $2
                   AND filenode OPERATOR(pg_catalog.<>) pg_catalog.pg_relation_filenode(leaf)
                 RETURNING part",
                    None,
                    &[self.run_id.into(), self.part.into()],
                )?;
                Ok(!rows.is_empty())
            })
            .map_err(spi)
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
            Spi::run_with_args(
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
            .map_err(spi)
        })
    }
}
