use pgrx::pg_sys;
use pgrx::spi::quote_literal;

use crate::postgres::collation::collate;
use crate::postgres::datum::{text_of, values_of_record};
use crate::postgres::error::Result;
use crate::postgres::expression::Expression;
use crate::postgres::read::read_one;
use crate::postgres::table::Column;
use crate::target::column::{document, document_of};

/// What tells the rows of a target apart, and which of two rows of one time is the newer: a column, or several.
pub struct Id {
    /// The column, or a record of all of them: what positions have.
    pub value: Column,
    /// The columns in their order, with their names without quotes.
    pub columns: Vec<(String, Column)>,
    /// Several columns as people read them.
    document: Option<Column>,
}

/// The values of an id's columns, as texts.
pub type Values = Vec<Option<String>>;

impl Id {
    pub fn of_one(name: &str, column: Column) -> Id {
        Id { value: column.clone(), columns: vec![(name.to_owned(), column)], document: None }
    }

    pub fn of_several(columns: Vec<(String, Column)>) -> Result<Id> {
        let record = |value: fn(&Column) -> String| {
            let values: Vec<String> = columns.iter().map(|(_, column)| value(column)).collect();
            format!("(ROW({}))", values.join(", "))
        };
        let value = Column::made_of(Expression {
            sql: record(|column| column.name.clone()),
            of_row: record(Column::of_row),
            guard: None,
            type_oid: pg_sys::RECORDOID,
            collation: pg_sys::Oid::INVALID,
            columns: columns.iter().map(|(_, column)| column.number).collect(),
            calls: Vec::new(),
            inside: Vec::new(),
        })?;
        Ok(Id { value, document: Some(document(&columns)?), columns })
    }

    /// The id of a row `g` as text: that of one column, or a document.
    pub fn as_text(&self) -> String {
        self.document.as_ref().unwrap_or(&self.value).as_text()
    }

    /// The order of the rows by their ids.
    pub fn order(&self) -> String {
        let names: Vec<String> = self.columns.iter().map(|(_, column)| column.of_row()).collect();
        names.join(", ")
    }

    /// The values of a position's id. Runs the output functions of their types.
    ///
    /// # Safety
    ///
    /// `id` is that of a position of this target, and not NULL.
    pub unsafe fn values_of(&self, id: pg_sys::Datum) -> Values {
        if self.document.is_none() {
            // SAFETY: the caller's.
            return vec![Some(unsafe { text_of(id, self.value.type_oid) })];
        }
        // SAFETY: the caller's: it is a record of these columns.
        let values = unsafe { values_of_record(id, self.columns.len()) };
        // SAFETY: the same.
        let text = |value, column: &Column| unsafe { text_of(value, column.type_oid) };
        values.into_iter().zip(&self.columns).map(|(value, (_, column))| Some(text(value?, column))).collect()
    }

    /// The values as one text, to be saved.
    pub fn saved(&self, mut values: Values) -> Option<String> {
        match self.document {
            None => values.pop().flatten(),
            Some(_) => serde_json::to_string(&values).ok(),
        }
    }

    /// What positions have of a saved text, which a statement calls `saved`.
    pub fn of_saved(&self, saved: &str) -> Result<String> {
        if self.document.is_none() {
            return Ok(format!("{saved}::{}", self.value.sql_type));
        }
        // Records are compared by the collations that they have.
        let mut values = Vec::new();
        for ((_, column), place) in self.columns.iter().zip(0..) {
            let collate = collate(column.collation)?;
            values.push(format!(
                "(({saved}::pg_catalog.jsonb OPERATOR(pg_catalog.->>) {place})::{}{collate})",
                column.sql_type
            ));
        }
        Ok(format!("CASE WHEN {saved} IS NOT NULL THEN ROW({}) END", values.join(", ")))
    }

    /// The text of an id with these values. Runs the input functions of their types.
    pub fn text_of(&self, values: &[Option<String>]) -> Result<Option<String>> {
        if self.document.is_none() {
            return Ok(values.first().cloned().flatten());
        }
        let literals = self.columns.iter().zip(values).map(|((name, column), value)| {
            (name.as_str(), column, value.as_ref().map_or("NULL".into(), |value| column.literal(value)))
        });
        let build = format!("SELECT {}", document_of(literals));
        read_one::<String>(&build, &[])
    }

    /// The condition that a row `g` has the id with these values; if it is one column, with this text of what is equal.
    pub fn identifies(&self, values: &[Option<String>]) -> String {
        let is = |(column, value): (&Column, Option<&str>)| match (value, &self.document) {
            (Some(value), None) => column.identifies(value),
            _ => equals(column, value),
        };
        let each: Vec<String> = self.compared(values).map(is).collect();
        each.join(" AND ")
    }

    /// The condition that a row `g` has one of these ids; one with a NULL is not found. Of several columns, another server can check
    /// that each has one of its values.
    pub fn is_one_of(&self, ids: &[Values]) -> String {
        let lists = self.columns.iter().enumerate().map(|(place, (_, column))| {
            let literal = |id: &Values| id[place].as_ref().map_or("NULL".into(), quote_literal);
            let literals: Vec<String> = ids.iter().map(literal).collect();
            format!("ARRAY[{}]::{}[]", literals.join(", "), column.sql_type)
        });
        let lists: Vec<String> = lists.collect();
        let names = || self.columns.iter().map(|(_, column)| column.of_row());
        let is_listed = names().zip(&lists).map(|(name, list)| format!("{name} OPERATOR(pg_catalog.=) ANY ({list})"));
        let each: Vec<String> = is_listed.collect();
        if self.document.is_none() {
            return each.concat();
        }
        let unnested: Vec<String> = lists.iter().map(|list| format!("pg_catalog.unnest({list})")).collect();
        let same = names().zip(0..).map(|(name, place)| format!("{name} OPERATOR(pg_catalog.=) id.c{place}"));
        let aliases: Vec<String> = (0..lists.len()).map(|place| format!("c{place}")).collect();
        format!(
            "{} AND EXISTS (SELECT FROM ROWS FROM ({}) AS id ({}) WHERE {})",
            each.join(" AND "),
            unnested.join(", "),
            aliases.join(", "),
            same.collect::<Vec<_>>().join(" AND ")
        )
    }

    /// The condition that the id of a row `g` comes before the one with these values. NULL comes last. It has only columns and
    /// constants, so that another server can check it.
    pub fn is_before(&self, values: &[Option<String>]) -> String {
        self.is_beyond(values, |column, value| match value {
            Some(value) => format!("{} OPERATOR(pg_catalog.<) {}", column.of_row(), column.literal(value)),
            None => format!("{} IS NOT NULL", column.of_row()),
        })
    }

    /// The same for an id whose values are columns of something else in the statement.
    pub fn is_before_columns(&self, others: &[String]) -> String {
        let before = |later: Option<String>, ((_, column), other): (&(String, Column), &String)| {
            let of_row = column.of_row();
            let before = format!("{of_row} OPERATOR(pg_catalog.<) {other} OR {other} IS NULL AND {of_row} IS NOT NULL");
            Some(match later {
                None => format!("({before})"),
                Some(later) => format!(
                    "({before} OR ({of_row} OPERATOR(pg_catalog.=) {other} OR {other} IS NULL AND {of_row} IS NULL) AND {later})"
                ),
            })
        };
        self.columns.iter().zip(others).rev().fold(None, before).unwrap_or_default()
    }

    /// The condition that it comes behind.
    pub fn is_behind(&self, values: &[Option<String>]) -> String {
        self.is_beyond(values, |column, value| match value {
            Some(value) => {
                format!("({0} OPERATOR(pg_catalog.>) {1} OR {0} IS NULL)", column.of_row(), column.literal(value))
            }
            None => "false".into(),
        })
    }

    /// The condition that the first column whose values differ is beyond.
    fn is_beyond(&self, values: &[Option<String>], beyond: fn(&Column, Option<&str>) -> String) -> String {
        let each: Vec<_> = self.compared(values).collect();
        let of_later = |later: Option<String>, (column, value): &(&Column, Option<&str>)| {
            let beyond = beyond(column, *value);
            Some(match later {
                None => beyond,
                Some(later) => format!("({beyond} OR {} AND {later})", equals(column, *value)),
            })
        };
        each.iter().rev().fold(None, of_later).unwrap_or_default()
    }

    fn compared<'a>(&'a self, values: &'a [Option<String>]) -> impl Iterator<Item = (&'a Column, Option<&'a str>)> {
        self.columns.iter().zip(values).map(|((_, column), value)| (column, value.as_deref()))
    }
}

fn equals(column: &Column, value: Option<&str>) -> String {
    value.map_or_else(|| format!("{} IS NULL", column.of_row()), |value| column.is(value))
}
