use serde::Deserialize;

use crate::extension;
use crate::obstacles::problem::{Problem, Status, rows_of};
use crate::obstacles::used::on_tables;
use crate::postgres::error::Result;
use crate::postgres::owner::reading_as_owner_of;
use crate::postgres::read::read_one;
use crate::postgres::subtransaction::{briefly, is_cancel};
use crate::postgres::table::Table;
use crate::target::leaf::{Leaf, Reach, leaves};
use crate::target::{Target, trust};

/// Foreign keys of one column, of a type of PostgreSQL itself, that keep the row that they reference. One of the target itself
/// is left out: its row may go in the same run.
const KEEPING: &str = "
    SELECT jsonb_build_object('referencing', c.conrelid::bigint, 'column', quote_ident(a.attname), 'key', quote_ident(k.attname),
                              'key_type', format('%I.%I', n.nspname, t.typname),
                              'action', CASE c.confdeltype WHEN 'a' THEN 'NO ACTION' ELSE 'RESTRICT' END)
    FROM pg_constraint c
    JOIN used ON c.confrelid = used.oid
    JOIN pg_attribute a ON a.attrelid = c.conrelid AND a.attnum = c.conkey[1]
    JOIN pg_attribute k ON k.attrelid = c.confrelid AND k.attnum = c.confkey[1]
    JOIN pg_type t ON t.oid = k.atttypid AND t.oid = a.atttypid
    JOIN pg_namespace n ON n.oid = t.typnamespace
    WHERE c.contype = 'f' AND c.conparentid = 0 AND c.confdeltype IN ('a', 'r') AND cardinality(c.conkey) = 1 AND t.oid < 16384
      AND c.conrelid NOT IN (SELECT oid FROM used)
    ORDER BY c.conrelid::regclass::text, c.conname";

#[derive(Deserialize)]
struct Keeping {
    referencing: u32,
    column: String,
    key: String,
    key_type: String,
    action: String,
}

/// Finds failed rows that rows of other tables reference under RESTRICT or NO ACTION: a run keeps them back. Looks at the first
/// 10,000 rows of such a table, so that it may miss some.
pub fn referenced(target: &Target) -> Result<Vec<Problem>> {
    let mut found = Vec::new();
    for keeping in rows_of::<Keeping>(&on_tables(KEEPING), &[vec![target.table.oid].into()])? {
        let Some(table) = Table::of(keeping.referencing.into())? else { continue };
        let Some(keys) = keys(&table, &keeping.column)? else { continue };
        let rows = count(target, &keeping, keys)?;
        if rows > 0 {
            let detail = format!(
                "{} ({}) references at least {rows} failed rows ON DELETE {}, and a run keeps them back: decide whether they are to go",
                table.name, keeping.column, keeping.action
            );
            found.push(Problem { status: Status::Warn, detail, fix: None });
        }
    }
    Ok(found)
}

/// Some of the keys that a table references, as text; `None` if they cannot be read.
fn keys(table: &Table, column: &str) -> Result<Option<Vec<String>>> {
    let keys = format!(
        "SELECT pg_catalog.array_agg(key) FROM (
             SELECT DISTINCT key::pg_catalog.text FROM (SELECT r.{column} FROM {} r LIMIT 10000) looked_at (key)
             WHERE key IS NOT NULL LIMIT 1000) found (key)",
        table.name
    );
    let read = || {
        table.is_of_one_owner()?;
        extension::as_owner(|| trust::check(&[table.oid]))?;
        reading_as_owner_of(table, || read_one::<Vec<String>>(&keys, &[]))
    };
    match briefly(read) {
        Ok(keys) => Ok(keys),
        // Whatever is wrong with somebody else's table does not stop who looks at this one.
        Err(caught) if is_cancel(&caught) => caught.rethrow(),
        Err(_) => Ok(None),
    }
}

fn count(target: &Target, keeping: &Keeping, keys: Vec<String>) -> Result<i64> {
    let mut rows = 0;
    for leaf in leaves(target)?.iter().filter(|leaf: &&Leaf| leaf.reach == Reach::Position) {
        let count = format!(
            "SELECT pg_catalog.count(*) FROM {} g WHERE {} AND g.{} OPERATOR(pg_catalog.=) ANY ($1::{}[])",
            leaf.rows(),
            target.is_failed(),
            keeping.key,
            keeping.key_type
        );
        let found = leaf.reading_as_owner(target, || read_one::<i64>(&count, &[keys.clone().into()]))?;
        rows += found.unwrap_or_default();
    }
    Ok(rows)
}
