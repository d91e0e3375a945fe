use std::thread::available_parallelism;

use pgrx::prelude::*;

use crate::postgres::error::{Result, spi};
use crate::postgres::owner::set_local;
use crate::postgres::prepared;
use crate::postgres::read::read_one;
use crate::postgres::table::{Column, Table};
use crate::rank::removable::Removable;
use crate::target::Target;

/// A table that has rows of the target in itself: a plain table, a partition, a child.
pub struct Leaf {
    pub table: Table,
    pub reach: Reach,
    /// The heap's size in blocks.
    pub pages: u32,
    /// Whether the planner's figures are those of another table than this has become: since they were taken it has grown
    /// by a tenth, or a tenth of its rows have changed, which is when autovacuum takes them anew by default.
    pub is_stale: bool,
}

impl Leaf {
    /// The leaf in a FROM clause: its own rows, those of its children being theirs.
    pub fn rows(&self) -> String {
        match self.reach {
            Reach::Position => format!("ONLY {}", self.table.name),
            Reach::Key => self.table.name.clone(),
        }
    }

    /// What rows are grouped by in here: the recipe, a text by its bytes, as runs tell recipes apart.
    pub fn group_key(&self, recipe: &Column) -> String {
        let collation = if self.reach == Reach::Key || recipe.is_integer() { "" } else { " COLLATE pg_catalog.\"C\"" };
        format!("{}{collation}", recipe.as_key())
    }

    /// Until `acting_as` ends, has the planner expect rows by the million that workers pass on, each for less than it thinks,
    /// and read the whole table where its figures would have it believe in a few rows and an index.
    pub fn expect_most_rows(&self) {
        set_local("parallel_tuple_cost", "0");
        // A compiler takes ten megabytes and more, and saves no time on a column or two.
        set_local("jit", "off");
        // This process reads too: more of them than processors only take turns.
        let others = available_parallelism().map_or(1, |processors| processors.get() - 1);
        let allowed = unsafe { pg_sys::max_parallel_workers_per_gather } as usize;
        set_local("max_parallel_workers_per_gather", &others.min(allowed).to_string());
        if self.is_stale {
            for path in ["bitmapscan", "indexscan", "indexonlyscan"] {
                set_local(&format!("enable_{path}"), "off");
            }
        }
    }

    /// The `attnum` that a column of the target has here; `None` where its values are not stored with the rows, but
    /// generated as they are read.
    pub fn stored_number_of(&self, column: &Column, target: &Target) -> Result<Option<i16>> {
        read_one::<i16>(
            "SELECT here.attnum
             FROM pg_catalog.pg_attribute there
             JOIN pg_catalog.pg_attribute here ON here.attname OPERATOR(pg_catalog.=) there.attname
             WHERE there.attrelid OPERATOR(pg_catalog.=) $1 AND there.attnum OPERATOR(pg_catalog.=) $2
               AND here.attrelid OPERATOR(pg_catalog.=) $3 AND here.attgenerated OPERATOR(pg_catalog.<>) 'v'",
            &[target.table.oid.into(), column.number.into(), self.table.oid.into()],
        )
    }

    /// Follows positions that an index leads to, as a scan of it does, to where the rows are: a page that was updated and
    /// pruned has them elsewhere.
    pub fn follow(&self, rows: &[Removable]) -> Vec<Removable> {
        unsafe {
            let heap = pg_sys::table_open(self.table.oid, pg_sys::NoLock as i32);
            let follow = |row: &Removable| {
                let mut tid = row.tid();
                pg_sys::table_index_fetch_tuple_check(
                    heap,
                    &mut tid,
                    pg_sys::GetActiveSnapshot(),
                    std::ptr::null_mut(),
                );
                row.at(tid)
            };
            let followed = rows.iter().map(follow).collect();
            pg_sys::table_close(heap, pg_sys::NoLock as i32);
            followed
        }
    }

    /// Splits rows in heap order: those on pages that nobody has changed since the write-ahead log was at `lsn`, where each
    /// row is still the one that it was, and the others. nbtree tells in the same way whether it may kill what it has read
    /// (`_bt_killitems` in nbtree/README). A page of a table that is not logged tells nothing.
    pub fn unchanged_since(&self, lsn: u64, rows: &[Removable]) -> (Vec<Removable>, Vec<Removable>) {
        let (mut same, mut others) = (Vec::with_capacity(rows.len()), Vec::new());
        unsafe {
            let heap = pg_sys::table_open(self.table.oid, pg_sys::NoLock as i32);
            let is_logged = (*(*heap).rd_rel).relpersistence as u8 == pg_sys::RELPERSISTENCE_PERMANENT;
            let pages = pg_sys::RelationGetNumberOfBlocksInFork(heap, pg_sys::ForkNumber::MAIN_FORKNUM);
            for page in rows.chunk_by(|row, next| row.block() == next.block()) {
                let block = page[0].block();
                let is_same = is_logged && block < pages && {
                    let buffer = pg_sys::ReadBuffer(heap, block);
                    let changed_at = pg_sys::BufferGetLSNAtomic(buffer);
                    pg_sys::ReleaseBuffer(buffer);
                    changed_at <= lsn
                };
                if is_same { &mut same } else { &mut others }.extend_from_slice(page);
            }
            pg_sys::table_close(heap, pg_sys::NoLock as i32);
        }
        (same, others)
    }
}

/// How the rows of a leaf are named.
#[derive(Clone, Copy, PartialEq)]
pub enum Reach {
    /// By their positions in the heap.
    Position,
    /// By their recipe, failed-at and id: where the rows are elsewhere a position means nothing.
    Key,
}

/// The leaves of a target. A table that is distributed by Citus looks like a plain one, but a position means a row in
/// each of its shards.
pub fn leaves(target: &Target) -> Result<Vec<Leaf>> {
    if is_distributed(&target.table)? {
        let table = table(target.table.oid, target)?;
        return Ok(table
            .map(|table| Leaf { table, reach: Reach::Key, pages: 0, is_stale: false })
            .into_iter()
            .collect());
    }
    let found = Spi::connect(|client| {
        client
            .select(
                "WITH RECURSIVE leaf (oid) AS (
                     SELECT $1
                     UNION
                     SELECT i.inhrelid FROM pg_catalog.pg_inherits i
                     JOIN leaf ON i.inhparent OPERATOR(pg_catalog.=) leaf.oid)
                 SELECT c.oid, pages, pages OPERATOR(pg_catalog.>) (1.1 OPERATOR(pg_catalog.*) c.relpages)
                     OR pg_catalog.pg_stat_get_mod_since_analyze(c.oid)
                        OPERATOR(pg_catalog.>) (0.1 OPERATOR(pg_catalog.*) c.reltuples)
                 FROM leaf
                 JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) leaf.oid
                 CROSS JOIN LATERAL (
                     SELECT COALESCE(pg_catalog.pg_relation_size(c.oid), 0)
                            OPERATOR(pg_catalog./) pg_catalog.current_setting('block_size')::pg_catalog.int8) size (pages)
                 WHERE c.relkind::pg_catalog.text OPERATOR(pg_catalog.=) ANY ('{r,f}')
                 ORDER BY c.oid",
                None,
                &[target.table.oid.into()],
            )?
            .map(|row| {
                let oid = row.get::<pg_sys::Oid>(1)?.unwrap_or(pg_sys::InvalidOid);
                Ok((oid, row.get::<i64>(2)?.unwrap_or_default(), row.get::<bool>(3)?.unwrap_or_default()))
            })
            .collect::<spi::Result<Vec<_>>>()
    })
    .map_err(spi)?;
    let mut leaves = Vec::new();
    for (oid, pages, is_stale) in found {
        if let Some(table) = table(oid, target)? {
            let reach = if table.kind as u8 == b'f' { Reach::Key } else { Reach::Position };
            leaves.push(Leaf { table, reach, pages: u32::try_from(pages).unwrap_or(u32::MAX), is_stale });
        }
    }
    Ok(leaves)
}

/// A table of a target, whose triggers find what the target says; not where it belongs to somebody else, who has not agreed
/// to that.
pub fn table(oid: pg_sys::Oid, target: &Target) -> Result<Option<Table>> {
    let mut table = Table::of(oid)?;
    if let (Some(table), Some(search_path)) = (&mut table, &target.search_path)
        && table.owner == target.table.owner
    {
        table.search_path = search_path.clone();
    }
    Ok(table)
}

/// Whether a table is the target's or one of those under it now, whenever the caller's snapshot was taken.
pub fn belongs(leaf: pg_sys::Oid, target: &Target) -> Result<bool> {
    prepared::get_one::<bool>(
        "WITH RECURSIVE above (oid) AS (
             SELECT $1
             UNION
             SELECT i.inhparent FROM pg_catalog.pg_inherits i JOIN above ON i.inhrelid OPERATOR(pg_catalog.=) above.oid)
         SELECT EXISTS (SELECT FROM above WHERE oid OPERATOR(pg_catalog.=) $2)",
        &[leaf.into(), target.table.oid.into()],
    )
    .map(|belongs| belongs == Some(true))
}

/// Whether Citus spreads the table over shards.
pub fn is_distributed(table: &Table) -> Result<bool> {
    let catalog = "SELECT pg_catalog.to_regclass('pg_catalog.pg_dist_partition') IS NOT NULL";
    if read_one::<bool>(catalog, &[])? != Some(true) {
        return Ok(false);
    }
    read_one::<bool>(
        "SELECT EXISTS (SELECT FROM pg_catalog.pg_dist_partition
                        WHERE logicalrelid::pg_catalog.oid OPERATOR(pg_catalog.=) $1)",
        &[table.oid.into()],
    )
    .map(|found| found == Some(true))
}
