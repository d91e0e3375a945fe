use std::collections::HashSet;
use std::rc::Rc;

use backlog_cleanup_report::Mode;
use pgrx::itemptr::item_pointer_get_both;
use pgrx::prelude::*;
use serde::Deserialize;

use crate::extension;
use crate::obstacles::problem::{Problem, Status, rows_of};
use crate::obstacles::used::on_changed;
use crate::postgres::error::Result;
use crate::postgres::expression::is_immutable;
use crate::postgres::owner::reading_as_owner_of;
use crate::postgres::read::read_one;
use crate::postgres::settings::set_local;
use crate::postgres::subtransaction::{briefly, is_cancel};
use crate::postgres::table::Table;
use crate::rank::one_pass::rank;
use crate::rank::removable::PerLeaf;
use crate::rank::tally::Tally;
use crate::remove::emergency;
use crate::remove::order::{Ordered, in_order, reference_each_other};
use crate::remove::pieces::CHUNK;
use crate::rules::Rules;
use crate::rules::matching::Policies;
use crate::rules::selection::Selection;
use crate::target::leaf::{Leaf, Reach, leaves};
use crate::target::{Target, trust};

/// Foreign keys that keep the row that they reference, or one that a foreign key would remove behind it: those that hold it, or
/// whose action their own table does not take: to set a column to NULL, which SET DEFAULT does too where there is no default. What the target
/// itself references is not looked up here: it may go in the same run.
/// A table is read as its owner, so only those are that belong to a role which could act as the owner of the target's table (`$2`):
/// an index of another's could make who looks wait.
const KEEPING: &str = "
    SELECT jsonb_build_object('referencing', c.conrelid::bigint, 'name', format('%I of %s', c.conname, c.conrelid::regclass),
                              'columns', array_agg(quote_ident(a.attname) ORDER BY place),
                              'keys', array_agg(quote_ident(k.attname) ORDER BY place),
                              'types', array_agg(format('%I.%I', n.nspname, t.typname) ORDER BY place),
                              'action', CASE c.confdeltype WHEN 'a' THEN 'NO ACTION' WHEN 'r' THEN 'RESTRICT'
                                                           WHEN 'n' THEN 'SET NULL' ELSE 'SET DEFAULT' END,
                              'nulls', CASE WHEN does.nulls THEN jsonb_build_object(
                                  'are_refused', bool_or(here = ANY (does.columns) AND (a.attnotnull OR base.is_not_null)),
                                  'checks', (
                                      SELECT jsonb_agg(jsonb_build_object(
                                          'tree', con.conbin::text, 'expression', pg_get_expr(con.conbin, con.conrelid),
                                          'row', (SELECT string_agg(format(CASE WHEN attnum = ANY (does.columns) THEN 'CASE WHEN false THEN r.%1$I END AS %1$I'
                                                                                ELSE 'r.%I' END, attname), ', ')
                                                  FROM pg_attribute WHERE attrelid = con.conrelid AND attnum = ANY (con.conkey))))
                                      FROM pg_constraint con
                                      WHERE con.conrelid = c.conrelid AND con.contype = 'c' AND con.conkey && does.columns AND 0 < ALL (con.conkey)
                                        AND (to_jsonb(con) ->> 'conenforced') IS DISTINCT FROM 'false'
                                        -- Of PostgreSQL's own functions.
                                        AND NOT EXISTS (SELECT FROM pg_depend
                                                        WHERE classid = 'pg_constraint'::regclass AND objid = con.oid
                                                          AND NOT (refclassid = 'pg_class'::regclass AND refobjid = con.conrelid))),
                                  'once', (
                                      SELECT array_agg(quote_ident(attname))
                                      FROM pg_attribute JOIN pg_index i ON i.indrelid = attrelid
                                      WHERE i.indexrelid = (
                                              SELECT min(indexrelid) FROM pg_index
                                              WHERE indrelid = c.conrelid AND indisunique AND indisready AND indnullsnotdistinct
                                                AND indpred IS NULL AND (indkey::int2[])[0:indnkeyatts - 1] <@ does.columns)
                                        AND attnum = ANY ((indkey::int2[])[0:indnkeyatts - 1]))) END,
                              'is_ordered', c.conrelid IN (SELECT oid FROM used) AND c.confrelid IN (SELECT oid FROM used)
                                            AND c.confdeltype IN ('a', 'r'),
                              'going', CASE WHEN c.confdeltype IN ('a', 'r') AND c.conrelid NOT IN (SELECT oid FROM used) THEN
                                  (SELECT jsonb_agg(going.columns)
                                   FROM (SELECT array_agg(quote_ident(a.attname)) AS columns
                                         FROM pg_constraint g JOIN pg_class t ON t.oid = g.conrelid CROSS JOIN unnest(g.conkey) AS here
                                         JOIN pg_attribute a ON a.attrelid = g.conrelid AND a.attnum = here
                                         WHERE g.conrelid = c.conrelid AND g.contype = 'f' AND g.confdeltype = 'c' AND g.conparentid = 0
                                           AND g.confrelid IN (SELECT oid FROM used) AND t.relowner = $2 AND NOT t.relforcerowsecurity
                                         GROUP BY g.oid) going) END,
                              'obscure', CASE
                                  WHEN c.confrelid NOT IN (SELECT oid FROM used) THEN 'it is behind an ON DELETE CASCADE'
                                  WHEN c.conrelid IN (SELECT oid FROM used) THEN 'it references the target itself'
                                  WHEN NOT pg_has_role(r.relowner, $2, 'USAGE')
                                  THEN format('it belongs to role \"%s\"', r.relowner::regrole)
                                  WHEN max(t.oid) >= 16384 OR max(k.atttypid) >= 16384 -- FirstNormalObjectId
                                  THEN 'its columns have types that PostgreSQL does not come with'
                                  WHEN c.confdeltype = 'd' AND NOT does.nulls THEN 'it is ON DELETE SET DEFAULT' END)
    FROM pg_constraint c
    JOIN (SELECT DISTINCT oid FROM changed WHERE is_removed) removed ON c.confrelid = removed.oid
    JOIN pg_class r ON r.oid = c.conrelid
    CROSS JOIN ROWS FROM (unnest(c.conkey), unnest(c.confkey)) WITH ORDINALITY AS pair (here, there, place)
    JOIN pg_attribute a ON a.attrelid = c.conrelid AND a.attnum = here
    JOIN pg_attribute k ON k.attrelid = c.confrelid AND k.attnum = there
    CROSS JOIN LATERAL (
        WITH RECURSIVE type (oid, below, is_not_null) AS (
            SELECT oid, typbasetype, typnotnull FROM pg_type WHERE oid = a.atttypid
            UNION ALL SELECT t.oid, typbasetype, typnotnull FROM type JOIN pg_type t ON t.oid = type.below
        ) SELECT max(oid) FILTER (WHERE below = 0) AS oid, bool_or(is_not_null) AS is_not_null FROM type) base
    JOIN pg_type t ON t.oid = base.oid
    JOIN pg_namespace n ON n.oid = t.typnamespace
    CROSS JOIN LATERAL (SELECT coalesce(c.confdelsetcols, c.conkey) AS columns) sets
    CROSS JOIN LATERAL (
        SELECT sets.columns, c.confdeltype = 'n' OR c.confdeltype = 'd' AND NOT EXISTS (
            SELECT FROM pg_attribute s JOIN pg_type ON pg_type.oid = s.atttypid
            WHERE s.attrelid = c.conrelid AND s.attnum = ANY (sets.columns) AND (s.atthasdef OR typdefault IS NOT NULL)) AS nulls
    ) does
    WHERE c.contype = 'f' AND c.conparentid = 0 AND c.confdeltype IN ('a', 'r', 'n', 'd')
      AND (to_jsonb(c) ->> 'conenforced') IS DISTINCT FROM 'false'
    GROUP BY c.oid, c.conname, c.conrelid, c.confrelid, c.confdeltype, r.relowner, does.columns, does.nulls
    ORDER BY c.conrelid::regclass::text, c.conname";

#[derive(Deserialize)]
struct Keeping {
    referencing: u32,
    /// Its own name and its table's.
    name: String,
    columns: Vec<String>,
    keys: Vec<String>,
    /// Those of `columns`.
    types: Vec<String>,
    action: String,
    /// What the table says to the NULLs that its action sets.
    nulls: Option<Nulls>,
    /// Whether it is of the target to itself, and a run puts its rows in order.
    is_ordered: bool,
    /// The columns of keys by which its rows go with rows of the target: a run reads them where it puts its rows in order.
    going: Option<Vec<Vec<String>>>,
    /// Why its rows are not read.
    obscure: Option<String>,
}

/// What a table says to the NULLs that a foreign key's action sets in its columns.
#[derive(Deserialize)]
struct Nulls {
    /// One of them is NOT NULL.
    are_refused: bool,
    checks: Option<Vec<Check>>,
    /// Those of a unique index in which they may all be NULL once only.
    once: Option<Vec<String>>,
}

/// A CHECK, and the row that it reads once the action has been done to a row `r`.
#[derive(Deserialize)]
struct Check {
    tree: String,
    expression: String,
    row: String,
}

impl Keeping {
    /// The condition on a row `r` under which its reference keeps what it references, and what to call that; `None` if it never does.
    fn holds(&self) -> Option<(String, &'static str)> {
        let Some(nulls) = &self.nulls else { return Some(("true".into(), "")) };
        if nulls.are_refused {
            return Some(("true".into(), " of a NOT NULL column"));
        }
        let refuse =
            |Check { expression, row, .. }: &Check| format!("(SELECT ({expression}) IS FALSE FROM (SELECT {row}) g)");
        let checks = nulls.checks.iter().flatten().filter(|check| is_immutable(&check.tree));
        let checks: Vec<String> = checks.map(refuse).collect();
        if !checks.is_empty() {
            return Some((checks.join(" OR "), " that a CHECK refuses"));
        }
        nulls.once.as_ref().map(|_| ("true".into(), " of what may be NULL once"))
    }
}

/// The keys that some rows of a table reference, as text: a list for each column.
#[derive(Deserialize)]
struct Keys {
    lists: Vec<Option<Vec<String>>>,
    /// Whether there are no others.
    are_all: bool,
    /// Whether the first of the NULLs that there may be once has been set.
    has_null: bool,
}

/// The rows of a leaf, by their positions, that some keys reference.
type Found = Vec<Vec<pg_sys::ItemPointerData>>;

/// Finds failed rows that rows of other tables hold by a foreign key: a run keeps back what it would remove of them. Looks at some rows of each table only, and says so.
pub fn referenced(target: &Target) -> Result<Vec<Problem>> {
    let rules = Rules {
        target,
        selection: Selection::default(),
        mode: Mode::Emergency,
        policies: Rc::new(Policies::new(Vec::new())),
        include_held: true,
    };
    look(&rules, &leaves(target)?, false, |found| {
        Ok((found.iter().map(Vec::len).sum(), "which a run keeps back if it would remove them"))
    })
}

/// Finds the rows that a run would remove, and that are referenced so.
pub fn kept_back(rules: &Rules, leaves: &[Leaf]) -> Result<Vec<Problem>> {
    let mut removable = None;
    let mut problems = Vec::new();
    if reference_each_other(leaves)? {
        removable = Some(positions(rules, leaves)?);
    }
    let ordered = removable.clone().flatten().map(|rows| in_order(leaves, rows, CHUNK)).transpose()?;
    if let Some(Ordered { held, .. }) = &ordered {
        let rows: usize = held.iter().map(|(_, rows)| rows.len()).sum();
        if rows > 0 {
            let detail = format!(
                "rows of the target that stay reference {rows} of those that a run would remove, directly or through others, and it \
                 keeps them back: decide whether they are to go"
            );
            problems.push(Problem { status: Status::Warn, detail, fix: None });
        }
    }
    problems.extend(look(rules, leaves, ordered.is_some(), |found| {
        let rows = found.iter().map(Vec::len).sum();
        if rows == 0 || !rules.is_regular() {
            return Ok((rows, "and a run keeps them back"));
        }
        if removable.is_none() {
            removable = Some(positions(rules, leaves)?);
        }
        let Some(Some(removable)) = &removable else {
            return Ok((rows, "which a run keeps back if it would remove them"));
        };
        let rows = removable.iter().zip(found).map(|(removable, found)| {
            let found: HashSet<(u32, u16)> = found.iter().map(|tid| item_pointer_get_both(*tid)).collect();
            removable.iter().filter(|row| found.contains(&(row.block(), row.offset()))).count()
        });
        Ok((rows.sum(), "and a run keeps them back"))
    })?);
    Ok(problems)
}

/// The positions of what a run would remove; `None` if they are too many to keep.
fn positions(rules: &Rules, leaves: &[Leaf]) -> Result<Option<PerLeaf>> {
    match rules.mode {
        Mode::Regular => Ok(rank(rules, leaves)?.positions),
        Mode::Emergency => emergency::positions(rules, leaves, &mut Tally::of(rules.target, &rules.policies)),
    }
}

/// Looks for rows that may be removed and are referenced. `count` says how many of them count, and what becomes of them. With
/// `are_ordered`, those that rows of the target itself hold are known already.
fn look(
    rules: &Rules,
    leaves: &[Leaf],
    are_ordered: bool,
    mut count: impl FnMut(&Found) -> Result<(usize, &'static str)>,
) -> Result<Vec<Problem>> {
    let table = &rules.target.table;
    let mut problems = Vec::new();
    for keeping in rows_of::<Keeping>(&on_changed(KEEPING), &[vec![table.oid].into(), table.owner.into()])? {
        if are_ordered && keeping.is_ordered {
            continue;
        }
        let Some((condition, how)) = keeping.holds() else { continue };
        let name = &keeping.name;
        let mut remark = |why: &str| {
            let detail = format!("foreign key {name} may keep rows back, and was not looked at: {why}");
            problems.push(Problem { status: Status::Ok, detail, fix: None });
        };
        if let Some(why) = &keeping.obscure {
            remark(why);
            continue;
        }
        let going = keeping.going.as_deref().unwrap_or_default();
        let Some(Keys { lists, are_all, has_null }) = keys(&keeping, going, &condition)? else {
            remark("its table cannot be read");
            continue;
        };
        let lists: Vec<Vec<String>> = lists.into_iter().map(Option::unwrap_or_default).collect();
        let (rows, fate) = count(&find(rules, leaves, &keeping, &lists)?)?;
        let rows = if has_null { rows } else { rows.saturating_sub(1) };
        if rows > 0 {
            let Keeping { columns, action, .. } = &keeping;
            let rows = rules.target.nouns.in_scope(rows as i64);
            let detail = format!(
                "foreign key {name} ({}) references at least {rows} ON DELETE {action}{how}, {fate}: decide whether they are to go",
                columns.join(", ")
            );
            problems.push(Problem { status: Status::Warn, detail, fix: None });
        } else if !are_all {
            let detail = format!(
                "of the rows with foreign key {name} only the first {LOOKED_AT} were looked at, and none with a key of more than \
                 {LONGEST} bytes"
            );
            problems.push(Problem { status: Status::Ok, detail, fix: None });
        }
        if !are_ordered && !going.is_empty() {
            let detail =
                format!("what rows with foreign key {name} hold that go with rows of the target, a dry run says");
            problems.push(Problem { status: Status::Ok, detail, fix: None });
        }
    }
    Ok(problems)
}

/// Rows of a table that are read.
const LOOKED_AT: i64 = 10_000;
/// Different keys of these that are looked for.
const KEYS: i64 = 1_000;
/// Bytes of a key's column: all keys are held at once.
const LONGEST: i64 = 1_000;

/// Some of the keys that rows of a table reference for which a condition holds, but for those of rows that go with others by keys of these
/// columns; `None` if they cannot be read.
fn keys(keeping: &Keeping, going: &[Vec<String>], condition: &str) -> Result<Option<Keys>> {
    let Some(table) = Table::of(keeping.referencing.into())? else { return Ok(None) };
    let each = |what: &dyn Fn(usize, &String) -> String, between: &str| {
        keeping.columns.iter().enumerate().map(|(place, column)| what(place, column)).collect::<Vec<_>>().join(between)
    };
    let is_long = |column: &String| {
        format!(
            "COALESCE(pg_catalog.octet_length(r.{column}::pg_catalog.text) OPERATOR(pg_catalog.>) {LONGEST}, false)"
        )
    };
    let is_there = |column: &String| format!("r.{column} IS NOT NULL");
    let by_key = |columns: &Vec<String>| columns.iter().map(is_there).collect::<Vec<_>>().join(" AND ");
    let goes = std::iter::once("false".into()).chain(going.iter().map(by_key)).collect::<Vec<_>>().join(" OR ");
    let once = keeping.nulls.as_ref().filter(|nulls| !nulls.are_refused).and_then(|nulls| nulls.once.as_ref());
    let has_null = once.map_or("true".into(), |columns| {
        let are_null = columns.iter().map(|column| format!("r.{column} IS NULL")).collect::<Vec<_>>().join(" AND ");
        format!("EXISTS (SELECT FROM {} r WHERE {are_null})", table.name)
    });
    let keys = format!(
        "WITH looked_at AS MATERIALIZED (SELECT {} AS is_long, {goes} AS goes, {condition} AS holds, {} FROM {} r LIMIT {LOOKED_AT})
         SELECT pg_catalog.jsonb_build_object('lists', pg_catalog.jsonb_build_array({}), 'are_all',
                    pg_catalog.count(*) OPERATOR(pg_catalog.<) {KEYS}
                    AND (SELECT pg_catalog.count(*) FROM looked_at) OPERATOR(pg_catalog.<) {LOOKED_AT}
                    AND NOT EXISTS (SELECT FROM looked_at WHERE is_long),
                    'has_null', {has_null})
         FROM (SELECT DISTINCT {} FROM looked_at WHERE NOT goes AND holds AND {} LIMIT {KEYS}) found",
        each(&|_, column| is_long(column), " OR "),
        each(
            &|place, column| {
                format!("CASE WHEN NOT {} THEN r.{column}::pg_catalog.text END AS key{place}", is_long(column))
            },
            ", ",
        ),
        table.name,
        each(&|place, _| format!("pg_catalog.array_agg(key{place})"), ", "),
        each(&|place, _| format!("key{place}"), ", "),
        each(&|place, _| format!("key{place} IS NOT NULL"), " AND "),
    );
    let read = || {
        table.is_of_one_owner()?;
        extension::as_owner(|| trust::check(&[table.oid], &[]))?;
        reading_as_owner_of(&table, || {
            // What the catalogs have written out is found in no other schema.
            set_local("search_path", "pg_catalog, pg_temp");
            read_one::<pgrx::JsonB>(&keys, &[])
        })
    };
    match briefly(read) {
        Ok(keys) => Ok(keys.and_then(|keys| serde_json::from_value(keys.0).ok())),
        // Whatever is wrong with another table does not stop who looks at this one.
        Err(caught) if is_cancel(&caught) => caught.rethrow(),
        Err(_) => Ok(None),
    }
}

/// The rows that may be removed and have one of the keys. Values are compared as those of the referencing columns.
fn find(rules: &Rules, leaves: &[Leaf], keeping: &Keeping, lists: &[Vec<String>]) -> Result<Found> {
    let types = || keeping.types.iter().enumerate().map(|(place, sql_type)| format!("${}::{sql_type}[]", place + 1));
    let one_by_one =
        keeping.keys.iter().zip(types()).map(|(key, list)| format!("g.{key} OPERATOR(pg_catalog.=) ANY ({list})"));
    let together = format!(
        "EXISTS (SELECT FROM ROWS FROM ({}) AS k ({}) WHERE {})",
        types().map(|list| format!("pg_catalog.unnest({list})")).collect::<Vec<_>>().join(", "),
        (0..lists.len()).map(|place| format!("key{place}")).collect::<Vec<_>>().join(", "),
        keeping
            .keys
            .iter()
            .enumerate()
            .map(|(place, key)| format!("g.{key} OPERATOR(pg_catalog.=) k.key{place}"))
            .collect::<Vec<_>>()
            .join(" AND "),
    );
    let conditions: Vec<String> = one_by_one.chain((lists.len() > 1).then_some(together)).collect();
    let are_none = lists.iter().any(Vec::is_empty);
    leaves
        .iter()
        .map(|leaf| {
            if are_none || leaf.reach == Reach::Key {
                return Ok(Vec::new());
            }
            let rows = format!(
                "SELECT pg_catalog.array_agg(g.ctid) FROM {} g WHERE {} AND {}",
                leaf.rows(),
                rules.condition(),
                conditions.join(" AND ")
            );
            let lists: Vec<_> = lists.iter().map(|list| list.clone().into()).collect();
            let found =
                leaf.reading_as_owner(rules.target, || read_one::<Vec<pg_sys::ItemPointerData>>(&rows, &lists))?;
            Ok(found.unwrap_or_default())
        })
        .collect()
}
