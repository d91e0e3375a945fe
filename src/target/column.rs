use std::cell::RefCell;
use std::collections::HashMap;
use std::panic::AssertUnwindSafe;

use pgrx::prelude::*;
use pgrx::spi::quote_literal;

use crate::postgres::analysed::{has_elements, is_scalar};
use crate::postgres::error::{Result, error};
use crate::postgres::expression::Expression;
use crate::postgres::names::is_own;
use crate::postgres::now::one_now;
use crate::postgres::read::read_one;
use crate::postgres::table::{Column, Table};
use crate::target::below::types_below;

/// A column of the target's rows, which statements call `g`.
impl Column {
    /// This column of `g` as SQL.
    pub fn of_row(&self) -> String {
        self.expression.as_ref().map_or_else(|| format!("g.{}", self.name), Expression::of_row)
    }

    /// What this column is, for people.
    pub fn what(&self) -> String {
        format!("{} {}", if self.expression.is_some() { "expression" } else { "column" }, self.name)
    }

    /// The condition that this column of `g` equals a value, by `pg_catalog`'s operator.
    pub fn is(&self, value: &str) -> String {
        format!("{} OPERATOR(pg_catalog.=) {}", self.of_row(), self.literal(value))
    }

    /// The condition that this column, which a statement calls `name`, equals one of these values. The partial index has it word
    /// for word.
    pub fn is_one_of(&self, name: &str, values: &[String]) -> String {
        let column = format!("{name} OPERATOR(pg_catalog.=)");
        let literals: Vec<String> = values.iter().map(|value| self.literal(value)).collect();
        match &literals[..] {
            [literal] => format!("{column} {literal}"),
            // The elements of arrays, rows and ranges have no array of their own, or none that the parser reads as the owner.
            _ if !is_scalar(self.type_oid) => {
                let each: Vec<String> = literals.iter().map(|literal| format!("{column} {literal}")).collect();
                format!("({})", each.join(" OR "))
            }
            _ => format!("{column} ANY (ARRAY[{}]::{}[])", literals.join(", "), self.sql_type),
        }
    }

    /// The condition that this column of `g` has a value with this text: of what is equal, 1.0 and 1.00, a run tells the
    /// texts apart.
    pub fn identifies(&self, value: &str) -> String {
        if self.has_one_text() {
            return self.is(value);
        }
        let text = format!("{} COLLATE pg_catalog.\"C\"", quote_literal(value));
        format!("{} AND {} OPERATOR(pg_catalog.=) {text}", self.is(value), self.as_key())
    }

    /// The condition that this column of `g` has a value with this text, whatever its type can read: it never fails.
    pub fn has_text(&self, value: &str) -> String {
        let is_read = match self.type_oid {
            pg_sys::INT2OID => value.parse::<i16>().is_ok(),
            pg_sys::INT4OID => value.parse::<i32>().is_ok(),
            pg_sys::INT8OID => value.parse::<i64>().is_ok(),
            pg_sys::TEXTOID => self.has_one_text(),
            _ => false,
        };
        if is_read {
            return self.is(value);
        }
        let text = format!("{} COLLATE pg_catalog.\"C\"", quote_literal(value));
        format!("{} OPERATOR(pg_catalog.=) {text}", self.as_text())
    }

    /// Whether what is equal in this column has one text, so that its type's equality is enough to tell values apart.
    pub fn has_one_text(&self) -> bool {
        // SAFETY: look-ups in the system cache; the collation is the column's.
        unsafe {
            let base = pg_sys::getBaseType(self.type_oid);
            match base {
                pg_sys::INT2OID | pg_sys::INT4OID | pg_sys::INT8OID | pg_sys::UUIDOID | pg_sys::BOOLOID => true,
                pg_sys::NUMERICOID => true,
                pg_sys::TEXTOID | pg_sys::VARCHAROID => pg_sys::get_collation_isdeterministic(self.collation),
                _ => pg_sys::type_is_enum(base),
            }
        }
    }

    /// Whether a value of its type has the text with which it was written.
    pub fn has_text_as_written(&self) -> bool {
        // SAFETY: look-ups in the system cache.
        unsafe {
            let base = pg_sys::getBaseType(self.type_oid);
            matches!(base, pg_sys::TEXTOID | pg_sys::VARCHAROID) || pg_sys::type_is_enum(base)
        }
    }

    /// With what the text of one of its values changes: its type, or one below it, shows an instant in the session's time zone, or an
    /// object of the database by its name.
    pub fn text_changes_with(&self) -> Result<Option<&'static str>> {
        const FOUND: &str = concat!(
            types_below!(),
            "SELECT pg_catalog.bool_or(oid OPERATOR(pg_catalog.=) 'pg_catalog.timestamptz'::pg_catalog.regtype) FROM type
             WHERE oid OPERATOR(pg_catalog.=) ANY (
                 '{timestamptz, regclass, regcollation, regconfig, regdictionary, regnamespace, regoper, regoperator, regproc, regprocedure,
                   regrole, regtype}'::pg_catalog.regtype[])"
        );
        thread_local! {
            /// Of PostgreSQL's own types, which do not change.
            static KNOWN: RefCell<HashMap<pg_sys::Oid, Option<bool>>> = RefCell::default();
        }
        let found = match KNOWN.with_borrow(|known| known.get(&self.type_oid).copied()) {
            Some(known) => known,
            None => {
                let found = one_now::<bool>(FOUND, &[vec![self.type_oid].into()])?;
                if is_own((pg_sys::TypeRelationId, self.type_oid)) {
                    KNOWN.with_borrow_mut(|known| known.insert(self.type_oid, found));
                }
                found
            }
        };
        Ok(found.map(|is_instant| match is_instant {
            true => "the session's time zone",
            false => "the name of what it shows",
        }))
    }

    /// A value of this column's type as SQL. The parser reads it, before it can be known whether the type under this name is still the
    /// one that was checked: what an array, a row or a range could be made of, whose elements may have code, is left to the executor.
    pub fn literal(&self, value: &str) -> String {
        let late = if self.is_read_late(value) { "::pg_catalog.text" } else { "" };
        format!("{}{late}::{}", quote_literal(value), self.sql_type)
    }

    /// Values of this column's type as SQL: an array. A short one for a type of PostgreSQL's own, which reads no code.
    pub fn array(&self, values: &[Option<String>]) -> String {
        if self.type_oid.to_u32() >= pg_sys::FirstNormalObjectId {
            let literal = |value: &Option<String>| value.as_ref().map_or("NULL".into(), |value| self.literal(value));
            let literals: Vec<String> = values.iter().map(literal).collect();
            return format!("ARRAY[{}]::{}[]", literals.join(", "), self.sql_type);
        }
        let element = |value: &Option<String>| {
            let quoted = |value: &String| format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\""));
            value.as_ref().map_or("NULL".into(), quoted)
        };
        let elements: Vec<String> = values.iter().map(element).collect();
        format!("{}::{}[]", quote_literal(format!("{{{}}}", elements.join(","))), self.sql_type)
    }

    /// Whether `array` has an element for each value: of arrays it would be one of many dimensions.
    pub fn can_be_listed(&self) -> bool {
        // SAFETY: look-ups in the system cache.
        unsafe {
            let base = pg_sys::getBaseType(self.type_oid);
            pg_sys::get_array_type(self.type_oid) != pg_sys::InvalidOid
                && pg_sys::get_element_type(base) == pg_sys::InvalidOid
                && base != pg_sys::INT2VECTOROID
                && base != pg_sys::OIDVECTOROID
        }
    }

    fn is_read_late(&self, value: &str) -> bool {
        self.type_oid.to_u32() >= pg_sys::FirstNormalObjectId && has_elements(value)
    }

    /// Whether a partial index can have it that this column is one of these values: the literal of each is a constant.
    pub fn can_be_indexed_for(&self, values: &[String]) -> bool {
        // SAFETY: look-ups in the system cache.
        let is_enum = unsafe { pg_sys::type_is_enum(pg_sys::getBaseType(self.type_oid)) };
        // An enum's label may be renamed, so that to read one is not IMMUTABLE.
        is_scalar(self.type_oid) && !(is_enum && values.iter().any(|value| self.is_read_late(value)))
    }

    /// This column of `g` as a group key: a bigint or a text.
    pub fn as_key(&self) -> String {
        if self.is_integer() { format!("{}::bigint", self.of_row()) } else { self.as_text() }
    }

    /// This column of `g` as text.
    pub fn as_text(&self) -> String {
        self.text_of(&self.of_row())
    }

    /// The text of a value of this column's type, as SQL.
    pub fn text_of(&self, value: &str) -> String {
        format!("{}::pg_catalog.text", self.one_of_equals(value))
    }

    /// Of the numbers that are equal, 1.5 and 1.50, the shortest; any other value as it is.
    pub fn one_of_equals(&self, value: &str) -> String {
        // SAFETY: a look-up in the system cache.
        match unsafe { pg_sys::getBaseType(self.type_oid) } {
            pg_sys::NUMERICOID => format!("pg_catalog.trim_scale({value})"),
            _ => value.to_owned(),
        }
    }

    /// This column of `g`, cast to the type that it had when it was checked, for code that reads its bytes.
    pub fn as_itself(&self) -> String {
        format!("{}::{}", self.of_row(), self.sql_type)
    }

    /// What is wrong with a value that cannot be read.
    pub fn unreadable(&self, value: &str) -> String {
        format!("\"{value}\" cannot be read as {}, the type of {}", self.type_name, self.what())
    }

    /// The statement that shows values of this column.
    pub fn values(&self, table: &Table) -> String {
        // SAFETY: a look-up in the system cache.
        match unsafe { pg_sys::type_is_enum(self.type_oid) } {
            true => format!("SELECT unnest(enum_range(NULL::{}))", self.sql_type),
            false => format!("SELECT DISTINCT {} FROM {}", self.name, table.name),
        }
    }

    /// Checks that this column stores a value as it is written. The type's own code runs as the current role. Errors: 22023.
    pub fn stores(&self, value: &str, table: &Table) -> Result<()> {
        // A literal is of the type without the column's length.
        const OF_A_LENGTH: &str = "
            SELECT pg_catalog.format_type(atttypid, atttypmod) FROM pg_catalog.pg_attribute
            WHERE attrelid OPERATOR(pg_catalog.=) $1 AND attnum OPERATOR(pg_catalog.=) $2 AND atttypmod OPERATOR(pg_catalog.>=) 0";
        let of_a_length = one_now::<String>(OF_A_LENGTH, &[table.oid.into(), self.number.into()])?;
        if of_a_length.is_none() && self.has_one_text() {
            return Ok(());
        }
        let literal = of_a_length.map_or(self.literal(value), |cut_off| format!("{}::{cut_off}", quote_literal(value)));
        match read_one::<String>(&format!("SELECT {}", self.text_of(&literal)), &[])? {
            Some(stored) if stored != value => {
                let (name, type_name) = (&self.name, &self.type_name);
                let message = format!("\"{value}\" becomes \"{stored}\" in column {name} of type {type_name}");
                Err(error(PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE, message, self.values(table)))
            }
            _ => Ok(()),
        }
    }

    /// Whether its type cuts off what is too long, and writes a value in one way, but for spaces at its end.
    fn is_string(&self) -> bool {
        // SAFETY: look-ups in the system cache.
        let base = unsafe { pg_sys::getBaseType(self.type_oid) };
        // SAFETY: the same.
        base == pg_sys::CHAROID || unsafe { pg_sys::TypeCategory(base) } as u8 == b'S'
    }

    /// Checks that a value can be read as this column's type, is not cut off by it, and can be compared with it. The type's own
    /// code runs as the current role. Errors: 22P02, 22023 (it is cut off), 42804.
    pub fn accepts(&self, value: &str, table: &Table) -> Result<()> {
        let unreadable = || {
            let code = PgSqlErrorCode::ERRCODE_INVALID_TEXT_REPRESENTATION;
            Err(error(code, self.unreadable(value), self.values(table)))
        };
        let (literal, type_name) = (self.literal(value), &self.type_name);
        let compare = format!("SELECT {literal} OPERATOR(pg_catalog.=) {literal}");
        PgTryBuilder::new(AssertUnwindSafe(|| read_one::<bool>(&compare, &[]).map(drop)))
            .catch_when(PgSqlErrorCode::ERRCODE_INVALID_TEXT_REPRESENTATION, move |_| unreadable())
            .catch_when(PgSqlErrorCode::ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE, move |_| unreadable())
            .catch_when(PgSqlErrorCode::ERRCODE_INVALID_DATETIME_FORMAT, move |_| unreadable())
            .catch_when(PgSqlErrorCode::ERRCODE_DATETIME_FIELD_OVERFLOW, move |_| unreadable())
            .catch_when(PgSqlErrorCode::ERRCODE_CHECK_VIOLATION, move |_| unreadable())
            .catch_when(PgSqlErrorCode::ERRCODE_UNDEFINED_FUNCTION, move |_| {
                let message = format!("{} has type {type_name}, which has no equality", self.what());
                let hint = "SELECT * FROM backlog_cleanup.target".into();
                Err(error(PgSqlErrorCode::ERRCODE_DATATYPE_MISMATCH, message, hint))
            })
            .execute()?;
        if self.is_string() { self.stores(value.trim_end_matches(' '), table) } else { Ok(()) }
    }
}

/// Columns as the text of a JSON document.
pub fn document(columns: &[(String, Column)]) -> Result<Column> {
    let text = |value: fn(&Column) -> String| {
        let values = columns.iter().map(|(name, column)| (name.as_str(), column, value(column)));
        format!("({})", document_of(values))
    };
    Column::made_of(Expression {
        sql: text(|column| column.name.clone()),
        of_row: text(Column::of_row),
        guard: None,
        type_oid: pg_sys::TEXTOID,
        collation: pg_sys::DEFAULT_COLLATION_OID,
        columns: columns.iter().map(|(_, column)| column.number).collect(),
        calls: Vec::new(),
        inside: Vec::new(),
    })
}

/// Names, their columns and the values of these as the text of a JSON document. A string longer than a document can have is its SHA-256.
pub fn document_of<'a>(values: impl Iterator<Item = (&'a str, &'a Column, String)>) -> String {
    const LONGEST: i32 = 1_000_000;
    let pairs = values.map(|(name, column, value)| {
        let text = format!("{value}::pg_catalog.text");
        let (measured, bytes) = match Part::of(column) {
            Some(Part::Text) => (&text, format!("pg_catalog.convert_to({text}, 'UTF8')")),
            Some(Part::Bytes) => (&value, value.clone()),
            Some(Part::Short) | None => return format!("{}, {}", quote_literal(name), column.one_of_equals(&value)),
        };
        format!(
            "{}, CASE WHEN pg_catalog.octet_length({measured}) OPERATOR(pg_catalog.>) {LONGEST}
                      THEN pg_catalog.encode(pg_catalog.sha256({bytes}), 'hex') ELSE {text} END",
            quote_literal(name)
        )
    });
    format!("pg_catalog.jsonb_build_object({})::pg_catalog.text", pairs.collect::<Vec<_>>().join(", "))
}

/// How a value becomes a part of a document.
pub enum Part {
    /// As itself: it is short.
    Short,
    /// As its text. A `json` too: read anew, it could fail, and need PostgreSQL's stack for each level.
    Text,
    Bytes,
}

impl Part {
    /// `None` for a type whose text may be longer than any text can be: an array, a `jsonb`.
    pub fn of(column: &Column) -> Option<Part> {
        // SAFETY: look-ups in the system cache.
        let (base, length, category) = unsafe {
            let base = pg_sys::getBaseType(column.type_oid);
            (base, pg_sys::get_typlen(base), pg_sys::TypeCategory(base) as u8)
        };
        match base {
            pg_sys::BYTEAOID => Some(Part::Bytes),
            pg_sys::JSONOID | pg_sys::XMLOID => Some(Part::Text),
            pg_sys::NUMERICOID | pg_sys::INETOID | pg_sys::CIDROID => Some(Part::Short),
            _ if length > 0 => Some(Part::Short),
            _ if category == b'S' => Some(Part::Text),
            _ => None,
        }
    }
}
