use std::panic::AssertUnwindSafe;

use pgrx::datum::DatumWithOid;
use pgrx::prelude::*;
use pgrx::spi::{quote_identifier as quote, quote_literal};

use crate::error::{Result, error, spi};
use crate::owner::acting_as;
use crate::read::read_one;

/// A table as the catalog has it.
pub struct Table {
    pub oid: pg_sys::Oid,
    pub owner: pg_sys::Oid,
    /// `pg_class.relkind`: `r`, `p`, `f`, `v` ...
    pub kind: i8,
    /// Schema-qualified and quoted.
    pub name: String,
    /// `pg_catalog`, the table's own schema, `pg_temp`: an application's ordinary triggers work.
    pub search_path: String,
}

/// A column of a table: its quoted name and its type as SQL, qualified where it is not in `pg_catalog`.
pub struct Column {
    pub name: String,
    pub sql_type: String,
    /// Its `attnum` in the table.
    pub number: i16,
    pub type_oid: pg_sys::Oid,
    pub collation: pg_sys::Oid,
    /// The table's.
    owner: pg_sys::Oid,
}

impl Table {
    /// Finds a table by its schema-qualified name in SQL.
    pub fn find(name: &str) -> Result<Option<Table>> {
        Table::read("pg_catalog.to_regclass($1)::pg_catalog.oid", name.into())
    }

    /// Finds a table by its oid.
    pub fn of(oid: pg_sys::Oid) -> Result<Option<Table>> {
        Table::read("$1", oid.into())
    }

    fn read(oid: &str, argument: DatumWithOid) -> Result<Option<Table>> {
        let query = format!(
            "SELECT c.oid, c.relowner, c.relkind, n.nspname::pg_catalog.text, c.relname::pg_catalog.text
             FROM pg_catalog.pg_class c
             JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
             WHERE c.oid OPERATOR(pg_catalog.=) {oid}"
        );
        Spi::connect(|client| {
            let rows = client.select(query.as_str(), Some(1), &[argument])?;
            let mut tables = rows.map(|row| -> spi::Result<Table> {
                let schema = quote(row.get::<String>(4)?.unwrap_or_default());
                let relation = quote(row.get::<String>(5)?.unwrap_or_default());
                Ok(Table {
                    oid: row.get(1)?.unwrap_or(pg_sys::InvalidOid),
                    owner: row.get(2)?.unwrap_or(pg_sys::InvalidOid),
                    kind: row.get(3)?.unwrap_or_default(),
                    name: format!("{schema}.{relation}"),
                    search_path: format!("pg_catalog, {schema}, pg_temp"),
                })
            });
            tables.next().transpose()
        })
        .map_err(spi)
    }

    /// Finds a column by its name, without quotes.
    pub fn column(&self, name: &str) -> Result<Option<Column>> {
        Spi::connect(|client| {
            let rows = client.select(
                "SELECT pg_catalog.format_type(atttypid, NULL), attnum, atttypid, attcollation
                 FROM pg_catalog.pg_attribute
                 WHERE attrelid OPERATOR(pg_catalog.=) $1 AND attname OPERATOR(pg_catalog.=) $2::pg_catalog.name
                   AND attnum OPERATOR(pg_catalog.>) 0 AND NOT attisdropped",
                Some(1),
                &[self.oid.into(), name.into()],
            )?;
            let mut columns = rows.map(|row| -> spi::Result<Column> {
                Ok(Column {
                    name: quote(name),
                    sql_type: row.get(1)?.unwrap_or_default(),
                    number: row.get(2)?.unwrap_or_default(),
                    type_oid: row.get(3)?.unwrap_or(pg_sys::InvalidOid),
                    collation: row.get(4)?.unwrap_or(pg_sys::InvalidOid),
                    owner: self.owner,
                })
            });
            columns.next().transpose()
        })
        .map_err(spi)
    }
}

impl Column {
    /// The condition that this column of `g` has a value, compared by `pg_catalog`'s operator whatever else there is.
    pub fn is(&self, value: &str) -> String {
        format!("g.{} OPERATOR(pg_catalog.=) {}::{}", self.name, quote_literal(value), self.sql_type)
    }

    pub fn is_integer(&self) -> bool {
        matches!(self.sql_type.as_str(), "smallint" | "integer" | "bigint")
    }

    /// Whether its type has an order (a default btree operator class).
    pub fn is_ordered(&self) -> bool {
        unsafe { (*pg_sys::lookup_type_cache(self.type_oid, pg_sys::TYPECACHE_CMP_PROC as i32)).cmp_proc.to_u32() != 0 }
    }

    /// This column of `g` as what rows are grouped by: a bigint or a text.
    pub fn as_key(&self) -> String {
        let key = if self.is_integer() { "bigint" } else { "pg_catalog.text" };
        format!("g.{}::{key}", self.name)
    }

    /// Checks that a value can be read as this column's type and compared with it, as the table's owner: the type may be
    /// a domain with a function of theirs. Errors: 22P02, 42804.
    pub fn accepts(&self, value: &str) -> Result<()> {
        let unreadable = || {
            let message = format!("\"{value}\" cannot be read as {}, the type of column {}", self.sql_type, self.name);
            let hint = "give a value as the column has it".into();
            Err(error(PgSqlErrorCode::ERRCODE_INVALID_TEXT_REPRESENTATION, message, hint))
        };
        let (literal, sql_type) = (quote_literal(value), &self.sql_type);
        let compare = format!("SELECT {literal}::{sql_type} OPERATOR(pg_catalog.=) {literal}::{sql_type}");
        acting_as(self.owner, "pg_catalog, pg_temp", || {
            PgTryBuilder::new(AssertUnwindSafe(|| read_one::<bool>(&compare, &[]).map(drop)))
                .catch_when(PgSqlErrorCode::ERRCODE_INVALID_TEXT_REPRESENTATION, move |_| unreadable())
                .catch_when(PgSqlErrorCode::ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE, move |_| unreadable())
                .catch_when(PgSqlErrorCode::ERRCODE_UNDEFINED_FUNCTION, move |_| {
                    let message = format!("column {} has type {sql_type}, which has no equality", self.name);
                    let hint = "SELECT * FROM backlog_cleanup.target".into();
                    Err(error(PgSqlErrorCode::ERRCODE_DATATYPE_MISMATCH, message, hint))
                })
                .execute()
        })
    }
}
