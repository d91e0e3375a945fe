use std::thread::available_parallelism;

use pgrx::prelude::*;

use crate::postgres::citus::{is_distributed, reading_shards, with_few_connections};
use crate::postgres::error::{Result, error};
use crate::postgres::names::naming_once;
use crate::postgres::now::{one_now, rows_now};
use crate::postgres::owner::{as_owner_of, reading_as_owner_of};
use crate::postgres::read::read_one;
use crate::postgres::settings::set_local;
use crate::postgres::subtransaction::briefly;
use crate::postgres::table::{Column, Table};
use crate::target::Target;
use crate::target::failing::Rows;
use crate::target::far::stands_for;

/// A table that stores rows of the target: a plain table, a partition, a child.
pub struct Leaf {
    pub table: Table,
    pub reach: Reach,
    /// Whether its rows are in shards of Citus.
    pub is_distributed: bool,
    /// The heap's size in blocks.
    pub pages: u32,
    /// Whether the statistics are stale: since the last ANALYZE the heap has grown by a tenth, or a tenth of its rows have
    /// changed (autovacuum's own threshold).
    pub is_stale: bool,
    /// The `attnum`s of the target's columns in this table, whose types are the target's; 0 for one that it does not have.
    pub numbers: Vec<i16>,
    /// Where its rows are: its file, without which positions mean other rows, or what a foreign table stands for.
    pub storage: String,
}

impl Leaf {
    /// A table of the target as a leaf. Its triggers run with the target's search path, unless it belongs to another role: that
    /// role has not agreed to the search path. Errors: 0A000.
    fn of(oid: pg_sys::Oid, target: &Target) -> Result<Option<Leaf>> {
        let Some(mut table) = Table::of(oid)? else { return Ok(None) };
        is_heap(&table)?;
        if target.search_path.is_some() && table.owner == target.table.owner {
            table.search_path = target.table.search_path.clone();
        }
        table.named = target.table.named.clone();
        let is_distributed = is_distributed(oid)?;
        let reach = if table.is_foreign() || is_distributed { Reach::Key } else { Reach::Position };
        if is_distributed && (target.id_columns.is_some() || target.recipe_columns.is_some()) {
            return Err(error(
                PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
                format!(
                    "table \"{}\" is distributed by Citus, where id_columns and recipe_columns are not supported",
                    table.name
                ),
                target.set("id_columns", "NULL, recipe_columns = NULL"),
            ));
        }
        let mut columns = target.id.columns.iter().map(|(_, column)| column);
        if let Some(column) = columns.find(|column| reach == Reach::Key && !column.has_order_of_catalog()) {
            let Column { name: column, type_name, .. } = column;
            let name = &table.name;
            let (kind, alter) = match is_distributed {
                true => ("distributed table", "ALTER TABLE"),
                false => ("foreign table", "ALTER FOREIGN TABLE"),
            };
            return Err(error(
                PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
                format!(
                    "rows of {kind} \"{name}\" are found by their ids, and type {type_name} of column {column} has an order of its own"
                ),
                format!("{alter} {name} ALTER {column} TYPE text"),
            ));
        }
        let (numbers, storage) = (numbers(&table, target)?, storage(&table)?);
        Ok(Some(Leaf { table, reach, is_distributed, pages: 0, is_stale: false, numbers, storage }))
    }

    /// The leaf of this oid; `None` if it no longer exists or no longer belongs to the target. The caller has locked it.
    pub fn still_of(oid: pg_sys::Oid, target: &Target) -> Result<Option<Leaf>> {
        if belongs(oid, target)? { Leaf::of(oid, target) } else { Ok(None) }
    }

    /// Whether no other leaf has rows of the target.
    pub fn is_all_of(&self, target: &Target) -> Result<bool> {
        let has_parts = "SELECT EXISTS (SELECT FROM pg_catalog.pg_inherits WHERE inhparent OPERATOR(pg_catalog.=) $1)";
        let has_parts = one_now::<bool>(has_parts, &[self.table.oid.into()])? == Some(true);
        Ok(self.table.oid == target.table.oid && !has_parts)
    }

    /// Removes rows of the leaf as its owner. Errors: those of `as_owner_of`, 40001 (a trigger of another leaf has changed it).
    pub fn as_owner<T>(&self, target: &Target, work: impl FnOnce() -> Result<T>) -> Result<T> {
        as_owner_of(&self.table, || self.is_still_of(target).and_then(|()| self.at_its_pace(work)))
    }

    fn at_its_pace<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        if self.is_distributed { with_few_connections(work) } else { work() }
    }

    /// Reads the leaf as its owner. Errors: the same, and what an expression of the target raises for a row, with its name and the
    /// row's id.
    pub fn reading_as_owner<T>(&self, target: &Target, work: impl FnOnce() -> Result<T>) -> Result<T> {
        self.reading_part_as_owner(target, &format!("{} g", self.rows()), work)
    }

    /// The same of a part of it, as a FROM clause has that.
    pub fn reading_part_as_owner<T>(&self, target: &Target, part: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let work = || if self.is_distributed { reading_shards(|| self.at_its_pace(work)) } else { work() };
        let read = || reading_as_owner_of(&self.table, || self.is_still_of(target).and_then(|()| work()));
        let rows = Rows { table: &self.table, from: part, have_positions: self.reach == Reach::Position };
        briefly(read).map_err(|failure| target.failed_to_read(&rows, failure))
    }

    /// Whether it has a row that meets a condition. Errors: the same.
    pub fn has_row(&self, target: &Target, condition: &str) -> Result<bool> {
        // Citus cannot read what is below an EXISTS and has no column.
        let any = format!("SELECT true FROM {} g WHERE {condition} LIMIT 1", self.rows());
        let any = self.reading_as_owner(target, || naming_once(|| read_one::<bool>(&any, &[])))?;
        Ok(any == Some(true))
    }

    /// Checks that it still belongs to the target, has its rows where they were, and the target's columns, too: two columns may
    /// have changed their names. A trigger of another leaf can change it in spite of its lock, since it runs in the same
    /// transaction. What its types write can change at any time, and so can the server of a foreign table. Whoever is at work on it for
    /// long, or calls code in between, asks again. Errors: 40001.
    pub fn is_still_of(&self, target: &Target) -> Result<()> {
        let has_its_columns = !self.numbers.contains(&0) && self.numbers == numbers(&self.table, target)?;
        let is_the_same = has_its_columns
            && storage(&self.table)? == self.storage
            && is_distributed(self.table.oid)? == self.is_distributed
            && belongs(self.table.oid, target)?;
        if is_the_same && target.spells_as_before()? {
            return Ok(());
        }
        Err(error(
            PgSqlErrorCode::ERRCODE_T_R_SERIALIZATION_FAILURE,
            format!("table \"{}\" has been changed during a run on its target", self.table.name),
            "ROLLBACK".into(),
        ))
    }

    /// The leaf in a FROM clause, without its children, which are leaves of their own.
    pub fn rows(&self) -> String {
        format!("ONLY {}", self.table.name)
    }

    /// What rows are grouped by: the recipe. Texts are compared by their bytes, as runs compare them.
    pub fn group_key(&self, recipe: &Column) -> String {
        let collation = if self.reach == Reach::Key || recipe.is_integer() { "" } else { " COLLATE pg_catalog.\"C\"" };
        format!("{}{collation}", recipe.as_key())
    }

    /// Settings of the planner for a pass over most rows, until `acting_as` ends: passing tuples between workers costs nothing,
    /// and no index if the statistics are stale.
    pub fn expect_most_rows(&self) {
        set_local("parallel_tuple_cost", "0");
        // The leader reads too. More processes than processors would only take turns.
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

    /// The `attnum` of a column of the target in this leaf; `None` if it is a virtual generated column.
    pub fn stored_number_of(&self, column: &Column, target: &Target) -> Result<Option<i16>> {
        one_now::<i16>(
            "SELECT here.attnum
             FROM pg_catalog.pg_attribute there
             JOIN pg_catalog.pg_attribute here ON here.attname OPERATOR(pg_catalog.=) there.attname
             WHERE there.attrelid OPERATOR(pg_catalog.=) $1 AND there.attnum OPERATOR(pg_catalog.=) $2
               AND here.attrelid OPERATOR(pg_catalog.=) $3 AND here.attgenerated OPERATOR(pg_catalog.<>) 'v'",
            &[target.table.oid.into(), column.number.into(), self.table.oid.into()],
        )
    }
}

/// How the rows of a leaf are addressed.
#[derive(Clone, Copy, PartialEq)]
pub enum Reach {
    /// By their positions in the heap.
    Position,
    /// By their recipe, failed-at and id: the rows are on other servers, whose positions mean nothing here.
    Key,
}

/// The oids of leaves.
pub fn oids(leaves: &[Leaf]) -> Vec<pg_sys::Oid> {
    leaves.iter().map(|leaf| leaf.table.oid).collect()
}

/// The leaves of a target, as of now.
pub fn leaves(target: &Target) -> Result<Vec<Leaf>> {
    let found = rows_now(
        "WITH RECURSIVE leaf (oid) AS (
             SELECT $1
             UNION
             SELECT i.inhrelid FROM pg_catalog.pg_inherits i
             JOIN leaf ON i.inhparent OPERATOR(pg_catalog.=) leaf.oid
             WHERE NOT i.inhdetachpending)
         SELECT c.oid, pages, pages OPERATOR(pg_catalog.>) (1.1 OPERATOR(pg_catalog.*) c.relpages)
             OR pg_catalog.pg_stat_get_mod_since_analyze(c.oid)
                OPERATOR(pg_catalog.>) (0.1 OPERATOR(pg_catalog.*) c.reltuples)
         FROM leaf
         JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) leaf.oid
         CROSS JOIN LATERAL (
             SELECT COALESCE(pg_catalog.pg_relation_size(c.oid), 0)
                    OPERATOR(pg_catalog./) pg_catalog.current_setting('block_size')::pg_catalog.int8) size (pages)
         WHERE c.relkind::pg_catalog.text OPERATOR(pg_catalog.=) ANY ('{r,f}')
           -- As PostgreSQL does: another session's memory has its rows.
           AND NOT (c.relpersistence OPERATOR(pg_catalog.=) 't' AND pg_catalog.pg_is_other_temp_schema(c.relnamespace))
         ORDER BY c.oid",
        &[target.table.oid.into()],
        |row| {
            let oid = row.get::<pg_sys::Oid>(1)?.unwrap_or(pg_sys::InvalidOid);
            Ok((oid, row.get::<i64>(2)?.unwrap_or_default(), row.get::<bool>(3)?.unwrap_or_default()))
        },
    )?;
    let mut leaves = Vec::new();
    for (oid, pages, is_stale) in found {
        if let Some(leaf) = Leaf::of(oid, target)? {
            leaves.push(Leaf { pages: u32::try_from(pages).unwrap_or(u32::MAX), is_stale, ..leaf });
        }
    }
    Ok(leaves)
}

/// The `Leaf::numbers` of a table, as of now.
fn numbers(table: &Table, target: &Target) -> Result<Vec<i16>> {
    let (names, types): (Vec<_>, Vec<_>) =
        target.reads.iter().map(|(name, column)| (name.clone(), column.type_oid)).unzip();
    one_now::<Vec<i16>>(
        "SELECT pg_catalog.array_agg(COALESCE(attnum, 0::pg_catalog.int2) ORDER BY place)
         FROM ROWS FROM (pg_catalog.unnest($2), pg_catalog.unnest($3)) WITH ORDINALITY AS needed (name, type, place)
         LEFT JOIN pg_catalog.pg_attribute
             ON attrelid OPERATOR(pg_catalog.=) $1 AND attname::pg_catalog.text OPERATOR(pg_catalog.=) name
            AND atttypid OPERATOR(pg_catalog.=) type AND NOT attisdropped",
        &[table.oid.into(), names.into(), types.into()],
    )
    .map(Option::unwrap_or_default)
}

/// The `Leaf::storage` of a table, as of now.
fn storage(table: &Table) -> Result<String> {
    const FILENODE: &str = "SELECT pg_catalog.pg_relation_filenode($1)::pg_catalog.text";
    match table.is_foreign() {
        true => stands_for(table.oid),
        false => one_now::<String>(FILENODE, &[table.oid.into()]).map(Option::unwrap_or_default),
    }
}

/// Whether a table is now the target's or one of its descendants, without a pending detach in between.
fn belongs(leaf: pg_sys::Oid, target: &Target) -> Result<bool> {
    one_now::<bool>(
        "WITH RECURSIVE above (oid) AS (
             SELECT $1
             UNION
             SELECT i.inhparent FROM pg_catalog.pg_inherits i JOIN above ON i.inhrelid OPERATOR(pg_catalog.=) above.oid
             WHERE NOT i.inhdetachpending)
         SELECT EXISTS (SELECT FROM above WHERE oid OPERATOR(pg_catalog.=) $2)",
        &[leaf.into(), target.table.oid.into()],
    )
    .map(|belongs| belongs == Some(true))
}

/// Refuses a table that is stored otherwise, such as one of Citus's `columnar`, which can lose no rows. Errors: 0A000.
fn is_heap(table: &Table) -> Result<()> {
    const METHOD: &str = "
        SELECT amname::pg_catalog.text FROM pg_catalog.pg_class c JOIN pg_catalog.pg_am a ON a.oid OPERATOR(pg_catalog.=) c.relam
        WHERE c.oid OPERATOR(pg_catalog.=) $1 AND amname OPERATOR(pg_catalog.<>) 'heap'";
    let Some(method) = one_now::<String>(METHOD, &[table.oid.into()])? else { return Ok(()) };
    Err(error(
        PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
        format!("table \"{}\" has access method \"{method}\", and runs remove rows of heap tables", table.name),
        format!("ALTER TABLE {} SET ACCESS METHOD heap", table.name),
    ))
}
