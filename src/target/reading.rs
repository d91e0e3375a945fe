use pgrx::pg_sys;
use serde::{Deserialize, Serialize};

use crate::postgres::error::Result;
use crate::postgres::names::{Object, is_own};
use crate::postgres::now::one_now;
use crate::postgres::snapshot::Horizon;
use crate::postgres::table::Column;
use crate::target::Target;
use crate::target::leaf::Leaf;
use crate::target::spelling::Spelling;

/// How the rows of a target are read. The saved ranks of a run depend on it: with another account, status, column or time zone
/// they would belong to other rows.
#[derive(PartialEq, Serialize, Deserialize)]
pub struct Reading {
    table: u32,
    account: Option<String>,
    statuses: Vec<String>,
    time_zone: String,
    #[serde(default)]
    fingerprint: bool,
    /// Recipe, failed-at, id, failure type and, if there are any, account and status: the name, the `attnum`, the type and its
    /// collation.
    columns: Vec<(String, i16, u32, u32)>,
    /// Expressions among them are columns without a number. These are the columns that expressions read.
    #[serde(default)]
    below: Vec<(String, i16, u32, u32)>,
    #[serde(default)]
    condition: Option<String>,
    /// What expressions name that PostgreSQL does not come with: the class and the oid of each object.
    #[serde(default)]
    calls: Vec<(u32, u32)>,
    /// The types that are read and passed through: another one may be what a text means since it came.
    #[serde(default)]
    types: Vec<u32>,
    /// What its foreign tables stand for, by their oids.
    #[serde(default)]
    far: Vec<(u32, String)>,
    #[serde(flatten)]
    spelling: Spelling,
    /// Of the snapshot in which the rows were ranked.
    #[serde(default)]
    pub horizon: Horizon,
}

impl Target {
    /// Finds the types of the columns and expressions that are read, and those that expressions have in between: of what removes rows, `of_run`, also
    /// those that the texts of functions name.
    pub fn find_types(&self, of_run: bool) -> Result<()> {
        let columns = self.reads.iter().map(|(_, column)| column).chain(self.operands());
        let mut types: Vec<pg_sys::Oid> = columns.map(|column| column.type_oid).collect();
        let called: Vec<Object> = self
            .expressions()
            .flat_map(|expression| expression.calls.iter().chain(&expression.inside))
            .copied()
            .collect();
        if !called.is_empty() {
            let (classes, objects): (Vec<_>, Vec<_>) = called.into_iter().unzip();
            let between = match of_run {
                true => one_now::<Vec<pg_sys::Oid>>(NAMED, &[classes.into(), objects.into(), self.table.owner.into()])?,
                false => one_now::<Vec<pg_sys::Oid>>(BETWEEN, &[classes.into(), objects.into()])?,
            };
            types.extend(between.unwrap_or_default());
        }
        let _ = self.types.set(types);
        Ok(())
    }

    /// The types that were found.
    pub fn types(&self) -> Result<&[pg_sys::Oid]> {
        if self.types.get().is_none() {
            self.find_types(false)?;
        }
        Ok(self.types.get().map_or(&[], Vec::as_slice))
    }

    /// Whether the labels and casts of its types are those of the first time that it was asked. PostgreSQL's own types have none.
    pub fn spells_as_before(&self) -> Result<bool> {
        let types = self.types()?;
        if types.iter().all(|oid| is_own((pg_sys::TypeRelationId, *oid))) {
            return Ok(true);
        }
        let now = Spelling::of(types)?;
        Ok(match self.spelling.get() {
            Some(before) => before.holds(&now),
            None => self.spelling.set(now).is_ok(),
        })
    }
}

impl Reading {
    pub fn of(target: &Target, leaves: &[Leaf]) -> Result<Reading> {
        let Target { table, account_column, status, recipe, failed_at, id, failure_type, .. } = target;
        let number = |oid: pg_sys::Oid| oid.to_u32();
        let mut types: Vec<u32> = target.types()?.iter().copied().map(number).collect();
        types.sort_unstable();
        types.dedup();
        let column = |c: &Column| (c.name.clone(), c.number, number(c.type_oid), number(c.collation));
        Ok(Reading {
            table: number(table.oid),
            account: target.account.clone(),
            statuses: target.statuses.clone(),
            time_zone: target.time_zone.clone(),
            fingerprint: target.fingerprint,
            columns: [recipe, failed_at, &id.value, failure_type]
                .into_iter()
                .chain(account_column)
                .chain(status)
                .map(column)
                .collect(),
            below: target
                .reads
                .iter()
                .filter(|(_, read)| target.operands().all(|operand| operand.number != read.number))
                .map(|(_, read)| column(read))
                .collect(),
            condition: target.meets.as_ref().map(|condition| condition.of_row.clone()),
            calls: target
                .expressions()
                .flat_map(|expression| &expression.calls)
                .map(|(class, oid)| (number(*class), number(*oid)))
                .collect(),
            types,
            far: leaves
                .iter()
                .filter(|leaf| leaf.table.is_foreign())
                .map(|leaf| (number(leaf.table.oid), leaf.storage.clone()))
                .collect(),
            // Not that of a later time: rows have been read by it.
            spelling: target.spelling.get().cloned().map_or_else(|| Spelling::of(target.types()?), Ok)?,
            horizon: Horizon::now(),
        })
    }

    /// Whether rows are read so still. `finds` says that of each foreign table.
    pub fn still_holds(&self, target: &Target) -> Result<bool> {
        let mut now = Reading::of(target, &[])?;
        now.far.clone_from(&self.far);
        // One that has come since is none that an expression has gone through: somebody has created an extension.
        if self.types != now.types && self.types.iter().all(|known| now.types.contains(known)) {
            let types: Vec<pg_sys::Oid> = self.types.iter().map(|oid| pg_sys::Oid::from(*oid)).collect();
            now.spelling = Spelling::of(&types)?;
            now.types.clone_from(&self.types);
        }
        let is_spelled_so = self.spelling.holds(&now.spelling);
        now.spelling.names.clone_from(&self.spelling.names);
        now.horizon = self.horizon;
        Ok(is_spelled_so && *self == now)
    }

    /// Whether a leaf has its rows where they were. Those of a table that is no foreign one are found by their own rules.
    pub fn finds(&self, leaf: &Leaf) -> bool {
        self.far.iter().all(|(table, stood_for)| *table != leaf.table.oid.to_u32() || *stood_for == leaf.storage)
    }
}

/// The types among what expressions call (classes `$1`, oids `$2`), and those that it takes, returns and has inside, as far as PostgreSQL has recorded
/// that: of functions in BEGIN ATOMIC.
const BETWEEN: &str = "
    WITH RECURSIVE code (class, object) AS (
        SELECT class, object FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2)) called (class, object)
        UNION
        SELECT d.refclassid, d.refobjid
        FROM code JOIN pg_catalog.pg_depend d ON d.classid OPERATOR(pg_catalog.=) code.class AND d.objid OPERATOR(pg_catalog.=) code.object
        WHERE code.class OPERATOR(pg_catalog.=) ANY (ARRAY['pg_catalog.pg_proc'::pg_catalog.regclass, 'pg_catalog.pg_operator'])
    )
    SELECT pg_catalog.array_agg(object) FROM code
    WHERE class OPERATOR(pg_catalog.=) 'pg_catalog.pg_type'::pg_catalog.regclass";

/// The same with what has a name that is a word of a function's text, if the owner of the table (`$3`) trusts its owner, and with the functions of
/// CHECKs of these types, and of casts between them that such roles have made. Of 2,000 objects, so that a database of many functions that name each other is not walked with every batch.
const NAMED: &str = "
    WITH RECURSIVE code (class, object) AS (
        SELECT class, object FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2)) called (class, object)
        UNION
        SELECT below.class, below.object
        FROM code CROSS JOIN LATERAL (
            SELECT d.refclassid, d.refobjid FROM pg_catalog.pg_depend d
            WHERE d.classid OPERATOR(pg_catalog.=) code.class AND d.objid OPERATOR(pg_catalog.=) code.object
              AND code.class OPERATOR(pg_catalog.=) ANY (ARRAY['pg_catalog.pg_proc'::pg_catalog.regclass, 'pg_catalog.pg_operator'])
            UNION ALL
            -- NOT (a = b) is what the planner makes a <> b of.
            SELECT code.class, negator FROM pg_catalog.pg_operator o, LATERAL (VALUES (o.oprnegate), (o.oprcom)) other (negator)
            WHERE code.class OPERATOR(pg_catalog.=) 'pg_catalog.pg_operator'::pg_catalog.regclass AND o.oid OPERATOR(pg_catalog.=) code.object
            UNION ALL
            -- Whoever may use a type can make casts of it.
            SELECT 'pg_catalog.pg_proc'::pg_catalog.regclass, c.castfunc
            FROM pg_catalog.pg_cast c
            JOIN pg_catalog.pg_proc f ON f.oid OPERATOR(pg_catalog.=) c.castfunc AND pg_catalog.pg_has_role(f.proowner, $3, 'USAGE')
            JOIN pg_catalog.pg_type s ON s.oid OPERATOR(pg_catalog.=) c.castsource AND pg_catalog.pg_has_role(s.typowner, $3, 'USAGE')
            JOIN pg_catalog.pg_type r ON r.oid OPERATOR(pg_catalog.=) c.casttarget AND pg_catalog.pg_has_role(r.typowner, $3, 'USAGE')
            WHERE code.class OPERATOR(pg_catalog.=) 'pg_catalog.pg_type'::pg_catalog.regclass
              AND code.object OPERATOR(pg_catalog.=) ANY (ARRAY[c.castsource, c.casttarget])
            UNION ALL
            SELECT d.refclassid, d.refobjid
            FROM pg_catalog.pg_constraint k
            JOIN pg_catalog.pg_depend d ON d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_constraint'::pg_catalog.regclass
                                       AND d.objid OPERATOR(pg_catalog.=) k.oid
            WHERE code.class OPERATOR(pg_catalog.=) 'pg_catalog.pg_type'::pg_catalog.regclass AND k.contypid OPERATOR(pg_catalog.=) code.object
            UNION ALL
            SELECT named.class, named.object
            FROM pg_catalog.pg_proc p
            -- PostgreSQL's own code is no text.
            CROSS JOIN LATERAL (SELECT pg_catalog.left(p.prosrc, 100000)) body (text)
            CROSS JOIN LATERAL (
                SELECT DISTINCT spelt.name::pg_catalog.name
                -- What is beyond ASCII is part of names, and no letter in the text's collation.
                FROM pg_catalog.regexp_split_to_table(body.text, '[\\x01-\\x23\\x25-\\x2f\\x3a-\\x40\\x5b-\\x5e\\x60\\x7b-\\x7f]+') AS word,
                     LATERAL (VALUES (word), (pg_catalog.lower(word))) spelt (name)
                UNION
                SELECT pg_catalog.replace(quoted[1], '\"\"', '\"')::pg_catalog.name
                FROM pg_catalog.regexp_matches(body.text, '\"((?:[^\"]|\"\")+)\"', 'g') AS quoted
                UNION
                -- One quote in a comment is none of a name.
                SELECT span::pg_catalog.name FROM pg_catalog.regexp_split_to_table(body.text, '\"') AS span
                UNION
                -- Of escapes those of ASCII, which every encoding has.
                SELECT pg_catalog.unistr(pg_catalog.replace(quoted[1], '\"\"', '\"'))::pg_catalog.name
                FROM pg_catalog.regexp_matches(
                         body.text, '[Uu]&\"((?:[^\"\\\\]|\"\"|\\\\\\\\|\\\\(?:00|\\+0000)[2-7][0-9A-Fa-f])+)\"', 'g') AS quoted
                UNION
                -- IN, CASE, BETWEEN and LIKE have no symbol, and != is another name of <>.
                SELECT symbol::pg_catalog.name FROM pg_catalog.unnest('{=,<>,<,<=,>,>=,~~,!~~,~~*,!~~*}'::pg_catalog.text[]) AS symbol
                UNION
                -- Beside comments, and without the sign of what follows (\"Operators\" in PostgreSQL's manual).
                SELECT spelt.symbol::pg_catalog.name
                FROM pg_catalog.regexp_split_to_table(body.text, '[^-+*/<>=~!@#%^&|`?]+') AS symbols,
                     LATERAL (VALUES (symbols), (pg_catalog.regexp_replace(symbols, '(/\\*|--).*', '')),
                                     (pg_catalog.regexp_replace(symbols, '.*\\*/', ''))) beside (symbols),
                     LATERAL (VALUES (beside.symbols), (pg_catalog.rtrim(beside.symbols, '+-'))) spelt (symbol)
            ) word (name)
            CROSS JOIN LATERAL (
                SELECT 'pg_catalog.pg_type'::pg_catalog.regclass::pg_catalog.oid, t.oid, t.typowner, t.typnamespace FROM pg_catalog.pg_type t
                WHERE t.typname OPERATOR(pg_catalog.=) word.name
                  AND (t.typtype::pg_catalog.text OPERATOR(pg_catalog.=) ANY ('{e,d,r,m}')
                       OR t.typelem OPERATOR(pg_catalog.<>) '0'::pg_catalog.oid AND t.typtype OPERATOR(pg_catalog.=) 'b'
                       OR (SELECT c.relkind OPERATOR(pg_catalog.=) 'c' FROM pg_catalog.pg_class c WHERE c.oid OPERATOR(pg_catalog.=) t.typrelid))
                UNION ALL
                -- PL/pgSQL's %TYPE names a column, and a query what it reads.
                SELECT 'pg_catalog.pg_type'::pg_catalog.regclass, a.atttypid, c.relowner, c.relnamespace
                FROM pg_catalog.pg_class c JOIN pg_catalog.pg_attribute a ON a.attrelid OPERATOR(pg_catalog.=) c.oid
                WHERE c.relname OPERATOR(pg_catalog.=) word.name AND c.relkind::pg_catalog.text OPERATOR(pg_catalog.=) ANY ('{r,p,v,m,f}')
                  AND a.attnum OPERATOR(pg_catalog.>) 0::pg_catalog.int2 AND NOT a.attisdropped
                UNION ALL
                SELECT d.refclassid, d.refobjid, c.relowner, c.relnamespace
                FROM pg_catalog.pg_class c
                JOIN pg_catalog.pg_rewrite w ON w.ev_class OPERATOR(pg_catalog.=) c.oid
                JOIN pg_catalog.pg_depend d ON d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_rewrite'::pg_catalog.regclass
                                           AND d.objid OPERATOR(pg_catalog.=) w.oid
                WHERE c.relname OPERATOR(pg_catalog.=) word.name AND c.relkind::pg_catalog.text OPERATOR(pg_catalog.=) ANY ('{v,m}')
                UNION ALL
                SELECT 'pg_catalog.pg_proc'::pg_catalog.regclass, f.oid, f.proowner, f.pronamespace FROM pg_catalog.pg_proc f
                WHERE f.proname OPERATOR(pg_catalog.=) word.name
                UNION ALL
                SELECT 'pg_catalog.pg_operator'::pg_catalog.regclass, o.oid, o.oprowner, o.oprnamespace FROM pg_catalog.pg_operator o
                WHERE o.oprname OPERATOR(pg_catalog.=) word.name
            ) named (class, object, owner, namespace)
            WHERE code.class OPERATOR(pg_catalog.=) 'pg_catalog.pg_proc'::pg_catalog.regclass AND p.oid OPERATOR(pg_catalog.=) code.object
              AND p.prosqlbody IS NULL AND p.probin IS NULL
              AND p.oid OPERATOR(pg_catalog.>=) '16384'::pg_catalog.oid AND named.object OPERATOR(pg_catalog.>=) '16384'::pg_catalog.oid
              AND pg_catalog.pg_has_role(named.owner, $3, 'USAGE')
              AND NOT pg_catalog.pg_is_other_temp_schema(named.namespace)
        ) below (class, object)
        WHERE below.object OPERATOR(pg_catalog.<>) '0'::pg_catalog.oid
    )
    SELECT pg_catalog.array_agg(object) FROM (SELECT class, object FROM code LIMIT 2000) bounded
    WHERE class OPERATOR(pg_catalog.=) 'pg_catalog.pg_type'::pg_catalog.regclass";
