use std::thread::available_parallelism;

use pgrx::prelude::*;

use crate::postgres::error::{Result, spi};
use crate::postgres::prepared;
use crate::postgres::read::read_one;
use crate::postgres::settings::set_local;
use crate::postgres::table::{Column, Table};
use crate::target::Target;

/// A table that has rows of the target in itself: a plain table, a partition, a child.
pub struct Leaf {
    pub table: Table,
    pub reach: Reach,
    /// The heap's size in blocks.
    pub pages: u32,
    /// Whether the statistics are stale: since the last ANALYZE the heap has grown by a tenth, or a tenth of its rows have
    /// changed (autovacuum's own threshold).
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

    /// What rows are grouped by: the recipe, a text by its bytes, as runs tell recipes apart.
    pub fn group_key(&self, recipe: &Column) -> String {
        let collation = if self.reach == Reach::Key || recipe.is_integer() { "" } else { " COLLATE pg_catalog.\"C\"" };
        format!("{}{collation}", recipe.as_key())
    }

    /// Settings of the planner for a pass over most rows, until `acting_as` ends: passing tuples between workers costs nothing,
    /// no JIT, and no index if the statistics are stale.
    pub fn expect_most_rows(&self) {
        set_local("parallel_tuple_cost", "0");
        // JIT takes ten megabytes and more, and saves no time on a column or two.
        set_local("jit", "off");
        // This process reads too; more processes than processors take turns.
        let others = available_parallelism().map_or(1, |processors| processors.get() - 1);
        // SAFETY: a setting, read by the one thread of a backend.
        let allowed = unsafe { pg_sys::max_parallel_workers_per_gather } as usize;
        set_local("max_parallel_workers_per_gather", &others.min(allowed).to_string());
        if self.is_stale {
            for path in ["bitmapscan", "indexscan", "indexonlyscan"] {
                set_local(&format!("enable_{path}"), "off");
            }
        }
    }

    /// The `attnum` of a column of the target in this leaf; `None` if its values are not stored but generated as they are
    /// read.
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
}

/// How the rows of a leaf are named.
#[derive(Clone, Copy, PartialEq)]
pub enum Reach {
    /// By their positions in the heap.
    Position,
    /// By their recipe, failed-at and id: the rows are on another server, where a position means nothing here.
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

/// A table of a target. Its triggers run with the target's search path, unless it belongs to another role, which has not
/// agreed to that.
pub fn table(oid: pg_sys::Oid, target: &Target) -> Result<Option<Table>> {
    let mut table = Table::of(oid)?;
    if let Some(table) = &mut table
        && target.search_path.is_some()
        && table.owner == target.table.owner
    {
        table.search_path = target.table.search_path.clone();
    }
    Ok(table)
}

/// Whether a table is the target's or below it now, whenever the caller's snapshot was taken.
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
