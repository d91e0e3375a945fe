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
    /// Whether the labels and casts of its types are those of the first time that it was asked. PostgreSQL's own types have none.
    pub fn spells_as_before(&self) -> Result<bool> {
        let types = types(self)?;
        if types.iter().all(|oid| is_own((pg_sys::TypeRelationId, *oid))) {
            return Ok(true);
        }
        let now = Spelling::of(&types)?;
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
            far: leaves
                .iter()
                .filter(|leaf| leaf.table.is_foreign())
                .map(|leaf| (number(leaf.table.oid), leaf.storage.clone()))
                .collect(),
            // Not that of a later time: rows have been read by it.
            spelling: target.spelling.get().cloned().map_or_else(|| Spelling::of(&types(target)?), Ok)?,
            horizon: Horizon::now(),
        })
    }

    /// Whether rows are read so still. `finds` says that of each foreign table.
    pub fn still_holds(&self, target: &Target) -> Result<bool> {
        let mut now = Reading::of(target, &[])?;
        now.far.clone_from(&self.far);
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

/// The types among what expressions call (classes `$1`, oids `$2`), and those that it takes, returns and has inside. PostgreSQL has recorded that of
/// functions in BEGIN ATOMIC; of those whose body is a text it is whatever has a name that is a word of it.
const BETWEEN: &str = "
    WITH RECURSIVE code (class, object) AS (
        SELECT class, object FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2)) called (class, object)
        UNION
        SELECT below.class, below.object
        FROM code CROSS JOIN LATERAL (
            SELECT d.refclassid, d.refobjid FROM pg_catalog.pg_depend d
            WHERE d.classid OPERATOR(pg_catalog.=) code.class AND d.objid OPERATOR(pg_catalog.=) code.object
            UNION ALL
            SELECT named.class, named.oid
            FROM pg_catalog.pg_proc p
            CROSS JOIN LATERAL (SELECT pg_catalog.lower(p.prosrc),
                                       pg_catalog.regexp_split_to_array(pg_catalog.lower(p.prosrc), '[^[:alnum:]_$]+')) body (text, words)
            CROSS JOIN LATERAL (
                SELECT 'pg_catalog.pg_type'::pg_catalog.regclass::pg_catalog.oid, t.oid, pg_catalog.lower(t.typname::pg_catalog.text)
                FROM pg_catalog.pg_type t
                UNION ALL
                SELECT 'pg_catalog.pg_proc'::pg_catalog.regclass, f.oid, pg_catalog.lower(f.proname::pg_catalog.text) FROM pg_catalog.pg_proc f
                UNION ALL
                SELECT 'pg_catalog.pg_operator'::pg_catalog.regclass, o.oid, o.oprname::pg_catalog.text FROM pg_catalog.pg_operator o
            ) named (class, oid, name)
            WHERE code.class OPERATOR(pg_catalog.=) 'pg_catalog.pg_proc'::pg_catalog.regclass AND p.oid OPERATOR(pg_catalog.=) code.object
              AND p.prosqlbody IS NULL AND p.probin IS NULL
              -- PostgreSQL's own code is no text, and its objects do not change.
              AND p.oid OPERATOR(pg_catalog.>=) '16384'::pg_catalog.oid AND named.oid OPERATOR(pg_catalog.>=) '16384'::pg_catalog.oid
              AND (named.name OPERATOR(pg_catalog.=) ANY (body.words)
                   OR named.name OPERATOR(pg_catalog.~) '[^[:alnum:]_$]' AND pg_catalog.strpos(body.text, named.name) OPERATOR(pg_catalog.>) 0)
        ) below (class, object)
        WHERE code.class OPERATOR(pg_catalog.=) ANY (ARRAY['pg_catalog.pg_proc'::pg_catalog.regclass, 'pg_catalog.pg_operator'])
    )
    SELECT pg_catalog.array_agg(object) FROM code
    WHERE class OPERATOR(pg_catalog.=) 'pg_catalog.pg_type'::pg_catalog.regclass";

/// The types of the columns and expressions that runs read, and those that expressions have in between.
pub fn types(target: &Target) -> Result<Vec<pg_sys::Oid>> {
    let columns = target.reads.iter().map(|(_, column)| column).chain(target.operands());
    let mut types: Vec<pg_sys::Oid> = columns.map(|column| column.type_oid).collect();
    let called: Vec<Object> = target
        .expressions()
        .flat_map(|expression| expression.calls.iter().chain(&expression.inside))
        .copied()
        .collect();
    if !called.is_empty() {
        let (classes, objects): (Vec<_>, Vec<_>) = called.into_iter().unzip();
        types.extend(one_now::<Vec<pg_sys::Oid>>(BETWEEN, &[classes.into(), objects.into()])?.unwrap_or_default());
    }
    Ok(types)
}
