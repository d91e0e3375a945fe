use pgrx::spi::{quote_identifier, quote_literal};
use serde::Deserialize;

use crate::obstacles::ledger::answer::refuses;
use crate::obstacles::problem::{Problem, rows_of};
use crate::postgres::error::Result;
use crate::postgres::expression::is_immutable;
use crate::target::{Ledger, Target};

/// The time of a row.
pub const NOW: &str = "pg_catalog.now()";

/// The columns of a ledger, with what the row of a run would have in them.
pub struct Columns<'a> {
    pub ledger: &'a Ledger,
    pub list: Vec<Column>,
}

#[derive(Deserialize)]
pub struct Column {
    pub name: String,
    pub number: i16,
    /// The type, or what its domains are made of: its oid, its name without a length, whether it is PostgreSQL's own or an enum, its modifier.
    pub base: u32,
    pub sql_type: String,
    pub is_built_in: bool,
    pub modifier: i32,
    not_null: bool,
    /// Its default, and that as a `pg_node_tree`, unless it needs code that PostgreSQL itself does not have.
    has_default: bool,
    default_expression: Option<String>,
    default_tree: Option<String>,
    /// Filled by a sequence or an expression.
    is_made: bool,
    /// What a run writes into it, as SQL.
    #[serde(skip)]
    written: Option<String>,
}

impl Columns<'_> {
    pub fn of<'a>(target: &Target, ledger: &'a Ledger, description: &str, removed: i64) -> Result<Columns<'a>> {
        const COLUMNS: &str = "
            SELECT jsonb_build_object(
                'name', a.attname, 'number', a.attnum, 'base', b.oid::bigint, 'sql_type', format('%I.%I', n.nspname, b.typname),
                'is_built_in', b.oid < 16384 OR b.typtype = 'e', 'modifier', coalesce(made_of.modifier, a.atttypmod),
                'not_null', a.attnotnull OR made_of.not_null,
                'has_default', a.atthasdef OR t.typdefaultbin IS NOT NULL,
                'is_made', a.attidentity <> '' OR a.attgenerated <> '',
                'default_expression', CASE WHEN plain THEN pg_get_expr(d.adbin, d.adrelid) END,
                'default_tree', CASE WHEN plain THEN d.adbin::text END)
            FROM pg_attribute a
            JOIN pg_type t ON t.oid = a.atttypid
            CROSS JOIN LATERAL (
                WITH RECURSIVE made_of AS (
                    SELECT t.oid, t.typtype, t.typbasetype, t.typtypmod, t.typnotnull
                    UNION ALL
                    SELECT b.oid, b.typtype, b.typbasetype, b.typtypmod, b.typnotnull
                    FROM made_of JOIN pg_type b ON b.oid = made_of.typbasetype WHERE made_of.typtype = 'd'
                )
                SELECT max(oid) FILTER (WHERE typtype <> 'd') AS base, max(typtypmod) FILTER (WHERE typtype = 'd') AS modifier,
                       bool_or(typnotnull) AS not_null
                FROM made_of
            ) made_of
            JOIN pg_type b ON b.oid = made_of.base
            JOIN pg_namespace n ON n.oid = b.typnamespace
            LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
            CROSS JOIN LATERAL (
                SELECT NOT EXISTS (SELECT FROM pg_depend WHERE classid = 'pg_attrdef'::regclass AND objid = d.oid
                                                            AND NOT (refclassid = 'pg_class'::regclass AND refobjid = d.adrelid))
            ) made (plain)
            WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped
            ORDER BY a.attnum";
        let mut list: Vec<Column> = rows_of(COLUMNS, &[ledger.table.oid.into()])?;
        for column in &mut list {
            column.written = match column.name.as_str() {
                "user_id" => target.account.as_ref().map(quote_literal),
                "amount" => Some(removed.to_string()),
                "type" => Some(quote_literal("backlog_cleanup")),
                "description" => Some(quote_literal(description)),
                "created_at" => Some(target.in_time_zone(&ledger.created_at, NOW)),
                _ => None,
            };
        }
        Ok(Columns { ledger, list })
    }

    /// Columns that may not be NULL, and that nothing fills.
    pub fn without_a_value(&self) -> Vec<Problem> {
        let is_empty = |column: &&Column| column.not_null && column.is_null();
        let problem = |column: &Column| {
            let reason = format!("column \"{}\" is NOT NULL and has no default: give it one", column.name);
            refuses(self.ledger, &reason)
        };
        self.list.iter().filter(is_empty).map(problem).collect()
    }

    /// Whether the row of each run has values of its own in these columns, but for its time.
    pub fn have_what_varies(&self, numbers: &[i16]) -> bool {
        let varies = |column: &&Column| ["amount", "description"].contains(&column.name.as_str());
        self.list.iter().filter(varies).any(|column| numbers.contains(&column.number))
    }

    /// The known values of these columns as a row: `value AS name, ...`; `None` if one of them is not known.
    pub fn row(&self, numbers: &[i16]) -> Option<String> {
        let of = |number: &i16| {
            let column = self.list.iter().find(|column| column.number == *number)?;
            Some(format!("{} AS {}", column.value()?, quote_identifier(&column.name)))
        };
        numbers.iter().map(of).collect::<Option<Vec<_>>>().map(|values| values.join(", "))
    }
}

impl Column {
    fn is_null(&self) -> bool {
        self.written.is_none() && !self.has_default && !self.is_made
    }

    /// What the row has in it, as SQL that runs nobody's code; `None` if that is not known.
    pub fn value(&self) -> Option<String> {
        if self.is_null() {
            return Some(format!("NULL::{}", self.sql_type));
        }
        let by_default = || {
            let is_plain = !self.is_made && self.default_tree.as_deref().is_some_and(is_immutable);
            self.default_expression.as_ref().filter(|_| is_plain)
        };
        let value = self.written.as_ref().or_else(by_default).filter(|_| self.is_built_in)?;
        Some(format!("({value})::{}", self.sql_type))
    }

    /// The text that a run writes into it.
    pub fn written(&self) -> Option<&str> {
        self.written.as_deref()
    }
}
