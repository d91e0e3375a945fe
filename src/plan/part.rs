use pgrx::datum::DatumWithOid;
use pgrx::prelude::*;

use crate::extension;
use crate::postgres::datum::tid_array;
use crate::postgres::error::{Result, spi};
use crate::postgres::prepared::{self, prepared};
use crate::rank::removable::Removable;
use crate::remove::left::GIVEN_UP_PER_ROW;
use crate::target::leaf::Leaf;

/// A part of a batched run: what is left to do in a leaf. A process that works on the run takes any part for one batch;
/// the part's row says where the next batch continues.
pub struct Part {
    pub run_id: i64,
    /// Rows that a pass has kept back are tried again in the next one.
    pub pass: i32,
    /// Parts come in the order of their numbers. Those of every second pass are negative, so that the last comes first: what was
    /// freed by the rows behind goes in one pass.
    pub part: i32,
    pub leaf: pg_sys::Oid,
    /// The leaf's `numbers` when it was ranked.
    pub columns: Vec<i16>,
    pub task: Task,
    /// Blocks, positions or recipes.
    pub steps: i64,
    pub steps_done: i64,
    pub attempts: i32,
    /// Rows that the run counts as kept back and that this part has still to try again.
    pub kept_back: i64,
    /// Of these, rows that the run gave up on in the pass before.
    pub given_up: i64,
    /// Whether its pass tries rows. If not, it counts those that the run has changed and left.
    pub is_worth_while: bool,
}

pub enum Task {
    /// A range of blocks from `first` on. In the next block, the rows up to `next_offset` are done.
    Blocks { first: i64, next_offset: u16 },
    /// Rows in the order in which they can go, read when the WAL was at `lsn`; those in circles go in one statement.
    Positions { rows: Vec<Removable>, lsn: u64, in_circles: bool },
    /// Rows of several leaves in circles, which go in one statement.
    Across { rows: Vec<(pg_sys::Oid, Removable)>, lsn: u64 },
    /// Recipes of the run from `first` on. Of the next one, so many rows with the lowest ids have stayed. Those of the rows that the pass
    /// before has kept back, at no positions.
    Keys { first: i64, stayed: usize, kept_back: Vec<Removable> },
}

/// The tables of these rows, by their oids.
pub fn tables_of(rows: &[(pg_sys::Oid, Removable)]) -> Vec<pg_sys::Oid> {
    let mut tables: Vec<_> = rows.iter().map(|(table, _)| *table).collect();
    tables.sort_unstable_by_key(|table| table.to_u32());
    tables.dedup();
    tables
}

/// The columns of the tables of these rows.
pub(super) fn columns_of(rows: &[(pg_sys::Oid, Removable)], leaves: &[Leaf]) -> Vec<i16> {
    let of_table = |table: pg_sys::Oid| leaves.iter().find(move |leaf| leaf.table.oid == table);
    tables_of(rows).into_iter().filter_map(of_table).flat_map(|leaf| leaf.numbers.clone()).collect()
}

/// Saves a part, or puts its rows before those of one that a batch before has saved for the next pass.
pub(super) fn insert(
    (run_id, pass, part): (i64, i32, i32),
    (leaf, columns): (pg_sys::Oid, &[i16]),
    task: Task,
    steps: i64,
    (kept_back, given_up): (i64, i64),
) -> Result<()> {
    let (mut leaves, mut first_recipe) = (None, None);
    let (first_block, rows, lsn, in_circles) = match task {
        Task::Blocks { first, .. } => (Some(first), None, 0, false),
        Task::Positions { rows, lsn, in_circles } => (None, Some(rows), lsn, in_circles),
        Task::Across { rows, lsn } => {
            let (tables, rows): (Vec<pg_sys::Oid>, Vec<Removable>) = rows.into_iter().unzip();
            leaves = Some(tables);
            (None, Some(rows), lsn, true)
        }
        Task::Keys { first, kept_back, .. } => {
            first_recipe = Some(first);
            (None, Some(kept_back), 0, false)
        }
    };
    let tids = rows.as_ref().filter(|_| first_recipe.is_none());
    let tids = tids.map(|rows| rows.iter().map(Removable::tid).collect::<Vec<_>>());
    let place = |row: &Removable| row.recipe().map(|place| place as i32);
    prepared::run(
        "INSERT INTO backlog_cleanup.run_part (run_id, pass, part, leaf, filenode, first_block, tids, places, lsn, steps,
                                               kept_back, columns, in_circles, given_up, leaves, first_recipe)
         VALUES ($1, $2, $3, $4, CASE WHEN $15 IS NULL THEN pg_relation_filenode($4) END, $5, $6, $7, $8, $9, $10, $11, $12, $13,
                 $14, $15)
         ON CONFLICT (run_id, pass, part) DO UPDATE
         SET tids = CASE WHEN run_part.first_block IS NULL THEN excluded.tids || run_part.tids END,
             places = CASE WHEN run_part.first_block IS NULL THEN excluded.places || run_part.places END,
             leaves = excluded.leaves || run_part.leaves,
             steps = CASE WHEN run_part.tids IS NULL THEN run_part.steps ELSE run_part.steps + excluded.steps END,
             kept_back = run_part.kept_back + excluded.kept_back, given_up = run_part.given_up + excluded.given_up",
        &[
            run_id.into(),
            pass.into(),
            part.into(),
            leaf.into(),
            first_block.into(),
            tids.as_deref().map_or(DatumWithOid::null_oid(pg_sys::TIDARRAYOID), tid_array),
            rows.map(|rows| rows.iter().map(place).collect::<Vec<_>>()).into(),
            // SAFETY: a pg_lsn is these 64 bits.
            unsafe { DatumWithOid::new(pg_sys::Datum::from(lsn), pg_sys::PG_LSNOID) },
            steps.into(),
            kept_back.into(),
            columns.to_vec().into(),
            in_circles.into(),
            given_up.into(),
            leaves.into(),
            first_recipe.into(),
        ],
    )
}

/// Whether part `p` of run $1 is not finished. A part that looks through its leaf covers the leaf's positions of its pass.
macro_rules! is_unfinished {
    ($p:literal) => {
        concat!(
            $p,
            ".steps_done < ",
            $p,
            ".steps AND (",
            $p,
            ".tids IS NULL OR ",
            $p,
            ".leaves IS NOT NULL OR (",
            $p,
            ".pass, ",
            $p,
            ".leaf) NOT IN (SELECT pass, leaf FROM backlog_cleanup.run_part WHERE run_id = $1 AND first_block IS NOT NULL))"
        )
    };
}

/// The unfinished parts of run $1 that are due, behind part $3 of pass $2: those of the first pass that has any, if that is worth while.
/// If it is not, those that look through their leaves, and only count. Each subquery is done once: there may be thousands of parts.
macro_rules! due {
    ($($what:expr),*) => {
        concat!(
            "SELECT ",
            $($what,)*
            " FROM backlog_cleanup.run_part p
             WHERE run_id = $1 AND (pass, part) > ($2, $3) AND ",
            is_unfinished!("p"),
            " AND pass = (SELECT min(u.pass) FROM backlog_cleanup.run_part u WHERE u.run_id = $1 AND ",
            is_unfinished!("u"),
            ")
              AND (first_block IS NOT NULL OR ", is_worth_while!(), ")
             ORDER BY pass, part
             LIMIT 1"
        )
    };
}

/// Whether pass `pass` of run $1 is worth while (`remove::left::is_worth_while`); $4 is `GIVEN_UP_PER_ROW`.
macro_rules! is_worth_while {
    () => {
        "(pass = 1 OR (pass, true) IN (
                       SELECT b.pass + 1, CASE WHEN b.pass = 1 THEN b.removed > 0 OR b.given_up = 0
                                               ELSE (b.removed > 0 OR b.given_up > 0) AND (b.removed + b.before) * $4 >= b.given_up END
                       FROM (SELECT a.pass, sum(a.removed) AS removed, lag(sum(a.removed)) OVER passes AS before,
                                    lead(sum(a.given_up)) OVER passes AS given_up
                             FROM backlog_cleanup.run_part a WHERE a.run_id = $1
                             GROUP BY a.pass WINDOW passes AS (ORDER BY a.pass)) b))"
    };
}

/// Whether a run has rows of several leaves whose positions mean nothing any more.
pub fn are_lost(run_id: i64) -> Result<bool> {
    const ARE_LOST: &str =
        "SELECT true FROM backlog_cleanup.run_part WHERE run_id = $1 AND leaves IS NOT NULL AND lsn IS NULL LIMIT 1";
    extension::as_owner(|| prepared::get_one::<bool>(ARE_LOST, &[run_id.into()])).map(|lost| lost == Some(true))
}

/// Forgets the parts of a run. Those of its rows that it counts as kept back, and as given up among them, count no more; so many others
/// are held.
pub fn forget(run_id: i64, held: i64) -> Result<()> {
    const FORGET: &str = "
        WITH gone AS (DELETE FROM backlog_cleanup.run_part WHERE run_id = $1 RETURNING kept_back, given_up)
        UPDATE backlog_cleanup.run
        SET kept_back = run.kept_back - counted.kept_back + $2, given_up = run.given_up - counted.given_up
        FROM (SELECT coalesce(sum(kept_back), 0) AS kept_back, coalesce(sum(given_up), 0) AS given_up FROM gone) counted
        WHERE id = $1";
    extension::as_owner(|| prepared::run(FORGET, &[run_id.into(), held.into()]))
}

/// Whether a run has parts that are not finished.
pub fn are_left(run_id: i64) -> Result<bool> {
    let arguments = [run_id.into(), 0i32.into(), 0i32.into(), GIVEN_UP_PER_ROW.into()];
    extension::as_owner(|| prepared::get_one::<bool>(due!("true"), &arguments)).map(|left| left == Some(true))
}

impl Task {
    fn of(row: &spi::SpiHeapTupleData) -> spi::Result<Task> {
        if let Some(first) = row.get_by_name::<i64, _>("first_block")? {
            let next_offset = row.get_by_name::<i32, _>("next_offset")?.unwrap_or_default() as u16;
            return Ok(Task::Blocks { first, next_offset });
        }
        if let Some(first) = row.get_by_name::<i64, _>("first_recipe")? {
            let stayed = row.get_by_name::<i32, _>("next_offset")?.unwrap_or_default() as usize;
            return Ok(Task::Keys { first, stayed, kept_back: Vec::new() });
        }
        let tids: Vec<pg_sys::ItemPointerData> = row.get_by_name("tids")?.unwrap_or_default();
        let places: Vec<Option<i32>> = row.get_by_name("places")?.unwrap_or_default();
        let place = |place: Option<i32>| place.map_or(usize::MAX, |place| place as usize);
        let rows = tids.into_iter().zip(places).map(|(tid, p)| Removable::new(tid, place(p)));
        let lsn = row.get_by_name::<i64, _>("lsn")?.unwrap_or_default() as u64;
        if let Some(leaves) = row.get_by_name::<Vec<pg_sys::Oid>, _>("leaves")? {
            return Ok(Task::Across { rows: leaves.into_iter().zip(rows).collect(), lsn });
        }
        let in_circles = row.get_by_name("in_circles")?.unwrap_or_default();
        Ok(Task::Positions { rows: rows.collect(), lsn, in_circles })
    }
}

impl Part {
    /// Locks an unfinished part of the run that no other process works on, until the transaction ends. It is behind a place, if
    /// one is given. The lock is stronger than that of an UPDATE: with the same, the row would keep an update that a batch has rolled
    /// back beside its lock, and PostgreSQL fails an assertion where `failed_once_more` updates it once more and onto another page.
    pub fn take(run_id: i64, behind: Option<(i32, i32)>) -> Result<Option<Part>> {
        const NEXT: &str = concat!(
            due!(
                "pass, part, leaf, columns, first_block, next_offset, tids, places, (lsn - '0/0'::pg_lsn)::bigint AS lsn,
                 steps, steps_done, attempts, kept_back, given_up, in_circles, leaves, first_recipe, ",
                is_worth_while!(),
                " AS is_worth_while"
            ),
            " FOR UPDATE OF p SKIP LOCKED"
        );
        extension::as_owner(|| {
            Spi::connect_mut(|client| {
                let (pass, part) = behind.unwrap_or_default();
                let arguments = [run_id.into(), pass.into(), part.into(), GIVEN_UP_PER_ROW.into()];
                let rows = client.update(prepared(client, NEXT, &arguments)?, None, &arguments)?;
                let mut parts = rows.map(|row| -> spi::Result<Part> {
                    Ok(Part {
                        run_id,
                        pass: row.get_by_name("pass")?.unwrap_or_default(),
                        part: row.get_by_name("part")?.unwrap_or_default(),
                        leaf: row.get_by_name("leaf")?.unwrap_or(pg_sys::InvalidOid),
                        columns: row.get_by_name("columns")?.unwrap_or_default(),
                        task: Task::of(&row)?,
                        steps: row.get_by_name("steps")?.unwrap_or_default(),
                        steps_done: row.get_by_name("steps_done")?.unwrap_or_default(),
                        attempts: row.get_by_name("attempts")?.unwrap_or_default(),
                        kept_back: row.get_by_name("kept_back")?.unwrap_or_default(),
                        given_up: row.get_by_name("given_up")?.unwrap_or_default(),
                        is_worth_while: row.get_by_name("is_worth_while")?.unwrap_or_default(),
                    })
                });
                parts.next().transpose()
            })
            .map_err(spi)
        })
    }

    /// Its place in the order of the run's parts.
    pub fn place(&self) -> (i32, i32) {
        (self.pass, self.part)
    }

    /// Starts the part over at the leaf's first block if the table was rewritten, since its rows are elsewhere now. Returns
    /// false if it was not. The caller has locked the leaf.
    pub fn restart_if_rewritten(&mut self) -> Result<bool> {
        let is_rewritten = extension::as_owner(|| {
            prepared::get_one::<i32>(
                "UPDATE backlog_cleanup.run_part
                 SET filenode = pg_relation_filenode(leaf), first_block = 0, tids = NULL, next_offset = 0,
                     steps = pg_relation_size(leaf) / current_setting('block_size')::bigint, steps_done = 0
                 WHERE run_id = $1 AND part = $2 AND pass = $3 AND filenode <> pg_relation_filenode(leaf)
                 RETURNING part",
                &[self.run_id.into(), self.part.into(), self.pass.into()],
            )
            .map(|part| part.is_some())
        })?;
        if is_rewritten {
            self.take_over_of_leaf()?;
        }
        Ok(is_rewritten)
    }

    /// Has the next pass look through a leaf of the run, whose rows a batch of this part has updated: they may be where no later
    /// batch looks.
    pub fn look_again(&self, leaf: &Leaf) -> Result<()> {
        extension::as_owner(|| {
            prepared::run(
                "INSERT INTO backlog_cleanup.run_part (run_id, pass, part, leaf, columns, filenode, first_block, lsn, steps)
                 SELECT $1, $2, CASE WHEN $2 % 2 = 0 THEN -min(part) ELSE min(part) END, $3, $4, pg_relation_filenode($3), 0, '0/0',
                        pg_relation_size($3) / current_setting('block_size')::bigint
                 FROM backlog_cleanup.run_part WHERE run_id = $1 AND pass = 1 AND leaf = $3 AND leaves IS NULL
                 HAVING count(*) > 0
                 ON CONFLICT (run_id, pass, part) DO UPDATE
                 SET first_block = 0, tids = NULL, places = NULL, steps = excluded.steps",
                &[self.run_id.into(), (self.pass + 1).into(), leaf.table.oid.into(), leaf.numbers.clone().into()],
            )
        })
    }

    /// Finishes the part if one of these tables has another file than at the plan: its positions mean nothing any more, and the run is to
    /// be planned anew. Returns false if none has. The caller has locked the tables.
    pub fn is_lost(&self, tables: &[pg_sys::Oid]) -> Result<bool> {
        const LOSE: &str = "
            UPDATE backlog_cleanup.run_part SET lsn = NULL, steps_done = steps
            WHERE run_id = $1 AND part = $2 AND pass = $3
              AND EXISTS (SELECT FROM backlog_cleanup.run_part p
                          WHERE p.run_id = $1 AND p.pass = 1 AND p.steps = 0 AND p.leaf = ANY ($4)
                            AND p.filenode <> pg_relation_filenode(p.leaf))
            RETURNING part";
        let arguments = [self.run_id.into(), self.part.into(), self.pass.into(), tables.to_vec().into()];
        extension::as_owner(|| prepared::get_one::<i32>(LOSE, &arguments)).map(|part| part.is_some())
    }

    /// Whether it looks through blocks.
    pub fn is_looking(&self) -> bool {
        matches!(self.task, Task::Blocks { .. })
    }

    /// Whether no batch of this part has been done.
    fn is_new(&self) -> bool {
        self.steps_done == 0 && !matches!(self.task, Task::Blocks { next_offset: 1.., .. })
    }

    /// Takes over what the run counts as kept back of this part's leaf, if the part starts to look through it again.
    pub fn take_over(&mut self) -> Result<()> {
        if self.pass == 1 || !self.is_new() || !self.is_looking() { Ok(()) } else { self.take_over_of_leaf() }
    }

    fn take_over_of_leaf(&mut self) -> Result<()> {
        const OF_LEAF: &str = "
            SELECT ARRAY[coalesce(sum(kept_back), 0)::bigint, coalesce(sum(given_up), 0)::bigint]
            FROM backlog_cleanup.run_part WHERE run_id = $1 AND pass BETWEEN $2 AND $2 + 1 AND leaf = $3 AND leaves IS NULL";
        const TAKE: &str = "
            UPDATE backlog_cleanup.run_part SET kept_back = CASE WHEN part = $4 AND pass = $2 THEN $5 ELSE 0 END,
                                                given_up = CASE WHEN part = $4 AND pass = $2 THEN $6 ELSE 0 END
            WHERE run_id = $1 AND pass BETWEEN $2 AND $2 + 1 AND leaf = $3 AND leaves IS NULL
                  AND (kept_back > 0 OR part = $4 AND pass = $2)";
        let place = [self.run_id.into(), self.pass.into(), self.leaf.into()];
        let of_leaf = extension::as_owner(|| prepared::get_one::<Vec<i64>>(OF_LEAF, &place))?.unwrap_or_default();
        let [kept_back, given_up] = of_leaf[..] else { return Ok(()) };
        (self.kept_back, self.given_up) = (kept_back, given_up);
        let [run_id, pass, leaf] = place;
        let take = [run_id, pass, leaf, self.part.into(), kept_back.into(), given_up.into()];
        extension::as_owner(|| prepared::run(TAKE, &take))
    }

    /// The rows of a leaf in circles through several that this pass or the next one tries.
    pub fn in_circles_across(&self) -> Result<Vec<Removable>> {
        const ACROSS: &str = "
            SELECT array_agg(circle.tid)
            FROM backlog_cleanup.run_part p CROSS JOIN LATERAL ROWS FROM (unnest(p.tids), unnest(p.leaves)) circle (tid, leaf)
            WHERE p.run_id = $1 AND p.leaves IS NOT NULL AND circle.leaf = $3
              AND (p.pass = $2 AND p.steps_done < p.steps OR p.pass = $2 + 1)";
        let place = [self.run_id.into(), self.pass.into(), self.leaf.into()];
        let tids = extension::as_owner(|| prepared::get_one::<Vec<pg_sys::ItemPointerData>>(ACROSS, &place))?;
        Ok(tids.into_iter().flatten().map(|tid| Removable::new(tid, usize::MAX)).collect())
    }

    /// Saves where the next batch continues, after one that has removed so many rows, and tried again so many that the run has counted
    /// as kept back, and as given up among them.
    pub fn advance(
        &self,
        (steps_done, next_offset): (i64, usize),
        removed: i64,
        (kept_back, given_up): (i64, i64),
    ) -> Result<()> {
        extension::as_owner(|| {
            prepared::run(
                "UPDATE backlog_cleanup.run_part
                 SET steps_done = $4, next_offset = $5, attempts = 0, removed = removed + $6, kept_back = kept_back - $7,
                     given_up = given_up - $8
                 WHERE run_id = $1 AND pass = $2 AND part = $3",
                &[
                    self.run_id.into(),
                    self.pass.into(),
                    self.part.into(),
                    steps_done.into(),
                    (next_offset as i32).into(),
                    removed.into(),
                    kept_back.into(),
                    given_up.into(),
                ],
            )
        })
    }

    /// Records that a batch was rolled back and will be retried.
    pub fn failed_once_more(&self) -> Result<()> {
        extension::as_owner(|| {
            prepared::run(
                "UPDATE backlog_cleanup.run_part SET attempts = attempts + 1 WHERE run_id = $1 AND pass = $2 AND part = $3",
                &[self.run_id.into(), self.pass.into(), self.part.into()],
            )
        })
    }

    /// How many of the rows that a batch has tried, up to `steps_done`, the run had counted as kept back; the batch has kept
    /// back so many.
    pub fn counted_before(&self, steps_done: i64, kept_back: i64) -> i64 {
        match self.task {
            Task::Positions { .. } if steps_done < self.steps => (steps_done - self.steps_done).min(self.kept_back),
            Task::Blocks { .. } | Task::Keys { .. } if steps_done < self.steps => kept_back.min(self.kept_back),
            _ => self.kept_back,
        }
    }

    /// Saves rows that a batch of this part has kept back, for the next pass: those of `rows`, or `kept_back` of a leaf that is
    /// reached by key. The batch gave up on so many of them. Their pages have changed since they were read, so they are looked up again.
    pub fn try_again(&self, mut rows: Vec<Removable>, kept_back: i64, given_up: i64) -> Result<()> {
        rows.reverse();
        let count = rows.len() as i64;
        let (task, steps, kept_back) = match self.task {
            Task::Keys { first, .. } => (Task::Keys { first, stayed: 0, kept_back: rows }, self.steps, kept_back),
            Task::Blocks { .. } => (Task::Positions { rows, lsn: 0, in_circles: false }, count, count),
            Task::Positions { in_circles, .. } => (Task::Positions { rows, lsn: 0, in_circles }, count, count),
            // They have a function of their own.
            Task::Across { .. } => return Ok(()),
        };
        self.insert_again(&self.columns, task, steps, kept_back, given_up)
    }

    /// The same for rows of several leaves: one batch has tried them all.
    pub fn try_again_across(&self, rows: Vec<(pg_sys::Oid, Removable)>, leaves: &[Leaf], given_up: i64) -> Result<()> {
        let (count, columns) = (rows.len() as i64, columns_of(&rows, leaves));
        self.insert_again(&columns, Task::Across { rows, lsn: 0 }, count, count, given_up)
    }

    fn insert_again(&self, columns: &[i16], task: Task, steps: i64, kept_back: i64, given_up: i64) -> Result<()> {
        if kept_back == 0 {
            return Ok(());
        }
        extension::as_owner(|| {
            let place = (self.run_id, self.pass + 1, -self.part);
            insert(place, (self.leaf, columns), task, steps, (kept_back, given_up))
        })
    }
}
