use std::collections::HashMap;
use std::ffi::CStr;
use std::rc::Rc;
use std::sync::OnceLock;

use pgrx::direct_function_call;
use pgrx::prelude::*;
use pgrx::spi::quote_identifier as quote;

use crate::postgres::error::{Result, error};
use crate::postgres::expression::Expression;
use crate::postgres::names::Object;
use crate::postgres::now::{one_now, rows_now};

/// A table, read from the catalog.
pub struct Table {
    pub oid: pg_sys::Oid,
    pub owner: pg_sys::Oid,
    /// `pg_class.relkind`: `r`, `p`, `f`, `v` ...
    pub kind: i8,
    /// Seen by its own session only.
    pub is_temporary: bool,
    /// Has or has had partitions or children.
    has_parts: bool,
    /// Has or has had rules.
    pub has_rules: bool,
    /// Has or has had triggers.
    pub has_triggers: bool,
    /// Schema-qualified and quoted.
    pub name: String,
    /// The same two without quotes, which a setting can add to every name.
    bare: (String, String),
    /// `pg_catalog`, the table's own schema, `pg_temp`: enough for an application's ordinary triggers.
    pub search_path: String,
    /// What else statements on it name that PostgreSQL does not come with, as it was checked.
    pub named: Rc<Vec<Object>>,
    columns: OnceLock<HashMap<String, Column>>,
}

/// A column of a table, or an expression of columns.
#[derive(Clone)]
pub struct Column {
    /// The quoted name, or the expression in parentheses: what an index names.
    pub name: String,
    /// Its type as SQL, qualified: the same in every search path.
    pub sql_type: String,
    /// Its type as people write it.
    pub type_name: String,
    /// Its `attnum` in the table; 0 for an expression.
    pub number: i16,
    pub type_oid: pg_sys::Oid,
    pub collation: pg_sys::Oid,
    pub expression: Option<Expression>,
}

/// A table and its descendants, as of now; nothing is locked.
pub fn family(table: pg_sys::Oid) -> Result<Vec<pg_sys::Oid>> {
    rows_now(
        "WITH RECURSIVE family (oid) AS (
             SELECT $1
             UNION
             SELECT i.inhrelid FROM pg_catalog.pg_inherits i JOIN family ON i.inhparent OPERATOR(pg_catalog.=) family.oid)
         SELECT oid FROM family",
        &[table.into()],
        |row| Ok(row.get(1)?.unwrap_or(pg_sys::InvalidOid)),
    )
}

impl Table {
    /// Whether it has its rows itself, on this server.
    pub fn is_plain(&self) -> bool {
        self.kind as u8 == b'r'
    }

    /// Finds a table by its name, schema-qualified as in SQL. `None` also if the name is malformed.
    pub fn find(name: &str) -> Result<Option<Table>> {
        Table::oid_of(name).map_or(Ok(None), Table::of)
    }

    /// The oid of the table of that name; `None` as of `find`, and if the name has another database.
    pub fn oid_of(name: &str) -> Option<pg_sys::Oid> {
        // SAFETY: to_regclass takes a text.
        PgTryBuilder::new(|| unsafe { direct_function_call(pg_sys::to_regclass, &[name.into_datum()]) })
            .catch_when(PgSqlErrorCode::ERRCODE_INVALID_NAME, |_| None)
            .catch_when(PgSqlErrorCode::ERRCODE_SYNTAX_ERROR, |_| None)
            .catch_when(PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED, |_| None)
            .execute()
    }

    /// Finds a table by its oid.
    pub fn of(oid: pg_sys::Oid) -> Result<Option<Table>> {
        const TABLE: &str = "
            SELECT c.oid, c.relowner, c.relkind, n.nspname::pg_catalog.text, c.relname::pg_catalog.text,
                   c.relpersistence OPERATOR(pg_catalog.=) 't', c.relhassubclass, c.relhasrules,
                   c.relhastriggers
            FROM pg_catalog.pg_class c
            JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
            WHERE c.oid OPERATOR(pg_catalog.=) $1";
        let tables = rows_now(TABLE, &[oid.into()], |row| {
            let (schema, relation): (String, String) =
                (row.get(4)?.unwrap_or_default(), row.get(5)?.unwrap_or_default());
            Ok(Table {
                oid: row.get(1)?.unwrap_or(pg_sys::InvalidOid),
                owner: row.get(2)?.unwrap_or(pg_sys::InvalidOid),
                kind: row.get(3)?.unwrap_or_default(),
                is_temporary: row.get(6)?.unwrap_or_default(),
                has_parts: row.get(7)?.unwrap_or_default(),
                has_rules: row.get(8)?.unwrap_or_default(),
                has_triggers: row.get(9)?.unwrap_or_default(),
                search_path: format!("pg_catalog, {}, pg_temp", quote(&schema)),
                name: format!("{}.{}", quote(&schema), quote(&relation)),
                bare: (schema, relation),
                named: Rc::default(),
                columns: OnceLock::new(),
            })
        })?;
        Ok(tables.into_iter().next())
    }

    /// Refuses partitions and children of another owner: a statement on this table would run their code as this table's
    /// owner. Errors: 55000.
    pub fn is_of_one_owner(&self) -> Result<()> {
        if !self.has_parts {
            return Ok(());
        }
        let of_another = one_now::<String>(
            "WITH RECURSIVE leaf (oid) AS (
                 SELECT inhrelid FROM pg_catalog.pg_inherits WHERE inhparent OPERATOR(pg_catalog.=) $1
                 UNION
                 SELECT i.inhrelid FROM pg_catalog.pg_inherits i
                 JOIN leaf ON i.inhparent OPERATOR(pg_catalog.=) leaf.oid)
             SELECT c.oid::pg_catalog.regclass::pg_catalog.text
             FROM leaf JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) leaf.oid
             WHERE c.relowner OPERATOR(pg_catalog.<>) $2
             ORDER BY c.oid",
            &[self.oid.into(), self.owner.into()],
        )?;
        let Some(leaf) = of_another else { return Ok(()) };
        let owner = one_now::<String>("SELECT $1::pg_catalog.regrole::pg_catalog.text", &[self.owner.into()])?;
        Err(error(
            PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!("\"{leaf}\", a part of {}, belongs to another role", self.name),
            format!(
                "decide whether its code may run as {}, who owns the whole: then make that role its owner",
                owner.unwrap_or_default()
            ),
        ))
    }

    /// Checks that its owner may SELECT from it, UPDATE or DELETE: an owner can revoke its own privileges. Errors: 42501.
    pub fn allows_its_owner(&self, to: &str) -> Result<()> {
        let lacking = one_now::<String>(
            "SELECT rolname::pg_catalog.text FROM pg_catalog.pg_roles
             WHERE oid OPERATOR(pg_catalog.=) $1
               AND NOT CASE $3 WHEN 'UPDATE' THEN pg_catalog.has_any_column_privilege(oid, $2, $3)
                               ELSE pg_catalog.has_table_privilege(oid, $2, $3) END
               -- Positions are a column of their own, on which nobody else grants anything.
               AND NOT ($3 OPERATOR(pg_catalog.=) 'SELECT' AND pg_catalog.has_column_privilege(oid, $2, 'ctid', $3))",
            &[self.owner.into(), self.oid.into(), to.into()],
        )?;
        lacking.map_or(Ok(()), |owner| {
            Err(error(
                PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
                format!("owner \"{owner}\" of {} has no {to} privilege on it", self.name),
                format!("GRANT {to} ON {} TO {}", self.name, quote(&owner)),
            ))
        })
    }

    pub fn is_foreign(&self) -> bool {
        self.kind as u8 == b'f'
    }

    /// What statements on it may name.
    pub fn named_with_it(&self) -> Vec<Object> {
        std::iter::once((pg_sys::RelationRelationId, self.oid)).chain(self.named.iter().copied()).collect()
    }

    /// Locks the table against changes until the transaction ends. Errors: 40001 (it has been changed or dropped).
    pub fn hold(&self) -> Result<()> {
        // SAFETY: the relation is closed here; its lock stays until the transaction ends.
        let is_same = unsafe {
            let relation = pg_sys::try_relation_open(self.oid, pg_sys::AccessShareLock as i32);
            !relation.is_null() && {
                let class = (*relation).rd_rel;
                let schema = pg_sys::get_namespace_name((*class).relnamespace);
                let is_same = (*class).relowner == self.owner
                    && !schema.is_null()
                    && (text(schema), text((*class).relname.data.as_ptr())) == self.bare;
                pg_sys::relation_close(relation, pg_sys::NoLock as i32);
                is_same
            }
        };
        if is_same {
            return Ok(());
        }
        Err(error(
            PgSqlErrorCode::ERRCODE_T_R_SERIALIZATION_FAILURE,
            format!("table \"{}\" has been changed or dropped by another session", self.name),
            "ROLLBACK".into(),
        ))
    }

    /// Finds a column by its name, without quotes.
    pub fn column(&self, name: &str) -> Result<Option<&Column>> {
        if self.columns.get().is_none() {
            self.columns.set(self.read_columns()?).ok();
        }
        Ok(self.columns.get().and_then(|columns| columns.get(name)))
    }

    /// The name of a column, without quotes, and the column.
    pub fn numbered(&self, number: i16) -> Result<Option<(&str, &Column)>> {
        self.column("")?;
        let mut columns = self.columns.get().into_iter().flatten();
        Ok(columns.find(|(_, column)| column.number == number).map(|(name, column)| (name.as_str(), column)))
    }

    fn read_columns(&self) -> Result<HashMap<String, Column>> {
        // A type by its own name has any length; `character` would be character(1) and cut values off.
        const COLUMNS: &str = "
            SELECT attname::pg_catalog.text, pg_catalog.format('%I.%I', nspname, typname), attnum, atttypid, attcollation,
                   pg_catalog.format_type(atttypid, -1)
            FROM pg_catalog.pg_attribute
            JOIN pg_catalog.pg_type t ON t.oid OPERATOR(pg_catalog.=) atttypid
            JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) typnamespace
            WHERE attrelid OPERATOR(pg_catalog.=) $1 AND attnum OPERATOR(pg_catalog.>) 0 AND NOT attisdropped";
        let columns = rows_now(COLUMNS, &[self.oid.into()], |row| {
            let name: String = row.get(1)?.unwrap_or_default();
            let column = Column {
                name: quote(&name),
                sql_type: row.get(2)?.unwrap_or_default(),
                type_name: row.get(6)?.unwrap_or_default(),
                number: row.get(3)?.unwrap_or_default(),
                type_oid: row.get(4)?.unwrap_or(pg_sys::InvalidOid),
                collation: row.get(5)?.unwrap_or(pg_sys::InvalidOid),
                expression: None,
            };
            Ok((name, column))
        })?;
        Ok(columns.into_iter().collect())
    }
}

/// # Safety
///
/// `name` is a C string.
unsafe fn text(name: *const core::ffi::c_char) -> String {
    // SAFETY: the caller's.
    unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned()
}

impl Column {
    /// An expression that is read as a column is.
    pub fn made_of(expression: Expression) -> Result<Column> {
        const TYPE: &str = "
            SELECT ARRAY[pg_catalog.format('%I.%I', nspname, typname), pg_catalog.format_type(t.oid, -1)]
            FROM pg_catalog.pg_type t
            JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) typnamespace
            WHERE t.oid OPERATOR(pg_catalog.=) $1";
        let names = one_now::<Vec<String>>(TYPE, &[expression.type_oid.into()])?.unwrap_or_default();
        let [sql_type, type_name] = <[String; 2]>::try_from(names).unwrap_or_default();
        let Expression { type_oid, collation, .. } = expression;
        let name = expression.sql.clone();
        Ok(Column { name, sql_type, type_name, number: 0, type_oid, collation, expression: Some(expression) })
    }

    pub fn is_integer(&self) -> bool {
        matches!(self.type_oid, pg_sys::INT2OID | pg_sys::INT4OID | pg_sys::INT8OID)
    }

    pub fn is_number(&self) -> bool {
        self.is_integer() || matches!(self.type_oid, pg_sys::NUMERICOID | pg_sys::FLOAT4OID | pg_sys::FLOAT8OID)
    }

    /// Whether `pg_catalog`'s operators compare its values in the order of its type, as they do not for citext.
    pub fn has_order_of_catalog(&self) -> bool {
        // SAFETY: the type exists; the type cache drops no entry.
        let less = unsafe { (*pg_sys::lookup_type_cache(self.type_oid, pg_sys::TYPECACHE_LT_OPR as i32)).lt_opr };
        less.to_u32() < pg_sys::FirstNormalObjectId
    }

    /// Whether its type has an order (a default btree operator class).
    pub fn is_ordered(&self) -> bool {
        // SAFETY: the type exists; the type cache drops no entry.
        unsafe { (*pg_sys::lookup_type_cache(self.type_oid, pg_sys::TYPECACHE_CMP_PROC as i32)).cmp_proc.to_u32() != 0 }
    }
}
